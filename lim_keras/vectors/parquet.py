"""Attributes of GeoParquet, which not every GDAL reads."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyogrio  # type: ignore[import-untyped]
from numpy.typing import NDArray


def read_attributes(path: Path) -> Any:
    """Read the attributes that SQL can use as a pandas table: no geometries, lists or records."""
    frame = geopandas.read_parquet(path).reset_index(drop=True)
    table = frame[[name for name in frame.columns if frame[name].dtype.name != "geometry"]].convert_dtypes()
    return table[[name for name in table.columns if table[name].dtype.kind != "O" or _is_text(table[name])]]


def attribute_kinds(table: Any) -> dict[str, str]:
    """Return the kind of each column of a pandas table: "number", "datetime" or "text"."""
    kinds = {"M": "datetime", "O": "text"}
    return {str(name): kinds.get(table[name].dtype.kind, "number") for name in table.columns}


def select_rows(path: Path, where: str) -> NDArray[np.int64]:
    """Return the rows, from 1, that a condition in SQL selects, by way of a GeoPackage in memory."""
    table, memory = read_attributes(path), io.BytesIO()
    has_fid = "fid" in (name.lower() for name in table.columns)
    options = {"FID": "lim_keras_row" if has_fid else "fid"}
    pyogrio.write_dataframe(table, memory, driver="GPKG", layer="rows", layer_options=options)
    found = pyogrio.read_dataframe(memory.getvalue(), where=where, read_geometry=False, fid_as_index=True)
    return np.asarray(found.index, np.int64)


def _is_text(values: Any) -> bool:
    return bool(values.dropna().map(type).eq(str).all())
