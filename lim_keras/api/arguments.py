"""Check and convert the arguments of public functions."""

from __future__ import annotations

import difflib
import functools
import inspect
import os
from collections.abc import Callable, Iterable
from numbers import Integral, Real
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from lim_keras.errors import ConfigError
from lim_keras.files import StrPath

TileIds = StrPath | Iterable[str]
"""Ids of tiles, or a file of them: a text file with one id a line, or a tiles.csv."""

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def public(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Decorate a function: raise ConfigError for arguments that do not fit its signature, or a bad `progress`."""
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
    if "\0" in str(path):
        raise ConfigError(f"Invalid value for `{name}`. Expected a path without null characters. Received: {value!r}.")
    return path


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
    from lim_keras.bundle.protocol import parse_memory

    return parse_memory(value) if isinstance(value, str) else as_count(name, value)


def _as_flag(name: str, value: Any) -> bool:
    return bool(value)


CONVERSIONS: dict[str, Callable[[str, Any], object]] = {
    **dict.fromkeys(("threshold", "min_area_m2", "fill_holes_m2", "simplify_m", "min_slope_deg", "gsd_m"), as_number),
    **dict.fromkeys(("drop_flat", "spread", "resample", "tta"), _as_flag),
    "bands": _as_bands,
    "scale": _as_scale,
    "nodata": _as_nodata,
    "memory": _as_memory,
    "tile": as_count,
}
"""Conversions of arguments that say how a scene is mapped; numbers of NumPy become Python's, which JSON can hold."""


def as_ids(name: str, value: TileIds | None) -> list[str] | None:
    """Convert an argument to ids of tiles: read a file of them, or check a sequence of text."""
    from lim_keras.data.manifest import read_tile_ids

    if value is None:
        return None
    if isinstance(value, str | os.PathLike):
        return read_tile_ids(value)
    ids = list(value) if isinstance(value, Iterable) else [value]
    if not all(isinstance(one, str) for one in ids):
        raise ConfigError(f"Invalid value for `{name}`. Expected a file or ids of tiles. Received: {value!r}.")
    return ids
