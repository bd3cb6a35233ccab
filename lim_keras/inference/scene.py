"""Reading a scene window by window: its pixels, which of them hold data, and what is shown where none does."""

import warnings
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import cv2
import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window as RasterWindow

from lim_keras.data.raster import RasterInfo, read_info
from lim_keras.errors import DataError
from lim_keras.inference.windows import Box

Pixels = NDArray[Any]
Predict = Callable[[Pixels], NDArray[np.floating[Any]]]
"""Raw pixels (n, height, width, bands) to the probability of landslide (n, height, width), 0..1."""


class SceneReader:
    """An open raster that is read in boxes, so that memory does not grow with the scene; a context manager.

    `info` is what `lim_keras.data.raster.read_info` says of the file.

    Raises:
        DataError: the file cannot be opened, or a box of it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.info: RasterInfo = read_info(path)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", NotGeoreferencedWarning)
                self._dataset = rasterio.open(path)
        except RasterioError as error:
            raise DataError(f"{path}: cannot be opened as a raster. Expected a GeoTIFF. Received: {error}") from error
        kinds = self._dataset.colorinterp
        self._bands = [band for band, kind in enumerate(kinds, start=1) if kind is not ColorInterp.alpha]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._dataset.close()

    def pixels(self, box: Box) -> Pixels:
        """Pixels (height, width, bands) of a box as they are stored, alpha apart."""
        return np.moveaxis(self._read(self._dataset.read, box, indexes=self._bands), 0, -1)

    def image(self, box: Box) -> tuple[Pixels, NDArray[np.bool_]]:
        """Pixels of a box, and (height, width) True where they are data: by nodata value, mask or alpha, and finite."""
        pixels = self.pixels(box)
        valid: NDArray[np.bool_] = self._read(self._dataset.dataset_mask, box) > 0
        if pixels.dtype.kind == "f":
            valid &= np.isfinite(pixels).all(axis=-1)
        return pixels, valid

    def _read(self, read: Callable[..., Pixels], box: Box, **options: Any) -> Pixels:
        try:
            return read(window=RasterWindow(box.left, box.top, box.width, box.height), **options)
        except RasterioError as error:
            raise DataError(
                f"{self.info.path}: rows {box.top} to {box.bottom}, columns {box.left} to {box.right} cannot be read; "
                f"the file is truncated or damaged ({error.__cause__ or error}). Replace it."
            ) from error


def fill_nodata(image: Pixels, valid: NDArray[np.bool_]) -> Pixels:
    """Give pixels without data the values of a nearest pixel with data, so that the data's edge has no contrast.

    The pixel taken is nearest to within 4 % (the distance transform of OpenCV, an order of magnitude faster than an
    exact one).

    Args:
        image: (height, width, bands).
        valid: (height, width), True where there is data.

    Raises:
        ValueError: no pixel holds data.
    """
    if valid.all():
        return image
    if not valid.any():
        raise ValueError("Invalid value for argument `valid`. Expected a pixel with data. Received: none")
    holes = (~valid).astype(np.uint8)
    _, nearest = cv2.distanceTransformWithLabels(
        holes, cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )  # numbers the pixels with data, and gives each pixel the number of its nearest
    source = np.zeros(int(nearest.max()) + 1, np.int64)
    source[nearest[valid]] = np.flatnonzero(valid)
    filled: Pixels = image.reshape(-1, image.shape[2])[source[nearest]]
    return filled
