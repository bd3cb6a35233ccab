"""Prediction options, and the identity of a result."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from lim_keras.bundle.info import BundleInfo
from lim_keras.errors import DataError
from lim_keras.inference.stream import ValueScale
from lim_keras.inventory.landslides import InventoryOptions
from lim_keras.raster.scene import Nodata
from lim_keras.raster.writer import ProbabilityType

VectorFormat = Literal["gpkg", "geojson", "parquet"]


@dataclass(frozen=True)
class PredictOptions:
    """What is asked of a prediction.

    Args:
        threshold: probability from which a pixel is landslide; None: the bundle's.
        probability: numbers of the probability map.
        spread: also write the folds' standard deviation.
        bands: of the scene to read, by number from 1 on, by description or colour; None: all.
        nodata: which pixels hold no data.
        scale: raw values that become the lowest and the highest of the model's data type.
        gsd_m: ground sample distance of a scene whose file does not say, metres.
        resample: warp scenes to the ground sample distance of training, beyond a factor of 1.5.
        symmetries: average over the eight symmetries of each window (test-time augmentation).
        memory: bytes that the process may take; None: a share of what is free.
        tile: pixels a side of a window; None: as the memory allows.
        formats: of the inventory; a GeoPackage is always written.
        inventory: which polygons are kept, and how they are drawn.
        dem: elevation model, for slopes.

    Raises:
        DataError: the threshold is no number from 0 to 1, or the ground sample distance none above 0.
    """

    threshold: float | None = None
    probability: ProbabilityType = "percent"
    spread: bool = False
    bands: tuple[int | str, ...] | None = None
    nodata: Nodata = "file"
    scale: ValueScale | None = None
    gsd_m: float | None = None
    resample: bool = False
    symmetries: bool = False
    memory: int | None = None
    tile: int | None = None
    formats: tuple[VectorFormat, ...] = ("gpkg",)
    inventory: InventoryOptions = field(default_factory=InventoryOptions)
    dem: Path | None = None

    def __post_init__(self) -> None:
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise DataError(f"Invalid threshold. Expected a number from 0 to 1. Received: {self.threshold}")
        if self.gsd_m is not None and not 0 < self.gsd_m < math.inf:
            raise DataError(f"Invalid ground sample distance. Expected metres, more than 0. Received: {self.gsd_m}")


_OF_MAPS = ("spread", "bands", "nodata", "scale", "gsd_m", "resample", "symmetries", "tile")


def identity(scene: Path, model: BundleInfo, options: PredictOptions, *, of_maps: bool = False) -> str:
    """What decides the files of a scene, as SHA-256: the scene, the model and the options, memory apart.

    of_maps: what decides the maps alone, from which the other files are made.

    Raises:
        DataError: the scene or the elevation model is not there.
    """
    chosen, dem = settings(options), None if of_maps else options.dem
    if of_maps:
        chosen = {name: chosen[name] for name in _OF_MAPS}
    facts = {
        "scene": [scene.name, *_state(scene)],
        "bundle": [model.config_hash, sorted((name, record.sha256) for name, record in model.files.items())],
        "options": chosen,
        "dem": _state(dem) if dem else None,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def _state(raster: Path) -> list[int]:
    """Bytes, and when they were written: what tells a file from its successor."""
    try:
        status = raster.stat()
    except OSError as error:
        raise DataError(f"{raster}: cannot be read ({error.strerror}). Expected a raster.") from error
    return [status.st_size, status.st_mtime_ns]


def settings(options: PredictOptions) -> dict[str, Any]:
    """The options that decide what comes out, ready for JSON."""
    values = {name: _writable(value) for name, value in asdict(options).items()}
    values.pop("memory")
    values["dem"] = None if options.dem is None else str(options.dem)
    values["inventory"] = {
        name: None if isinstance(value, float) and math.isinf(value) else value
        for name, value in values["inventory"].items()
    }
    content: dict[str, Any] = json.loads(json.dumps(values))
    return content


def _writable(value: Any) -> Any:
    """JSON has no NaN and no infinity: they are written as text."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
