"""Options of a prediction, the hash that identifies its files, and checks of options before it starts."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from lim_keras.bundle.familiarity import knows_familiarity
from lim_keras.bundle.info import BundleInfo
from lim_keras.bundle.object_rule import DEFAULT_POINT, WORKING_POINTS, ObjectRule, WorkingPointName
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
            None: all are kept, or, for a scene, as the bundle's object rule says.
        fill_holes_m2: holes up to this area are filled; math.inf fills all. A landslide in a filled hole becomes part
            of the landslide around it.
        simplify_m: tolerance of outline simplification, metres (`simplify`); about a pixel removes pixel steps.
        dem: elevation model, for slopes.
        min_slope_deg: landslides of a smaller mean slope are marked as `below_min_slope`; needs `dem`.
        drop_flat: leave out the marked landslides; needs `min_slope_deg`.

    Raises:
        ConfigError: a value out of range, or one that needs another.
    """

    min_area_m2: float | None = None
    fill_holes_m2: float = 0
    simplify_m: float = 0
    dem: StrPath | None = None
    min_slope_deg: float | None = None
    drop_flat: bool = False

    def __post_init__(self) -> None:
        for name in ("min_area_m2", "fill_holes_m2", "simplify_m"):
            value = getattr(self, name) or 0
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
        names = ("min_area_m2", "fill_holes_m2", "simplify_m")
        return [name for name in names if 0 < (getattr(self, name) or 0) < math.inf]


@dataclass(frozen=True, kw_only=True)
class PredictOptions(MapOptions, InventoryOptions):
    """Options of `predict_scene`, with those of maps and inventory.

    Args:
        threshold: smallest probability of a landslide pixel; None: that of the working point, or the bundle's.
        working_point: values of the bundle's object rule; None: "balanced" if the bundle has a rule.
        peak: smallest highest probability of a landslide, 0 for no limit; None: that of the working point, or no limit.
        all_regions: do not use the bundle's object rule.
        probability: data type of the probability map.
        familiarity: map how familiar the imagery is to the model.
        formats: formats of the inventory; a GeoPackage is always written.
        part: make one part of the maps, and no final file.
        merge: make the final files from parts.

    Raises:
        ConfigError: a value out of range, one that needs another, or two that exclude each other.
    """

    threshold: float | None = None
    working_point: WorkingPointName | None = None
    peak: float | None = None
    all_regions: bool = False
    probability: ProbabilityType = "percent"
    familiarity: bool = False
    formats: tuple[VectorFormat, ...] = ("gpkg",)
    part: ScenePart | None = None
    merge: bool = False

    def __post_init__(self) -> None:
        MapOptions.__post_init__(self)
        InventoryOptions.__post_init__(self)
        for name in ("threshold", "peak"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ConfigError(f"Invalid value for `{name}`. Expected 0..1. Received: {value}.")
        if self.working_point is not None and self.working_point not in WORKING_POINTS:
            raise ConfigError(
                f"Invalid value for `working_point`. Expected {', '.join(WORKING_POINTS)}. "
                f"Received: {self.working_point!r}."
            )
        if self.all_regions and self.working_point is not None:
            raise ConfigError("`all_regions` and `working_point` exclude each other. Give one of them.")
        if self.part is not None and self.merge:
            raise ConfigError("`part` and `merge` exclude each other. Make all parts first, then merge them.")
        if self.part is not None and self.memory is not None:
            raise ConfigError(
                "`part` and `memory` exclude each other, because all parts have windows of the same size. Give `tile`, "
                "or leave both out."
            )


def with_rule(options: PredictOptions, info: BundleInfo, *, gsd_m: float | None = 1.0) -> PredictOptions:
    """Fill in the values of the working point that are not given; a second call changes nothing.

    `working_point` of the result is None unless all values are those of the point.

    Args:
        gsd_m: ground sample distance of the scene, metres; None: unknown, so that the point's area is not used.

    Raises:
        ConfigError: a working point of a bundle without a rule, or a peak below the threshold.
    """
    fitted, name = info.object_rule, options.working_point
    if fitted is None and name is not None:
        raise ConfigError(
            f"`working_point`: the bundle {info.name} has no object rule. Fit one with `lim-keras export "
            "--object-rule`, or give `threshold`, `peak` and `min_area_m2`."
        )
    if fitted is None or options.all_regions:
        _check_peak(options.peak, info.threshold if options.threshold is None else options.threshold)
        return replace(options, min_area_m2=options.min_area_m2 or 0.0)
    point = fitted.working_points[name or DEFAULT_POINT].rule
    threshold = point.threshold if options.threshold is None else options.threshold
    _check_peak(options.peak, threshold)
    peak = max(point.peak, threshold) if options.peak is None else options.peak
    known_area = point.min_area_m2 if gsd_m is not None else 0.0
    area = known_area if options.min_area_m2 is None else options.min_area_m2
    same = (threshold, area) == (point.threshold, point.min_area_m2) and peak == max(point.peak, threshold)
    kept = (name or DEFAULT_POINT) if same else None
    return replace(options, working_point=kept, threshold=threshold, peak=peak, min_area_m2=area)


def regions_rule(choice: PredictOptions | None, info: BundleInfo, *, gsd_m: float | None = 1.0) -> ObjectRule | None:
    """Return the rule by which options choose landslides; None if every region is one; errors as in `with_rule`."""
    options = with_rule(choice or PredictOptions(), info, gsd_m=gsd_m)
    return None if options.peak is None else rule_of(options, info)


def _check_peak(peak: float | None, threshold: float) -> None:
    if peak and peak < threshold:
        raise ConfigError(
            f"Invalid value for `peak`. Expected 0 (no limit) or at least the threshold, {threshold:.4g}, which every "
            f"region reaches. Received: {peak:g}."
        )


def check_familiarity(options: PredictOptions, model: DescribedModel) -> None:
    """Raise ConfigError if familiarity is to be mapped and the model does not know it."""
    if options.familiarity and not knows_familiarity(model):
        raise ConfigError(
            f"`familiarity`: {model.info.name} knows none. Give the folder of a bundle that knows it, not a LiteRT "
            "file or a server; `lim-keras export --familiarity` adds it to a bundle."
        )


def rule_of(options: PredictOptions, info: BundleInfo) -> ObjectRule:
    """Return the rule of options to which `with_rule` was applied."""
    threshold = info.threshold if options.threshold is None else options.threshold
    return ObjectRule(threshold=threshold, peak=options.peak or 0.0, min_area_m2=options.min_area_m2 or 0.0)


_UNRECORDED = {"memory", "part", "merge", "all_regions"}  # options that do not change the results

# Left out where they are not given, so that results of versions without these options stay valid.
_LEFT_OUT = ("working_point", "peak", "familiarity")

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
    for name in _LEFT_OUT:
        if values[name] is None or values[name] is False:
            del values[name]
    values["min_area_m2"] = values["min_area_m2"] or 0.0
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


def warn_of_missing_area(scene: RasterInfo, info: BundleInfo, given: PredictOptions) -> None:
    """Warn if the area of a working point is not used because the ground sample distance of the scene is unknown.

    `given`: options to which `with_rule` was not applied.
    """
    fitted = info.object_rule
    if fitted is None or given.all_regions or given.min_area_m2 is not None or scene.gsd_m is not None:
        return
    if fitted.working_points[given.working_point or DEFAULT_POINT].min_area_m2:
        warnings.warn(
            f"{scene.path}: its ground sample distance is unknown, so that the object rule of {info.name} is used "
            "without its smallest area. Give `gsd_m`.",
            LimKerasWarning,
            stacklevel=2,
        )


def describe_rule(options: PredictOptions, info: BundleInfo) -> dict[str, Any]:
    """Describe the object rule of options to which `with_rule` was applied: `object_rule` of a summary.

    Empty where no rule is used, so that summaries stay as they are for bundles without a rule.
    """
    if options.peak is None:
        return {}
    return {"object_rule": {"working_point": options.working_point, **asdict(rule_of(options, info))}}


def count_landslides(summary: Mapping[str, Any]) -> str:
    """Format the number of landslides of a summary, the rule, and the number of regions that it left out."""
    counted, used = f"{summary['landslides']:,} landslides", summary.get("object_rule")
    if used is None:
        return counted
    rule = ObjectRule(**{name: value for name, value in used.items() if name != "working_point"})
    left_out = summary["left_out"]["below_peak"] + summary["left_out"]["below_min_area"]
    name = f"working point {used['working_point']}, " if used["working_point"] else ""
    regions = f"{left_out:,} region{'s' * (left_out != 1)}"
    return f"{counted}; object rule ({name}{rule}) left out {regions}"
