"""What a prediction says in numbers: `<scene>_summary.json`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lim_keras import __version__
from lim_keras.data.raster import RasterInfo
from lim_keras.export.bundle_info import BundleInfo
from lim_keras.inference.options import PredictOptions, settings
from lim_keras.inference.rasters import Counts
from lim_keras.inventory import Inventory


def summarise(
    scene: Path,
    info: RasterInfo,
    model: BundleInfo,
    options: PredictOptions,
    threshold: float,
    counts: Counts,
    inventory: Inventory,
    windows: Mapping[str, Any],
    seconds: Mapping[str, float],
) -> dict[str, Any]:
    """Counts, areas, settings, versions and times, ready for JSON. Unknown areas (no ground sample distance): null."""
    frame = inventory.frame
    area = float(frame["area_m2"].sum(skipna=False)) if len(frame) else 0.0
    pixel_m2 = None if info.gsd_m is None else info.gsd_m**2
    return {
        "scene": str(scene),
        "bundle": {"name": model.name, "config_hash": model.config_hash, "folds": model.folds},
        "settings": {**settings(options), "threshold": threshold},
        "landslides": len(frame),
        "landslide_area_m2": None if math.isnan(area) else area,
        "landslide_pixels": counts.landslide,
        "valid_pixels": counts.valid,
        "pixels": counts.all,
        "valid_area_m2": None if pixel_m2 is None else counts.valid * pixel_m2,
        "gsd_m": info.gsd_m,
        "trained_gsd_m": model.gsd_m,
        "windows": dict(windows),
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "megapixels_per_second": round(counts.valid / 1e6 / max(seconds["predict"], 1e-9), 3),
        "versions": {"lim_keras": __version__, **model.versions},
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
