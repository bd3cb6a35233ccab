"""float16 for the constants that make a .tflite file large, float32 for those that its numbers hang on.

LiteRT's converter halves every constant. Those of few numbers are the first kernels, which see the image at its
largest, and the depthwise ones, of which some are tens where their sum is nearly zero: their rounding is most of the
error and next to none of the size. In FCN-FL on MobileNetV2 with 32 decoder channels, constants of fewer than 10,000
numbers are an eighth of all.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
from tensorflow.lite.python import schema_py_generated as schema
from tensorflow.lite.tools import flatbuffer_utils

LARGE = 10_000
"""Numbers of a constant from which on it is halved."""

_NO_DATA = 0  # by LiteRT's convention the first buffer is empty
_VERSION = 3  # of the operator that takes float16


def halve_large_constants(content: bytes, least: int = LARGE) -> bytes:
    """The .tflite file with its large float32 constants as float16; LiteRT widens them again when it loads the file.

    Args:
        content: a file of float32.
        least: numbers of the smallest constant that is halved.
    """
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
    """Numbers of the tensors that share a buffer, by buffer."""
    tensors = defaultdict(list)
    for number, tensor in enumerate(graph.tensors):
        tensors[tensor.buffer].append(number)
    return tensors


def _is_large(buffer: Any, tensors: list[Any], least: int) -> bool:
    if buffer.data is None or any(tensor.type != schema.TensorType.FLOAT32 for tensor in tensors):
        return False
    return len(buffer.data) >= least * np.dtype(np.float32).itemsize


def _widen(model: Any, graph: Any, tensors: list[int], buffer: int, code: int) -> list[Any]:
    """Halve a buffer; the operators that make of it what its tensors held."""
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
