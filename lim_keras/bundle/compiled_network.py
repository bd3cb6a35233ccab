"""Networks that OpenVINO compiled for images of any size, and for single sizes of large images."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lim_keras.bundle.info import BundleInfo
from lim_keras.bundle.protocol import PROBABILITY
from lim_keras.errors import BundleError, ConfigError
from lim_keras.workers.cores import usable_cores

_LARGE = 2**19  # pixels of a batch, above which the network is compiled for its size
_KEPT = 3  # compiled networks
_INPUTS = ("uint8", "uint16", "float32")  # data types that a network for a single size takes as they are

_Size = tuple[tuple[int, ...], str] | None
"""Shape (n, height, width, bands) and data type of the images; None: any shape, float32."""


class CompiledNetwork:
    """Network of a SavedModel, compiled by OpenVINO when it is first used.

    A network for a single size takes half the memory of a network for any size, and is faster, but each size costs a
    compilation. So only large images get one. Maps are held by one network at a time.

    Args:
        folder: folder of the SavedModel.
        info: description of the bundle.
        bfloat16: compute in bfloat16.

    Raises:
        BundleError: OpenVINO is not installed, or cannot read the model.
        ConfigError: the processor has no bfloat16.
    """

    def __init__(self, folder: Path, info: BundleInfo, bfloat16: bool) -> None:
        try:
            import openvino  # type: ignore[import-untyped]
        except ImportError as error:
            raise BundleError(
                "OpenVINO is not installed. Install it with `pip install 'lim-keras[openvino]'`."
            ) from error
        self._openvino, self._folder, self._stride = openvino, folder, info.stride
        self._core = openvino.Core()
        if bfloat16 and "BF16" not in self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise ConfigError(
                "Invalid value for `runtime`. This processor has no bfloat16. Take openvino, which computes in float32."
            )
        self._settings = {
            "INFERENCE_PRECISION_HINT": "bf16" if bfloat16 else "f32",
            "INFERENCE_NUM_THREADS": usable_cores(),
            "PERFORMANCE_HINT": "LATENCY",
        }
        self._network = self._read(info.bands)
        self._requests: OrderedDict[_Size, Any] = OrderedDict()  # the last one was used last

    def run(self, images: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Return the outputs by name, arrays (n, height, width, 1), for images (n, height, width, bands)."""
        height, width = images.shape[1:3]
        size: _Size = None
        if images.size // images.shape[-1] > _LARGE:
            # The network pads images like this, too. Windows at the scene's edge get the size of the others by it.
            after = [(0, -side % self._stride) for side in (height, width)]
            if any(number for _, number in after):
                images = np.pad(images, ((0, 0), *after, (0, 0)), mode="edge")
            size = images.shape, images.dtype.name if images.dtype.name in _INPUTS else "float32"
        pixels = np.ascontiguousarray(images, size[1] if size else np.float32)
        try:
            results = self._request(size).infer({0: pixels}, share_inputs=True, share_outputs=True)
        except RuntimeError as error:
            raise _unusable(self._folder, error) from error
        return {name: np.array(results[index][:, :height, :width]) for name, index in self._outputs.items()}

    def release(self) -> None:
        """Free the memory of feature maps, and the networks for single sizes, which hold some of it."""
        self._requests = OrderedDict((size, request) for size, request in self._requests.items() if size is None)
        self._release_maps()

    def _release_maps(self) -> None:
        for request in self._requests.values():
            request.get_compiled_model().release_memory()

    def _read(self, bands: int) -> Any:
        """Read the network, and check its input and outputs."""
        try:
            network = self._core.read_model(self._folder)
        except RuntimeError as error:
            raise _unusable(self._folder, error) from error
        shape = [str(port.get_partial_shape()) for port in network.inputs]
        if shape != [f"[?,?,?,{bands}]"]:
            raise BundleError(f"{self._folder}: expected one input [?,?,?,{bands}]. Received: {', '.join(shape)}.")
        self._outputs = {name: index for index, port in enumerate(network.outputs) for name in port.get_names()}
        if PROBABILITY not in self._outputs:
            raise BundleError(
                f"{self._folder}: expected an output `{PROBABILITY}`. Received: {', '.join(self._outputs)}. "
                "Export it again."
            )
        return network

    def _request(self, size: _Size) -> Any:
        """Return the request of the network for a size, and free the maps of the one that was used before."""
        if self._requests and next(reversed(self._requests)) != size:
            self._release_maps()
        if size not in self._requests:
            while len(self._requests) >= _KEPT:
                self._requests.popitem(last=False)
            self._requests[size] = self._compiled(size).create_infer_request()
        self._requests.move_to_end(size)
        return self._requests[size]

    def _compiled(self, size: _Size) -> Any:
        network = self._network.clone()
        if size is not None:
            steps = self._openvino.preprocess.PrePostProcessor(network)
            steps.input().tensor().set_element_type(self._openvino.Type(np.dtype(size[1])))
            network = steps.build()
            network.reshape(list(size[0]))
        return self._core.compile_model(network, "CPU", self._settings)


def _unusable(folder: Path, error: Exception) -> BundleError:
    reason = " ".join(str(error).split())[:300]
    return BundleError(f"{folder}: OpenVINO cannot run this model ({reason}). Take the runtime tensorflow.")
