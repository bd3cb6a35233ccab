"""Checks of the whole set: sizes, resolutions, georeference, centre bias, and shortcuts that separate the kinds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from lim_keras.audit.catalogue import check, skipped
from lim_keras.audit.image_checks import robust
from lim_keras.audit.measures import TileMeasures
from lim_keras.data.dataset_report import DatasetReport
from lim_keras.data.findings import FEATURES, Check, Evidence

_SIZE_FACTOR, _SIZE_DEVIATIONS = 4.0, 4.0
_GSD_FACTOR = 1.5
_BIAS = 0.1
"""Largest accepted gain in F1 of an image-blind mask over predicting landslide everywhere."""

_AUROC = 0.75
_FEWEST = 20
"""Fewest tiles of each kind whose figures are compared."""


def tile_features(measures: Sequence[TileMeasures]) -> dict[str, tuple[float, ...]]:
    """Return the figures of `FEATURES` of all tiles."""
    return {
        "size": tuple(float((one.tile.width * one.tile.height) ** 0.5) for one in measures),
        "brightness": tuple(one.brightness for one in measures),
        "sharpness": tuple(one.sharpness for one in measures),
        "blocks": tuple(one.blocks for one in measures),
        "jpeg_quality": tuple(one.jpeg_quality for one in measures),
    }


def set_checks(measures: Sequence[TileMeasures], dataset: DatasetReport) -> list[Check]:
    """Check the whole set."""
    return [
        _sizes(measures),
        _resolutions(measures),
        _georeference(measures),
        _centre_bias(dataset),
        _shortcuts(measures),
    ]


def _sizes(measures: Sequence[TileMeasures]) -> Check:
    sizes = np.log([(one.tile.width * one.tile.height) ** 0.5 for one in measures])
    median, deviation = robust(sizes)
    limit = max(np.log(_SIZE_FACTOR), _SIZE_DEVIATIONS * deviation)
    evidence = [
        Evidence(one.tile_id, float(abs(size - median)), f"{one.tile.width} x {one.tile.height} px")
        for one, size in zip(measures, sizes, strict=True)
        if abs(size - median) > limit
    ]
    return check("sizes", evidence, note=f"median side {np.exp(median):.0f} px")


def _resolutions(measures: Sequence[TileMeasures]) -> Check:
    known = [one for one in measures if one.tile.gsd_m]
    if not known:
        return skipped("resolutions", "no tile has a ground sample distance")
    median, _ = robust(np.array([one.tile.gsd_m for one in known], float))
    ratios = [float(one.tile.gsd_m or 0) / median for one in known]
    evidence = [
        Evidence(one.tile_id, abs(float(np.log(ratio))), f"{one.tile.gsd_m:.4g} m, median {median:.4g} m")
        for one, ratio in zip(known, ratios, strict=True)
        if not 1 / _GSD_FACTOR <= ratio <= _GSD_FACTOR
    ]
    return check("resolutions", evidence, note=f"median {median:.4g} m")


def _georeference(measures: Sequence[TileMeasures]) -> Check:
    without = [one for one in measures if not one.tile.crs]
    if len(without) == len(measures):
        return check("georeference", (), note="no tile is georeferenced")
    evidence = [Evidence(one.tile_id, 1.0, "no coordinate reference system") for one in without]
    return check("georeference", evidence, note=f"{len(measures) - len(without):,} of {len(measures):,} have one")


def _centre_bias(dataset: DatasetReport) -> Check:
    bias = dataset.centre_bias
    if bias is None:
        return skipped("centre_bias", "no landslide pixel")
    if bias.held_out_f1 is None:
        return skipped("centre_bias", "too few landslide tiles")
    note = f"F1 of a mask that never sees the image: {bias.held_out_f1:.3f}; of landslide everywhere: "
    biased = bias.held_out_f1 - bias.everywhere_f1 > _BIAS
    return check("centre_bias", (), status="found" if biased else None, note=f"{note}{bias.everywhere_f1:.3f}")


def _shortcuts(measures: Sequence[TileMeasures]) -> Check:
    landslide = np.array([one.tile.kind == "landslide" for one in measures])
    figures = _separations(tile_features(measures), landslide)
    if not figures:
        return skipped("shortcuts", f"fewer than {_FEWEST} tiles of a kind")
    listed = [f"{FEATURES[name]}: AUROC {area:.2f}" for name, (area, _) in figures.items()]
    found = [name for name, (area, error) in figures.items() if area > _AUROC and area - 3 * error > 0.5]
    return check("shortcuts", (), status="found" if found else None, note="; ".join(listed))


def _separations(features: Mapping[str, tuple[float, ...]], landslide: np.ndarray) -> dict[str, tuple[float, float]]:
    """Return the AUROC of each known figure, 0.5 to 1, and its standard error (Hanley and McNeil 1982)."""
    from sklearn.metrics import roc_auc_score

    figures = {}
    for name, values in features.items():
        known = np.isfinite(values)
        labels = landslide[known]
        ones, others = int(labels.sum()), int((~labels).sum())
        if min(ones, others) < _FEWEST:
            continue
        area = float(roc_auc_score(labels, np.array(values)[known]))
        area = max(area, 1 - area)
        pairs = area / (2 - area) - area**2, 2 * area**2 / (1 + area) - area**2
        variance = area * (1 - area) + (ones - 1) * pairs[0] + (others - 1) * pairs[1]
        figures[name] = area, float((max(variance, 0) / (ones * others)) ** 0.5)
    return figures
