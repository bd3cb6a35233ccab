"""Select the polygons that count as landslides, and clean them."""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lim_keras.errors import DataError, LimKerasWarning
from lim_keras.tiling.mapped_polygons import MappedPolygons
from lim_keras.tiling.report import LabelReport
from lim_keras.vectors.conditions import select_features
from lim_keras.vectors.formats import Source, find_source
from lim_keras.vectors.geometries import find_polygons
from lim_keras.vectors.layers import Layer, find_layer, read_features


@dataclass(frozen=True)
class Selection:
    """Polygons of a file of labels.

    Attributes:
        certain: landslides, each once.
        uncertain: polygons whose pixels get no label.
        names: names of the features, by id; empty without a column that names them.
        report: counts of the features.
    """

    certain: MappedPolygons
    uncertain: MappedPolygons
    names: dict[int, str]
    report: LabelReport


def read_selection(source: Source, *, layer: str | None, where: str | None, ignore_where: str | None) -> Selection:
    """Read a layer, and select and clean its polygons.

    Args:
        source: vector file.
        layer, where, ignore_where: as in `LabelOptions`.

    Raises:
        ConfigError: a condition is wrong, or there is no such layer.
        DataError: the file cannot be read, or holds geometries but no polygon.

    Warns:
        LimKerasWarning: polygons were repaired or repeat others, or geometries do not count.
    """
    found = find_layer(source, layer, argument="layer")
    columns = () if found.naming_column is None else (found.naming_column,)
    frame = read_features(found, columns)
    ids = frame.index.to_numpy()
    doubtful = (
        np.zeros(len(ids), np.bool_) if ignore_where is None else _chosen(found, ids, ignore_where, "ignore_where")
    )
    selected = np.ones(len(ids), np.bool_) if where is None else _chosen(found, ids, where, "where")
    frame, doubtful = frame[selected | doubtful], doubtful[selected | doubtful]
    polygons = find_polygons(frame.geometry.to_numpy())
    polygons.check(source.path)
    has_area, kinds = polygons.has_area, polygons.kinds
    clean = MappedPolygons.clean(source, frame.geometry[has_area])
    doubtful = doubtful[has_area]
    certain, uncertain = clean.subset(~doubtful), clean.subset(doubtful)
    repeated = certain.repeated()
    certain = certain.subset(~repeated)
    report = LabelReport(
        features=len(ids),
        landslides=len(certain.polygons),
        uncertain=len(uncertain.polygons),
        not_selected=len(ids) - len(frame),
        repaired=clean.repaired,
        repeated=int(repeated.sum()),
        empty=kinds["without geometry"] + kinds["without area"],
        lines=_count(kinds, "Line"),
        points=_count(kinds, "Point"),
    )
    _warn(source.path, report)
    names = {int(one): str(name) for column in columns for one, name in frame[column].items()}
    return Selection(certain, uncertain, names, report)


def read_aoi(path: Path) -> MappedPolygons:
    """Read the area that was mapped.

    Raises:
        DataError: the file cannot be read, holds several layers of polygons, or no polygon.
    """
    source = find_source(path)
    if source.is_raster:
        raise DataError(f"{path}: expected polygons of the area that was mapped. Received: a raster.")
    geometries = read_features(find_layer(source)).geometry
    if geometries.empty:
        raise DataError(f"{path}: expected polygons of the area that was mapped. Received: no feature.")
    found = find_polygons(geometries.to_numpy())
    found.check(path)
    return MappedPolygons.clean(source, geometries[found.has_area])


def _chosen(layer: Layer, ids: NDArray[np.int64], where: str, argument: str) -> NDArray[np.bool_]:
    return np.isin(ids, select_features(layer, where, argument=argument))


def _count(kinds: Counter[str], word: str) -> int:
    return sum(count for kind, count in kinds.items() if word in kind)


def _warn(path: Path, report: LabelReport) -> None:
    counted = report.landslides + report.uncertain + report.repeated
    if report.repaired:
        text = f"{report.repaired} of {counted} polygons are invalid (they cross themselves); repaired."
        warnings.warn(f"{path}: {text}", LimKerasWarning, stacklevel=4)
    if report.repeated:
        text = f"{report.repeated} polygons repeat another one; each counts once."
        warnings.warn(f"{path}: {text}", LimKerasWarning, stacklevel=4)
    if not report.features:
        warnings.warn(f"{path}: holds no feature; every pixel is background.", LimKerasWarning, stacklevel=4)
