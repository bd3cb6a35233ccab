"""One measurement of `benchmarks/peers.py`, in the environment of one peer, where lim-keras need not be installed."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

_ANSWER = "answer.npy"

Predict = Callable[[Any], Any]
"""Function from a window (height, width, bands), digital numbers, to its probability (height, width)."""


def main() -> None:
    """Do the task of the command line, and print its answer as JSON in the last line."""
    print(json.dumps(_answer(json.loads(sys.argv[1]))))


def _answer(task: dict[str, Any]) -> dict[str, Any]:
    if "cut" in task:
        return _cut(**task)
    if "convert" in task:
        return _convert(task)
    if "engine" in task:
        return _timed(task)
    return {"lim-keras": _lim_keras_predict, "geoai-py": _geoai, "TorchGeo": _torchgeo}[task["package"]](task)


def _cut(cut: str, bundle: str, windows: int, size: int, out: str) -> dict[str, Any]:
    """Save windows (n, size, size, bands) of a scene, spread over it, as a NumPy file."""
    import numpy as np
    import rasterio
    from rasterio.windows import Window

    from lim_keras.bundle.model_folder import model_folder

    info, folder = model_folder(Path(bundle))
    with rasterio.open(cut) as scene:
        if min(scene.height, scene.width) < size:
            sys.exit(f"expected a scene of at least {size} x {size} px; received: {scene.height} x {scene.width} px")
        tops = np.linspace(0, scene.height - size, windows).round().astype(int)
        lefts = [(5 * index * size) % (scene.width - size + 1) for index in range(windows)]
        found = [
            scene.read(list(range(1, info.bands + 1)), window=Window(left, int(top), size, size))
            for left, top in zip(lefts, tops, strict=True)
        ]
    Path(out).with_name(_ANSWER).unlink(missing_ok=True)
    np.save(out, np.stack(found).transpose(0, 2, 3, 1))
    saved = {"saved_model": str(Path(bundle) / folder), "fold": folder.split("/")[0], "threshold": info.threshold}
    saved |= {"bands": info.bands}
    return saved | {"windows": out, "mpx": windows * size * size / 1e6, "scale": 255 if info.dtype == "uint8" else 1}


def _timed(task: dict[str, Any]) -> dict[str, Any]:
    """Predict all windows, and compare the first one with the answer that the first engine has left."""
    import numpy as np

    windows = np.load(task["windows"])
    predict = _engine(task)
    first = predict(windows[0])
    seconds, processor = [], []
    for _ in range(task["passes"]):
        started, used = time.perf_counter(), time.process_time()
        for window in windows:
            predict(window)
        seconds.append(time.perf_counter() - started)
        processor.append(time.process_time() - used)
    answer: dict[str, Any] = {"pass_seconds": min(seconds), "pass_processor_seconds": min(processor)}
    answer |= {"mpx_per_second": round(task["mpx"] / min(seconds), 2)}
    answer |= {"mpx_per_processor_second": round(task["mpx"] / min(processor), 2)}
    known = Path(task["windows"]).with_name(_ANSWER)
    if task["engine"] == "lim-keras, OpenVINO" or not known.exists():
        np.save(known, first)
    return answer | {"largest_difference": f"{float(np.abs(np.load(known) - first).max()):.1g}"}


def _engine(task: dict[str, Any]) -> Predict:
    library, *runtime = task["engine"].split(", ")
    if runtime:
        return _lim_keras(task["bundle"], runtime[0].lower())
    engines = {"OpenVINO": _openvino, "LiteRT": _litert, "TensorFlow": _tensorflow, "ONNX Runtime": _onnxruntime}
    return (engines | {"PyTorch": _pytorch})[library](task)


def _lim_keras(bundle: str, runtime: str) -> Predict:
    from lim_keras.bundle.runtimes import load_model

    model = load_model(Path(bundle), runtime)  # type: ignore[arg-type]  # one of _NETWORKS
    return lambda window: model.predict(window[None])[0]


def _openvino(task: dict[str, Any]) -> Predict:
    import numpy as np
    import openvino

    core = openvino.Core()
    network = core.read_model(task["saved_model"])
    network.reshape([1, task["size"], task["size"], network.input(0).get_partial_shape()[3].get_length()])
    compiled = core.compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    output = next(port for port in compiled.outputs if "probability" in port.get_names())
    return lambda window: compiled(window[None].astype(np.float32))[output].reshape(window.shape[:2])


def _litert(task: dict[str, Any]) -> Predict:
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    file = Path(task["bundle"]) / "tflite" / f"{task['fold']}_float32.tflite"
    runner = Interpreter(model_path=str(file), num_threads=os.cpu_count()).get_signature_runner()
    (name, details), *_ = runner.get_input_details().items()
    kind = np.dtype(details["dtype"])
    return lambda window: runner(**{name: window[None].astype(kind)})["probability"].reshape(window.shape[:2])


def _tensorflow(task: dict[str, Any]) -> Predict:
    import tensorflow as tf

    loaded = tf.saved_model.load(task["saved_model"])
    serve = loaded.signatures["serving_default"]

    def predict(window: Any) -> Any:
        answer = serve(image=tf.cast(window[None], tf.float32))["probability"]
        return answer.numpy().reshape(window.shape[:2])

    predict.loaded = loaded  # type: ignore[attr-defined]  # the signature does not keep the variables alive
    return predict


def _onnx_file(task: dict[str, Any]) -> Path:
    return Path(task["bundle"]) / "onnx" / f"{task['fold']}.onnx"


def _onnxruntime(task: dict[str, Any]) -> Predict:
    import numpy as np
    import onnxruntime

    session = onnxruntime.InferenceSession(_onnx_file(task), providers=["CPUExecutionProvider"])

    def predict(window: Any) -> Any:
        image = np.ascontiguousarray(window.transpose(2, 0, 1)[None], np.float32) / np.float32(task["scale"])
        return session.run(["probability"], {"image": image})[0][0, 0]

    return predict


def _convert(task: dict[str, Any]) -> dict[str, Any]:
    """Convert the ONNX file to PyTorch, with what the converter lacks, and save the network."""
    torch = _import_torch()
    import onnx
    from onnx2torch import convert
    from onnx2torch.node_converters import registry

    model = onnx.load(_onnx_file(task))
    known, opset = registry._CONVERTER_REGISTRY, model.opset_import[0].version
    for name in {node.op_type for node in model.graph.node}:
        newest = onnx.defs.get_schema(name, opset).since_version
        versions = [one.version for one in known if one.operation_type == name and one.version <= newest]
        if versions:  # later versions of Pad and Resize add options that the network does not use
            known[registry.OperationDescription("", name, newest)] = registry.get_converter(name, max(versions))
    for node in model.graph.node:
        values = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
        if values.get("auto_pad") == b"SAME_UPPER":  # maps have an even number of rows and columns at each stride
            sides = zip(values["kernel_shape"], values["strides"], values["dilations"], strict=True)
            both = [max((kernel - 1) * dilation + 1 - stride, 0) for kernel, stride, dilation in sides]
            node.attribute.remove(next(one for one in node.attribute if one.name == "auto_pad"))
            pads = [side // 2 for side in both] + [side - side // 2 for side in both]
            node.attribute.append(onnx.helper.make_attribute("pads", pads))
    torch.save(convert(model).eval(), task["torch_file"])
    return {}


@cache
def _import_torch() -> Any:
    """Import PyTorch; a torchvision that was built for CUDA needs two operations that builds for processors lack."""
    import torch

    if "+cpu" in torch.__version__:
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        torch._kept = library  # its end takes the operations back
    return torch


def _torch_network(task: dict[str, Any]) -> Any:
    """Load the network; it takes scaled images (n, bands, height, width)."""
    return _import_torch().load(task["torch_file"], weights_only=False).eval()


def _pytorch(task: dict[str, Any]) -> Predict:
    import numpy as np

    torch, network = _import_torch(), _torch_network(task)

    def predict(window: Any) -> Any:
        with torch.inference_mode():
            image = np.ascontiguousarray(window.transpose(2, 0, 1)[None], np.float32) / np.float32(task["scale"])
            return network(torch.from_numpy(image))[0, 0].numpy()

    return predict


def _lim_keras_predict(task: dict[str, Any]) -> dict[str, Any]:
    command = [sys.executable, "-m", "lim_keras", "predict", task["bundle"], task["scene"], "--out", task["maps"]]
    done = subprocess.run(command, stdout=sys.stderr, check=False)
    if done.returncode:
        sys.exit(done.returncode)
    (polygons,) = Path(task["maps"]).glob("*.gpkg")
    return {"polygons": _count(polygons)}


def _geoai(task: dict[str, Any]) -> dict[str, Any]:
    network = _torch_network(task)
    import geoai
    import numpy as np
    from geoai.inference import predict_geotiff

    maps = Path(task["maps"])
    maps.mkdir()
    mask, polygons = maps / "mask.tif", maps / "polygons.gpkg"
    predict_geotiff(
        network,
        task["scene"],
        str(mask),
        tile_size=task["size"],
        overlap=task["overlap"],
        batch_size=1,
        output_dtype="uint8",
        output_nodata=255,
        preprocess_fn=lambda image: image.astype(np.float32) / np.float32(task["scale"]),
        postprocess_fn=lambda probability: (probability >= task["threshold"]).astype(np.uint8),
        verbose=False,
    )
    geoai.raster_to_vector(str(mask), str(polygons), threshold=0, min_area=0)
    return {"polygons": _count(polygons)}


def _torchgeo(task: dict[str, Any]) -> dict[str, Any]:
    """Predict the patches of a grid, put them together, and trace the mask, for a scene with north at the top."""
    torch, network = _import_torch(), _torch_network(task)
    import geopandas
    import numpy as np
    import rasterio
    from rasterio.features import shapes
    from torch.utils.data import DataLoader
    from torchgeo.datasets import RasterDataset, stack_samples
    from torchgeo.samplers import GridGeoSampler

    with rasterio.open(task["scene"]) as scene:
        height, width, transform, crs = scene.height, scene.width, scene.transform, scene.crs
    size = task["size"]
    dataset = RasterDataset(task["scene"])
    sampler = GridGeoSampler(dataset, size=size, stride=size - task["overlap"])
    loader = DataLoader(dataset, batch_size=1, sampler=sampler, collate_fn=stack_samples)
    padded = np.zeros((height + 2 * size, width + 2 * size), np.uint8)  # the last patches reach beyond the scene
    for place, batch in zip(sampler, loader, strict=True):
        column, row = (round(one) for one in ~transform * (place[0].start, place[1].stop))
        with torch.inference_mode():
            patch = network(batch["image"] / task["scale"])[0, 0].numpy() >= task["threshold"]
        padded[row + size : row + 2 * size, column + size : column + 2 * size] = patch
    mask = padded[size : size + height, size : size + width]
    found = [{"geometry": one, "properties": {}} for one, _ in shapes(mask, mask=mask > 0, transform=transform)]
    polygons = Path(task["maps"]) / "polygons.gpkg"
    polygons.parent.mkdir()
    geopandas.GeoDataFrame.from_features(found, columns=["geometry"], crs=crs).to_file(polygons)
    return {"polygons": _count(polygons)}


def _count(polygons: Path) -> int:
    import pyogrio

    return int(pyogrio.read_info(polygons)["features"])


if __name__ == "__main__":
    main()
