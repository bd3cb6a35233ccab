"""Read every kind of file whole, compare results with undisturbed ones, and hash folders."""

import csv
import hashlib
import json
import math
import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

import numpy as np
import rasterio
import yaml
from PIL import Image


def is_draft(path: Path) -> bool:
    """Tell whether a path below an output folder belongs to unfinished work: it has a hidden part."""
    return any(part.startswith(".") or part.endswith(".partial") for part in path.parts)


def final_files(folder: Path) -> Iterator[Path]:
    """Yield the files under final names below a folder, by path inside it."""
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if path.is_file() and not is_draft(inside):
            yield inside


def unreadable(folder: Path) -> list[str]:
    """Read every file under a final name whole; return one line for each that is incomplete."""
    problems = []
    for name in final_files(folder):
        try:
            _read(folder / name)
        except Exception as error:  # any error means an incomplete file
            problems.append(f"{name}: {type(error).__name__}: {error}")
    return problems


def _read(path: Path) -> None:
    reader = _READERS.get(path.suffix)
    if reader is not None:
        reader(path)


def _read_raster(path: Path) -> None:
    with rasterio.open(path) as raster:
        for level in (None, *range(len(raster.overviews(1)))):
            options = {} if level is None else {"overview_level": level}
            with rasterio.open(path, **options) as part:
                part.read()


def _read_database(path: Path) -> None:
    connection = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)
    try:
        answer = connection.execute("PRAGMA integrity_check").fetchone()[0]
        tables = [row[0] for row in connection.execute("SELECT table_name FROM gpkg_contents")]
        for table in tables:
            connection.execute(f'SELECT * FROM "{table}"').fetchall()
    finally:
        connection.close()
    if answer != "ok" or not tables:
        raise ValueError(answer)


def _read_picture(path: Path) -> None:
    with Image.open(path) as picture:
        picture.load()


def _read_arrays(path: Path) -> None:
    with np.load(path) as arrays:
        for name in arrays.files:
            arrays[name]


def _read_table(path: Path) -> None:
    with path.open(newline="") as stream:
        lines = list(csv.reader(stream, strict=True))
    if not lines or any(len(line) != len(lines[0]) for line in lines):
        raise ValueError("lines of different lengths")


def _read_weights(path: Path) -> None:
    import h5py

    with h5py.File(path) as file:
        file.visititems(lambda _, item: item[()] if isinstance(item, h5py.Dataset) else None)


def _read_graph(path: Path) -> None:
    from tensorflow.core.protobuf import saved_model_pb2

    if path.name == "saved_model.pb":
        saved_model_pb2.SavedModel.FromString(path.read_bytes())


def _read_litert(path: Path) -> None:
    from ai_edge_litert.interpreter import Interpreter

    Interpreter(model_path=str(path)).allocate_tensors()


_READERS: dict[str, Callable[[Path], Any]] = {
    ".tif": _read_raster,
    ".gpkg": _read_database,
    ".png": _read_picture,
    ".jpg": _read_picture,
    ".json": lambda path: json.loads(path.read_text()),
    ".geojson": lambda path: json.loads(path.read_text()),
    ".qml": ElementTree.parse,
    ".yaml": lambda path: yaml.safe_load(path.read_text()),
    ".npz": _read_arrays,
    ".npy": np.load,
    ".csv": _read_table,
    ".h5": _read_weights,
    ".pb": _read_graph,
    ".tflite": _read_litert,
}


def hashes(folder: Path, without: tuple[str, ...] = ()) -> dict[str, str]:
    """Hash everything below a folder: contents, links and empty folders; `without`: paths inside it to leave out."""
    found = {}
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder).as_posix()
        if any(inside == one or inside.startswith(f"{one}/") for one in without):
            continue
        if path.is_symlink():
            found[inside] = f"link to {os.readlink(path)}"  # noqa: PTH115 (the text of the link)
        elif path.is_file():
            found[inside] = hashlib.sha256(path.read_bytes()).hexdigest()
        else:
            found[inside] = "folder" if path.is_dir() else "special"
    return found


def differences(found: Path, twins: tuple[Path, Path]) -> list[str]:
    """Compare a folder of results with two undisturbed ones; return one line for each difference.

    File names must be equal. A file that is equal in both twins must have these bytes. In tables and JSON files, values
    that are equal in both twins must be found; values that differ between the twins (paths) may differ, and times,
    sizes and hashes of files that hold times always may. The bytes of a graph (.pb) are not compared, because a resumed
    training numbers its functions differently; the bytes of its weights are compared.
    """
    names, expected = set(final_files(found)), set(final_files(twins[0]))
    problems = [f"{name}: missing" for name in sorted(expected - names)]
    problems += [f"{name}: not in the undisturbed result" for name in sorted(names - expected)]
    for name in sorted(names & expected):
        content, one, other = ((folder / name).read_bytes() for folder in (found, *twins))
        if content in (one, other):
            continue
        read = _VALUES.get(name.suffix)
        if read is not None:
            values = (read(folder / name) for folder in (found, *twins))
            problems += [f"{name}: {line}" for line in _other_values(*values)]
        elif one == other and name.suffix != ".pb":
            problems.append(f"{name}: other bytes than the undisturbed result")
    return problems


def _rows(path: Path) -> dict[str, list[Any]]:
    """Return all rows of the feature tables of a GeoPackage."""
    connection = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)
    try:
        tables = [row[0] for row in connection.execute("SELECT table_name FROM gpkg_contents")]
        return {table: [list(row) for row in connection.execute(f'SELECT * FROM "{table}"')] for table in tables}
    finally:
        connection.close()


def _cells(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


_VALUES: dict[str, Callable[[Path], Any]] = {
    ".json": lambda path: json.loads(path.read_text()),
    ".geojson": lambda path: json.loads(path.read_text()),
    ".gpkg": _rows,
    ".csv": _cells,
}

_VARYING = (
    "seconds",
    "megapixels_per_second",
    "created",
    "datetime",
    "updated",
    "bytes",
    "sha256",
    "file:size",
    "file:checksum",
)


def _other_values(found: Any, one: Any, other: Any, key: str = "") -> Iterator[str]:
    if found in (one, other) or (one != other and not isinstance(one, dict | list)):
        return
    if isinstance(one, dict) and isinstance(found, dict) and isinstance(other, dict) and found.keys() == one.keys():
        for name in one:
            if name in _VARYING:
                continue
            yield from _other_values(found[name], one[name], other.get(name), f"{key}.{name}")
    elif isinstance(one, list) and isinstance(found, list) and isinstance(other, list) and len(found) == len(one):
        for number, (a, b, c) in enumerate(zip(found, one, other, strict=True)):
            yield from _other_values(a, b, c, f"{key}[{number}]")
    elif not (isinstance(one, float) and isinstance(found, float) and math.isnan(one) and math.isnan(found)):
        yield f"{key} is {str(found)[:60]!r} in place of {str(one)[:60]!r}"
