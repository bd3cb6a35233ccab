"""Landslide inventory maps from optical imagery with imbalanced samples, on Keras 3."""

__version__ = "0.2.0"
