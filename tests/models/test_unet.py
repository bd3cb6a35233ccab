"""U-Net: shapes, the zero start, what reaches the logits, and that every size works."""

import keras
import numpy as np
import pytest

from lim_keras.models import build_model
from lim_keras.models.decoders import decode_unet

CHANNELS = (3, 4, 5, 6, 7)


def _features(height: int, width: int) -> list[keras.KerasTensor]:
    """Five inputs at 1/2 .. 1/32 of height x width."""
    return [keras.Input((height // 2**s, width // 2**s, c)) for s, c in enumerate(CHANNELS, start=1)]


def _randomise(model: keras.Model, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    model.set_weights([np.abs(rng.normal(scale=0.1, size=w.shape)) for w in model.get_weights()])


def test_logits_have_the_encoders_input_resolution() -> None:
    features = _features(64, 96)
    assert keras.Model(features, decode_unet(features, 4)).output_shape == (None, 64, 96, 1)


def test_stage_widths_double_up_to_eight_times() -> None:
    model = keras.Model(features := _features(32, 32), decode_unet(features, 4))
    widths = [model.get_layer(f"scale_{scale}_b_conv").filters for scale in (1, 2, 4, 8, 16, 32)]
    # channels = 4:   4, 4 x 1, 4 x 2, 4 x 4, 4 x 8, and 4 x 16 held at 4 x 8
    assert widths == [4, 4, 8, 16, 32, 32]


def test_skips_are_concatenated_with_what_comes_up() -> None:
    model = keras.Model(features := _features(32, 32), decode_unet(features, 4))
    # At 1/2 the skip has 3 channels and the stage below, at 1/4, is 8 wide: 3 + 8.
    assert model.get_layer("scale_2_concat").output.shape[-1] == 11


def test_every_scale_reaches_the_logits() -> None:
    model = keras.Model(features := _features(32, 32), decode_unet(features, 2))
    _randomise(model)
    rng = np.random.default_rng(1)
    maps = [rng.random((1, *f.shape[1:]), np.float32) for f in features]
    before = model.predict_on_batch(maps)
    for scale in range(5):
        changed = [m + (10 if k == scale else 0) for k, m in enumerate(maps)]
        assert np.abs(model.predict_on_batch(changed) - before).max() > 1e-4, f"1/{2 ** (scale + 1)} is not connected"


def test_starts_undecided() -> None:
    model = build_model("unet", encoder="small", encoder_weights=None, decoder_channels=4)
    image = np.random.default_rng(0).uniform(0, 255, (1, 32, 32, 3)).astype(np.float32)
    np.testing.assert_array_equal(model.predict_on_batch(image), np.zeros((1, 32, 32, 1), np.float32))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (31, 33), (33, 64)])
def test_any_size(height: int, width: int) -> None:
    model = build_model("unet", encoder="small", encoder_weights=None, decoder_channels=4)
    logits = model.predict_on_batch(np.zeros((2, height, width, 3), np.float32))
    assert logits.shape == (2, height, width, 1)
    assert logits.dtype == np.float32


@pytest.mark.parametrize("encoder", ["vgg16", "mobilenetv2"])
def test_on_every_encoder(encoder: str) -> None:
    model = build_model("unet", encoder=encoder, encoder_weights="none", decoder_channels=4)
    assert model.output_shape == (None, None, None, 1)


def test_dropout_only_where_asked() -> None:
    def names(dropout: float) -> list[str]:
        features = _features(32, 32)
        return [layer.name for layer in keras.Model(features, decode_unet(features, 2, dropout)).layers]

    assert "dropout" in names(0.2)
    assert "dropout" not in names(0.0)


def test_one_step_learns() -> None:
    """A gradient reaches the first decoder stage once the score layer has left zero."""
    model = build_model("unet", encoder="small", encoder_weights=None, decoder_channels=4)
    model.compile(keras.optimizers.Adam(1e-2), keras.losses.BinaryCrossentropy(from_logits=True))
    rng = np.random.default_rng(0)
    image = rng.uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)
    label = (image[..., :1] > 128).astype(np.float32)
    losses = [float(model.train_on_batch(image, label)) for _ in range(4)]
    # The first loss is that of probability 1/2 everywhere: ln 2 = 0.6931.
    assert losses[0] == pytest.approx(0.6931, abs=1e-3)
    assert losses[-1] < losses[0]
