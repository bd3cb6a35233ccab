"""Export a bundle's network as an ONNX file, with the metadata by which the QGIS plugin Deepness runs it."""

from __future__ import annotations

import hashlib
import importlib
import json
import logging
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lim_keras import __version__
from lim_keras.bundle.info import ENSEMBLE, HALO_TOLERANCE, BundleInfo, FileRecord, fold_name
from lim_keras.bundle.model_folder import PAIR_FILE, read_pair
from lim_keras.bundle.replaceable import check_outside_bundles
from lim_keras.bundle.saved_model import Bundle, load_bundle
from lim_keras.bundle.window_size import check_input_size, rounded_up, window_grid
from lim_keras.errors import BundleError, DataError, LimKerasError, LimKerasWarning
from lim_keras.export.disk_errors import disk_errors
from lim_keras.files import StrPath, draft_folder, flush, make_folder
from lim_keras.ownership import refusal
from lim_keras.raster.windows import smallest_side

FOLDER, OPSET = "onnx", 18

LIMIT = 1e-5
"""Largest difference in probability from the SavedModel with which a file is kept."""

_SEAL = "lim_keras_sha256"
_SHAPES = ((1, 64, 64), (2, 203, 130), (1, 1, 1), (1, 7, 300))  # images, rows and columns of the comparison
_LEAST_TILE, _MOST_OVERLAP = 512, 90  # pixels, per cent
_DOUBLE = 11  # TensorProto.DOUBLE
_SCALE = {"uint8": 255.0}  # what the input is divided by; files of other data types take digital numbers


class OnnxMissingError(LimKerasError, ImportError):
    """A package of the extra `onnx` is not installed."""


@dataclass(frozen=True)
class OnnxExport:
    """Result of an ONNX export.

    Attributes:
        path: the file.
        bytes: its size.
        max_difference: largest difference in probability from the SavedModel.
        metadata: its metadata, by key.
    """

    path: Path
    bytes: int
    max_difference: float
    metadata: dict[str, str]


def export_onnx(
    bundle: StrPath, *, fold: int | None = None, tile: int | None = None, out: Path | None = None
) -> OnnxExport:
    """Write the network of a bundle as an ONNX file, if ONNX Runtime gives the probability of the SavedModel.

    The file takes `image` (n, bands, height, width), float32 of any size: digital numbers divided by 255 for uint8
    images, digital numbers for other data types. It gives `probability` (n, 1, height, width).

    Args:
        bundle: folder of the bundle.
        fold: fold to export, counted from 0; None: the model of predictions.
        tile: height and width of the input, pixels, for programs that need a fixed size; None: any.
        out: folder of the file; None: `onnx` in the bundle, of which the file becomes a part.

    Raises:
        BundleError: the bundle is damaged, or the file would differ from the SavedModel.
        ConfigError: an image of `tile` pixels needs more than all memory.
        DataError: a file of the user would be replaced, or the file cannot be written.
        OnnxMissingError: tf2onnx, onnx or onnxruntime is not installed.
    """
    folder = Path(bundle) / FOLDER if out is None else out
    packages = _packages()
    check_input_size(BundleInfo.read(Path(bundle)), tile)
    inside = folder.resolve() == (Path(bundle) / FOLDER).resolve()
    if not inside:
        check_outside_bundles(folder, "out")
    model = load_bundle(bundle, fold)
    info = model.info
    name = ENSEMBLE if fold is None and info.folds > 1 else fold_name(fold or 0)
    path = folder / (f"{name}.onnx" if tile is None else f"{name}_{tile}.onnx")
    _check_replaceable(path, packages["onnx"])
    make_folder(folder)
    with disk_errors(folder), draft_folder(folder / FOLDER) as partial:
        draft = partial / path.name
        converted = _convert(model, tile, packages)
        metadata = _metadata(info, tile)
        packages["onnx"].helper.set_model_props(converted, metadata)
        converted.metadata_props.add(key=_SEAL, value=_digest(converted))
        packages["onnx"].checker.check_model(converted)
        draft.write_bytes(converted.SerializeToString(deterministic=True))
        difference = _largest_difference(model, draft, tile, Path(bundle), packages["onnxruntime"])
        if not difference <= LIMIT:
            raise BundleError(
                f"{path}: not written. Expected the probability of the SavedModel within {LIMIT:g}. Received: a "
                f"difference of {difference:.2g}. Try other versions of tf2onnx and onnxruntime."
            )
        flush(draft)
        draft.replace(path)
        if inside:
            record = {f"{FOLDER}/{path.name}": FileRecord.of(path)}
            whole = BundleInfo.read(Path(bundle))  # a fold's description lacks the measured halos
            whole.model_copy(update={"files": whole.files | record}).write(Path(bundle))
    return OnnxExport(path, path.stat().st_size, difference, metadata)


def _packages() -> dict[str, ModuleType]:
    """Import the packages of the extra `onnx`."""
    try:
        return {name: importlib.import_module(name) for name in ("onnx", "onnxruntime", "tf2onnx")}
    except ModuleNotFoundError as error:
        raise OnnxMissingError(
            f"{error.name} is not installed, and ONNX files need it. Install it with `pip install 'lim-keras[onnx]'`."
        ) from error


def _check_replaceable(path: Path, onnx: ModuleType) -> None:
    """Refuse to replace a file that is not an unchanged ONNX file of an earlier call."""
    if not path.is_symlink() and not path.exists():
        return
    try:
        known = onnx.load(path, load_external_data=False)
        seal = next((one for one in known.metadata_props if one.key == _SEAL), None)
        if seal is not None:
            known.metadata_props.remove(seal)
        ours = not path.is_symlink() and seal is not None and seal.value == _digest(known)
    except Exception:  # whatever is wrong with it, it is not one of ours
        ours = False
    if not ours:
        raise DataError(refusal(path.parent, {path: "not written by lim-keras, or changed since"}, "out"))


def _digest(model: Any) -> str:
    """Return the SHA-256 of a model whose metadata lack the seal."""
    return hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()


def _convert(model: Bundle, tile: int | None, packages: dict[str, ModuleType]) -> Any:
    """Convert a SavedModel; images of the file have their bands first, as QGIS plugins and PyTorch have them."""
    info, signature = model.info, model.saved_model.signatures["serving_default"]
    scale = _SCALE.get(info.dtype)
    spec = tf.TensorSpec((None, info.bands, tile, tile), tf.float32, name="image")

    @tf.function(input_signature=[spec])
    def probability(image: tf.Tensor) -> dict[str, tf.Tensor]:
        pixels = tf.transpose(image if scale is None else tf.round(image * scale), (0, 2, 3, 1))
        return {"probability": tf.transpose(signature(image=pixels)["probability"], (0, 3, 1, 2))}

    handlers: dict[str, tuple[Callable[..., None], list[str]]] = {"FloorDiv": (_floor_divide, [])}
    with _quiet():
        converted, _ = packages["tf2onnx"].convert.from_function(
            probability, input_signature=[spec], opset=OPSET, custom_op_handlers=handlers
        )
    for value in (converted.graph.input[0], converted.graph.output[0]):
        # The plugin refuses outputs whose height and width have different names; sizes may differ all the same.
        shape = value.type.tensor_type.shape.dim
        shape[0].dim_param = "images"
        shape[1].dim_value = info.bands if value.name == "image" else 1
        for side in shape[2:4]:
            if tile is None:
                side.dim_param = "side"
            else:
                side.dim_value = tile
    return converted


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the messages of tf2onnx on its progress."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _floor_divide(context: Any, node: Any, name: str, _: object) -> None:
    """Divide whole numbers downward. `Div` of ONNX cuts the fraction off, which differs below 0."""
    kind, shape, outputs = context.get_dtype(node.output[0]), context.get_shape(node.output[0]), list(node.output)
    numbers = [context.make_node("Cast", [one], attr={"to": _DOUBLE}).output[0] for one in node.input]
    quotient = context.make_node("Floor", [context.make_node("Div", numbers).output[0]])
    context.remove_node(name)
    context.make_node(
        "Cast", [quotient.output[0]], attr={"to": kind}, name=name, outputs=outputs, shapes=[shape], dtypes=[kind]
    )


def _seamless(info: BundleInfo) -> tuple[int, int]:
    """Return the halo that tiles of the plugin need, and the smallest tile that has one, pixels."""
    halo = info.halo_within(HALO_TOLERANCE)
    return halo, smallest_side(halo, window_grid(info.stride))


def _metadata(info: BundleInfo, tile: int | None) -> dict[str, str]:
    """Describe the model; values of the keys of Deepness are JSON."""
    known = {"name": info.name, "config_hash": info.config_hash, "threshold": info.threshold, "version": __version__}
    facts = {f"lim_keras_{key}": str(value) for key, value in known.items()}
    if info.dtype not in _SCALE:  # the plugin feeds 8 bits only
        return facts
    halo, least = _seamless(info)
    if tile is not None and tile < least:
        warnings.warn(
            f"{info.name}: tiles of {tile} px have no core between two halos of {halo} px. In QGIS, maps are "
            f"approximate near the edges of tiles. Give at least {least} px, or leave `tile` out.",
            LimKerasWarning,
            stacklevel=4,
        )
    tile = tile or rounded_up(max(4 * halo, _LEAST_TILE), window_grid(info.stride))
    deepness: dict[str, Any] = {
        "model_type": "Segmentor",
        "class_names": {"0": "background", "1": "landslide"},
        "tile_size": tile,
        "tiles_overlap": min(math.ceil(100 * 2 * halo / tile), _MOST_OVERLAP),
        "seg_thresh": info.threshold,
        "seg_small_segment": 1,
    }
    if info.gsd_m is not None:
        deepness["resolution"] = 100 * info.gsd_m  # centimetres
    return facts | {key: json.dumps(value) for key, value in deepness.items()}


def _largest_difference(model: Bundle, file: Path, tile: int | None, bundle: Path, runtime: ModuleType) -> float:
    """Compare the file with the SavedModel on the stored image and on random images of odd sizes."""
    session = runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    scale = _SCALE.get(model.info.dtype, 1.0)
    differences = []
    for images in _images(model.info, tile, bundle):
        feed = {"image": np.moveaxis(images.astype(np.float32) / np.float32(scale), -1, 1)}
        answer = session.run(["probability"], feed)[0][:, 0]
        differences.append(float(np.abs(answer - model.predict(images)).max()))
    return max(differences, key=lambda one: math.inf if math.isnan(one) else one)


def _images(info: BundleInfo, tile: int | None, bundle: Path) -> Iterator[NDArray[Any]]:
    if tile is None:
        yield read_pair(bundle / PAIR_FILE, info.bands)[0][np.newaxis]
    generator = np.random.default_rng(0)
    low, high = (np.array([getattr(one, name) for one in info.statistics]) for name in ("min", "max"))
    for shape in _SHAPES if tile is None else [(1, tile, tile)]:
        yield generator.uniform(low, high, (*shape, info.bands)).astype(info.dtype)
