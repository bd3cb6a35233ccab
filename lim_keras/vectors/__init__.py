"""Vector files of mapped landslides and of mapped areas."""

from lim_keras.pyogrio_import import load_pyogrio

load_pyogrio()
