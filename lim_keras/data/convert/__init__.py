"""Conversion of other layouts of labelled images to a folder with `tiles.csv`, one module for each layout."""
