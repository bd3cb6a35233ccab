"""Files of weights and models of a run, checked when they are written and when they are read."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path

import h5py  # type: ignore[import-untyped]
import keras
import tensorflow as tf

from lim_keras.errors import TrainingError
from lim_keras.export.disk_errors import disk_errors
from lim_keras.files import atomic_file
from lim_keras.ownership import file_hash

_BLOCK = bytes(2**20)


def save_weights(model: keras.Model, path: Path) -> str:
    """Write the weights of a model and its optimizer to a .weights.h5 file, and return the SHA-256 of the file.

    Raises:
        DataError: the file cannot be written.
    """
    with disk_errors(path), atomic_file(path, _read_hdf5) as draft:
        named = draft.with_suffix(".weights.h5")  # Keras writes no other ending
        try:
            _reserve(named, model)
            model.save_weights(named)
            named.replace(draft)
        finally:
            named.unlink(missing_ok=True)
    return file_hash(path)


def save_model(model: keras.Model, path: Path) -> None:
    """Write a model to a .keras file; raise DataError if it cannot be written."""
    with disk_errors(path), atomic_file(path, _read_archive) as draft:
        model.save(draft)


def read_model(path: Path) -> keras.Model:
    """Read a .keras file.

    Raises:
        TrainingError: the file is missing or damaged.
    """
    try:
        _read_archive(path)
        return keras.saving.load_model(path, compile=False)
    except (OSError, ValueError, TypeError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise TrainingError(
            f"{path}: the model cannot be read ({reason}). Remove this file and the folder out_of_fold beside it: the "
            "same command writes them again from the checkpoint."
        ) from error


def _reserve(path: Path, model: keras.Model) -> None:
    """Write as many bytes as the weights take, because HDF5 prints tracebacks if it meets a full disk."""
    optimizer = getattr(model, "optimizer", None)
    variables = [*model.variables, *(optimizer.variables if optimizer else ())]
    size = sum(tf.as_dtype(variable.dtype).size * math.prod(variable.shape) + 4096 for variable in variables)
    with path.open("wb") as file:
        for start in range(0, size, len(_BLOCK)):
            file.write(_BLOCK[: size - start])


def _read_hdf5(path: Path) -> None:
    """Read every array of an HDF5 file; raise OSError if it is not whole."""
    with h5py.File(path) as file:
        file.visititems(lambda _, item: item[()] if isinstance(item, h5py.Dataset) else None)


def _read_archive(path: Path) -> None:
    """Read every member of an archive and compare its checksum; raise OSError if it is not whole."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except zipfile.BadZipFile as error:
        raise OSError(f"{path.name} is damaged: {error}") from error
    if damaged is not None:
        raise OSError(f"{path.name} is damaged: the checksum of {damaged} differs")
