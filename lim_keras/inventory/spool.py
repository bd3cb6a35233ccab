"""Sort landslides on the disk."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from lim_keras.errors import DataError
from lim_keras.inventory.groups import Landslides
from lim_keras.inventory.pixels import Indices, PixelStatistics, Statistics
from lim_keras.inventory.tracing import Numbers, Rings

_RANGE = 2**19  # pixels of a bucket; landslides that start in a bucket are sorted in memory
_VERTICES = 2**16  # vertices of the landslides that are returned together
_IN_MEMORY = 16 * 2**20  # bytes that are held before a file is made


@dataclass(frozen=True)
class _Chunk:
    """Landslides of a bucket, sorted; their points are at a position of the file."""

    pixels: PixelStatistics
    rings: Numbers
    ring_sizes: Numbers
    points_at: int

    @property
    def vertices(self) -> Indices:
        """Number of vertices of each landslide."""
        return np.add.reduceat(self.ring_sizes, np.cumsum(self.rings) - self.rings, dtype=np.int64)


class Spool:
    """Landslides that come in any order and are returned in row order of their first pixels; a context manager.

    Args:
        empty: statistics of no landslide, with the layers of those that will come.
        folder: folder of the temporary file; None: that of the system.
    """

    def __init__(self, empty: PixelStatistics, folder: Path | None = None) -> None:
        self._empty, self._names = empty, tuple(empty.layers)
        self._folder = folder
        place = None if folder is None else str(folder)
        self._file: Any = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY, dir=place)  # noqa: SIM115  closed on exit
        self._places: dict[int, list[tuple[int, int, int]]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def add(self, landslides: Landslides) -> None:
        """Write sorted landslides.

        Raises:
            DataError: the disk is full.
        """
        rings, pixels = landslides
        buckets = pixels.first // _RANGE
        cuts = np.flatnonzero(np.diff(buckets, prepend=-1, append=np.iinfo(np.int64).max))
        for start, end in zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True):
            chosen = np.arange(start, end)
            self._write(int(buckets[start]), rings.take(chosen), pixels.take(chosen))

    def _write(self, bucket: int, rings: Rings, pixels: PixelStatistics) -> None:
        place = self._file.tell()
        layers = np.stack([pixels.layers[name].rows for name in self._names])
        parts = (pixels.first, pixels.at_edge, layers, rings.rings, rings.ring_sizes, rings.points)
        try:
            for part in parts:
                self._file.write(np.ascontiguousarray(part).data.cast("B"))
        except OSError as error:
            raise DataError(
                f"{self._folder or tempfile.gettempdir()}: landslides cannot be sorted there "
                f"({error.strerror or error}). Free disk space, or give another folder."
            ) from error
        self._places.setdefault(bucket, []).append((place, len(pixels), len(rings.ring_sizes)))

    def sorted(self) -> Iterator[Landslides]:
        """Yield all landslides in row order of their first pixels, some at a time; at least once."""
        if not self._places:
            yield Rings.none(), self._empty
        for bucket in sorted(self._places):
            chunks = [self._read(*place) for place in self._places[bucket]]
            yield from self._merged(chunks)

    def _read(self, place: int, count: int, ring_count: int) -> _Chunk:
        self._file.seek(place)
        first = self._array(np.int64, count)
        at_edge = self._array(np.bool_, count)
        layers = self._array(np.float64, len(self._names), 4, count)
        rings, ring_sizes = self._array(np.int32, count), self._array(np.int32, ring_count)
        statistics = {name: Statistics(rows) for name, rows in zip(self._names, layers, strict=True)}
        pixels = PixelStatistics(first, at_edge, statistics)
        return _Chunk(pixels, rings, ring_sizes, self._file.tell())

    def _array(self, dtype: Any, *shape: int) -> NDArray[Any]:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return np.frombuffer(self._file.read(size), dtype).reshape(shape)

    def _merged(self, chunks: Sequence[_Chunk]) -> Iterator[Landslides]:
        """Merge sorted chunks, one range of first pixels at a time."""
        first = np.concatenate([chunk.pixels.first for chunk in chunks])
        vertices = np.concatenate([chunk.vertices for chunk in chunks])
        order = np.argsort(first)
        part = np.cumsum(vertices[order]) // _VERTICES
        begins = first[order][np.flatnonzero(np.diff(part, prepend=-1))]
        limits = [np.searchsorted(chunk.pixels.first, begins) for chunk in chunks]
        for number in range(len(begins)):
            slices = [
                (chunk, int(cuts[number]), int(cuts[number + 1]) if number + 1 < len(cuts) else len(chunk.pixels))
                for chunk, cuts in zip(chunks, limits, strict=True)
            ]
            parts = [self._slice(*one) for one in slices if one[1] < one[2]]
            rings, pixels = Rings.joined([one for one, _ in parts]), PixelStatistics.joined([one for _, one in parts])
            if len(parts) > 1:
                sequence = np.argsort(pixels.first)
                rings, pixels = rings.take(sequence), pixels.take(sequence)
            yield rings, pixels

    def _slice(self, chunk: _Chunk, start: int, end: int) -> Landslides:
        """Read the landslides `start` to `end` - 1 of a chunk."""
        before, inside = int(chunk.rings[:start].sum()), int(chunk.rings[start:end].sum())
        sizes = chunk.ring_sizes[before : before + inside]
        skipped = int(chunk.ring_sizes[:before].sum(dtype=np.int64))
        self._file.seek(chunk.points_at + skipped * 8)
        points = self._array(np.int32, int(sizes.sum(dtype=np.int64)), 2)
        return Rings(points, sizes, chunk.rings[start:end]), chunk.pixels.take(np.arange(start, end))
