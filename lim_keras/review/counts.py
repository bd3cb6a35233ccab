"""Counts of a review: landslides and areas by status and class, and shares of accepted ones by probability."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import geopandas
import numpy as np
import pandas  # type: ignore[import-untyped]
import shapely

from lim_keras.review.measures import Measures
from lim_keras.review.outlines import polygons_in
from lim_keras.review.reader import ReviewReader
from lim_keras.review.rows import Row

OPEN = "no verdict"
"""Status of landslides without a verdict in tables."""

COLUMNS = ("scene", "status", "origin", "class", "landslides", "area_m2")

_CLASSES = np.linspace(0.0, 1.0, 6)


def landslides_of(review: ReviewReader, probability: Path | None = None) -> geopandas.GeoDataFrame:
    """Return all landslides of a review with their columns, in the order of their ids.

    Outlines that other programs changed may be invalid, may not be measured yet, or may have several pieces: they are
    repaired and measured, with the probability map if it is given, and each piece becomes a row: the largest keeps the
    id, others get numbers that no landslide has. Rows without an outline are left out.
    """
    measures = Measures(review.crs, review.gsd_m, probability)
    rows = [one for row in review.landslides() for one in _pieces(row, measures, review.columns)]
    names = [name for name in review.columns if name not in ("fid", "geometry")]
    frame = pandas.DataFrame({name: [row[name] for row in rows] for name in names})
    flags = [name for name in names if name in ("edited", "below_min_slope", "slope_unknown") or "touches_" in name]
    for name in names:
        if name in flags:
            frame[name] = frame[name].astype("boolean")
        elif name == "reviewed":
            frame[name] = pandas.to_datetime(frame[name], utc=True, format="ISO8601")
        elif name in ("status", "class", "note", "reviewer", "origin"):
            frame[name] = frame[name].astype("string")
        elif frame[name].isna().all():
            frame[name] = frame[name].astype(np.float64)
    shapes = [row["geometry"] for row in rows]
    found = geopandas.GeoDataFrame(frame, geometry=shapes, crs=review.crs or None)
    further = found["id"].duplicated()
    found.loc[further, "id"] = found["id"].max() + np.arange(1, further.sum() + 1)
    return found.sort_values("id", kind="stable", ignore_index=True)


def _pieces(row: Row, measures: Measures, columns: Sequence[str]) -> list[Row]:
    outline = row["geometry"]
    if outline is None:
        return []
    pieces = polygons_in(outline if outline.is_valid else shapely.make_valid(outline))
    if len(pieces) == 1 and (row.get("area_m2") is not None or not row["edited"]):
        return [row | {"geometry": pieces[0]}]
    pieces.sort(key=lambda one: -float(one.area))
    return [row | measures.measure(one, columns) | {"geometry": one} for one in pieces]


def count_landslides(scene: str, landslides: geopandas.GeoDataFrame) -> pandas.DataFrame:
    """Count landslides and sum their areas by status, origin and class; an unknown class is empty."""
    keys = {
        "status": landslides["status"].fillna(OPEN),
        "origin": landslides["origin"].fillna(""),
        "class": landslides["class"].fillna(""),
    }
    areas = landslides["area_m2"] if "area_m2" in landslides else pandas.Series(np.nan, index=landslides.index)
    table = pandas.DataFrame({**keys, "area_m2": areas.astype(np.float64)})
    groups = table.groupby(list(keys), sort=True)["area_m2"]
    found = pandas.DataFrame({"landslides": groups.size(), "area_m2": groups.sum(min_count=1).round(1)})
    found = found.reset_index().assign(scene=scene)
    return found[list(COLUMNS)]


def accepted_by_probability(landslides: geopandas.GeoDataFrame) -> list[tuple[str, int, int]]:
    """Return accepted, and accepted or rejected landslides of the model, by class of their mean probability."""
    if "probability_mean" not in landslides:
        return []
    of_model = landslides[landslides["origin"] == "model"]
    known = of_model[of_model["status"].isin(["accepted", "rejected"]).fillna(False)]
    values, accepted = known["probability_mean"].astype(np.float64), known["status"] == "accepted"
    found = []
    for low, high in pairwise(_CLASSES.tolist()):
        inside = (values >= low) & ((values < high) | (high == 1))
        if inside.any():
            found.append((f"{low:.1f} to {high:.1f}", int(accepted[inside].sum()), int(inside.sum())))
    return found


def searched_share(cells: Sequence[object], extent: object) -> float:
    """Return the share of an extent that searched cells cover."""
    whole = shapely.area(extent)
    return float(shapely.area(shapely.intersection(shapely.union_all(list(cells)), extent)) / whole) if whole else 0.0
