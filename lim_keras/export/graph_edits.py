"""Edits of graphs and .tflite files: PNG and JPEG decoding, rounded depthwise kernels, float16 constants."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.lite.python import schema_py_generated as schema
from tensorflow.lite.tools import flatbuffer_utils

from lim_keras.bundle.protocol import IMAGE_BYTES, SIGNATURE

_WITH_ALPHA = {1: (1, 2), 3: (3, 4), 4: (4,)}

_DEPTH_OFFSET = 24  # byte of a PNG that holds the bits per sample


def decode_encoded_images(image_bytes: Any, bands: int) -> Any:
    """Decode PNG and JPEG files (n,) inside a graph to (n, height, width, bands) uint8; bands 1, 3 or 4.

    The graph fails on an empty batch, other or damaged files, PNGs of 16 bits, another number of channels, and images
    of different sizes.
    """
    count = tf.size(image_bytes)
    say = tf.debugging.Assert(count > 0, [f"{IMAGE_BYTES}: expected at least one PNG or JPEG file. Received: none"])
    with tf.control_dependencies([say]):
        first = _decode(image_bytes[0], bands)
    size = tf.shape(first)
    pictures = tf.TensorArray(tf.uint8, size=count, element_shape=(None, None, bands)).write(0, first)

    def read_next(index: Any, read: Any) -> tuple[Any, Any]:
        picture = _decode(image_bytes[index], bands)
        expected = [f"{IMAGE_BYTES}: expected images of one height and width in a batch. Received, of number", index]
        sizes = ["height, width and bands", tf.shape(picture), "after", size, "of the first"]
        say = tf.debugging.Assert(tf.reduce_all(tf.shape(picture) == size), expected + sizes)
        with tf.control_dependencies([say]):
            return index + 1, read.write(index, picture)

    _, pictures = tf.while_loop(lambda index, _: index < count, read_next, (tf.constant(1), pictures))
    return pictures.stack()


def _decode(content: Any, bands: int) -> Any:
    """Decode one file to (height, width, bands) uint8."""
    with tf.control_dependencies(_check_file(content)):
        pixels = tf.io.decode_image(tf.identity(content), channels=0, expand_animations=False)
    channels = tf.shape(pixels)[-1]
    fits = tf.reduce_any([channels == allowed for allowed in _WITH_ALPHA[bands]])
    expected = f"{IMAGE_BYTES}: expected an image of {bands} bands"
    expected += " besides alpha. Received channels:" if bands in (1, 3) else ". Received channels:"
    with tf.control_dependencies([tf.debugging.Assert(fits, [expected, channels])]):
        return tf.ensure_shape(pixels[..., :bands], (None, None, bands))


def _check_file(content: Any) -> list[Any]:
    """Require a JPEG, or a PNG of at most eight bits: TensorFlow would also decode others, and cut 16 bits to 8."""
    png = tf.strings.substr(content, 0, 8) == b"\x89PNG\r\n\x1a\n"
    jpeg = tf.strings.substr(content, 0, 3) == b"\xff\xd8\xff"
    length = tf.strings.length(content)
    known = tf.debugging.Assert(
        jpeg | (png & (length > _DEPTH_OFFSET)),
        [f"{IMAGE_BYTES}: expected the content of a PNG or JPEG file. Received bytes:", length],
    )
    with tf.control_dependencies([known]):
        header = tf.where(png, content, tf.constant(b"\0" * (_DEPTH_OFFSET + 1)))
    deep = tf.strings.substr(header, _DEPTH_OFFSET, 1) == b"\x10"
    eight = [f"{IMAGE_BYTES}: expected 8 bits a channel. Received: a PNG of 16 bits, which would lose half of them"]
    return [known, tf.debugging.Assert(~deep, eight)]


_LARGEST = 127  # largest signed eight-bit weight; converters use a range symmetric around 0


@contextmanager
def rounded_depthwise_kernels(models: Sequence[Any]) -> Iterator[None]:
    """Round depthwise kernels of loaded SavedModels by `rounded_keeping_sums` during the block."""
    kernels = [
        variable
        for model in models
        for variable in model.signatures[SIGNATURE].variables
        if _is_depthwise(tuple(variable.shape))
    ]
    exact = [variable.numpy() for variable in kernels]
    try:
        for variable, kernel in zip(kernels, exact, strict=True):
            variable.assign(rounded_keeping_sums(kernel).astype(kernel.dtype))
        yield
    finally:
        for variable, kernel in zip(kernels, exact, strict=True):
            variable.assign(kernel)


def _is_depthwise(shape: tuple[int, ...]) -> bool:
    return len(shape) == 4 and shape[0] * shape[1] > 1 and shape[2] > 1 and shape[3] == 1


def rounded_keeping_sums(kernel: NDArray[Any]) -> NDArray[np.float32]:
    """Round weights to multiples of 1/127 of each channel's largest weight, and keep each channel's sum.

    If the nearest multiples change a channel's sum by more than half a step, the weights closest to the middle between
    two multiples are rounded the other way. `kernel` is (height, width, channels, 1).
    """
    weights = kernel.astype(np.float64).reshape(-1, kernel.shape[2])
    step = np.abs(weights).max(axis=0) / _LARGEST
    exact = weights / np.where(step > 0, step, 1.0)
    nearest = np.rint(exact)
    for channel in range(exact.shape[1]):
        excess = round(float((nearest[:, channel] - exact[:, channel]).sum()))
        if excess:
            rounded_up = (nearest[:, channel] - exact[:, channel]) * np.sign(excess)
            others = np.argsort(-rounded_up)[: abs(excess)]
            nearest[others, channel] -= np.sign(excess)
    rounded: NDArray[np.float32] = (nearest * step).reshape(kernel.shape).astype(np.float32)
    return rounded


LARGE = 10_000
"""Smallest number of elements of a constant that is stored as float16."""

_NO_DATA = 0  # the first buffer of a .tflite file is empty
_VERSION = 3  # version of DEQUANTIZE that takes float16


def halve_large_constants(content: bytes, least: int = LARGE) -> bytes:
    """Store float32 constants of at least `least` elements as float16; LiteRT widens them when it loads the file."""
    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    code = len(model.operatorCodes)
    for graph in model.subgraphs:
        widening = [
            _widen(model, graph, tensors, buffer, code)
            for buffer, tensors in _constants(graph).items()
            if _is_large(model.buffers[buffer], [graph.tensors[tensor] for tensor in tensors], least)
        ]
        graph.operators = [*(operator for group in widening for operator in group), *graph.operators]
    model.operatorCodes.append(_dequantize())
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def _constants(graph: Any) -> dict[int, list[int]]:
    """Return the numbers of the tensors, by buffer."""
    tensors = defaultdict(list)
    for number, tensor in enumerate(graph.tensors):
        tensors[tensor.buffer].append(number)
    return tensors


def _is_large(buffer: Any, tensors: list[Any], least: int) -> bool:
    if buffer.data is None or any(tensor.type != schema.TensorType.FLOAT32 for tensor in tensors):
        return False
    return len(buffer.data) >= least * np.dtype(np.float32).itemsize


def _widen(model: Any, graph: Any, tensors: list[int], buffer: int, code: int) -> list[Any]:
    """Store a buffer as float16 and return the operators that convert it to float32 for its tensors."""
    half = np.frombuffer(bytes(model.buffers[buffer].data), np.float32).astype(np.float16)
    model.buffers[buffer].data = np.frombuffer(half.tobytes(), np.uint8)
    operators = []
    for number in tensors:
        wide = graph.tensors[number]
        narrow = schema.TensorT()
        narrow.name, narrow.shape, narrow.buffer = wide.name + b"_half", wide.shape, buffer
        narrow.type = schema.TensorType.FLOAT16
        wide.buffer = _NO_DATA
        operator = schema.OperatorT()
        operator.opcodeIndex = code
        operator.inputs, operator.outputs = [len(graph.tensors)], [number]
        graph.tensors.append(narrow)
        operators.append(operator)
    return operators


def _dequantize() -> Any:
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.DEQUANTIZE
    code.version = _VERSION
    return code
