"""The signature `encoded`: PNG and JPEG files give what their pixels give, and what is no such file says so."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tensorflow as tf

from lim_keras.bundle.protocol import takes_encoded_images
from lim_keras.export.bundle import export_models
from lim_keras.export.graph_edits import decode_encoded_images
from lim_keras.metrics.calibration import Calibration
from tests.export.conftest import constant

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (3, 20, 31, 4), np.uint8)


def png(pixels: np.ndarray) -> bytes:
    return bytes(tf.io.encode_png(pixels).numpy())


def jpeg(pixels: np.ndarray) -> bytes:
    return bytes(tf.io.encode_jpeg(pixels, quality=95).numpy())


@pytest.fixture(scope="module")
def model(bundle_path: Path) -> Any:
    return tf.saved_model.load(str(bundle_path / "ensemble" / "1"))


def answers(model: Any, *files: bytes) -> dict[str, np.ndarray]:
    batch = tf.constant(list(files), tf.string, shape=(len(files),))
    return {name: output.numpy() for name, output in model.signatures["encoded"](image_bytes=batch).items()}


def test_png_gives_what_its_pixels_give(model: Any) -> None:
    pixels = PIXELS[..., :3]
    expected = model.signatures["serving_default"](image=tf.constant(pixels, tf.float32))
    got = answers(model, *map(png, pixels))
    assert sorted(got) == ["probability", "spread", "votes"]
    for name, value in got.items():
        np.testing.assert_array_equal(value, expected[name].numpy())
    assert got["probability"].std() > 0.003


def test_alpha_is_left_out(model: Any) -> None:
    np.testing.assert_array_equal(
        answers(model, png(PIXELS[0]))["probability"], answers(model, png(PIXELS[0][..., :3]))["probability"]
    )


def test_jpeg(model: Any) -> None:
    smooth = cv2.resize(PIXELS[0, ::5, ::5, :3], (31, 20))
    decoded = tf.io.decode_jpeg(jpeg(smooth)).numpy()
    assert 0 < np.abs(decoded.astype(int) - smooth).mean() < 10
    expected = model.signatures["serving_default"](image=tf.constant(decoded[np.newaxis], tf.float32))
    np.testing.assert_allclose(answers(model, jpeg(smooth))["probability"], expected["probability"], rtol=0, atol=1e-6)


def test_files_of_another_library_in_the_order_red_green_blue(tmp_path: Path) -> None:
    pixels = PIXELS[0, ..., :3]
    done, data = cv2.imencode(".png", pixels[..., ::-1])  # OpenCV takes blue first
    assert done
    np.testing.assert_array_equal(decode_encoded_images(tf.constant([data.tobytes()]), 3).numpy()[0], pixels)


@pytest.mark.parametrize(("bands", "channels"), [(1, 1), (1, 2), (3, 3), (3, 4), (4, 4)])
def test_channels_that_fit(bands: int, channels: int) -> None:
    decode = tf.function(lambda files: decode_encoded_images(files, bands))
    files = tf.constant([png(pixels[..., :channels]) for pixels in PIXELS])
    np.testing.assert_array_equal(decode(files).numpy(), PIXELS[..., :bands])


@pytest.mark.parametrize(("bands", "channels"), [(1, 3), (3, 1), (3, 2), (4, 3)])
def test_channels_that_do_not_fit(bands: int, channels: int) -> None:
    decode = tf.function(lambda files: decode_encoded_images(files, bands))
    with pytest.raises(tf.errors.InvalidArgumentError, match=rf"an image of {bands} bands.*channels:\] \[{channels}\]"):
        decode(tf.constant([png(PIXELS[0, ..., :channels])]))


RED = PIXELS[0, ..., :3]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ([], "expected at least one PNG or JPEG file. Received: none"),
        ([b""], r"expected the content of a PNG or JPEG file. Received bytes:\] \[0\]"),
        ([b"II*\0 a TIFF file"], "expected the content of a PNG or JPEG file"),
        ([b"GIF89a" + bytes(40)], "expected the content of a PNG or JPEG file"),
        ([png(RED)[:20]], "expected the content of a PNG or JPEG file"),
        ([png(RED)[:400]], "Invalid PNG data, size 400"),
        ([jpeg(RED)[:300]], "Invalid JPEG data"),
        ([png(RED.astype(np.uint16) * 256)], "expected 8 bits a channel. Received: a PNG of 16 bits"),
        (
            [png(RED), png(RED), png(RED[:10])],
            r"of one height and width.*of number\] \[2\].*\[10 31 3\] \[after\] \[20 31 3\]",
        ),
        ([png(RED), b"no picture"], "expected the content of a PNG or JPEG file"),
    ],
)
def test_what_is_no_batch_of_images(model: Any, files: list[bytes], said: str) -> None:
    with pytest.raises(tf.errors.InvalidArgumentError, match=said):
        answers(model, *files)


@pytest.mark.parametrize("shape", [(1, 4, 4, 6), (4, 4, 3)])
def test_pixels_of_another_shape(model: Any, shape: tuple[int, ...]) -> None:
    expected = rf"Shape of tensor image \[{','.join(map(str, shape))}\] is not compatible with .*\[\?,\?,\?,3\]"
    with pytest.raises(tf.errors.InvalidArgumentError, match=expected):
        model.signatures["serving_default"](image=tf.zeros(shape))


@pytest.mark.parametrize(
    ("bands", "dtype", "expected"),
    [(1, "uint8", True), (2, "uint8", False), (4, "uint8", True), (5, "uint8", False), (3, "uint16", False)],
)
def test_which_models_take_encoded_images(bands: int, dtype: str, expected: bool, tmp_path: Path) -> None:
    assert takes_encoded_images(bands, dtype) is expected
    export_models([constant(0.0, bands)], tmp_path, calibration=Calibration(), threshold=0.5, dtype=dtype)
    signatures = tf.saved_model.load(str(tmp_path / "fold_0" / "1")).signatures
    assert set(signatures) == {"serving_default", *(["encoded"] if expected else [])}
