"""Fit the familiarity of a bundle: a distance of imagery from the training imagery, in the encoder's features."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lim_keras.bundle.familiarity import FAMILIARITY_FILE, load_distance
from lim_keras.bundle.info import INFO_FILE, VERSION, BundleInfo, FamiliarityFacts, FileRecord, fold_name
from lim_keras.bundle.protocol import SIGNATURE
from lim_keras.bundle.replaceable import bundle_record
from lim_keras.bundle.saved_model import load_graph
from lim_keras.data.sampling import pack, render
from lim_keras.data.tiles import TileSet, TileStore
from lim_keras.errors import BundleError, DataError
from lim_keras.evaluation.evaluator import read_matching_tiles
from lim_keras.export.disk_errors import disk_errors
from lim_keras.export.graph_edits import halve_large_constants
from lim_keras.files import StrPath, draft_folder, flush, left_drafts
from lim_keras.models import build_model
from lim_keras.models.encoders import NO_WEIGHTS
from lim_keras.ownership import check_replaceable_files

SIDE = 256
"""Side of a cell, pixels: large enough for a texture, small enough to show where a scene is unfamiliar."""

LEAST_TRAINING, LEAST_HELD_OUT = 60, 40
"""Numbers of cells below which no distance is fitted."""

_MOST_TRAINING, _MOST_HELD_OUT = 1500, 500

CELL_BYTES = 512 * 2**20
"""Memory of the cells of training, and of those of held-out imagery; cells of many bands are fewer."""

_MAPS = slice(1, 4)  # feature maps at 1/4, 1/8 and 1/16; the coarsest one separates landslides, not kinds of imagery
_COMPONENTS = 32
_UNFAMILIAR = 0.025  # share of held-out cells beyond the limit
_SHEET = 4  # side of a sheet of tiles, cells
_STEPS = 41  # quantiles of the held-out distances

Cells = NDArray[Any]
"""Cells of raw digital numbers (n, side, side, bands)."""


@dataclass(frozen=True)
class _Distance:
    """Distance of features (n, channels): see `lim_keras.bundle.familiarity.FamiliarityModel`.

    Attributes:
        mean, scale: of each channel over the training cells.
        components: main components of the scaled features, (channels, k), each divided by its standard deviation.
        axes: the same components at unit length.
        residual: mean squared length of the part that the components do not explain.
    """

    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    components: NDArray[np.float32]
    axes: NDArray[np.float32]
    residual: float

    @classmethod
    def fit(cls, features: NDArray[np.float64]) -> _Distance:
        mean, spread = features.mean(axis=0), features.std(axis=0)
        scale = spread + 1e-3 * float(spread.max()) + 1e-9  # otherwise channels that hardly vary would dominate
        scaled = (features - mean) / scale
        _, lengths, axes = np.linalg.svd(scaled, full_matrices=False)
        kept = min(_COMPONENTS, len(features) // 4)
        axes, deviations = axes[:kept].T, lengths[:kept] / np.sqrt(len(features))
        left = scaled - scaled @ axes @ axes.T
        residual = float((left**2).sum(axis=1).mean()) + 1e-9
        parts = (mean, scale, axes / np.maximum(deviations, 1e-9), axes)
        mean, scale, components, axes = (part.astype(np.float32) for part in parts)
        return cls(mean, scale, components, axes, residual)

    def of(self, features: Any) -> Any:
        """Return the distance (n, 1) of a tensor of features."""
        scaled = (features - self.mean) / self.scale
        inside = tf.matmul(scaled, self.axes)
        explained = tf.reduce_mean(tf.matmul(scaled, self.components) ** 2, axis=1, keepdims=True)
        left = scaled - tf.matmul(inside, self.axes, transpose_b=True)
        return explained + tf.reduce_sum(left**2, axis=1, keepdims=True) / self.residual


class _CellGraph(tf.Module):
    """Distance of one cell (1, side, side, bands), float32, as a TensorFlow function."""

    def __init__(self, features: keras.Model, distance: _Distance) -> None:
        super().__init__()
        self.variables_ = [weight.value for weight in features.weights]
        shape = (1, SIDE, SIDE, int(features.input_shape[-1]))
        signature = [tf.TensorSpec(shape, tf.float32, name="image")]

        def run(image: Any) -> dict[str, Any]:
            return {"distance": distance.of(features(image, training=False))}

        self.run = tf.function(run, input_signature=signature, autograph=False)


def fit_familiarity(network: keras.Model, training: Cells, held_out: Cells) -> tuple[bytes, FamiliarityFacts]:
    """Fit the distance to the training cells, and measure it on held-out ones.

    Args:
        network: network as `lim_keras.models.build_model` makes it, with trained weights.
        training: cells of the imagery that it was trained on.
        held_out: cells of imagery of the same kind that it was not trained on.

    Returns:
        Content of `familiarity.tflite`, and its description.

    Raises:
        BundleError: the network cannot be converted to LiteRT, or gives no distances.
    """
    features = _feature_model(network)
    known = np.concatenate([features.predict_on_batch(part.astype(np.float32)) for part in _batches(training)])
    graph = _CellGraph(features, _Distance.fit(known.astype(np.float64)))
    content = _converted(graph)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / FAMILIARITY_FILE
        path.write_bytes(content)
        run = load_distance(path)
        distances = [run(cell[np.newaxis].astype(np.float32)) for cell in held_out]
    if not np.isfinite(distances).all() or max(distances) <= 0:
        raise BundleError(
            f"{network.name}: its features give no finite distances above 0 between the tiles, so that no familiarity "
            "can be fitted. Check that the tiles differ, and that the training did not diverge."
        )
    quantiles = np.quantile(distances, np.linspace(0, 1, _STEPS))
    facts = FamiliarityFacts(
        side=SIDE,
        distances=tuple(float(value) for value in quantiles),
        limit=float(np.quantile(distances, 1 - _UNFAMILIAR)),
        training_cells=len(training),
        held_out_cells=len(held_out),
    )
    return content, facts


def _feature_model(network: keras.Model) -> keras.Model:
    """Return the network up to its encoder, with the means of the encoder's feature maps, (n, channels)."""
    image = keras.Input(network.input_shape[1:], name="image")
    x: Any = image
    for layer in network.layers[1:]:
        x = layer(x)
        if layer.name == "encoder":
            break
    means = [keras.layers.GlobalAveragePooling2D()(one) for one in x[_MAPS]]
    return keras.Model(image, keras.layers.Concatenate()(means))


def _batches(cells: Cells, size: int = 8) -> Iterator[Cells]:
    return (cells[first : first + size] for first in range(0, len(cells), size))


def _converted(graph: _CellGraph) -> bytes:
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings about the converter's own code
        tf.saved_model.save(graph, folder, signatures={SIGNATURE: graph.run})
        try:
            content = bytes(tf.lite.TFLiteConverter.from_saved_model(folder).convert())
        except Exception as error:  # the converter has classes of its own, and raises others, too
            reason = " ".join(str(error).split())[:300]
            raise BundleError(
                f"The features of the network cannot be converted to LiteRT, so that no familiarity can be fitted "
                f"({type(error).__name__}: {reason}). Use another encoder, or predict without familiarity."
            ) from error
    return halve_large_constants(content)


def cells_of(tiles: TileSet, gsd_m: float | None, most: int, seed: int = 2022) -> Cells:
    """Cut tiles into cells at a ground sample distance: half of the cells from single tiles, half from sheets of tiles.

    Like a cell of a scene, a cell of a sheet of tiles may hold the border of two kinds of ground. A cell that reaches
    beyond its image is completed by mirroring, or left out if it lacks more than half of a side.

    Args:
        gsd_m: metres; None: that of the tiles.
        most: largest number of cells.
    """
    store = TileStore(tiles, gsd_m, gsd_m, cache="none")
    sizes = [store.size(position) for position in range(len(store))]
    order = np.random.default_rng(seed).permutation(len(store)).tolist()
    single = (store.get(position)[0] for position in order if 2 * min(sizes[position]) >= SIDE)
    sheets = enumerate(pack(sizes, _SHEET * SIDE, seed))
    packed = (render(sheet, store.get, number)[0] for number, sheet in sheets)
    halves = [islice((cell for image in images for cell in _cells(image)), most // 2) for images in (single, packed)]
    found = [cell for half in halves for cell in half]
    return np.stack(found) if found else np.empty((0, SIDE, SIDE, tiles.bands), np.uint8)


def _cells(image: NDArray[Any]) -> Iterator[NDArray[Any]]:
    height, width = image.shape[:2]
    for top in range(0, height, SIDE):
        for left in range(0, width, SIDE):
            cell = image[top : top + SIDE, left : left + SIDE]
            below, right = (SIDE - side for side in cell.shape[:2])
            if max(below, right) * 2 <= SIDE:
                mirrored = cv2.copyMakeBorder(cell, 0, below, 0, right, cv2.BORDER_REFLECT)
                yield mirrored.reshape(SIDE, SIDE, image.shape[-1])


def familiarity_of(
    network: keras.Model, training: TileSet, held_out: TileSet, gsd_m: float | None
) -> tuple[bytes, FamiliarityFacts] | None:
    """Fit the distance to the tiles of a network; None if they give too few cells; errors as in `fit_familiarity`."""
    cells = (
        cells_of(training, gsd_m, _fitting(training, LEAST_TRAINING, _MOST_TRAINING)),
        cells_of(held_out, gsd_m, _fitting(held_out, LEAST_HELD_OUT, _MOST_HELD_OUT)),
    )
    if len(cells[0]) < LEAST_TRAINING or len(cells[1]) < LEAST_HELD_OUT:
        return None
    return fit_familiarity(network, *cells)


def _fitting(tiles: TileSet, least: int, most: int) -> int:
    """Return how many cells, `least` to `most`, take at most CELL_BYTES."""
    return min(most, max(least, CELL_BYTES // (SIDE**2 * tiles.bands * np.dtype(tiles.dtype).itemsize)))


def add_familiarity(bundle: Path, tiles: StrPath | TileSet) -> FamiliarityFacts:
    """Fit the familiarity of an exported bundle, and add it.

    Args:
        bundle: folder of the bundle; its other files stay as they are, except model.json.
        tiles: tiles that the bundle was trained on, and tiles that its first network was not trained on.

    Raises:
        BundleError: the bundle is damaged.
        DataError: the tiles do not fit the bundle, or hold too few of its tiles; or a familiarity.tflite of the user is
            there.
    """
    info, path = BundleInfo.read(bundle), bundle / FAMILIARITY_FILE
    left = [BundleInfo.read(one) for one in left_drafts(path) if (one / INFO_FILE).exists()]
    check_replaceable_files(bundle, [path.name], *map(bundle_record, (info, *left)), argument="bundle")
    known = read_matching_tiles(tiles, info)
    held_out = {name for name, fold in info.held_out.items() if fold == 0}
    training = set(info.training_tiles) - held_out
    seen, unseen = (known.subset([one for one in known.ids if one in names]) for names in (training, held_out))
    fitted = familiarity_of(_rebuilt(bundle, info), seen, unseen, info.gsd_m)
    if fitted is None:
        raise DataError(
            f"{known.root}: expected tiles of {info.name} that give at least {LEAST_TRAINING} cells of {SIDE} x {SIDE} "
            f"px of training and {LEAST_HELD_OUT} of held-out imagery. Received: {len(seen)} of its training tiles "
            f"and {len(unseen)} of its held-out tiles. Give the tiles that it was trained on."
        )
    content, facts = fitted
    # A call that is killed meanwhile leaves a draft that tells what it wrote.
    with disk_errors(bundle), draft_folder(path) as partial:
        draft = partial / path.name
        draft.write_bytes(content)
        flush(draft)
        files = info.files | {path.name: FileRecord.of(draft)}
        changed = info.model_copy(update={"familiarity": facts, "files": files})
        changed.write(partial)
        draft.replace(path)
        changed.write(bundle)
    return facts


def _rebuilt(bundle: Path, info: BundleInfo) -> keras.Model:
    """Return the first network of a bundle as a Keras model."""
    folder = bundle / fold_name(0) / VERSION
    if info.dtype != "uint8":
        raise BundleError(
            f"{bundle}: expected a bundle of 8-bit images. Received: {info.dtype}, whose scaling is not recorded. "
            "Train again: `fit` and `cv` add the familiarity themselves."
        )
    info.check_files(bundle, f"{fold_name(0)}/{VERSION}")
    section = dict(info.model) | {"encoder_weights": NO_WEIGHTS}
    network = build_model(section.pop("name"), bands=info.bands, **section)
    weights = [np.asarray(weight, np.float32) for weight in load_graph(folder, info.versions["tensorflow"]).weights]
    shapes = [tuple(weight.shape) for weight in network.weights]
    if [weight.shape for weight in weights] != shapes:
        raise BundleError(
            f"{folder}: expected the weights of {info.model['name']}. Received: those of another network."
        )
    network.set_weights(weights)
    return network
