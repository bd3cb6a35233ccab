"""Predict the maps of a scene, resumable window by window."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from lim_keras.bundle.protocol import RemoteModel, SceneModel, SizingModel
from lim_keras.bundle.window_size import choose_window, free_memory
from lim_keras.errors import DataError
from lim_keras.inference.maps import Maps
from lim_keras.inference.options import MapOptions
from lim_keras.inference.stream import Background, InputScaling, WindowPrediction, predict_windows
from lim_keras.inference.tta import with_tta
from lim_keras.inference.valid_regions import ValidRegion, find_valid_regions
from lim_keras.progress import ProgressCallback
from lim_keras.raster.reader import RasterReader
from lim_keras.raster.windows import Window, smallest_side

_CELL = 64
"""Windows and islands start at multiples of this many pixels, and of the network's stride."""


def predict_maps(
    model: SceneModel,
    scene: RasterReader,
    folder: Path,
    *,
    options: MapOptions,
    identity: str = "",
    progress: ProgressCallback | None = None,
) -> tuple[Path, dict[str, Any]]:
    """Predict a scene into maps of raw numbers; only windows are ever in memory.

    Args:
        model: what predicts.
        scene: open, in the model's bands.
        folder: gets the maps; those of a call with the same identity that was cut off are completed.
        options: threshold, formats and inventory play no part here.
        identity: of everything that decides the numbers.
        progress: receives the number of predicted pixels.

    Returns:
        The VRT of the maps (`lim_keras.inference.maps`), and how the scene was cut.

    Raises:
        DataError: no pixel holds data, too little memory, or a file cannot be read or written.
    """
    info = model.info
    cell = math.lcm(_CELL, info.stride)
    islands = find_valid_regions(scene, cell)
    if not islands:
        raise DataError(f"{scene.info.path}: no pixel holds data. Check the file's nodata value, or give `nodata`.")
    plan = {"tile": _tile(model, islands, cell, options)}
    maps = Maps(folder, scene.info, spread=options.spread, identity=identity, plan=plan)
    rows, columns = maps.plan["tile"]
    work = [(row, island.box) for island in islands for row in island.rows((rows, columns), info.halo)]
    seen = InputScaling(info.dtype, tuple(one.mean for one in info.statistics), options.scale)
    predict = with_tta(model.predict_all, cell) if options.tta else model.predict_all
    sizes = [sum(_pixels(window) for window in row) for row, _ in work]
    with maps:
        done = sum(sizes[: maps.done])
        watching = progress.begin(scene.info.path.name, sum(sizes), done, unit="px") if progress else nullcontext()
        todo = work[maps.done :]
        windows = [(window, box) for row, box in todo for window in row]
        in_flight = model.in_flight if isinstance(model, RemoteModel) else 1
        pieces = predict_windows(predict, scene, windows, seen, in_flight)
        with watching, Background() as background:
            for number, (row, _) in enumerate(todo, start=maps.done + 1):
                for _ in row:
                    background.run(_write, maps, next(pieces), progress)
                background.run(maps.commit, number)
            background.finish()
        facts = {"count": sum(len(row) for row, _ in work), "tile": [rows, columns], "pixels": sum(sizes)}
        return maps.write_vrt(), facts | {"islands": len(islands)}


def _write(maps: Maps, piece: WindowPrediction, progress: ProgressCallback | None) -> None:
    maps.write(piece)
    if progress:
        progress.advance(piece.core.height * piece.core.width)


def _pixels(window: Window) -> int:
    return window.core.height * window.core.width


def _tile(model: SceneModel, islands: Sequence[ValidRegion], cell: int, options: MapOptions) -> list[int]:
    """Rows and columns of the windows: as asked, or as the memory and, elsewhere, the model allow."""
    info = model.info
    fixed = getattr(model, "input_size", None)
    if fixed is not None and options.tile not in (None, fixed):
        raise DataError(
            f"Expected a tile of {fixed} px, the only one that this model takes. Received: {options.tile} px."
        )
    height = max(island.box.height for island in islands)
    width = max(island.box.width for island in islands)
    if options.tile is None:
        memory = options.memory or free_memory()
        if isinstance(model, SizingModel):
            return list(model.choose_window(height, width, memory, cell))
        return list(choose_window(info, height, width, memory, cell))
    least = smallest_side(info.halo, cell)
    if options.tile < min(least, max(height, width)):
        raise DataError(
            f"Expected a tile of at least {least} px, which leaves a core between two halos of {info.halo} px. "
            f"Received: {options.tile} px."
        )
    return [options.tile, options.tile]
