"""Options of an inventory and of a prediction, and the identity of a result."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, fields
from pathlib import PurePath
from typing import Any, Literal

from lim_keras.bundle.info import BundleInfo
from lim_keras.errors import ConfigError
from lim_keras.files import StrPath
from lim_keras.inference.options import MapOptions
from lim_keras.raster.reader import RasterReader
from lim_keras.raster.writer import ProbabilityType

VectorFormat = Literal["gpkg", "geojson", "parquet"]


@dataclass(frozen=True, kw_only=True)
class InventoryOptions:
    """Options for selecting landslides and drawing their outlines.

    Args:
        min_area_m2: smaller landslides are left out. Filled holes count, and so does area that simplification takes.
        fill_holes_m2: holes up to this area are filled, math.inf: all. A landslide in a filled hole becomes part of the
            one around it.
        simplify_m: tolerance of outlines, metres, see `simplify`; about a pixel straightens staircases.
        dem: elevation model, for slopes.
        min_slope_deg: landslides of a smaller mean slope are marked as `below_min_slope`; needs `dem`.
        drop_flat: leave these out; needs `min_slope_deg`.

    Raises:
        ConfigError: a value out of range, or one that needs another.
    """

    min_area_m2: float = 0
    fill_holes_m2: float = 0
    simplify_m: float = 0
    dem: StrPath | None = None
    min_slope_deg: float | None = None
    drop_flat: bool = False

    def __post_init__(self) -> None:
        for name in ("min_area_m2", "fill_holes_m2", "simplify_m"):
            value = getattr(self, name)
            if not value >= 0 or (math.isinf(value) and name != "fill_holes_m2"):
                raise ConfigError(f"Invalid value for `{name}`. Expected a number >= 0. Received: {value}.")
        if self.min_slope_deg is not None and not 0 <= self.min_slope_deg <= 90:
            raise ConfigError(
                f"Invalid value for `min_slope_deg`. Expected degrees, 0..90. Received: {self.min_slope_deg}."
            )
        if self.drop_flat and self.min_slope_deg is None:
            raise ConfigError("`drop_flat` needs `min_slope_deg`.")
        if self.min_slope_deg is not None and self.dem is None:
            raise ConfigError("`min_slope_deg` needs an elevation model. Give `dem`.")

    @property
    def in_metres(self) -> list[str]:
        """Names of the given options that need a ground sample distance."""
        return [name for name in ("min_area_m2", "fill_holes_m2", "simplify_m") if 0 < getattr(self, name) < math.inf]


@dataclass(frozen=True, kw_only=True)
class PredictOptions(MapOptions, InventoryOptions):
    """Options of `predict_scene`, those of its maps and of its inventory included.

    Args:
        threshold: smallest probability of landslide; None: the bundle's.
        probability: data type of the probability map.
        formats: formats of the inventory; a GeoPackage is always written.

    Raises:
        ConfigError: a value out of range, or one that needs another.
    """

    threshold: float | None = None
    probability: ProbabilityType = "percent"
    formats: tuple[VectorFormat, ...] = ("gpkg",)

    def __post_init__(self) -> None:
        MapOptions.__post_init__(self)
        InventoryOptions.__post_init__(self)
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise ConfigError(f"Invalid value for `threshold`. Expected 0..1. Received: {self.threshold}.")


# summary.json keeps the names that its first readers know.
_NAMES = {"tta": "symmetries", "min_slope_deg": "min_slope", "drop_flat": "drop_below_slope"}


def identity(scene: RasterReader, model: BundleInfo, options: PredictOptions, *, of_maps: bool = False) -> str:
    """Hash everything that decides the files of a scene (SHA-256): scene, model and options.

    `of_maps`: hash only what decides the maps, from which the other files are made.

    Raises:
        DataError: the elevation model cannot be opened.
    """
    chosen, dem = settings(options), None if of_maps else options.dem
    if of_maps:
        names = (_NAMES.get(field.name, field.name) for field in fields(MapOptions))
        chosen = {name: chosen[name] for name in names if name in chosen}
    facts = {
        "scene": [PurePath(scene.name).name, *scene.fingerprint],
        "bundle": [model.config_hash, sorted((name, record.sha256) for name, record in model.files.items())],
        "options": chosen,
        "dem": None if dem is None else _fingerprint(dem),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def _fingerprint(raster: StrPath) -> list[int]:
    with RasterReader(raster) as reader:
        return reader.fingerprint


def settings(options: PredictOptions) -> dict[str, Any]:
    """Convert the options to JSON values; `memory` is left out, because it does not change the results."""
    values = {_NAMES.get(name, name): value for name, value in asdict(options).items() if name != "memory"}
    dem = values.pop("dem")
    kept = {_NAMES.get(field.name, field.name) for field in fields(InventoryOptions)} - {"dem"}
    # JSON has neither NaN nor infinity.
    inventory = {name: None if values[name] == math.inf else values[name] for name in sorted(kept)}
    others = {name: _as_text(value) for name, value in values.items() if name not in kept}
    others |= {"inventory": inventory, "dem": None if dem is None else str(dem)}
    content: dict[str, Any] = json.loads(json.dumps(others))
    return content


def _as_text(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
