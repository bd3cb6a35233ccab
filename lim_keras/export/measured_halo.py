"""Measurement of smaller halos: predictions of windows against those of whole sheets of training imagery."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lim_keras.bundle.info import BundleInfo, FileRecord, MeasuredHalo
from lim_keras.bundle.litert import INDEX_FILE, LiteRtIndex
from lim_keras.bundle.saved_model import load_bundle
from lim_keras.bundle.window_size import default_pixels, rounded_up, window_grid
from lim_keras.data.sampling import pack, render
from lim_keras.data.tiles import TileSet, TileStore
from lim_keras.errors import BundleError, DataError
from lim_keras.evaluation.evaluator import read_matching_tiles
from lim_keras.export.disk_errors import disk_errors
from lim_keras.export.tflite import FOLDER
from lim_keras.files import StrPath
from lim_keras.ownership import file_hash

TOLERANCES = (1e-2, 1e-3, 1e-4)
"""Differences in probability for which a halo is looked for."""

LEAST_PIXELS = 2**20
"""Fewest pixels of imagery for a measurement: differences are rare and large, so that a few pixels show too few."""

_MARGIN = 3  # largest measured difference as a part of the tolerance, because scenes have more pixels than the sheets
_SHEETS = 8
_LARGEST_SIDE = 1536

Predict = Callable[[NDArray[Any]], NDArray[np.floating[Any]]]


def measure_halos(predict: Predict, info: BundleInfo, sheets: Iterable[NDArray[Any]]) -> tuple[MeasuredHalo, ...]:
    """Find the smallest halo for each of TOLERANCES.

    Each sheet is predicted as a whole, and in four windows that meet at its middle. A pixel at a distance d from the
    edges of its window has the context that a halo of d gives. A halo is accepted if no pixel at this distance or
    further inside differs by more than a third of the tolerance.

    Args:
        predict: function from raw pixels (n, height, width, bands) to probability (n, height, width).
        info: description of the bundle, for the full halo and the grid of windows.
        sheets: images (height, width, bands), each side at least two full halos.

    Returns:
        A row for each tolerance that a halo below the full one meets.
    """
    grid = window_grid(info.stride)
    halos = np.arange(grid, info.halo, grid)
    largest, pixels = np.zeros(len(halos)), np.zeros(len(halos), np.int64)
    for sheet in sheets:
        differences, distance = _window_differences(predict, sheet, grid)
        for number, halo in enumerate(halos):
            kept = differences[distance >= halo]
            largest[number] = max(largest[number], kept.max(initial=0))
            pixels[number] += kept.size
    rows = []
    for tolerance in TOLERANCES:
        good = np.flatnonzero((largest <= tolerance / _MARGIN) & (pixels > 0))
        if good.size:
            first = int(good[0])
            row = MeasuredHalo(
                tolerance=tolerance,
                halo=int(halos[first]),
                max_difference=float(largest[first]),
                pixels=int(pixels[first]),
            )
            rows.append(row)
    return tuple(rows)


def _window_differences(
    predict: Predict, sheet: NDArray[Any], grid: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the differences of four windows from the whole sheet, and each pixel's distance from a cut, (h, w)."""
    whole = predict(sheet[np.newaxis])[0]
    cuts = [side // 2 // grid * grid for side in whole.shape]
    spans = [list(pairwise((0, cut, side))) for cut, side in zip(cuts, whole.shape, strict=True)]
    differences = np.empty(whole.shape, np.float32)
    for top, bottom in spans[0]:
        for left, right in spans[1]:
            window = predict(sheet[np.newaxis, top:bottom, left:right])[0]
            differences[top:bottom, left:right] = np.abs(window - whole[top:bottom, left:right])
    rows, columns = (_distances(side, cut) for side, cut in zip(whole.shape, cuts, strict=True))
    return differences, np.minimum(rows[:, np.newaxis], columns)


def _distances(side: int, cut: int) -> NDArray[np.int64]:
    """Return how many pixels lie between each position along an axis and a cut."""
    positions = np.arange(side)
    return np.where(positions < cut, cut - 1 - positions, positions - cut)


def training_sheets(tiles: TileSet, info: BundleInfo) -> list[Callable[[], NDArray[Any]]]:
    """Return functions that each draw a square sheet of tiles edge to edge; none if the tiles are too few.

    Tiles have the ground sample distance of training. What a sheet lacks is its mirror image.
    """
    store = TileStore(tiles, info.gsd_m, info.gsd_m, cache="none")
    sizes = [store.size(position) for position in range(len(store))]
    area = sum(height * width for height, width in sizes)
    if area < LEAST_PIXELS:
        return []
    side = sheet_side(info)
    packed = pack(sizes, side)[: max(1, min(_SHEETS, area // side**2))]
    return [
        lambda sheet=sheet, number=number: _square(render(sheet, store.get, number)[0], side)  # type: ignore[misc]
        for number, sheet in enumerate(packed)
    ]


def sheet_side(info: BundleInfo) -> int:
    """Return the side of a sheet, pixels: two full halos and a core, or more where a default window is larger."""
    grid = window_grid(info.stride)
    usual = int(math.sqrt(default_pixels(info))) // grid * grid
    return max(2 * rounded_up(info.halo, grid) + grid, min(usual, rounded_up(_LARGEST_SIDE, grid)))


def _square(image: NDArray[Any], side: int) -> NDArray[Any]:
    missing = [(0, max(side - edge, 0)) for edge in image.shape[:2]]
    return np.pad(image, (*missing, (0, 0)), mode="symmetric")[:side, :side]


def measured_on(predict: Predict, info: BundleInfo, tiles: TileSet) -> BundleInfo:
    """Return the description with the halos that `tiles` show; unchanged if the tiles are too few."""
    return info.model_copy(update={"halos": measure_halos(predict, info, _drawn(training_sheets(tiles, info)))})


def _drawn(sheets: Sequence[Callable[[], NDArray[Any]]]) -> Iterator[NDArray[Any]]:
    return (draw() for draw in sheets)


def measure_bundle(bundle: Path, tiles: StrPath | TileSet) -> BundleInfo:
    """Measure the halos of an exported bundle, and write them into its model.json and tflite.json.

    Args:
        bundle: folder of the bundle; its other files stay as they are.
        tiles: tiles with the imagery of training; those that the bundle was not trained on are left out.

    Returns:
        The new model.json.

    Raises:
        BundleError: the bundle is damaged, or its tflite.json was changed.
        DataError: the tiles do not fit the bundle, or hold too few pixels of its training tiles.
    """
    info = BundleInfo.read(bundle)
    index = read_litert_index(bundle, info)
    known = read_matching_tiles(tiles, info)
    trained = set(info.training_tiles)
    chosen = known.subset([one for one in known.ids if one in trained])
    if not training_sheets(chosen, info):
        raise DataError(
            f"{known.root}: expected training tiles of {info.name} with at least {LEAST_PIXELS} px in all. Received: "
            f"{len(chosen)} of its {len(trained)} training tiles. Give the tiles that it was trained on."
        )
    changed = measured_on(load_bundle(bundle).predict, info, chosen)
    with disk_errors(bundle):
        if index is not None:
            described = index.model.model_copy(update={"halos": changed.halos})
            path = index.model_copy(update={"model": described}).write(bundle / FOLDER)
            record = {f"{FOLDER}/{INDEX_FILE}": FileRecord.of(path)}
            changed = changed.model_copy(update={"files": changed.files | record})
        changed.write(bundle)
    return changed


def read_litert_index(bundle: Path, info: BundleInfo) -> LiteRtIndex | None:
    """Read the tflite.json of a bundle; None if it has none. Refuse one that was changed."""
    name = f"{FOLDER}/{INDEX_FILE}"
    if name not in info.files:
        return None
    index = LiteRtIndex.read(bundle / FOLDER)
    # A killed call may have written it, but not yet its record.
    ours = index.text() == (bundle / name).read_text(encoding="utf-8")
    if not ours and file_hash(bundle / name) != info.files[name].sha256:
        raise BundleError(f"{bundle / name}: changed since it was exported. Copy the bundle again, or export again.")
    return index
