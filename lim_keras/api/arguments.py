"""Check and convert the arguments of public functions."""

from __future__ import annotations

import difflib
import functools
import inspect
import os
from collections.abc import Callable, Iterable
from numbers import Real
from pathlib import Path
from typing import ParamSpec, TypeVar

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
        return Path(value)
    except TypeError:
        raise ConfigError(f"Invalid value for `{name}`. Expected a path. Received: {value!r}.") from None


def check_count(*, least: int = 1, **counts: object) -> None:
    """Raise ConfigError for the first argument that is not a whole number >= `least`."""
    for name, value in counts.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ConfigError(f"Invalid value for `{name}`. Expected a whole number >= {least}. Received: {value!r}.")


def check_numbers(**numbers: object) -> None:
    """Raise ConfigError for the first argument that is neither None nor a number."""
    for name, value in numbers.items():
        if value is not None and (not isinstance(value, Real) or isinstance(value, bool)):
            raise ConfigError(f"Invalid value for `{name}`. Expected a number. Received: {value!r}.")


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
