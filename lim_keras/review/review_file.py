"""Review file of an inventory: its layers, and how QGIS shows and edits them."""

from __future__ import annotations

from pathlib import Path

import geopandas
import numpy as np
import pandas  # type: ignore[import-untyped]

from lim_keras.errors import DataError
from lim_keras.files import atomic_file
from lim_keras.pyogrio_import import load_pyogrio
from lim_keras.review.store import LANDSLIDES, LOG, SEARCHED

MODEL = "model"
"""Layer with the landslides as the model drew them; nothing changes it."""

CLASSES = ("slide", "debris flow", "rockfall", "other")
"""Classes of landslides, unless others are given."""

_TEXTS = ("status", "class", "note", "reviewer", "origin")
_LOG_TEXTS = ("reviewer", "action", "layer", "before", "after")


def make_review_file(inventory: Path, path: Path) -> Path:
    """Copy the landslides of an inventory into a new review file, without a verdict.

    Layers: `landslides` with the columns of the inventory and `status` (accepted, rejected, unsure, or empty), `class`,
    `note`, `reviewer`, `reviewed` (UTC), `origin` (model, drawn, merged, split) and `edited`; `model`, the landslides
    as the model drew them; `searched`, ground that was looked at; `review_log`, all actions.

    Raises:
        DataError: the inventory cannot be read, or the file cannot be written.
    """
    pyogrio = load_pyogrio()
    try:
        found = geopandas.read_file(inventory, layer=LANDSLIDES)
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError) as error:
        raise DataError(f"{inventory}: cannot be read as an inventory ({error}).") from error
    with atomic_file(path) as draft:
        for layer, frame in _layers(found).items():
            kind = None if layer == LOG else "Polygon"
            pyogrio.write_dataframe(
                frame,
                draft,
                layer=layer,
                driver="GPKG",
                append=draft.exists() and draft.stat().st_size > 0,
                geometry_type=kind,
                VERSION="1.2",
            )
    return path


def _layers(found: geopandas.GeoDataFrame) -> dict[str, pandas.DataFrame]:
    count = len(found)
    landslides = found.assign(
        **{name: pandas.Series([None] * count, dtype=object, index=found.index) for name in _TEXTS},
        reviewed=pandas.Series([pandas.NaT] * count, dtype="datetime64[ms, UTC]", index=found.index),
        edited=np.zeros(count, np.bool_),
    )
    landslides["origin"] = "model"
    times = pandas.Series([], dtype="datetime64[ms, UTC]")
    cells = {name: pandas.Series([], dtype=object) for name in ("cell", "reviewer")}
    searched = geopandas.GeoDataFrame({**cells, "reviewed": times}, geometry=[], crs=found.crs)
    log = pandas.DataFrame(
        {
            "time": pandas.Series([], dtype=object),
            **{name: pandas.Series([], dtype=object) for name in _LOG_TEXTS},
            "undoes": pandas.Series([], dtype="Int64"),
        }
    )
    return {LANDSLIDES: landslides, SEARCHED: searched, MODEL: found, LOG: log}
