"""A .tflite file without the names of what lies inside it.

A converter names every tensor after the operations that it was made of, with all of their scopes: 43 KB of the 2.5 MB
of an int8 MobileNetV2. Nobody asks for them by name; inputs and outputs, which are asked for, keep theirs.
"""

from __future__ import annotations

from tensorflow.lite.tools import flatbuffer_utils


def without_names(content: bytes) -> bytes:
    """The same .tflite file, its tensors nameless but for inputs and outputs.

    Args:
        content: a file of any kind of numbers, with or without signatures.
    """
    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    for graph in model.subgraphs:
        named = {*graph.inputs, *graph.outputs}
        for number, tensor in enumerate(graph.tensors):
            if number not in named:
                tensor.name = b""
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))
