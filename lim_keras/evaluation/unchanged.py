"""Tell whether the scene and the truth of an evaluation changed, while they are read or since an earlier call."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from lim_keras.errors import DataError
from lim_keras.raster.opening import gdal_settings
from lim_keras.raster.reader import RasterReader, RasterSource
from lim_keras.vectors.formats import Source, find_source

_PARTS = {
    ".shp": (".shx", ".dbf", ".prj", ".cpg", ".qpj"),
    ".tab": (".dat", ".map", ".id", ".ind"),
    ".mif": (".mid",),
    ".gml": (".xsd",),
}
"""Endings of the files that belong to a vector file."""

_State = list[tuple[str, int, int, int]]


@contextmanager
def unchanged(scene: RasterReader, truth: Path) -> Iterator[None]:
    """Check at the end of a block that neither the scene nor the truth changed since its start.

    Raises:
        DataError: one of them changed; an error of the block is its cause.
    """
    with ExitStack() as stack:
        source = find_source(truth)
        rasters = [scene]
        if source.is_raster:
            rasters.append(stack.enter_context(RasterReader(source.name, nodata="none")))
        for raster in rasters:
            raster.fingerprint  # noqa: B018  the state that `has_changed` compares with
        before = _state(source)
        try:
            yield
        except Exception as error:
            _check(rasters, source, before, error)
            raise
        _check(rasters, source, before)


def scene_state(scene: RasterSource, truth: Path) -> list[Any]:
    """Return JSON values that change when a scene or its truth changes; see `lim_keras.raster.fingerprint`."""
    with gdal_settings(), ExitStack() as stack:
        source = find_source(truth)
        rasters = [RasterReader(scene), *([RasterReader(source.name, nodata="none")] if source.is_raster else [])]
        prints = [stack.enter_context(raster).fingerprint for raster in rasters]
        return [*prints, *([Path(name).name, *numbers] for name, *numbers in _state(source))]


def _check(rasters: list[RasterReader], source: Source, before: _State, cause: Exception | None = None) -> None:
    changed = [raster.name for raster in rasters if raster.has_changed()]
    if not changed and _state(source) != before:
        changed = [str(source.path)]
    if changed:
        message = f"{changed[0]}: changed while it was read. Nothing was written. Repeat the call."
        raise DataError(message) from cause


def _state(source: Source) -> _State:
    """Return name, size, modification time and change time of the files of a vector file; none of a raster."""
    if source.is_raster:
        return []
    path = source.path
    parts = [path.with_suffix(ending) for ending in _PARTS.get(path.suffix.lower(), ())]
    files = [path, path.with_name(f"{path.name}-wal"), *parts, *(sorted(path.rglob("*")) if path.is_dir() else [])]
    found = ((str(file), file.stat()) for file in files if file.exists())
    return [(name, one.st_size, one.st_mtime_ns, one.st_ctime_ns) for name, one in found]
