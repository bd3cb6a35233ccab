"""Write inventories as GeoPackage, GeoJSON and GeoParquet, batch by batch."""

from __future__ import annotations

import errno
import itertools
import json
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import geopandas
import numpy as np
import pandas  # type: ignore[import-untyped]
import pyarrow as pa  # type: ignore[import-untyped]
import shapely
from affine import Affine
from pyarrow.parquet import ParquetWriter  # type: ignore[import-untyped]

from lim_keras import __version__
from lim_keras.errors import DataError
from lim_keras.files import atomic_file
from lim_keras.inference.maps import Background
from lim_keras.inventory.antimeridian import cut_at_antimeridian, needs_cut, to_degrees
from lim_keras.inventory.geojson import COLLECTION_END, collection_start, feature_lines
from lim_keras.inventory.pipeline import ahead
from lim_keras.inventory.verify import VECTOR_ERRORS, verify_vector
from lim_keras.pyogrio_import import load_pyogrio
from lim_keras.raster.georeference import Georeference

pyogrio = load_pyogrio()

Frame: TypeAlias = geopandas.GeoDataFrame

SUFFIXES = (".gpkg", ".geojson", ".parquet")

_TIME = "2000-01-01T00:00:00.000Z"  # recorded in GeoPackages, so that the same inventory gives the same bytes
_ROWS, _VERTICES = 2**12, 2**17  # landslides and vertices from which a batch is written
_FORMATTED_ROWS = 2**9  # landslides that are formatted as GeoJSON at once
_READ_BYTES = 2**20


def write_frames(frames: Iterable[Frame], paths: Sequence[Path], *, layer: str) -> int:
    """Write landslides atomically into each of the files, in the format of its suffix; return their number.

    Frames have the same columns and the same CRS; there is at least one, which may be empty. While a batch is written,
    a thread makes the next one. If no file is a GeoPackage, all frames are kept in memory.

    Raises:
        DataError: a suffix is unknown, or a file cannot be written.
    """
    for path in paths:
        if path.suffix.lower() not in SUFFIXES:
            raise DataError(f"{path}: expected a name that ends in {', '.join(SUFFIXES)}.")
    if not any(path.suffix.lower() == ".gpkg" for path in paths):
        frames = list(frames)
    rows = 0

    def counted() -> Iterator[Frame]:
        nonlocal rows
        for batch in ahead(_merged(frames)):
            yield batch
            rows += len(batch)

    with ExitStack() as stack:
        stack.enter_context(_system_memory())
        writers: list[_Writer] = []
        for path in paths:
            writer = _WRITERS[path.suffix.lower()](path, layer)
            writer.open(stack.enter_context(atomic_file(path, _check_of(writer, lambda: rows))))
            writers.append(writer)
        _write(counted(), writers, stack, lambda: iter(frames))
    return rows


def _check_of(writer: _Writer, rows: Callable[[], int]) -> Callable[[Path], None]:
    return lambda draft: writer.check(draft, rows())


def _write(
    batches: Iterator[Frame], writers: Sequence[_Writer], stack: ExitStack, again: Callable[[], Iterator[Frame]]
) -> None:
    """Write all batches. GDAL pulls the batches of a GeoPackage; the other files get each batch as it passes.

    again: returns the same landslides once more, if there is no GeoPackage.
    """
    pulling = next((one for one in writers if isinstance(one, _GeoPackage)), None)
    pushed, thread = [one for one in writers if one is not pulling], stack.enter_context(Background())

    def push(batch: Frame) -> None:
        for writer in pushed:
            writer.write(batch)
        pa.default_memory_pool().release_unused()

    def passed() -> Iterator[Frame]:
        for batch in batches:
            thread.run(push, batch)
            yield batch
        thread.finish()

    if pulling is not None:
        pulling.write_all(passed())
    else:
        for _ in passed():
            pass
    for writer in pushed:
        writer.close(again if pulling is None else lambda: _read_frames(pulling.draft, pulling.layer))


def _merged(frames: Iterable[Frame]) -> Iterator[Frame]:
    """Merge frames to batches whose sizes depend on the landslides alone; one without rows if there is no landslide."""
    waiting: list[Frame] = []
    rows = vertices = written = 0
    for frame in frames:
        waiting = [*waiting, frame] if rows else [frame]
        rows += len(frame)
        vertices += int(shapely.get_num_coordinates(frame.geometry.to_numpy()).sum())
        if rows >= _ROWS or vertices >= _VERTICES:
            yield _joined(waiting)
            written += rows
            waiting, rows, vertices = [], 0, 0
    if rows or not written:
        yield _joined(waiting)


def _joined(frames: Sequence[Frame]) -> Frame:
    return pandas.concat(frames, ignore_index=True) if len(frames) > 1 else frames[0]


class _Writer:
    """A file that is written batch by batch."""

    def __init__(self, path: Path, layer: str) -> None:
        self.path, self.layer = path, layer
        self.draft = path

    def open(self, draft: Path) -> None:
        """Begin to write a draft."""
        self.draft = draft

    def write(self, batch: Frame) -> None:
        """Write a batch."""

    def close(self, again: Callable[[], Iterator[Frame]]) -> None:
        """End the file; `again` returns the same landslides once more."""

    def check(self, draft: Path, rows: int) -> None:
        """Read the draft again; raise OSError if it does not hold what was written."""
        verify_vector(draft, rows)

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Convert errors of libraries and of the operating system to DataError."""
        try:
            yield
        except (*VECTOR_ERRORS, pa.ArrowException, OSError) as error:
            reason = getattr(error, "strerror", None) or str(error).rpartition(") failed: ")[2]  # else with its SQL
            message = f"{self.path}: cannot be written ({reason}). Free disk space, or give another folder."
            raise DataError(message) from error


class _GeoPackage(_Writer):
    """GeoPackage 1.2, because GDAL of older QGIS versions warns about newer versions of the format."""

    def write_all(self, batches: Iterator[Frame]) -> None:
        """Write all batches with a spatial index."""
        raised: list[BaseException] = []

        def caught() -> Iterator[Frame]:
            try:
                yield from batches
            except BaseException as error:  # GDAL would replace it by an error of its own
                raised.append(error)
                raise

        made = caught()
        first = next(made)
        try:
            with self.explained(), _fixed_time():
                _write_arrow(first, made, self.draft, self.layer, driver="GPKG", VERSION="1.2")
        except Exception:
            if not raised:
                raise
        if raised:
            raise raised[0]


class _GeoJson(_Writer):
    """GeoJSON in longitude and latitude (RFC 7946), or in pixels if there is no CRS.

    GDAL writes what `feature_lines` does not format, and collections without a feature.
    """

    def __init__(self, path: Path, layer: str) -> None:
        super().__init__(path, layer)
        self._begun, self._formatted, self._checksum, self._size = False, True, 0, 0

    def write(self, batch: Frame) -> None:
        """Write a batch; nothing more after the first that GDAL has to format."""
        if not self._formatted or not len(batch):
            return
        for start in range(0, len(batch), _FORMATTED_ROWS):
            lines = feature_lines(batch.iloc[start : start + _FORMATTED_ROWS])
            if lines is None:
                self._formatted = False
                return
            self._append((",\n" if self._begun else collection_start(self.layer)) + lines)
            self._begun = True

    def _append(self, text: str) -> None:
        content = text.encode()
        with self.explained(), self.draft.open("ab") as file:
            file.write(content)
        self._checksum, self._size = zlib.crc32(content, self._checksum), self._size + len(content)

    def close(self, again: Callable[[], Iterator[Frame]]) -> None:
        """End the collection, or let GDAL write it."""
        if self._begun and self._formatted:
            self._append(COLLECTION_END)
            return
        self._formatted = False
        with self.explained():
            self.draft.unlink(missing_ok=True)
            _write_geojson(again(), self.draft, self.layer)

    def check(self, draft: Path, rows: int) -> None:
        """Compare the size and the checksum of the draft with those of the written text."""
        if not self._formatted:
            super().check(draft, rows)
            return
        checksum = 0
        with draft.open("rb") as file:
            while part := file.read(_READ_BYTES):
                checksum = zlib.crc32(part, checksum)
        if (checksum, draft.stat().st_size) != (self._checksum, self._size):
            raise OSError(errno.EIO, "the file does not hold what was written")


class _Parquet(_Writer):
    """GeoParquet 1.0 with a row group for each batch."""

    def __init__(self, path: Path, layer: str) -> None:
        super().__init__(path, layer)
        self._file: ParquetWriter | None = None
        self._crs: dict[str, Any] | None = None
        self._bounds = np.array([np.inf, np.inf, -np.inf, -np.inf])

    def write(self, batch: Frame) -> None:
        """Write a batch as a row group."""
        table = _table(batch)
        with self.explained():
            if self._file is None:
                self._file = ParquetWriter(self.draft, table.schema, compression="snappy")
                self._crs = None if batch.crs is None else batch.crs.to_json_dict()
            self._file.write_table(table)
        if len(batch):
            low, high = self._bounds[:2], self._bounds[2:]
            bounds = batch.total_bounds
            self._bounds = np.concatenate([np.minimum(low, bounds[:2]), np.maximum(high, bounds[2:])])

    def close(self, again: Callable[[], Iterator[Frame]]) -> None:
        """Write the description of the geometries, https://geoparquet.org/releases/v1.0.0."""
        if self._file is None:
            return
        column: dict[str, Any] = {"encoding": "WKB", "crs": self._crs, "geometry_types": ["Polygon"]}
        if np.isfinite(self._bounds).all():
            column["bbox"] = self._bounds.tolist()
        content = {"primary_column": "geometry", "columns": {"geometry": column}, "version": "1.0.0"}
        content["creator"] = {"library": "lim_keras", "version": __version__}
        with self.explained():
            self._file.add_key_value_metadata({"geo": json.dumps(content)})
            self._file.close()


_WRITERS: dict[str, type[_Writer]] = {".gpkg": _GeoPackage, ".geojson": _GeoJson, ".parquet": _Parquet}


def _table(batch: Frame) -> pa.Table:
    """Convert landslides to an Arrow table with the geometry as well-known binary."""
    columns = pandas.DataFrame(batch, copy=False)
    columns = columns.assign(geometry=shapely.to_wkb(batch.geometry.to_numpy()))
    table = pa.Table.from_pandas(columns, preserve_index=False)
    place = table.schema.get_field_index("geometry")
    return table.set_column(place, pa.field("geometry", pa.binary()), table["geometry"].cast(pa.binary()))


def _write_arrow(first: Frame, others: Iterator[Frame], path: Path, layer: str, **options: str) -> None:
    head = _table(first)

    def batches() -> Iterator[pa.RecordBatch]:
        yield from head.to_batches()
        for batch in others:
            yield from _table(batch).to_batches()

    stream = pa.RecordBatchReader.from_batches(head.schema, batches())
    kind = "Unknown" if options["driver"] == "GeoJSON" else "Polygon"
    names = {"layer": layer, "geometry_name": "geometry", "geometry_type": kind, "crs": _crs_text(first)}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="'crs' was not provided", category=UserWarning)
        pyogrio.write_arrow(stream, path, **names, **options)


def _crs_text(frame: Frame) -> str | None:
    """Return the CRS as GDAL's drivers take it: its EPSG code, else WKT 1."""
    if frame.crs is None:
        return None
    code = frame.crs.to_epsg()
    return f"EPSG:{code}" if code else str(frame.crs.to_wkt("WKT1_GDAL"))


def _read_frames(geopackage: Path, layer: str) -> Iterator[Frame]:
    """Read the landslides of a GeoPackage; at least one frame, if only without a row."""
    with pyogrio.open_arrow(geopackage, layer=layer, use_pyarrow=True, batch_size=_ROWS) as (found, stream):
        for batch in itertools.chain(stream, [pa.RecordBatch.from_pylist([], stream.schema)]):
            columns = batch.to_pandas()
            geometry = shapely.from_wkb(columns.pop(found["geometry_name"]).to_numpy())
            yield Frame(columns, geometry=geometry, crs=found["crs"])


def _write_geojson(frames: Iterator[Frame], path: Path, layer: str) -> None:
    """Write GeoJSON by GDAL, cut at the antimeridian; without longitude and latitude, coordinates are kept."""
    first = next(frames)
    crs = "" if first.crs is None else first.crs.to_wkt()
    known = Georeference(Affine.identity(), crs, None).to_degrees is not None

    def converted() -> Iterator[Frame]:
        for frame in itertools.chain([first], frames):
            degrees = to_degrees(frame.geometry.to_numpy(), crs) if known else None
            shapes = frame.geometry if degrees is None else cut_at_antimeridian(degrees, needs_cut(degrees))
            yield frame.drop(columns="geometry").set_geometry(np.asarray(shapes), crs="OGC:CRS84" if known else None)

    options = {"RFC7946": "YES" if known else "NO", "SIGNIFICANT_FIGURES": "10"}
    made = converted()
    _write_arrow(next(made), made, path, layer, driver="GeoJSON", **options)


@contextmanager
def _system_memory() -> Iterator[None]:
    """Let Arrow take memory from the system; what threads free stays with its own allocator."""
    before = pa.default_memory_pool()
    pa.set_memory_pool(pa.system_memory_pool())
    try:
        yield
    finally:
        pa.set_memory_pool(before)


@contextmanager
def _fixed_time() -> Iterator[None]:
    before = pyogrio.get_gdal_config_option("OGR_CURRENT_DATE")
    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": _TIME})
    try:
        yield
    finally:
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": before})
