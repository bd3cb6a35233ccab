"""Options of a prediction, the hash that identifies its files, and checks of options before it starts."""

from __future__ import annotations

import json
import math
import warnings
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from lim_keras.bundle.protocol import DescribedModel, runtime_of
from lim_keras.errors import ConfigError, LimKerasWarning
from lim_keras.files import StrPath
from lim_keras.inference.predict_maps import MapOptions
from lim_keras.inference.scene_plan import ScenePart, hash_of, map_facts
from lim_keras.raster.georeference import Georeference, RasterInfo
from lim_keras.raster.reader import RasterReader
from lim_keras.raster.remote_names import public_name
from lim_keras.raster.writer import ProbabilityType

VectorFormat = Literal["gpkg", "geojson", "parquet"]


@dataclass(frozen=True, kw_only=True)
class InventoryOptions:
    """Options for selecting landslides and drawing their outlines.

    Args:
        min_area_m2: smaller landslides are left out, before and after simplification; filled holes count as area.
        fill_holes_m2: holes up to this area are filled; math.inf fills all. A landslide in a filled hole becomes part
            of the landslide around it.
        simplify_m: tolerance of outline simplification, metres (`simplify`); about a pixel removes pixel steps.
        dem: elevation model, for slopes.
        min_slope_deg: landslides of a smaller mean slope are marked as `below_min_slope`; needs `dem`.
        drop_flat: leave out the marked landslides; needs `min_slope_deg`.

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
    """Options of `predict_scene`, with those of maps and inventory.

    Args:
        threshold: smallest probability of landslide; None: the bundle's.
        probability: data type of the probability map.
        formats: formats of the inventory; a GeoPackage is always written.
        part: make one part of the maps, and no final file.
        merge: make the final files from parts.

    Raises:
        ConfigError: a value out of range, one that needs another, or two that exclude each other.
    """

    threshold: float | None = None
    probability: ProbabilityType = "percent"
    formats: tuple[VectorFormat, ...] = ("gpkg",)
    part: ScenePart | None = None
    merge: bool = False

    def __post_init__(self) -> None:
        MapOptions.__post_init__(self)
        InventoryOptions.__post_init__(self)
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise ConfigError(f"Invalid value for `threshold`. Expected 0..1. Received: {self.threshold}.")
        if self.part is not None and self.merge:
            raise ConfigError("`part` and `merge` exclude each other. Make all parts first, then merge them.")
        if self.part is not None and self.memory is not None:
            raise ConfigError(
                "`part` and `memory` exclude each other, because all parts have windows of the same size. Give `tile`, "
                "or leave both out."
            )


_UNRECORDED = {"memory", "part", "merge"}  # options that do not change the results

# summary.json keeps the former names of these options, for programs that read it.
_NAMES = {"tta": "symmetries", "min_slope_deg": "min_slope", "drop_flat": "drop_below_slope"}


def identity(scene: RasterReader, model: DescribedModel, options: PredictOptions, *, of_maps: bool = False) -> str:
    """Compute the SHA-256 of all inputs of a scene's files: scene, model and options.

    `of_maps`: hash only the inputs of the maps; options for the other files are left out.
    """
    facts = map_facts(scene, model.info, runtime_of(model), options)
    if not of_maps:
        dem = options.dem
        facts |= {"options": settings(options), "dem": None if dem is None else _fingerprint(dem)}
    return hash_of(facts)


def _fingerprint(raster: StrPath) -> list[Any]:
    with RasterReader(raster) as reader:
        return reader.fingerprint


def settings(options: PredictOptions) -> dict[str, Any]:
    """Convert the options to JSON values; those that do not change the results are left out."""
    values = {_NAMES.get(name, name): value for name, value in asdict(options).items() if name not in _UNRECORDED}
    dem = values.pop("dem")
    kept = {_NAMES.get(field.name, field.name) for field in fields(InventoryOptions)} - {"dem"}
    # JSON has neither NaN nor infinity.
    inventory = {name: None if values[name] == math.inf else values[name] for name in sorted(kept)}
    others = {name: _as_text(value) for name, value in values.items() if name not in kept}
    others |= {"inventory": inventory, "dem": None if dem is None else public_name(str(dem))}
    content: dict[str, Any] = json.loads(json.dumps(others))
    return content


def _as_text(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def check_inventory(scene: RasterInfo, options: InventoryOptions) -> None:
    """Validate inventory options for a scene before prediction starts; errors as in `stream_inventory`."""
    ground = Georeference.of(scene, scene.gsd_m)
    check_metres(scene, ground, options)
    if options.dem is None:
        return
    from lim_keras.inventory.terrain import TerrainReader

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LimKerasWarning)  # `stream_inventory` warns of what the model does not cover
        with TerrainReader(options.dem, scene):
            pass  # entering it is the check


def check_metres(scene: RasterInfo, ground: Georeference, options: InventoryOptions) -> None:
    """Raise ConfigError if an option needs a ground sample distance and there is none."""
    if ground.gsd_m is None and options.in_metres:
        raise ConfigError(
            f"{scene.path}: its ground sample distance is unknown, but needed for "
            f"{', '.join(f'`{name}`' for name in options.in_metres)}. Give `gsd_m`, or leave these out."
        )
