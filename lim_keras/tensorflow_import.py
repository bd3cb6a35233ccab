"""Import TensorFlow without its start-up messages, or raise if it is missing."""

import importlib
import importlib.util
import os
import re
import sys
from contextlib import suppress

from lim_keras.errors import LimKerasError
from lim_keras.native_messages import without_messages
from lim_keras.pyogrio_import import load_pyogrio

# TensorFlow 2.21 prints these on import, whatever TF_CPP_MIN_LOG_LEVEL is.
_GREETING = re.compile(rb"(I0000 |To enable the following |WARNING: All log messages before absl)[^\n]*\n?")

_KEEPS_MEMORY = "TF_CPU_ALLOCATOR_USE_BFC"  # TensorFlow reads it when it makes its first device
_RESERVED_BYTES = 512 * 2**20


class TensorFlowMissingError(LimKerasError, ImportError):
    """TensorFlow is not installed, for example with `lim-keras[edge]`, which runs .tflite files only."""


def require_tensorflow() -> None:
    """Check that TensorFlow is installed, without importing it.

    Raises:
        TensorFlowMissingError: it is not installed.
    """
    with suppress(ModuleNotFoundError):  # an import hook may raise it
        if importlib.util.find_spec("tensorflow") is not None:
            return
    raise TensorFlowMissingError(
        "TensorFlow is not installed (No module named 'tensorflow'), and this command needs it. Install it with "
        "`pip install 'lim-keras[tensorflow]'`."
    )


def load_tensorflow() -> None:
    """Import TensorFlow and drop the start-up messages that its C++ code writes to standard error.

    The import takes seconds, so check arguments first. Other output is passed on.

    Raises:
        TensorFlowMissingError: it is not installed. A broken installation raises its own ImportError.
    """
    # 3: log fatal messages only. Errors also raise exceptions, and a missing GPU is not an error.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if "tensorflow" in sys.modules:
        return
    require_tensorflow()
    load_pyogrio()
    with without_messages(_GREETING):
        importlib.import_module("tensorflow")


def load_tensorflow_for_scenes() -> None:
    """Import TensorFlow so that it keeps the memory of a window's feature maps for the next window.

    Otherwise it returns each map to the system, and the next one is made of new pages, which takes longer than some of
    the layers. Without effect where TensorFlow is imported already. Errors as in `load_tensorflow`.
    """
    if "tensorflow" in sys.modules or _KEEPS_MEMORY in os.environ:
        load_tensorflow()
        return
    load_tensorflow()
    os.environ[_KEEPS_MEMORY] = "true"
    try:
        _reserve(_RESERVED_BYTES)
    finally:
        del os.environ[_KEEPS_MEMORY]  # other processes decide for themselves


def _reserve(size: int) -> None:
    """Let TensorFlow divide one block of addresses; many small blocks would leave more gaps. No page is used yet."""
    tensorflow = importlib.import_module("tensorflow")
    with tensorflow.device("CPU:0"):
        tensorflow.raw_ops.Empty(shape=[size], dtype=tensorflow.uint8, init=False)
