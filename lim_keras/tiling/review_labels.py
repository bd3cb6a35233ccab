"""Labels of a reviewed inventory: accepted landslides, rejected background, and ground that nobody looked at."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas  # type: ignore[import-untyped]
from geopandas import GeoSeries

from lim_keras.errors import DataError
from lim_keras.tiling.mapped_polygons import MappedPolygons
from lim_keras.tiling.report import LabelReport
from lim_keras.tiling.selection import Selection
from lim_keras.vectors.formats import Source
from lim_keras.vectors.geometries import find_polygons
from lim_keras.vectors.layers import find_layer, read_features

LANDSLIDES: Literal["landslides"] = "landslides"
SEARCHED: Literal["searched"] = "searched"
MODEL = "model"
"""Layers of a review: landslides with their verdicts, searched ground, and the landslides as the model drew them."""

_LOG = "review_log"


@dataclass(frozen=True)
class ReviewLabels:
    """Labels of a review.

    Attributes:
        landslides: accepted and drawn landslides, and those without a sure verdict, which are uncertain.
        known: all ground with a label: searched cells, and outlines, also those of the model, that have a verdict.
        rejected: what the model called landslide and is none: rejected and deleted outlines, and what edits cut off.
    """

    landslides: Selection
    known: MappedPolygons
    rejected: MappedPolygons


def is_review(path: Path) -> bool:
    """Tell whether a file is a review of `lim-keras review`."""
    return path.suffix.lower() == ".gpkg" and path.is_file() and {LANDSLIDES, SEARCHED, MODEL, _LOG} <= _tables(path)


def _tables(path: Path) -> set[str]:
    try:
        with closing(_opened(path)) as database:
            return {str(row[0]) for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except sqlite3.Error:
        return set()


def _opened(path: Path) -> sqlite3.Connection:
    # A connection that may write takes back what a killed process left unfinished.
    mode = "rw" if os.access(path, os.W_OK) else "ro"
    database = sqlite3.connect(f"{path.resolve().as_uri()}?mode={mode}", uri=True, timeout=10)
    database.execute("PRAGMA query_only = TRUE")
    return database


def review_digest(path: Path) -> str:
    """Return a SHA-256 of what gives the labels of a review; who is looking at it does not count."""
    found = hashlib.sha256()
    try:
        with closing(_opened(path)) as database:
            for layer, columns in ((LANDSLIDES, "fid, status, geometry"), (SEARCHED, "geometry"), (MODEL, "geometry")):
                for row in database.execute(f"SELECT {columns} FROM {layer} ORDER BY fid"):
                    found.update(repr(row).encode())
    except sqlite3.Error as error:
        raise DataError(f"{path}: cannot be read as a review ({error}).") from error
    return found.hexdigest()


def read_review(source: Source) -> ReviewLabels:
    """Read the labels of a review.

    Raises:
        DataError: a layer cannot be read, or no ground has a label.
    """
    frame = read_features(find_layer(source, LANDSLIDES), ("id", "status"))
    original, searched = (read_features(find_layer(source, layer)).geometry for layer in (MODEL, SEARCHED))
    status = frame["status"]
    accepted, rejected = (status == "accepted").to_numpy(), (status == "rejected").to_numpy()
    open_ones = frame.index[~(accepted | rejected)]
    decided = original[~original.index.isin(open_ones)]
    certain, uncertain, wrong = (
        _clean(source, frame.geometry[chosen]) for chosen in (accepted, ~(accepted | rejected), rejected)
    )
    ground = [certain.polygons, wrong.polygons, decided, searched]
    known = _clean(source, GeoSeries(pandas.concat(ground, ignore_index=True), crs=frame.crs))
    if known.polygons.empty:
        raise DataError(
            f"{source.path}: no ground has a label, because there is neither a verdict nor a searched cell. Review its "
            "landslides and mark what was searched with `lim-keras review`."
        )
    report = LabelReport(
        features=len(frame),
        landslides=len(certain.polygons),
        uncertain=len(uncertain.polygons),
        rejected=int(rejected.sum()),
        repaired=certain.repaired + uncertain.repaired + wrong.repaired,
    )
    names = {int(key): str(name) for key, name in frame["id"].items()}
    false = GeoSeries(pandas.concat([wrong.polygons, decided], ignore_index=True), crs=frame.crs)
    return ReviewLabels(Selection(certain, uncertain, names, report), known, _clean(source, false))


def _clean(source: Source, polygons: GeoSeries) -> MappedPolygons:
    found = find_polygons(np.asarray(polygons))
    return MappedPolygons.clean(source, polygons[found.has_area])
