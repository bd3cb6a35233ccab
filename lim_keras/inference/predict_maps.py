"""Predict the maps of a scene, window by window; an interrupted prediction is resumed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path, PurePath
from typing import Any

from lim_keras.bundle.protocol import RemoteModel, SceneModel, SizingModel
from lim_keras.bundle.window_size import choose_window, free_memory
from lim_keras.errors import ConfigError, DataError
from lim_keras.inference.maps import Maps
from lim_keras.inference.options import MapOptions
from lim_keras.inference.stream import Background, InputScaling, WindowPrediction, predict_windows, with_tta
from lim_keras.inference.valid_regions import ValidRegion, find_valid_regions
from lim_keras.progress import ProgressCallback
from lim_keras.raster.reader import RasterReader
from lim_keras.raster.windows import Window, smallest_side

_CELL = 64
"""Windows and valid regions start at multiples of this many pixels, and of the network's stride."""


def predict_maps(
    model: SceneModel,
    scene: RasterReader,
    folder: Path,
    *,
    options: MapOptions,
    identity: str = "",
    progress: ProgressCallback | None = None,
) -> tuple[Path, dict[str, Any]]:
    """Predict a scene into raw maps; only windows are in memory.

    Args:
        model: model or ensemble.
        scene: open raster, with the model's bands.
        folder: folder of the maps; an interrupted prediction with the same identity is continued.
        options: how the scene is cut and predicted.
        identity: of everything that decides the values.
        progress: receives the number of predicted pixels.

    Returns:
        The VRT of the maps (see `lim_keras.inference.maps`), and the layout of the windows: count, tile (rows and
        columns of a window), pixels, islands (number of valid regions).

    Raises:
        ConfigError: the model cannot take windows of this size.
        DataError: no pixel holds data, too little memory, or a file cannot be read or written.
    """
    info = model.info
    cell = math.lcm(_CELL, info.stride)
    regions = find_valid_regions(scene, cell)
    if not regions:
        raise DataError(f"{scene.name}: no pixel holds data. Check the file's nodata value, or give `nodata`.")
    plan = {"tile": _window_size(model, regions, cell, options)}
    maps = Maps(folder, scene.info, spread=options.spread, identity=identity, plan=plan)
    size = maps.plan["tile"]
    work = [(row, region) for region in regions for row in region.rows((size[0], size[1]), info.halo)]
    sizes = [sum(_pixels(window) for window in row) for row, _ in work]
    with maps:
        label, done = PurePath(scene.name).name, sum(sizes[: maps.done])
        with progress.begin(label, sum(sizes), done, unit="px") if progress else nullcontext():
            _predict_rows(model, scene, maps, work[maps.done :], options, progress)
        layout = {"count": sum(len(row) for row, _ in work), "tile": list(size), "pixels": sum(sizes)}
        return maps.write_vrt(), layout | {"islands": len(regions)}


def _predict_rows(
    model: SceneModel,
    scene: RasterReader,
    maps: Maps,
    work: Sequence[tuple[list[Window], ValidRegion]],
    options: MapOptions,
    progress: ProgressCallback | None,
) -> None:
    """Predict rows of windows, and write them in a thread while the next ones are predicted."""
    info = model.info
    scaling = InputScaling(info.dtype, tuple(one.mean for one in info.statistics), options.scale)
    predict = with_tta(model.predict_all, math.lcm(_CELL, info.stride)) if options.tta else model.predict_all
    windows = [(window, region.box) for row, region in work for window in row]
    in_flight = model.in_flight if isinstance(model, RemoteModel) else 1
    predictions = predict_windows(predict, scene, windows, scaling, in_flight)
    with Background() as background:
        for number, (row, _) in enumerate(work, start=maps.done + 1):
            for _ in row:
                background.run(_write, maps, next(predictions), progress)
            background.run(maps.commit, number)
        background.finish()


def _write(maps: Maps, window: WindowPrediction, progress: ProgressCallback | None) -> None:
    maps.write(window)
    if progress:
        progress.advance(window.core.height * window.core.width)


def _pixels(window: Window) -> int:
    return window.core.height * window.core.width


def _window_size(model: SceneModel, regions: Sequence[ValidRegion], cell: int, options: MapOptions) -> list[int]:
    """Rows and columns of the windows: as asked, or else as memory and model allow."""
    info, side = model.info, options.tile
    fixed = getattr(model, "input_size", None)
    if fixed is not None and side not in (None, fixed):
        raise ConfigError(f"Expected a `tile` of {fixed} px, the only one that this model takes. Received: {side} px.")
    height = max(region.box.height for region in regions)
    width = max(region.box.width for region in regions)
    if side is None:
        memory = options.memory or free_memory()
        if isinstance(model, SizingModel):
            return list(model.choose_window(height, width, memory, cell))
        return list(choose_window(info, height, width, memory, cell))
    least = smallest_side(info.halo, cell)
    if side < min(least, max(height, width)):
        raise ConfigError(
            f"Expected a `tile` of at least {least} px, which leaves a core between two halos of {info.halo} px. "
            f"Received: {side} px."
        )
    return [side, side]
