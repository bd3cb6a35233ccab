"""Map files of a scene during its prediction; a killed process cannot damage them.

Each map is one sparse file of raw numbers, row by row. Values are stored plus one, so that zero, the value of unwritten
pixels, means "no data". A VRT beside the files lets GDAL read them as one raster with nodata -1. `state.json` holds the
number of complete rows of windows.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self
from xml.sax.saxutils import escape

import numpy as np

from lim_keras.errors import DataError
from lim_keras.files import write_text
from lim_keras.inference.stream import WindowPrediction
from lim_keras.raster.georeference import RasterInfo
from lim_keras.raster.writer import MAP_NODATA

STATE = "state.json"
_MAPS = {"probability": "<f4", "votes": "u1", "spread": "<f4"}
_SYNC_BYTES = 32 * 2**20  # bytes between two synchronisations with the disk; a larger step would stall the model
_SMALLEST_FILE = 1024  # bytes that GDAL needs to recognise a file as a raster
_GDAL_TYPES = {"<f4": "Float32", "u1": "Byte"}


class Maps:
    """Writer of probability, votes and, if asked, spread of a scene; a context manager.

    Args:
        info: grid of the scene.
        spread: keep the standard deviation of the folds.
        identity: digest of everything that decides the values. Files in `folder` with the same identity are continued
            and keep their plan; others are overwritten.
        plan: layout of the windows.

    Raises:
        DataError: the disk is full, or the folder cannot be written.
    """

    def __init__(self, folder: Path, info: RasterInfo, *, spread: bool, identity: str, plan: Mapping[str, Any]) -> None:
        self._folder, self._info = folder, info
        self._names = [name for name in _MAPS if spread or name != "spread"]
        self._state: dict[str, Any] = {"identity": identity, "plan": dict(plan), "done": 0}
        self._state = self._kept_state() or self._state
        self._files: dict[str, int] = {}
        self._unsynced = 0

    def __enter__(self) -> Self:
        with self._explained():
            self._folder.mkdir(parents=True, exist_ok=True)
            pixels = self._info.width * self._info.height
            fresh = os.O_TRUNC if self.done == 0 else 0
            for name in self._names:
                file = os.open(self._folder / f"{name}.raw", os.O_RDWR | os.O_CREAT | fresh, 0o644)
                self._files[name] = file
                os.ftruncate(file, max(pixels * np.dtype(_MAPS[name]).itemsize, _SMALLEST_FILE))
            self._write_state()
        return self

    def __exit__(self, *error: object) -> None:
        for file in self._files.values():
            os.close(file)
        self._files = {}

    @property
    def plan(self) -> Mapping[str, Any]:
        """Layout of the windows, as it was when the folder was made."""
        plan: Mapping[str, Any] = self._state["plan"]
        return plan

    @property
    def done(self) -> int:
        """Number of rows of windows that are complete on the disk."""
        return int(self._state["done"])

    def write(self, window: WindowPrediction) -> None:
        """Write the prediction of a window. Pixels without data stay unwritten."""
        values = {"probability": window.probability, "votes": window.votes, "spread": window.spread}
        whole = bool(window.valid.all())
        with self._explained():
            for name in self._names:
                dtype = np.dtype(_MAPS[name])
                shown = np.add(values[name], 1, dtype=dtype, casting="unsafe", order="C")
                if not whole:
                    shown[~window.valid] = 0
                # Rows of the scene's whole width are contiguous in the file: one call instead of thousands.
                runs = shown.reshape(1, -1) if window.core.width == self._info.width else shown
                for row, run in enumerate(runs, start=window.core.top):
                    place = (row * self._info.width + window.core.left) * dtype.itemsize
                    _write_all(self._files[name], run.data.cast("B"), place)
                self._unsynced += shown.nbytes
            if self._unsynced >= _SYNC_BYTES:
                self._sync()

    def commit(self, done: int) -> None:
        """Record that the first `done` rows of windows are complete."""
        with self._explained():
            self._sync()
            self._state["done"] = done
            self._write_state()

    def write_vrt(self) -> Path:
        """Write a VRT with the bands probability, votes (number of folds) and spread, Float32, nodata -1."""
        path = self._folder / "maps.vrt"
        with self._explained():
            for name in self._names:
                _write_header(self._folder / f"{name}.hdr", self._info, _MAPS[name])
            path.write_text(_vrt(self._info, self._names), encoding="utf-8")
        return path

    def _sync(self) -> None:
        for file in self._files.values():
            os.fsync(file)
        self._unsynced = 0

    def _kept_state(self) -> dict[str, Any] | None:
        try:
            state: Any = json.loads((self._folder / STATE).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return None
        if not isinstance(state, dict) or not state.keys() >= self._state.keys():
            return None
        same = state["identity"] == self._state["identity"]
        return state if same and all((self._folder / f"{name}.raw").exists() for name in self._names) else None

    def _write_state(self) -> None:
        write_text(self._folder / STATE, json.dumps(self._state))

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (OSError, DataError) as error:
            cause = error.__cause__ if isinstance(error, DataError) else error  # `write_text` raises a DataError
            if not isinstance(cause, OSError):
                raise
            raise DataError(
                f"{self._folder}: cannot be written ({cause.strerror or cause}). What is done is kept: free disk space "
                "or repair the folder, and run the same command again."
            ) from cause


def _write_all(file: int, data: memoryview, place: int) -> None:
    written = os.pwrite(file, data, place)
    while written < len(data):  # a nearly full disk takes a part; the next call raises
        written += os.pwrite(file, data[written:], place + written)


def _write_header(path: Path, info: RasterInfo, dtype: str) -> None:
    """Write the header that GDAL's ENVI driver needs to read a file of raw numbers."""
    kind = {"<f4": 4, "u1": 1}[dtype]
    lines = ["ENVI", f"samples = {info.width}", f"lines = {info.height}", "bands = 1", "header offset = 0"]
    lines += ["file type = ENVI Standard", f"data type = {kind}", "interleave = bsq", "byte order = 0"]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _vrt(info: RasterInfo, names: list[str]) -> str:
    size = f'rasterXSize="{info.width}" rasterYSize="{info.height}"'
    lines = [f"<VRTDataset {size}>"]
    if info.crs:
        lines.append(f"<SRS>{escape(info.crs)}</SRS>")
    if info.transform is not None:
        a, b, c, d, e, f = tuple(info.transform)[:6]
        numbers = ", ".join(repr(float(value)) for value in (c, a, b, f, d, e))
        lines.append(f"<GeoTransform>{numbers}</GeoTransform>")
    for number, name in enumerate(names, start=1):
        lines += [
            f'<VRTRasterBand dataType="Float32" band="{number}">',
            f"<Description>{name}</Description>",
            f"<NoDataValue>{MAP_NODATA:g}</NoDataValue>",
            f'<ComplexSource><SourceFilename relativeToVRT="1">{name}.raw</SourceFilename><SourceBand>1</SourceBand>',
            f'<SourceProperties {size} DataType="{_GDAL_TYPES[_MAPS[name]]}"/>',
            "<ScaleOffset>-1</ScaleOffset><ScaleRatio>1</ScaleRatio></ComplexSource>",
            "</VRTRasterBand>",
        ]
    return "\n".join([*lines, "</VRTDataset>"]) + "\n"
