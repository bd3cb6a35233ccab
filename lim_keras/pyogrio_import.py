"""Import pyogrio so that its GDAL uses the SQLite that is built into it."""

import importlib
import os
import sys


def load_pyogrio() -> None:
    """Import pyogrio with its own SQLite.

    TensorFlow exports the functions of another SQLite to all libraries that are loaded after it. GDAL would call both
    and crash on views in GeoPackages. Libraries that are loaded before TensorFlow are not affected.
    """
    if "pyogrio" in sys.modules:
        return
    deep_binding = getattr(os, "RTLD_DEEPBIND", 0)  # only the C library of GNU has it
    if "tensorflow" not in sys.modules or not deep_binding:
        importlib.import_module("pyogrio")
        return
    flags = sys.getdlopenflags()
    sys.setdlopenflags(flags | deep_binding)
    try:
        importlib.import_module("pyogrio")
    finally:
        sys.setdlopenflags(flags)
