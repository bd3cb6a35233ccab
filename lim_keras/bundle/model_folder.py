"""The SavedModel of a bundle that predicts, and its stored answer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lim_keras.bundle.info import ENSEMBLE, VERSION, BundleInfo, fold_name, read_arrays
from lim_keras.errors import BundleError

PAIR_FILE = "verify.npz"

_PAIR_BYTES = 16 * 2**20  # upper limit: 64 x 64 float32 pixels with 1,000 bands


def model_folder(path: Path, fold: int | None = None) -> tuple[BundleInfo, str]:
    """Read a bundle, and check the files of its ensemble or only model; of one fold alone if `fold` is given.

    Returns:
        The description of the model, and the model's folder inside the bundle.

    Raises:
        BundleError: the bundle or a file of the model is missing, damaged or of another version.
    """
    info = BundleInfo.read(path)
    name = fold_name(fold or 0) if fold is not None or info.folds == 1 else ENSEMBLE
    folder = f"{name}/{VERSION}"
    info.check_files(path, folder)
    if fold is not None and info.folds > 1:
        info = info.model_copy(update={"halos": ()})  # they are measured on the ensemble
    return info, folder


def read_pair(file: Path, bands: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Read the stored image (height, width, bands) and the probability (height, width) that the export gave for it.

    Raises:
        BundleError: the file is missing or damaged, or holds other arrays.
    """
    image, probability = read_arrays(file, ("image", "probability"), _PAIR_BYTES)
    kinds = image.dtype.kind in "uif" and probability.dtype.kind == "f"
    if not kinds or probability.ndim != 2 or not probability.size or image.shape != (*probability.shape, bands):
        raise BundleError(
            f"{file}: expected an image (height, width, {bands}) and its probability (height, width). Received: "
            f"{image.dtype} {image.shape} and {probability.dtype} {probability.shape}"
        )
    if not (np.isfinite(image).all() and np.isfinite(probability).all()):
        raise BundleError(f"{file}: expected finite numbers. Received: NaN or infinite ones. Export the bundle again.")
    return image, probability


def pair_difference(path: Path, info: BundleInfo, predict: Callable[[NDArray[Any]], NDArray[Any]]) -> float | None:
    """Return the largest difference of a model's answer from the stored one; None if the bundle stores none.

    `predict` takes images (n, height, width, bands) and returns probabilities (n, height, width).

    Raises:
        BundleError: the stored pair is damaged, or the model cannot run.
    """
    if PAIR_FILE not in info.files:
        return None
    info.check_file(path, PAIR_FILE)
    image, expected = read_pair(path / PAIR_FILE, info.bands)
    return float(np.abs(predict(image[np.newaxis])[0] - expected).max())
