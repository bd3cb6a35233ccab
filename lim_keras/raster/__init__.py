"""Raster input and output. No other package imports rasterio."""
