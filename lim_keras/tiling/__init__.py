"""Tiles cut from scenes and their labels."""
