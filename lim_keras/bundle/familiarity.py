"""Familiarity of imagery: compare features of a part of a scene with those of the training imagery."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lim_keras.errors import BundleError
from lim_keras.native_messages import LITERT_GREETING, without_messages

if TYPE_CHECKING:
    from lim_keras.bundle.info import BundleInfo
    from lim_keras.bundle.protocol import DescribedModel

FAMILIARITY_FILE = "familiarity.tflite"
"""File of a bundle: pixels (1, side, side, bands) -> distance from the training imagery."""

Run = Callable[[NDArray[np.float32]], float]


class MissingLibraryError(BundleError):
    """No library that runs a familiarity file is installed."""


class FamiliarityModel:
    """Distance of square cells of imagery from the training imagery, and their familiarity.

    A cell's features are the means of the encoder's feature maps. Their distance is the squared Mahalanobis distance in
    the main components of the training cells, plus the squared length of what these components do not explain. Each of
    the two terms is divided by its mean over the training cells. The familiarity of a cell is the share of held-out
    cells at least as far away, 0..1.

    Args:
        bundle: folder of the bundle.
        info: its description, with `familiarity`.

    Raises:
        MissingLibraryError: no library that runs the file is installed.
        BundleError: the file is missing, changed or damaged.
    """

    def __init__(self, bundle: Path, info: BundleInfo) -> None:
        if info.familiarity is None or FAMILIARITY_FILE not in info.files:
            raise BundleError(
                f"{bundle}: has no {FAMILIARITY_FILE}. Add it with `lim-keras export --familiarity --data TILES`."
            )
        self.facts = info.familiarity
        info.check_file(bundle, FAMILIARITY_FILE)
        self._run = load_distance(bundle / FAMILIARITY_FILE)

    @property
    def side(self) -> int:
        """Side of a cell, pixels."""
        return self.facts.side

    def distances(self, cells: NDArray[Any]) -> NDArray[np.float64]:
        """Return the distance of each cell (n, side, side, bands) of raw digital numbers."""
        return np.array([self._run(np.asarray(cell[np.newaxis], np.float32)) for cell in cells], np.float64)

    def familiarity(self, cells: NDArray[Any]) -> NDArray[np.float64]:
        """Return the familiarity of each cell, 0..1."""
        return self.facts.familiarity(self.distances(cells))


def knows_familiarity(model: DescribedModel) -> bool:
    """Tell whether a loaded bundle has a familiarity and its folder is there; a .tflite file and a server have none."""
    path = getattr(model, "path", None)
    return model.info.familiarity is not None and path is not None and Path(path).is_dir()


def load_familiarity(model: DescribedModel) -> FamiliarityModel | None:
    """Load the familiarity model of a loaded bundle; None if it has none, or a single .tflite file was loaded."""
    return FamiliarityModel(Path(model.path), model.info) if knows_familiarity(model) else None  # type: ignore[attr-defined]


def load_distance(path: Path) -> Run:
    """Load a familiarity file with LiteRT, OpenVINO or TensorFlow, whichever is installed.

    Raises:
        MissingLibraryError: none of them is installed.
        BundleError: the file cannot be read.
    """
    for load in (_with_litert, _with_openvino, _with_tensorflow):
        try:
            return load(path)
        except ImportError:
            continue
        except (RuntimeError, ValueError) as error:
            raise BundleError(f"{path}: cannot be read ({' '.join(str(error).split())[:300]}).") from error
    raise MissingLibraryError(
        f"{path}: needs LiteRT, OpenVINO or TensorFlow. Install it with `pip install 'lim-keras[edge]'`."
    )


def _with_litert(path: Path) -> Run:
    from ai_edge_litert.interpreter import Interpreter  # type: ignore[import-untyped]

    return _interpreted(Interpreter, path)


def _with_tensorflow(path: Path) -> Run:
    import tensorflow as tf

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that LiteRT will replace it
        return _interpreted(tf.lite.Interpreter, path)


def _interpreted(interpreter: Any, path: Path) -> Run:
    with without_messages(LITERT_GREETING):
        loaded = interpreter(model_path=str(path), num_threads=1)
        loaded.allocate_tensors()
    given, answer = loaded.get_input_details()[0]["index"], loaded.get_output_details()[0]["index"]

    def run(cell: NDArray[np.float32]) -> float:
        loaded.set_tensor(given, cell)
        loaded.invoke()
        return float(loaded.get_tensor(answer).ravel()[0])

    return run


def _with_openvino(path: Path) -> Run:
    import openvino  # type: ignore[import-untyped]

    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    request = compiled.create_infer_request()

    def run(cell: NDArray[np.float32]) -> float:
        return float(request.infer({0: cell})[0].ravel()[0])

    return run
