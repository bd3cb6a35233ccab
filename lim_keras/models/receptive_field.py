"""Receptive field and memory of a network, computed from its layers, for prediction in windows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import keras

from lim_keras.errors import ModelError

_Interval = tuple[int, int]
"""First and last position along one axis, inclusive."""

_IMAGE = "image"
_FLOAT32_BYTES = 4
_POINTWISE = {"Rescaling", "BandRange", "PadToMultiple", "CropLike", "ReLU", "Activation"}
_POINTWISE |= {"BatchNormalization", "FusedBatchNormalization"}
_POINTWISE |= {"Add", "Concatenate", "Dropout", "SpatialDropout2D", "GetItem"}
_POINTWISE |= {"Dense", "LayerScale"}
_GLOBAL = {"GlobalAveragePooling2D", "GlobalMaxPooling2D"}
_SLIDING = {"Conv2D", "DepthwiseConv2D", "SeparableConv2D", "MaxPooling2D", "AveragePooling2D"}


@dataclass(frozen=True, slots=True)
class ReceptiveField:
    """Context and memory that a network needs.

    Attributes:
        halo: pixels on each side of a core that influence its prediction. With this halo, a core that starts and ends
            at multiples of the stride is predicted as in the whole scene.
        bytes_per_pixel: peak bytes of float32 feature maps, for each pixel of the image.
    """

    halo: int
    bytes_per_pixel: float


@dataclass(frozen=True, slots=True)
class _Step:
    """Node of the network graph. Nested models are expanded, and tensors are given by name."""

    kind: str
    config: Mapping[str, Any]
    inputs: tuple[str, ...]
    channels: tuple[int, ...]  # of each input
    output: str


def receptive_field(model: keras.Model, stride: int) -> ReceptiveField:
    """Compute halo and memory of a network built by `build_model`; `stride` is its `network_stride`, pixels.

    Raises:
        ModelError: a layer has an unknown receptive field.
    """
    steps, outputs = _expand(model.get_config(), [_IMAGE], "")
    halo = max(_halo(steps, outputs[0], stride, axis) for axis in (0, 1))
    return ReceptiveField(halo, _peak_bytes(steps))


def _expand(config: Mapping[str, Any], inputs: Sequence[str], path: str) -> tuple[list[_Step], list[str]]:
    """Return the steps of a functional model's configuration in order of execution, and the names of its outputs."""
    entries = [entry[0] for entry in _listed(config["input_layers"])]
    names = {(entry, 0): tensor for entry, tensor in zip(entries, inputs, strict=True)}
    steps: list[_Step] = []
    for layer in config["layers"]:
        if layer["class_name"] == "InputLayer":
            continue
        tensors = list(_tensors(layer["inbound_nodes"]))
        sources = [names[tensor["keras_history"][0], tensor["keras_history"][2]] for tensor in tensors]
        name = layer["name"]
        if layer["class_name"] == "Sequential":
            chained, output = _chain(layer["config"]["layers"], tensors[0], sources[0], f"{path}{name}/")
            steps += chained
            names[name, 0] = output
        elif layer["class_name"] == "Functional":
            nested, outputs = _expand(layer["config"], sources, f"{path}{name}/")
            steps += nested
            names |= {(name, position): output for position, output in enumerate(outputs)}
        else:
            channels = tuple(int(tensor["shape"][-1]) for tensor in tensors)
            steps.append(_Step(layer["class_name"], layer["config"], tuple(sources), channels, path + name))
            names[name, 0] = path + name
    return steps, [names[output[0], output[2]] for output in _listed(config["output_layers"])]


def _chain(layers: Sequence[Any], tensor: Mapping[str, Any], source: str, path: str) -> tuple[list[_Step], str]:
    """Return the steps of a sequential model, and the name of its output; `tensor` is its input, named `source`."""
    steps: list[_Step] = []
    channels = int(tensor["shape"][-1])
    for layer in layers:
        if layer["class_name"] == "InputLayer":
            continue
        config = layer["config"]
        steps.append(_Step(layer["class_name"], config, (source,), (channels,), path + config["name"]))
        source, channels = path + config["name"], config.get("filters", channels)
    return steps, source


def _listed(layers: Sequence[Any]) -> Sequence[Sequence[Any]]:
    """Return a list of layers. Keras stores a single input or output layer without a list."""
    return [layers] if isinstance(layers[0], str) else layers


def _tensors(node: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the Keras tensors in the arguments of a call."""
    if isinstance(node, Mapping):
        if node.get("class_name") == "__keras_tensor__":
            yield node["config"]
        else:
            yield from _tensors(list(node.values()))
    elif isinstance(node, list | tuple):
        for part in node:
            yield from _tensors(part)


def _halo(steps: Sequence[_Step], output: str, stride: int, axis: int) -> int:
    """Return the number of pixels beyond 0..stride - 1 that influence the prediction there, on the larger side."""
    seen: dict[str, _Interval] = {output: (0, stride - 1)}
    for step in reversed(steps):
        if step.output not in seen:
            continue  # unused map
        for number, tensor in enumerate(step.inputs):
            needed = _needed(step, number, seen[step.output], axis)
            known = seen.get(tensor, needed)
            seen[tensor] = min(known[0], needed[0]), max(known[1], needed[1])
    first, last = seen[_IMAGE]
    return max(-first, last - (stride - 1))


def _needed(step: _Step, number: int, wanted: _Interval, axis: int) -> _Interval:
    """Return the positions of input `number` that influence positions `wanted` of the output, along one axis."""
    first, last = wanted
    config = step.config
    if step.kind in _POINTWISE or (step.kind == "LayerNormalization" and _over_channels(config["axis"])):
        return wanted
    if step.kind == "MaxUnpool":  # one value for each block of two positions of the reference
        return (first // 2, last // 2) if number == 0 else (first // 2 * 2, last // 2 * 2 + 1)
    if step.kind == "ZeroPadding2D":
        before = config["padding"][axis][0]
        return first - before, last - before
    if step.kind == "BilinearUpsampling":  # position p lies at (p + 1/2) / factor - 1/2 of the map
        factor = config["factor"]
        return (2 * first + 1 - factor) // (2 * factor), -((factor - 2 * last - 1) // (2 * factor))
    if step.kind in _SLIDING:
        size, stride = _size_and_stride(step, axis)
        before = max(size - stride, 0) // 2 if config["padding"] == "same" else 0
        return first * stride - before, last * stride - before + size - 1
    if step.kind in _GLOBAL:
        raise ModelError(
            f"Layer {config.get('name', step.output)} of type {step.kind} sees the whole image: no halo makes windows "
            "equal to the scene."
        )
    raise ModelError(f"Layer {config.get('name', step.output)} of type {step.kind} has an unknown receptive field.")


def _over_channels(axis: int | Sequence[int]) -> bool:
    return {-1, 3}.issuperset([axis] if isinstance(axis, int) else axis)


def _size_and_stride(step: _Step, axis: int) -> tuple[int, int]:
    """Return size, dilation included, and stride of the sliding window."""
    config = step.config
    if "pool_size" in config:
        return config["pool_size"][axis], config["strides"][axis]
    return (config["kernel_size"][axis] - 1) * config["dilation_rate"][axis] + 1, config["strides"][axis]


def _peak_bytes(steps: Sequence[_Step]) -> float:
    """Return the peak bytes of feature maps for each pixel of the image, if steps are executed one by one."""
    channels = {tensor: count for step in steps for tensor, count in zip(step.inputs, step.channels, strict=True)}
    last_use = {tensor: position for position, step in enumerate(steps) for tensor in step.inputs}
    scale: dict[str, Fraction] = {_IMAGE: Fraction(1)}
    alive, peak = {_IMAGE}, 0.0
    for position, step in enumerate(steps):
        scale[step.output] = scale[step.inputs[0]] / _shrinks(step)
        alive.add(step.output)
        peak = max(peak, sum(channels.get(tensor, 1) * float(scale[tensor]) ** 2 for tensor in alive))
        alive = {tensor for tensor in alive if last_use.get(tensor, position) > position}
    return peak * _FLOAT32_BYTES


def _shrinks(step: _Step) -> Fraction:
    """Return the input size over the output size along one axis."""
    if step.kind == "MaxUnpool":
        return Fraction(1, 2)
    if step.kind == "BilinearUpsampling":
        return Fraction(1, step.config["factor"])
    return Fraction(_size_and_stride(step, 0)[1]) if step.kind in _SLIDING else Fraction(1)
