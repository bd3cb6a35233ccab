"""Import pyogrio so that its GDAL uses the SQLite that is built into it."""

import importlib
import os
import sys
from types import ModuleType


def load_pyogrio() -> ModuleType:
    """Import pyogrio with its own SQLite, and return it.

    TensorFlow exports the functions of another SQLite to all libraries that are loaded after it. GDAL would call both
    and crash on views in GeoPackages. Libraries that are loaded before TensorFlow are not affected.
    """
    if "pyogrio" in sys.modules:
        return sys.modules["pyogrio"]
    deep_binding = getattr(os, "RTLD_DEEPBIND", 0)  # only the C library of GNU has it
    if "tensorflow" not in sys.modules or not deep_binding:
        return importlib.import_module("pyogrio")
    flags = sys.getdlopenflags()
    sys.setdlopenflags(flags | deep_binding)
    try:
        return importlib.import_module("pyogrio")
    finally:
        sys.setdlopenflags(flags)
