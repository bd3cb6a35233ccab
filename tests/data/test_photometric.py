"""Photometric changes: by hand, in every number of bands and data type, the same for the same seed."""

import time

import numpy as np
import pytest
from pydantic import ValidationError

from lim_keras.config import PhotometricSection, RunConfig
from lim_keras.data import photometric
from lim_keras.data.augment import build_augmentation
from lim_keras.data.photometric import CHANGES, Photometric, build_photometric, followed_by
from lim_keras.errors import ConfigError

MASK = np.zeros((32, 40), np.uint8)


def photograph(bands: int = 3, dtype: str = "uint8", height: int = 32, width: int = 40) -> np.ndarray:
    top = 255 if dtype == "uint8" else 4000
    smooth = np.add.outer(np.linspace(0.1, 0.6, height), np.linspace(0, 0.3, width))[..., None]
    noisy = smooth * np.linspace(0.6, 1, bands) + np.random.default_rng(0).uniform(0, 0.1, (height, width, bands))
    return (noisy * top).astype(dtype)


def changes(bands: int, dtype: str, **strengths: float) -> Photometric:
    top = 255.0 if dtype == "uint8" else 4000.0
    return Photometric(np.zeros(bands), np.full(bands, top), strengths)


def happens(change: Photometric, image: np.ndarray) -> np.ndarray:
    """The image after the first seed for which the change is drawn and visible."""
    for seed in range(40):
        changed, _ = change(image, MASK, np.random.default_rng(seed))
        if not np.array_equal(changed, image):
            return changed
    raise AssertionError("no seed of 40 changed the image")


# By hand.


def test_haze() -> None:
    # 40 % of the light from the air, whose colour is (0.82, 0.9, 1.0) x 0.5: 0.6 x 0.5 + 0.4 x 0.41 = 0.464, ...
    matrix, offset = photometric.haze(5, 0.4, 0.5)
    np.testing.assert_allclose(matrix @ np.full(5, 0.5) + offset, [0.464, 0.48, 0.5, 0.4925333, 0.4925333], atol=1e-6)


def test_white_balance() -> None:
    # logarithms ln 2 and 0 have the mean ln(2) / 2: factors sqrt 2 and 1 / sqrt 2
    matrix, offset = photometric.white_balance(np.log([2.0, 1.0]))
    np.testing.assert_allclose(matrix, np.diag([2**0.5, 0.5**0.5]))
    assert not offset.any()
    np.testing.assert_allclose(photometric.white_balance(np.array([0.7]))[0], [[1.0]])


def test_hue_keeps_grey_and_luma() -> None:
    matrix, _ = photometric.hue(4, 30.0, 1.3)
    np.testing.assert_allclose(matrix @ [0.4, 0.4, 0.4, 0.7], [0.4, 0.4, 0.4, 0.7], atol=1e-6)
    colour = np.array([0.6, 0.3, 0.2])
    luma = np.array([0.299, 0.587, 0.114])
    assert luma @ (matrix[:3, :3] @ colour) == pytest.approx(luma @ colour, abs=1e-6)
    full, none = photometric.hue(3, 360.0, 1.0)[0], photometric.hue(3, 0.0, 0.0)[0]
    np.testing.assert_allclose(full, np.eye(3), atol=1e-6)
    np.testing.assert_allclose(none @ colour, np.full(3, luma @ colour), atol=1e-6)  # no saturation: grey


def test_contrast() -> None:
    # twice the distance from 0.5: 0.6 becomes 0.7
    matrix, offset = photometric.contrast(np.array([0.5]), 2.0)
    np.testing.assert_allclose(matrix @ [0.6] + offset, [0.7])


def test_blur_is_a_gaussian() -> None:
    point = np.zeros((21, 21, 2), np.float32)
    point[10, 10] = 1, 2
    blurred = photometric.blur(point, 1.0)
    rows = np.arange(-3, 4)
    bell = np.exp(-(rows**2) / 2)
    bell /= bell.sum()
    np.testing.assert_allclose(blurred[7:14, 7:14, 0], np.outer(bell, bell), atol=1e-5)
    np.testing.assert_allclose(blurred[..., 1], 2 * blurred[..., 0], atol=1e-6)
    assert photometric.blur(point, 0.05) is point


def test_jpeg_loses_detail_and_keeps_the_order_of_colours() -> None:
    flat = np.full((16, 16, 4), (200, 100, 30, 7), np.uint8)
    np.testing.assert_allclose(photometric.jpeg(flat, 90).astype(int), flat, atol=3)
    np.testing.assert_array_equal(photometric.jpeg(flat, 90)[..., 3], 7)
    image = photograph()
    worse, better = (np.abs(photometric.jpeg(image, quality).astype(int) - image).mean() for quality in (20, 90))
    assert worse > 1.2 * better
    assert photometric.jpeg(image[..., :1], 50).shape == (32, 40, 1)


# The whole.


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("bands", [1, 2, 3, 4, 7])
def test_every_number_of_bands_and_data_type(bands: int, dtype: str) -> None:
    image = photograph(bands, dtype)
    changed = happens(changes(bands, dtype, **dict.fromkeys(CHANGES, 1.0)), image)
    assert changed.dtype == image.dtype and changed.shape == image.shape and changed.flags.c_contiguous
    assert changed.min() >= 0 and changed.max() <= (255 if dtype == "uint8" else 4000)


@pytest.mark.parametrize("name", CHANGES)
def test_each_change_alone_grows_with_its_strength(name: str) -> None:
    image = photograph()

    def distance(strength: float) -> float:
        changed = [changes(3, "uint8", **{name: strength})(image, MASK, np.random.default_rng(s))[0] for s in range(30)]
        return float(np.mean([np.abs(one.astype(int) - image).mean() for one in changed]))

    assert distance(0.0) == 0
    assert 0 < distance(0.5) < distance(1.5)


def test_the_same_for_the_same_seed_and_half_of_the_time() -> None:
    image = photograph()
    change = changes(3, "uint8", **dict.fromkeys(CHANGES, 1.0))
    one, other = (change(image, MASK, np.random.default_rng(3))[0] for _ in range(2))
    np.testing.assert_array_equal(one, other)
    gamma = changes(3, "uint8", gamma=1.0)
    changed = [not np.array_equal(gamma(image, MASK, np.random.default_rng(seed))[0], image) for seed in range(300)]
    assert 0.4 < np.mean(changed) < 0.6


def test_strength_zero_leaves_the_image_and_one_change_does_not_move_the_others() -> None:
    image = photograph()
    assert changes(3, "uint8")(image, MASK, np.random.default_rng(0))[0] is image
    alone = changes(3, "uint8", gamma=1.0)(image, MASK, np.random.default_rng(8))[0]
    with_none = changes(3, "uint8", gamma=1.0, haze=0.0)(image, MASK, np.random.default_rng(8))[0]
    np.testing.assert_array_equal(alone, with_none)


def test_sixteen_bits_are_changed_as_eight() -> None:
    """The same scene in both data types: the same change, but for rounding and JPEG."""
    scene = np.random.default_rng(1).uniform(0.1, 0.9, (32, 40, 3))
    strengths = dict.fromkeys([name for name in CHANGES if name != "jpeg"], 1.0)
    for seed in range(10):
        eight = changes(3, "uint8", **strengths)(
            (scene * 255).round().astype(np.uint8), MASK, np.random.default_rng(seed)
        )
        wide = changes(3, "uint16", **strengths)(
            (scene * 4000).round().astype(np.uint16), MASK, np.random.default_rng(seed)
        )
        np.testing.assert_allclose(eight[0] / 255, wide[0] / 4000, atol=0.02)


def test_hue_needs_colours_and_jpeg_eight_bits() -> None:
    for bands, dtype, name in (
        (2, "uint8", "hue"),
        (3, "uint16", "jpeg"),
        (2, "uint8", "jpeg"),
        (1, "uint8", "white_balance"),
    ):
        image = photograph(bands, dtype)
        change = changes(bands, dtype, **{name: 1.0})
        for seed in range(10):
            np.testing.assert_allclose(change(image, MASK, np.random.default_rng(seed))[0], image, atol=1)


def test_bands_of_a_teacher_keep_their_values() -> None:
    image = np.dstack([photograph(), np.full((32, 40), 77, np.uint8)])
    changed = happens(changes(3, "uint8", gamma=1.0), image)
    np.testing.assert_array_equal(changed[..., 3], 77)


def test_it_is_fast() -> None:
    """A window of 256 px in less than 50 ms of processor time, so that two threads keep up with a training step."""
    image, mask = photograph(3, "uint8", 256, 256), np.zeros((256, 256), np.uint8)
    change = changes(3, "uint8", **dict.fromkeys(CHANGES, 1.0))
    started = time.process_time()
    for seed in range(20):
        change(image, mask, np.random.default_rng(seed))
    assert (time.process_time() - started) / 20 < 0.05


def test_unknown_names_and_strengths() -> None:
    with pytest.raises(ConfigError, match=r"Expected names of haze, blur, .*Received: fog"):
        changes(3, "uint8", fog=1.0)
    with pytest.raises(ConfigError, match=r"Expected numbers >= 0\. Received: haze -1"):
        changes(3, "uint8", haze=-1.0)


# The configuration.


def test_the_section_has_every_change_and_one_strength_for_all() -> None:
    assert tuple(PhotometricSection().strengths()) == CHANGES
    assert set(PhotometricSection(strength=0.5, haze=2.0, jpeg=0.0).strengths().items()) == {
        *((name, 0.5) for name in CHANGES if name not in ("haze", "jpeg")),
        ("haze", 2.0),
        ("jpeg", 0.0),
    }


@pytest.mark.parametrize("key", ["strength", *CHANGES])
def test_a_strength_that_leaves_no_image_is_refused(key: str) -> None:
    """Such as 100 for 1.00; from thousands on, factors overflow."""
    with pytest.raises(ValidationError, match="less than or equal to 10"):
        PhotometricSection(**{key: 100.0})
    assert PhotometricSection(**{key: 10.0}).strengths()[key if key != "strength" else "haze"] == 10


def test_the_default_changes_nothing_and_keeps_the_digest_of_earlier_configurations() -> None:
    low, high = np.zeros(3), np.full(3, 255.0)
    assert build_photometric(PhotometricSection(), low, high, "uint8") is None
    dihedral = build_augmentation("dihedral", low, high)
    assert followed_by(dihedral, None) is dihedral
    plain, changed = RunConfig(name="a"), RunConfig(name="a", photometric=PhotometricSection(strength=1.0))
    assert (
        plain.digest() == "847f3a0b1cc1fb24db14f713e0537cccb09f675ef47b45f9ebbf69418cbc914f"
        and changed.digest() != plain.digest()
    )


def test_photometric_changes_come_after_the_augmentation() -> None:
    low, high = np.zeros(3), np.full(3, 255.0)
    dihedral = build_augmentation("dihedral", low, high)
    change = build_photometric(PhotometricSection(strength=1.0), low, high, "uint8")
    both = followed_by(dihedral, change)
    assert change is not None and both is not None
    mask = np.arange(32 * 32, dtype=np.int64).reshape(32, 32).astype(np.uint8)
    image = photograph(3, "uint8", 32, 32)
    rng = np.random.default_rng(4)
    expected = change(*dihedral(image, mask, rng), rng)
    for one, other in zip(both(image, mask, np.random.default_rng(4)), expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("key", "bands", "dtype", "message"),
    [
        ("jpeg", 3, "uint16", r"photometric\.jpeg: expected 8-bit images .* Received: images of 3 band\(s\) of uint16"),
        ("hue", 2, "uint8", r"photometric\.hue: expected three bands or more"),
        ("white_balance", 1, "uint8", r"photometric\.white_balance: expected two bands or more"),
    ],
)
def test_a_change_that_the_images_cannot_take(key: str, bands: int, dtype: str, message: str) -> None:
    low, high = np.zeros(bands), np.full(bands, 255.0)
    with pytest.raises(ConfigError, match=message):
        build_photometric(PhotometricSection(**{key: 1.0}), low, high, dtype)
    assert build_photometric(PhotometricSection(strength=1.0), low, high, dtype) is not None
