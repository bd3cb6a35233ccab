"""Import pyogrio and sqlite3 so that each uses the SQLite that it was built with.

TensorFlow exports the functions of another SQLite, without spatial indexes, to all libraries that are loaded after it.
GDAL would call both and crash on views in GeoPackages; sqlite3 could not write GeoPackages. Libraries that are loaded
before TensorFlow are not affected.
"""

import importlib
import os
import sys
from types import ModuleType


def load_pyogrio() -> ModuleType:
    """Import pyogrio and sqlite3, each with its own SQLite, and return pyogrio."""
    load_sqlite()
    return _with_own_sqlite("pyogrio")


def load_sqlite() -> None:
    """Import sqlite3 with its own SQLite."""
    _with_own_sqlite("sqlite3")


def _with_own_sqlite(name: str) -> ModuleType:
    if name in sys.modules:
        return sys.modules[name]
    deep_binding = getattr(os, "RTLD_DEEPBIND", 0)  # only the C library of GNU has it
    if "tensorflow" not in sys.modules or not deep_binding:
        return importlib.import_module(name)
    flags = sys.getdlopenflags()
    sys.setdlopenflags(flags | deep_binding)
    try:
        return importlib.import_module(name)
    finally:
        sys.setdlopenflags(flags)
