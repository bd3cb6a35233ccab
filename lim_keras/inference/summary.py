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
        **_left_out(inventory),
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


def _left_out(inventory: Inventory) -> dict[str, Any]:
    """Which landslides the inventory lacks and why, and what is not known of those that it holds; null: not asked."""
    frame = inventory.frame
    flagged = int(frame["below_min_slope"].sum()) if "below_min_slope" in frame else None
    return {
        "left_out": {
            "below_min_area": inventory.dropped_small,
            "below_min_slope": inventory.dropped_flat,
            "in_filled_holes": inventory.swallowed,
        },
        "flagged_below_min_slope": flagged,
        "unknown_slope": inventory.unknown_slope,
        "share_outside_dem": None if inventory.uncovered is None else round(inventory.uncovered, 4),
    }
