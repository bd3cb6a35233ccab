"""Review of inventories by experts: verdicts, edited outlines and searched ground."""

from lim_keras.pyogrio_import import load_sqlite

load_sqlite()  # its modules write GeoPackages with sqlite3
