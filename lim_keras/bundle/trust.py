"""Read JSON and arrays from untrusted files."""

from __future__ import annotations

import json
import math
import tokenize
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from lim_keras.errors import BundleError

_DAMAGED = (OSError, EOFError, ValueError, KeyError, TypeError, SyntaxError, tokenize.TokenError, zipfile.BadZipFile)


def read_json(path: Path, limit: int) -> tuple[str, Any]:
    """Read a JSON file of at most `limit` bytes; return its text and its value.

    Raises:
        FileNotFoundError: there is no such file.
        BundleError: the file is not a plain file, a link out of its folder, too large, or not JSON (NaN is not).
    """
    if not path.exists():
        raise FileNotFoundError(path)
    if not path.is_file():
        raise BundleError(f"{path}: expected a plain file. Received: a folder, a pipe or a device.")
    if not path.resolve().is_relative_to(path.parent.resolve()):
        raise BundleError(f"{path}: a link that leaves the bundle, to {path.resolve()}. Copy the file itself.")
    try:
        with path.open("rb") as file:
            content = file.read(limit + 1)
        if len(content) > limit:
            raise BundleError(f"{path}: expected at most {limit} bytes. Received: {path.stat().st_size} bytes.")
        text = content.decode("utf-8")
        return text, json.loads(text, parse_constant=_refuse)
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{path}: damaged, expected a JSON object ({error}). Export the bundle again.") from error


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def read_arrays(path: Path, names: Sequence[str], limit: int) -> list[NDArray[Any]]:
    """Read arrays of an .npz file, in the order of their names; all its arrays may take `limit` bytes, unpacked.

    Raises:
        BundleError: the file is missing, damaged or too large, or lacks an array.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
            if size > limit:
                raise ValueError(f"at most {limit} bytes of arrays, received {size}")
            for name in names:
                with archive.open(f"{name}.npy") as member:
                    _check_header(member, archive.getinfo(f"{name}.npy").file_size)
        with np.load(path, allow_pickle=False) as stored:
            return [stored[name] for name in names]
    except _DAMAGED as error:
        raise BundleError(
            f"{path}: damaged, expected an archive of the arrays {' and '.join(names)} ({error}). "
            "Export the bundle again."
        ) from error


def _check_header(member: IO[bytes], size: int) -> None:
    """Refuse a header that asks for more bytes than the file holds, which NumPy would allocate first."""
    version = npy.read_magic(member)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"an array of format {version}")
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read(member)
    if math.prod(shape) * dtype.itemsize > size:
        raise ValueError(f"an array of shape {shape} and type {dtype} in {size} bytes")
