"""Landslide inventories of scenes."""

from lim_keras.pyogrio_import import load_pyogrio

load_pyogrio()
