"""Networks of keras.applications as encoders: features, scaling, weights, halo; those that see the whole image."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from lim_keras.config_file import load_config
from lim_keras.errors import ConfigError, ModelError
from lim_keras.models import build_model
from lim_keras.models.applications import APPLICATIONS
from lim_keras.models.encoders import build_encoder, freeze_scales
from lim_keras.models.receptive_field import receptive_field

MODULES = {"resnet50": "resnet50", "resnet50v2": "resnet_v2", "mobilenet": "mobilenet", "densenet121": "densenet"}

NEW = ["vgg19", "mobilenet", "resnet50", "resnet50v2", "densenet121", "convnext_tiny"]


def picture(height: int, width: int, bands: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (1, height, width, bands)).astype(np.float32)


@pytest.fixture(scope="module", params=NEW)
def encoder(request: pytest.FixtureRequest) -> tuple[str, keras.Model]:
    keras.utils.set_random_seed(0)
    return request.param, build_encoder(request.param, weights="none")


CHANNELS = {
    "vgg19": (64, 128, 256, 512, 512),
    "mobilenet": (64, 128, 256, 512, 1024),
    "resnet50": (64, 256, 512, 1024, 2048),
    "resnet50v2": (64, 64, 128, 256, 2048),
    "densenet121": (64, 256, 512, 1024, 1024),
    "convnext_tiny": (32, 96, 192, 384, 768),
}


def test_five_maps_each_half_the_one_before(encoder: tuple[str, keras.Model]) -> None:
    name, built = encoder
    maps = built(picture(64, 96))
    expected = [(64 // 2**scale, 96 // 2**scale, depth) for scale, depth in enumerate(CHANNELS[name], start=1)]
    assert [tuple(one.shape[1:]) for one in maps] == expected


def test_frozen_scales_have_no_gradient(encoder: tuple[str, keras.Model]) -> None:
    name, _ = encoder
    built = build_encoder(name, weights="none")
    freeze_scales(built, 2)
    with tf.GradientTape(persistent=True) as tape:
        maps = built(picture(64, 64))
    for scale, features in enumerate(maps):
        gradients = tape.gradient(features, built.trainable_variables)
        assert any(gradient is not None for gradient in gradients) == (scale >= 2)


@pytest.mark.parametrize("name", MODULES)
def test_scaling_and_weights_are_those_of_keras(name: str, tmp_path: Path) -> None:
    """Random weights in a file of keras.applications give the maps of that network on its own preprocessing."""
    known, module = APPLICATIONS[name], getattr(keras.applications, MODULES[name])
    keras.utils.set_random_seed(3)
    original = getattr(module, known.network)(include_top=False, weights=None, input_shape=(None, None, 3))
    original.save_weights(tmp_path / "w.weights.h5")
    features = keras.Model(original.input, [original.get_layer(layer).output for layer in known.features])
    image = picture(32, 64)
    expected = features(module.preprocess_input(image.copy()))
    for got, wanted in zip(build_encoder(name, 3, tmp_path / "w.weights.h5")(image), expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-4 * float(np.abs(wanted).max()))


def test_convnext_is_that_of_keras(tmp_path: Path) -> None:
    """Keras scales ConvNeXt inside the network; the maps are the inputs of the layers with strides."""
    keras.utils.set_random_seed(3)
    original = keras.applications.ConvNeXtTiny(include_top=False, weights=None, input_shape=(None, None, 3))
    bare = keras.applications.ConvNeXtTiny(
        include_top=False, weights=None, input_shape=(None, None, 3), include_preprocessing=False
    )
    bare.set_weights(original.get_weights())
    bare.save_weights(tmp_path / "w.weights.h5")
    layers = [f"convnext_tiny_downsampling_block_{number}" for number in range(3)]
    outputs = [original.get_layer(layer).input for layer in layers] + [original.output]
    image = picture(32, 64)
    expected = keras.Model(original.input, outputs)(image)
    for got, wanted in zip(
        build_encoder("convnext_tiny", 3, tmp_path / "w.weights.h5")(image)[1:], expected, strict=True
    ):
        np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-4 * float(np.abs(wanted).max()))


@pytest.mark.parametrize("name", ["resnet50v2", "convnext_tiny"])
def test_five_bands_see_grey_as_three(name: str, tmp_path: Path) -> None:
    """The widened first kernel sees the mean of three kernels for each further band, times 3 / 5."""
    keras.utils.set_random_seed(4)
    APPLICATIONS[name].function()(weights=None, input_shape=(None, None, 3)).save_weights(tmp_path / "w.weights.h5")
    three, five = (build_encoder(name, bands, tmp_path / "w.weights.h5") for bands in (3, 5))
    assert [five(picture(33, 32, 5))[1].shape[-1]] == [CHANNELS[name][1]]
    if name == "resnet50v2":  # its bands are scaled alike
        grey = picture(32, 32, 1)
        for got, wanted in zip(five(grey.repeat(5, axis=-1)), three(grey.repeat(3, axis=-1)), strict=True):
            np.testing.assert_allclose(got, wanted, atol=1e-3 * float(np.abs(wanted).max()))


def test_networks_take_any_size_and_are_saved(encoder: tuple[str, keras.Model], tmp_path: Path) -> None:
    name, _ = encoder
    model = build_model("fcn_fl", name, 4, encoder_weights="none", decoder_channels=4)
    layer = model.get_layer("score")
    layer.set_weights([np.random.default_rng(1).normal(size=weight.shape) for weight in layer.get_weights()])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for size in [(1, 1), (31, 70)]:
        logits = model(picture(*size, 4))
        assert logits.shape == (1, *size, 1) and np.abs(logits).max() > 0
        np.testing.assert_allclose(loaded(picture(*size, 4)), logits, atol=1e-4)


@pytest.mark.parametrize("name", ["efficientnet_lite0", *NEW])
def test_windows_with_the_halo_equal_the_whole(name: str) -> None:
    """A strip that is one stride high: its middle, in a window with the computed halo, is predicted as in the strip."""
    keras.utils.set_random_seed(2)
    model = build_model("fcn_fl", name, encoder_weights="none", decoder_channels=4)
    layer = model.get_layer("score")
    layer.set_weights([np.random.default_rng(1).normal(size=weight.shape) for weight in layer.get_weights()])
    halo = receptive_field(model, 32).halo
    margin = -(-halo // 32) * 32
    image = tf.constant(picture(32, 2 * margin + 160))
    start = margin + 64
    with tf.GradientTape() as tape:
        tape.watch(image)
        whole = model(image, training=False)
        core = tf.reduce_sum(whole[:, :, start : start + 32])
    reached = np.flatnonzero((tape.gradient(core, image).numpy()[0] != 0).any(axis=(0, 2)))
    assert reached.min() >= start - halo and reached.max() < start + 32 + halo
    window = model(image[:, :, start - margin : start + 32 + margin], training=False)
    scale = float(np.abs(whole).max())
    np.testing.assert_allclose(window[0, :, margin : margin + 32], whole[0, :, start : start + 32], atol=1e-5 * scale)


# Networks that see the whole image.


@pytest.mark.parametrize("name", ["efficientnetv2_b0", "efficientnet_v2_s", "efficientnetb3", "mobilenetv3_large"])
def test_global_encoders_are_refused_with_the_reason(name: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=rf"`{name}` cannot be used: its squeeze-and-excite blocks average the whole"):
        build_encoder(name, weights="none")
    file = tmp_path / "run.yaml"
    file.write_text(f"name: a\nmodel: {{encoder: {name}}}\n")
    with pytest.raises(ConfigError) as error:
        load_config(file)
    message = str(error.value)
    assert message.count("\n") == 0 and "Expected an encoder of local operations" in message
    assert "differ from those of the whole scene at any halo" in message and f"Received: '{name}'" in message


def test_a_global_pool_has_no_receptive_field() -> None:
    """Why they are refused: the pixel farthest away changes the answer of MobileNetV3, whatever the window."""
    keras.utils.set_random_seed(0)
    network = keras.applications.MobileNetV3Small(include_top=False, weights=None, input_shape=(None, None, 3))
    image = tf.constant(picture(32, 1600))
    with tf.GradientTape() as tape:
        tape.watch(image)
        corner = tf.reduce_sum(network(image, training=False)[:, :, 0])
    assert (tape.gradient(corner, image).numpy()[0, :, -32:] != 0).any()
    inner = keras.Input((None, None, 3), name="image")
    squeezed = keras.layers.GlobalAveragePooling2D(keepdims=True, name="squeeze")(inner)
    with pytest.raises(ModelError, match="squeeze of type GlobalAveragePooling2D sees the whole image"):
        receptive_field(keras.Model(inner, keras.layers.Add()([inner, squeezed])), 1)


def test_unknown_names_list_the_known(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"Expected one of vgg16, .*efficientnet_lite0.*resnet50.*: xception"):
        build_encoder("xception")
