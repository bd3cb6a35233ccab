"""Checks and conversions of the arguments of public functions."""

from __future__ import annotations

import difflib
import functools
import inspect
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeAlias, TypeVar
from urllib.parse import urlsplit
from urllib.request import url2pathname

from lim_keras.errors import ConfigError
from lim_keras.files import StrPath

if TYPE_CHECKING:
    from lim_keras.bundle.protocol import SceneModel
    from lim_keras.inference.predict_maps import MapOptions
    from lim_keras.inference.scene_plan import ScenePart
    from lim_keras.progress import ProgressCallback
    from lim_keras.raster.reader import RasterSource
    from lim_keras.raster.stac_scene import StacScene

Model: TypeAlias = "SceneModel | StrPath"
"""Loaded model, or the path or address of one."""

Bands: TypeAlias = Sequence[int | str]
"""Bands by number from 1, description or colour."""

TileIds = StrPath | Iterable[str]
"""Tile ids, or the path of a file that lists them: a text file with one id per line, or a tiles.csv."""

_SCHEME = re.compile(r"[A-Za-z][\w+.-]+:$")

Parameters = ParamSpec("Parameters")

Result = TypeVar("Result")


def public(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Make a function raise ConfigError if arguments do not fit its signature, or `progress` is not a callback."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def checked(*args: Parameters.args, **named: Parameters.kwargs) -> Result:
        try:
            signature.bind(*args, **named)
        except TypeError as error:
            unknown = next((name for name in named if name not in signature.parameters), None)
            problem = f"{error}." if unknown is None else _unknown(unknown, list(signature.parameters))
            raise ConfigError(f"{function.__name__}(): {problem}") from None
        _check_progress(named.get("progress"))
        return function(*args, **named)

    return checked


def _check_progress(progress: object) -> None:
    if progress is not None and not (hasattr(progress, "begin") and hasattr(progress, "advance")):
        raise ConfigError(
            "Invalid value for `progress`. Expected an object with the methods `begin` and `advance`, see "
            f"lim_keras.progress.ProgressCallback. Received: {progress!r}."
        )


def _unknown(name: str, valid: list[str]) -> str:
    longer = [one for one in valid if one.startswith(f"{name}_")]
    nearest = longer or difflib.get_close_matches(name, valid, n=1)
    hint = f"Did you mean `{nearest[0]}`?" if nearest else f"Expected some of: {', '.join(valid)}."
    return f"unknown argument `{name}`. {hint}"


def as_path(name: str, value: StrPath) -> Path:
    """Convert an argument to a path; raise ConfigError for other types."""
    try:
        path = Path(value)
    except TypeError:
        raise ConfigError(f"Invalid value for `{name}`. Expected a path. Received: {value!r}.") from None
    if value == "":
        raise ConfigError(f"Invalid value for `{name}`. Expected a path. Received: an empty text.")
    if "\0" in str(path):
        raise ConfigError(f"Invalid value for `{name}`. Expected a path without null characters. Received: {value!r}.")
    if not path.parts or not _SCHEME.match(path.parts[0]) or os.path.lexists(path.parts[0]):
        return path
    if path.parts[0] == "file:":
        return Path(url2pathname(urlsplit(str(value)).path))
    raise ConfigError(f"Invalid value for `{name}`. Expected a path on this machine. Received: an address, {value}.")


def as_count(name: str, value: object, *, least: int = 1) -> int:
    """Convert an argument to an int; raise ConfigError if it is not a whole number >= `least`."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise ConfigError(f"Invalid value for `{name}`. Expected a whole number >= {least}. Received: {value!r}.")
    return int(value)


def as_number(name: str, value: object) -> float:
    """Convert an argument to a float; raise ConfigError if it is not a number."""
    if not isinstance(value, Real) or isinstance(value, bool):
        raise ConfigError(f"Invalid value for `{name}`. Expected a number. Received: {value!r}.")
    return float(value)


def _as_bands(name: str, value: Any) -> tuple[int | str, ...]:
    if isinstance(value, Iterable) and not isinstance(value, str):
        bands = tuple(one if isinstance(one, str) else as_count(name, one) for one in value)
        if bands:
            return bands
    raise ConfigError(f"Invalid value for `{name}`. Expected a sequence, such as (3, 2, 1). Received: {value!r}.")


def _as_scale(name: str, value: Any) -> tuple[float, ...]:
    ends = tuple(value) if isinstance(value, Iterable) and not isinstance(value, str) else ()
    if len(ends) != 2:
        raise ConfigError(f"Invalid value for `{name}`. Expected (lowest, highest). Received: {value!r}.")
    return tuple(as_number(name, one) for one in ends)


def _as_nodata(name: str, value: Any) -> float | str:
    return value if isinstance(value, str) and value in ("file", "none") else as_number(name, value)


def _as_memory(name: str, value: Any) -> int:
    from lim_keras.bundle.window_size import parse_memory

    return parse_memory(value) if isinstance(value, str) else as_count(name, value)


def _as_part(name: str, value: Any) -> ScenePart:
    from lim_keras.inference.scene_plan import ScenePart

    return ScenePart.parse(str(value))


def _as_flag(name: str, value: Any) -> bool:
    return bool(value)


_NUMBERS = ("threshold", "peak", "min_area_m2", "fill_holes_m2", "simplify_m", "min_slope_deg", "gsd_m")

CONVERSIONS: dict[str, Callable[[str, Any], object]] = {
    **dict.fromkeys(_NUMBERS, as_number),
    **dict.fromkeys(
        ("all_regions", "drop_flat", "spread", "familiarity", "resample", "tta", "exact", "merge"), _as_flag
    ),
    "bands": _as_bands,
    "scale": _as_scale,
    "nodata": _as_nodata,
    "memory": _as_memory,
    "tile": as_count,
    "part": _as_part,
}
"""Conversions of prediction arguments by name. NumPy numbers become Python numbers, so that JSON can store them."""


def as_ids(name: str, value: TileIds | None) -> list[str] | None:
    """Convert an argument to tile ids: read them from a file, or check that every item is a string."""
    from lim_keras.data.manifest import read_tile_ids

    if value is None:
        return None
    if isinstance(value, str | os.PathLike):
        return read_tile_ids(value)
    ids = list(value) if isinstance(value, Iterable) else [value]
    if not all(isinstance(one, str) for one in ids):
        raise ConfigError(f"Invalid value for `{name}`. Expected a file or ids of tiles. Received: {value!r}.")
    return ids


def scene_paths(scenes: StrPath | Iterable[StrPath], asset: str | None = None) -> list[Path | str | StacScene]:
    """Convert the argument `scenes` to paths, and strings for URLs; raise ConfigError if there are none."""
    if isinstance(scenes, str | os.PathLike) or not isinstance(scenes, Iterable):
        return [as_raster_path("scenes", scenes, asset)]
    paths = [as_raster_path("scenes", one, asset) for one in scenes]
    if not paths:
        raise ConfigError("Invalid value for `scenes`. Expected at least one raster or folder. Received: none.")
    return paths


def as_raster_path(name: str, value: StrPath, asset: str | None = None) -> Path | str | StacScene:
    """Convert the argument of a raster to a path, a text for a URL or a GDAL name, or the scene of a STAC item.

    Raises:
        ConfigError: another type, an empty text, or `asset` for a raster that is no STAC item.
    """
    from lim_keras.raster.opening import gdal_name, is_remote
    from lim_keras.raster.stac_scene import find_item

    remote = isinstance(value, str | os.PathLike) and is_remote(os.fspath(value))
    path = gdal_name(value) if remote else as_path(name, value)  # a path would lose slashes of a URL
    return find_item(str(path), asset) or path


def as_raster(name: str, source: RasterSource, asset: str | None = None) -> RasterSource:
    """Return a path, a URL, the scene of a STAC item, or an open raster; raise ConfigError for other types."""
    if isinstance(source, str | os.PathLike) and source != "":
        return as_raster_path(name, source, asset)
    if hasattr(source, "crs"):
        return source
    raise ConfigError(
        f"Invalid value for `{name}`. Expected a path, URL or open rasterio dataset. Received: "
        f"{type(source).__name__}. For an array, call `predict(images)` of the loaded bundle."
    )


def as_progress(progress: ProgressCallback | None) -> ProgressCallback:
    """Return a callback, by default a bar on a terminal."""
    from lim_keras.report.progress import ProgressBar

    return progress or ProgressBar()


def map_options(given: dict[str, Any]) -> MapOptions:
    """Build the options of the maps from the arguments of a public function."""
    from lim_keras.inference.predict_maps import MapOptions

    return MapOptions(**known_options(MapOptions, given))


def known_options(options: type[MapOptions], given: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a public function that are fields of an options class, converted to their types."""
    known = {field.name: given[field.name] for field in fields(options) if field.name in given}
    optional = {field.name for field in fields(options) if field.default is None}
    for name, value in known.items():
        if name in CONVERSIONS and not (value is None and name in optional):
            known[name] = CONVERSIONS[name](name, value)
    return known
