"""The three protocols: whole tiles, random windows, a scene; each a stream of predictions for `scoring.evaluate`."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lim_keras.data.raster import IMAGE_DTYPES, RasterInfo
from lim_keras.data.store import TileStore, resample
from lim_keras.errors import DataError
from lim_keras.evaluation.baseline import ImageBlindMask, everywhere
from lim_keras.evaluation.scoring import Place, Prediction
from lim_keras.inference.scene import Predict, SceneReader, fill_nodata
from lim_keras.inference.windows import Box, Window, plan_windows

IGNORE = 255
BLOCK = 512
"""A scene is scored in blocks of this many pixels a side: larger than most landslides, to be resampled."""


class WindowSource(Protocol):
    """Where random windows come from, such as `lim_keras.data.sampling.WindowSampler`."""

    def example(self, epoch: int, position: int) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        """Image (h, w, bands) and mask (h, w) {0, 1, 255}; the same epoch and position give the same window."""
        ...


def tile_predictions(
    predict: Predict,
    store: TileStore,
    *,
    size: int | None = None,
    blind: ImageBlindMask | None = None,
    batch: int = 8,
) -> Iterator[Prediction]:
    """Whole tiles, as in the paper.

    Args:
        predict: raw pixels (n, h, w, bands) to probability (n, h, w).
        store: the tiles, at the ground sample distance that the model was trained at.
        size: tiles are resized to size x size first, as a model for whole resized tiles was trained; None: native size.
        blind: the mean mask of the training tiles; None: "everything is landslide" stands in for it.
        batch: most tiles predicted at once. Only neighbours of one size share a batch, so no tile is ever padded.
    """
    for place, probability in _predicted(predict, _tiles(store, size), batch):
        shape = place.mask.shape
        yield Prediction(place, probability, blind.mask(shape) if blind else everywhere(shape))


def _tiles(store: TileStore, size: int | None) -> Iterator[Place]:
    for position, tile in enumerate(store.tiles):
        image, mask = store.get(position)
        if size is not None:
            image, mask = resample(image, mask, (size, size))
        yield Place(tile.tile_id, tile.kind, tile.group, image, mask)


def window_predictions(
    predict: Predict, source: WindowSource, count: int, *, epoch: int = 0, batch: int = 8
) -> Iterator[Prediction]:
    """The first `count` windows of an epoch of a seeded source.

    A window that shows a landslide pixel is a landslide place. As a window may show several tiles, each is a group of
    its own.
    """
    for place, probability in _predicted(predict, _windows(source, count, epoch), batch):
        yield Prediction(place, probability, everywhere(place.mask.shape))


def _windows(source: WindowSource, count: int, epoch: int) -> Iterator[Place]:
    for position in range(count):
        image, mask = source.example(epoch, position)
        yield Place(f"window_{position}", _kind(mask), "", image, mask)


def scene_predictions(
    predict: Predict,
    scene: Path,
    labels: Path,
    *,
    tile: int = 1536,
    halo: int = 256,
    multiple: int = 64,
) -> Iterator[Prediction]:
    """A labelled scene at its native scale, predicted in windows with a halo and scored in blocks of BLOCK pixels.

    Pixels without data are shown to the network as their nearest neighbours with data, and count nowhere; windows whose
    core holds no labelled pixel with data are not predicted.

    Args:
        predict: raw pixels (n, h, w, bands) to probability (n, h, w).
        scene: the image.
        labels: a raster on the scene's own grid: 1 landslide, 0 background, 255 no data.
        tile, halo, multiple: see `plan_windows`; `multiple` should be a multiple of the network's stride.

    Raises:
        DataError: the two rasters are not on one grid, the scene's data type is not supported, or a label is unknown.
    """
    with ExitStack() as stack:
        image, truth = (stack.enter_context(SceneReader(path)) for path in (scene, labels))
        _check_grids(image.info, truth.info)
        for window in plan_windows(image.info.height, image.info.width, tile=tile, halo=halo, multiple=multiple):
            yield from _window_of_scene(predict, image, truth, window)


def _window_of_scene(predict: Predict, scene: SceneReader, truth: SceneReader, window: Window) -> Iterator[Prediction]:
    mask = _labels(truth, window.core)
    if (mask == IGNORE).all():
        return
    pixels, valid = scene.image(window.read)
    inner = window.inner.slices
    mask[~valid[inner]] = IGNORE
    if (mask == IGNORE).all():
        return
    probability = _checked(predict, fill_nodata(pixels, valid)[np.newaxis])[0][inner]
    for block in plan_windows(*mask.shape, tile=BLOCK, halo=0, multiple=1):
        part = block.core.slices
        if (mask[part] != IGNORE).any():
            name = f"row_{window.core.top + block.core.top}_column_{window.core.left + block.core.left}"
            place = Place(name, _kind(mask[part]), "", pixels[inner][part], mask[part])
            yield Prediction(place, probability[part], everywhere(mask[part].shape))


def _labels(truth: SceneReader, box: Box) -> NDArray[np.uint8]:
    values = truth.pixels(box)[..., 0]
    known = np.isin(values, (0, 1, IGNORE))
    if not known.all():
        raise DataError(
            f"{truth.info.path}: expected labels 1 (landslide), 0 (background) and 255 (no data). "
            f"Received: {np.unique(values[~known])[:5].tolist()} in rows {box.top} to {box.bottom}."
        )
    return values.astype(np.uint8)


def _check_grids(scene: RasterInfo, labels: RasterInfo) -> None:
    if scene.dtype not in IMAGE_DTYPES:
        raise DataError(f"{scene.path}: expected pixels of {', '.join(IMAGE_DTYPES)}. Received: {scene.dtype}")
    ours, theirs = (scene.height, scene.width), (labels.height, labels.width)
    if ours != theirs:
        raise DataError(
            f"{labels.path}: expected labels on the grid of {scene.path}, {ours[0]} rows and {ours[1]} columns. "
            f"Received: {theirs[0]} rows and {theirs[1]} columns. Resample the labels to the scene, nearest neighbour."
        )
    if scene.transform is not None and labels.transform is not None and not _same_place(scene, labels):
        raise DataError(
            f"{labels.path}: expected labels at the place of {scene.path}, {scene.crs or 'without CRS'} "
            f"{tuple(scene.transform)[:6]}. Received: {labels.crs or 'without CRS'} {tuple(labels.transform)[:6]}. "
            "Resample the labels to the scene, nearest neighbour."
        )


def _same_place(scene: RasterInfo, labels: RasterInfo) -> bool:
    """One CRS, and no corner farther off than a tenth of a pixel."""
    ours, theirs = (np.array(tuple(info.transform or ()), float).reshape(3, 3) for info in (scene, labels))
    right, bottom = scene.width, scene.height
    corners = np.array([[0, right, 0, right], [0, 0, bottom, bottom], [1, 1, 1, 1]])
    off = np.hypot(*((ours - theirs) @ corners)[:2]).max()
    return scene.crs == labels.crs and bool(off <= 0.1 * np.sqrt(abs(np.linalg.det(ours[:2, :2]))))


def _kind(mask: NDArray[np.uint8]) -> str:
    return "landslide" if (mask == 1).any() else "non-landslide"


def _predicted(
    predict: Predict, places: Iterable[Place], batch: int
) -> Iterator[tuple[Place, NDArray[np.floating[Any]]]]:
    for together in _batches(places, batch):
        yield from zip(together, _checked(predict, np.stack([place.image for place in together])), strict=True)


def _batches(places: Iterable[Place], most: int) -> Iterator[list[Place]]:
    """Neighbours of one shape, at most `most`."""
    batch: list[Place] = []
    for place in places:
        if batch and (len(batch) == most or place.image.shape != batch[0].image.shape):
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def _checked(predict: Predict, images: NDArray[Any]) -> NDArray[np.floating[Any]]:
    probability = np.asarray(predict(images))
    if probability.shape != images.shape[:3]:
        raise ValueError(
            f"Expected `predict` to return probabilities of shape {images.shape[:3]} for images of shape "
            f"{images.shape}. Received: shape {probability.shape}"
        )
    return probability
