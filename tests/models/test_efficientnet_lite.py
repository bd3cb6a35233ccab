"""EfficientNet-Lite: channels by hand, a forward pass in NumPy, real weights on real tiles, files that do not fit."""

import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import cv2
import keras
import numpy as np
import pytest

from lim_keras.errors import ModelError
from lim_keras.models import build_model
from lim_keras.models.efficientnet_lite import SCALES
from lim_keras.models.encoders import build_encoder
from lim_keras.models.receptive_field import receptive_field

LITE0 = "efficientnet_lite0"


@pytest.fixture(scope="module")
def weights() -> Path:
    folder = os.environ.get("LIM_KERAS_WEIGHTS")
    if not folder:
        pytest.skip("LIM_KERAS_WEIGHTS does not name the folder of the ImageNet weights")
    return Path(folder)


@pytest.fixture(scope="module")
def ground() -> np.ndarray:
    """Twelve aerial tiles, (12, 128, 128, 3) float32."""
    folder = os.environ.get("LIM_KERAS_DATA")
    if not folder:
        pytest.skip("LIM_KERAS_DATA does not name the folder of the real tiles")
    files = sorted((Path(folder) / "no_landslide").glob("*.jpg"))[::30]
    return np.stack([cv2.imread(str(file))[:128, :128, ::-1] for file in files]).astype(np.float32)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """Arrays of a file of random weights, by name."""
    arrays = {}
    rng = np.random.default_rng(0)
    for layer in network(build_encoder(LITE0, weights="none")).layers:
        name = layer.name.replace("_", "/", 2).replace("/", "_", 1) if layer.name.startswith("block") else layer.name
        kinds = ["gamma", "beta", "mean", "variance"] if layer.name.endswith("_bn") else ["kernel"]
        for kind, value in zip(kinds, layer.get_weights(), strict=False):
            arrays[f"{name}/{kind}"] = rng.uniform(0, 0.1, value.shape).astype(np.float16)
    return arrays


def network(encoder: keras.Model) -> keras.Model:
    return next(layer for layer in encoder.layers if isinstance(layer, keras.Model))


# Structure.


@pytest.mark.parametrize(
    ("name", "blocks", "channels"),
    [
        # 1 + 2 + 2 + 3 + 3 + 4 + 1 blocks; expansion 6 of the stage before: 24, 40 and 112
        ("efficientnet_lite0", 16, (16, 144, 240, 672, 320)),
        # repeats times 1.2, rounded up, except those of the first and the last stage: 1 + 3 + 3 + 4 + 4 + 5 + 1
        # 24 x 1.1 = 26.4 is 24, 40 x 1.1 = 44 is 48, 112 x 1.1 = 123.2 is 120, 320 x 1.1 = 352
        ("efficientnet_lite2", 21, (16, 144, 288, 720, 352)),
        # times 1.2: 16 is 24 (19.2 would be 16, less than nine tenths), 32, 48, 136, 384; 1 + 3 + 3 + 5 + 5 + 6 + 1
        ("efficientnet_lite3", 24, (24, 192, 288, 816, 384)),
        # times 1.4: 24, 32 (33.6), 56, 160 (156.8), 448; times 1.8: 1 + 4 + 4 + 6 + 6 + 8 + 1
        ("efficientnet_lite4", 30, (24, 192, 336, 960, 448)),
    ],
)
def test_channels_and_blocks_by_hand(name: str, blocks: int, channels: tuple[int, ...]) -> None:
    built = build_encoder(name, weights="none")
    assert sum(layer.name.endswith("depthwise") for layer in network(built).layers) == blocks
    maps = built(np.zeros((1, 64, 96, 3), np.float32))
    assert [tuple(one.shape[1:]) for one in maps] == [
        (64 // 2**scale, 96 // 2**scale, depth) for scale, depth in enumerate(channels, start=1)
    ]
    assert set(SCALES) == {f"efficientnet_lite{size}" for size in range(5)}


def test_halo_by_hand() -> None:
    # A convolution of k px reaches (k - 1) x the spacing of its input, and k = 3 or 5 with a stride of 2 reaches 0 or 1
    # above, the rest below. Above: 2 at 1/2, 4 + 4 at 1/4, 16 at 1/8, 32 + 96 + 16 at 1/16, 192 + 32 at 1/32.
    above = 2 + 4 + 4 + 16 + 32 + 96 + 16 + 192 + 32
    # Both: stem; 3 x 3 twice at 1/2, 3 x 3 and 5 x 5 at 1/4, 5 x 5 and 3 x 3 at 1/8, 3 x 3 twice and 5 x 5 four times
    # at 1/16, 5 x 5 thrice and 3 x 3 at 1/32.
    both = 2 + (2 + 2) * 2 + (2 + 4) * 4 + (4 + 2) * 8 + (2 * 2 + 4 * 4) * 16 + (3 * 4 + 2) * 32
    assert (above, both - above) == (394, 456)
    image = keras.Input((None, None, 3), name="image")
    coarsest = keras.Model(image, build_encoder(LITE0, weights="none")(image)[-1])
    assert receptive_field(coarsest, 1).halo == 456
    # FCN-FL sees three cells of 32 px beyond its own: 456 + 3 x 32, less the 31 px of the cell
    assert receptive_field(build_model("fcn_fl", LITE0, encoder_weights="none"), 32).halo == 521


# Weights.


def conv(x: np.ndarray, kernel: np.ndarray, stride: int = 1) -> np.ndarray:
    """Convolve (h, w, c) by (k, k, c, f) with TensorFlow's "same" padding."""
    size = kernel.shape[0]
    sides = [-(-side // stride) for side in x.shape[:2]]
    total = [max((out - 1) * stride + size - side, 0) for out, side in zip(sides, x.shape[:2], strict=True)]
    x = np.pad(x, [*((one // 2, one - one // 2) for one in total), (0, 0)])
    out = np.zeros((*sides, kernel.shape[3]))
    for row in range(sides[0]):
        for column in range(sides[1]):
            patch = x[row * stride : row * stride + size, column * stride : column * stride + size]
            out[row, column] = np.tensordot(patch, kernel, 3)
    return out


def depthwise(x: np.ndarray, kernel: np.ndarray, stride: int = 1) -> np.ndarray:
    one_by_one = [conv(x[..., [c]], kernel[:, :, [c], :], stride) for c in range(x.shape[-1])]
    return np.concatenate(one_by_one, axis=-1)


def forward(image: np.ndarray, kept: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Maps at 1/2 and 1/4 of an image (h, w, 3) 0..255, in float64."""

    def get(name: str) -> np.ndarray:
        return kept[name].astype(np.float64)

    def normalised(x: np.ndarray, name: str) -> np.ndarray:
        scale = get(f"{name}/gamma") / np.sqrt(get(f"{name}/variance") + 1e-3)
        return (x - get(f"{name}/mean")) * scale + get(f"{name}/beta")

    def block(x: np.ndarray, number: int, stride: int, expands: bool = True) -> np.ndarray:
        name, y = f"block_{number}", x
        if expands:
            y = np.clip(normalised(conv(y, get(f"{name}/expand/kernel")), f"{name}/expand_bn"), 0, 6)
        y = np.clip(normalised(depthwise(y, get(f"{name}/depthwise/kernel"), stride), f"{name}/depthwise_bn"), 0, 6)
        y = normalised(conv(y, get(f"{name}/project/kernel")), f"{name}/project_bn")
        return x + y if stride == 1 and x.shape == y.shape else y

    x = np.clip(normalised(conv((image - 127) / 128, get("stem/kernel"), 2), "stem_bn"), 0, 6)
    half = block(x, 0, 1, expands=False)
    x = block(block(half, 1, 2), 2, 1)
    return [half, np.clip(normalised(conv(x, get("block_3/expand/kernel")), "block_3/expand_bn"), 0, 6)]


@pytest.mark.real_data
@pytest.mark.parametrize("size", [0, 2])
def test_the_first_blocks_equal_numpy(weights: Path, ground: np.ndarray, size: int) -> None:
    file = weights / f"efficientnet_lite{size}_imagenet_notop.npz"
    image = ground[3:4, :32, :64]
    maps = build_encoder(f"efficientnet_lite{size}", 3, file)(image)
    kept = dict(np.load(file))
    if size == 2:  # three blocks of the second stage; the NumPy forward has two
        np.testing.assert_allclose(maps[0][0], forward(image[0].astype(np.float64), kept)[0], atol=1e-4)
        return
    for got, expected in zip(maps, forward(image[0].astype(np.float64), kept), strict=False):
        assert np.abs(expected).max() > 1
        np.testing.assert_allclose(got[0], expected, atol=1e-3)


@pytest.mark.real_data
def test_activations_on_real_tiles_have_the_statistics_of_imagenet(weights: Path, ground: np.ndarray) -> None:
    """Aerial images are no photographs, but scaled alike: means differ by a third of a deviation, no more."""
    encoder = build_encoder(LITE0, 3, weights / "efficientnet_lite0_imagenet_notop.npz")
    inner = network(encoder)
    layers = [layer for layer in inner.layers if layer.name.endswith("_bn")]
    outputs = keras.Model(inner.input, [layer.input for layer in layers])((ground - 127) / 128)
    for layer, output in zip(layers, outputs, strict=True):
        _, _, mean, variance = layer.get_weights()
        alive = variance > 1e-3  # some channels are 0 for every image
        values = output.numpy()[..., alive]
        apart = np.abs(values.mean((0, 1, 2)) - mean[alive]) / np.sqrt(variance[alive])
        ratio = values.var((0, 1, 2)) / variance[alive]
        assert np.median(apart) < 0.5 and 0.3 < np.median(ratio) < 2, layer.name


@pytest.mark.real_data
@pytest.mark.parametrize("bands", [1, 2, 5])
def test_other_bands_see_grey_alike(weights: Path, ground: np.ndarray, bands: int) -> None:
    file = weights / "efficientnet_lite0_imagenet_notop.npz"
    grey = ground[:2, :64, :64].mean(axis=-1, keepdims=True)
    three, other = (build_encoder(LITE0, count, file)(grey.repeat(count, axis=-1)) for count in (3, bands))
    if bands > 3:  # the mean kernel of the further bands keeps the response to grey
        for got, wanted in zip(other, three, strict=True):
            np.testing.assert_allclose(got, wanted, atol=2e-3 * float(np.abs(wanted).max()))
    else:
        assert np.corrcoef(np.ravel(other[0]), np.ravel(three[0]))[0, 1] > 0.5


def refused(path: Path, arrays: dict[str, np.ndarray]) -> str:
    np.savez(path, **arrays)
    with pytest.raises(ModelError, match="do not fit efficientnet_lite0") as error:
        build_encoder(LITE0, 3, path)
    return str(error.value)


def test_a_file_is_loaded_whole(tmp_path: Path, stored: dict[str, np.ndarray]) -> None:
    np.savez(tmp_path / "w.npz", **stored)
    inner = network(build_encoder(LITE0, 3, tmp_path / "w.npz"))
    np.testing.assert_array_equal(inner.get_layer("stem").get_weights()[0], stored["stem/kernel"].astype(np.float32))
    said = inner.get_layer("block_15_project_bn").get_weights()
    for got, kind in zip(said, ["gamma", "beta", "mean", "variance"], strict=True):
        np.testing.assert_array_equal(got, stored[f"block_15/project_bn/{kind}"].astype(np.float32))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            lambda kept: {**kept, "block_4/depthwise/kernel": np.ones((3, 3, 240, 1), np.float16)},
            r"layer block_4/depthwise/kernel: expected an array of shape (5, 5, 240, 1). Received: (3, 3, 240, 1)",
        ),
        (
            lambda kept: {name: value for name, value in kept.items() if name != "stem_bn/beta"},
            "layer stem_bn/beta: expected an array of shape (32,). Received: none",
        ),
        (
            lambda kept: {**kept, "stem_bn/variance": np.full(32, -1.0, np.float32)},
            "layer stem_bn/variance: expected variances >= 0. Received: -1.0",
        ),
        (
            lambda kept: {**kept, "stem_bn/beta": np.full(32, np.nan, np.float32)},
            "layer stem_bn/beta: expected finite floating-point numbers",
        ),
        (
            lambda kept: {**kept, "stem_bn/beta": np.zeros(32, np.int64)},
            "layer stem_bn/beta: expected finite floating-point numbers. Received: others, int64",
        ),
        (
            lambda kept: {**kept, **{f"block_{number}/x": np.ones(1) for number in range(16, 21)}},
            "Received as well: block_16/x, block_17/x, block_18/x and 2 more",
        ),
    ],
)
def test_files_that_do_not_fit(
    tmp_path: Path, stored: dict[str, np.ndarray], change: Callable[[dict], dict], expected: str
) -> None:
    assert expected in refused(tmp_path / "w.npz", change(stored))


@pytest.mark.real_data
def test_weights_of_a_larger_network(weights: Path) -> None:
    with pytest.raises(ModelError, match=r"do not fit efficientnet_lite0: layer block_3/.*expected an array of shape"):
        build_encoder(LITE0, 3, weights / "efficientnet_lite2_imagenet_notop.npz")


def test_a_damaged_compressed_file(tmp_path: Path, stored: dict[str, np.ndarray]) -> None:
    path = tmp_path / "w.npz"
    np.savez_compressed(path, **stored)
    with zipfile.ZipFile(path) as archive:
        header = archive.getinfo("stem/kernel.npy").header_offset
    content = bytearray(path.read_bytes())
    name, extra = struct.unpack(
        "<HH", content[header + 26 : header + 30]
    )  # lengths, in the member's header of 30 bytes
    content[header + 30 + name + extra] = 7  # a kind of block that deflate does not have
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"w\.npz do not fit efficientnet_lite0: expected a file FILE\.npz"):
        build_encoder(LITE0, 3, path)


def test_other_files_and_no_file(tmp_path: Path) -> None:
    broken, one = tmp_path / "broken.npz", tmp_path / "one.npz"
    broken.write_bytes(b"PK\x03\x04 no archive")
    np.save(tmp_path / "one.npy", np.ones(3))
    (tmp_path / "one.npy").rename(one)
    text = tmp_path / "text.npz"
    text.write_text("no archive")
    for path in (broken, one, text):
        with pytest.raises(ModelError, match=rf"{path.name} do not fit efficientnet_lite0: expected a file FILE\.npz"):
            build_encoder(LITE0, 3, path)
    with pytest.raises(ModelError, match=r"absent\.npz not found\. Expected `none` or the path of a weights file FILE"):
        build_encoder(LITE0, 3, tmp_path / "absent.npz")
    with pytest.raises(ModelError, match=r"Keras has no ImageNet weights of `efficientnet_lite0`\. Give a file FILE"):
        build_encoder(LITE0)
