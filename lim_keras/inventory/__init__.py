"""Landslide inventories of scenes."""
