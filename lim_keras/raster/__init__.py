"""Rasters: the only package that imports rasterio."""
