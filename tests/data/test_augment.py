"""Augmentation: geometry of image and mask, value ranges, recipes of the paper."""

import cv2
import numpy as np
import pytest

from lim_keras.data.augment import PAPER_RECIPES, Dihedral, build_augmentation, mean_filter, paper_recipe, symmetry
from lim_keras.errors import ConfigError

RANGE8 = np.zeros(3, np.float32), np.full(3, 255, np.float32)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def ranges(bands: int, high: float) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros(bands, np.float32), np.full(bands, high, np.float32)


def marked(side: int = 48, bands: int = 3, dtype: type = np.uint8) -> tuple[np.ndarray, np.ndarray]:
    """Return an image that is 180 on landslide and 70 elsewhere, and a mask without symmetry; both read-only."""
    mask = np.zeros((side, side), np.uint8)
    mask[4:30, 6:16] = 1
    mask[20:30, 6:40] = 1
    image = np.repeat(np.where(mask == 1, 180, 70).astype(dtype)[..., None], bands, axis=2)
    for array in (image, mask):
        array.setflags(write=False)  # tiles in a store are shared
    return image, mask


# The eight symmetries.


@pytest.mark.parametrize("bands, dtype", [(1, np.uint8), (3, np.uint8), (6, np.uint16), (12, np.float32)])
@pytest.mark.parametrize("shape", [(5, 5), (4, 7), (1, 3)])
@pytest.mark.parametrize("which", range(8))
def test_symmetry_equals_numpy(which, shape, bands, dtype):
    image = rng().integers(0, 200, (*shape, bands)).astype(dtype)
    mask = rng(1).integers(0, 2, shape).astype(np.uint8)
    for given, got in zip((image, mask), symmetry(image, mask, which), strict=True):
        expected = np.rot90(given, which % 4)
        expected = expected[:, ::-1] if which >= 4 else expected
        np.testing.assert_array_equal(got, expected)
        assert got.dtype == given.dtype and got.flags.c_contiguous


def test_symmetries_form_a_group_of_eight():
    image, mask = marked()
    everything = {symmetry(image, mask, which)[1].tobytes() for which in range(8)}
    assert len(everything) == 8
    for first in range(8):
        for second in range(8):
            assert symmetry(*symmetry(image, mask, first), second)[1].tobytes() in everything


# Image and mask together.


@pytest.mark.parametrize(
    "bands, dtype", [(1, np.uint8), (3, np.uint8), (6, np.uint8), (4, np.uint16), (12, np.float32)]
)
@pytest.mark.parametrize("name", ["dihedral", "paper", "none"])
def test_the_mask_moves_with_the_image(name, bands, dtype):
    image, mask = marked(bands=bands, dtype=dtype)
    augmentation = build_augmentation(name, *ranges(bands, 255))
    positions = set()
    for seed in range(40):
        changed, moved = augmentation(image, mask, rng(seed))
        assert changed.shape == image.shape and changed.dtype == image.dtype
        assert moved.shape == mask.shape and moved.dtype == np.uint8 and moved.sum() == mask.sum()
        for band in range(bands):
            assert np.corrcoef(changed[..., band].ravel(), moved.ravel())[0, 1] > 0.85
        positions.add(moved.tobytes())
    assert len(positions) == {"dihedral": 8, "paper": 4, "none": 1}[name]


def test_augmentation_is_drawn_from_the_generator():
    image, mask = marked()
    augmentation = build_augmentation("dihedral", *RANGE8)
    first, second, other = (augmentation(image, mask, rng(seed))[0] for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, second)
    assert (first != other).any()


def test_none_changes_nothing():
    image, mask = marked()
    assert build_augmentation("none", *RANGE8)(image, mask, rng()) == (image, mask)


def test_unknown_name():
    with pytest.raises(ConfigError, match=r"`augmentation`\. Expected paper, dihedral or none\. Received: flips"):
        build_augmentation("flips", *RANGE8)


# The paper's recipes.


def test_recipe_0_is_the_tile_itself():
    image, mask = marked()
    got = paper_recipe(image, mask, 0, *RANGE8, rng())
    assert got[0] is image and got[1] is mask


def test_recipe_1_is_left_right_flip_and_mean_filter():
    image = np.uint8([[[9], [0], [0]], [[0], [18], [0]], [[0], [0], [27]]])
    mask = np.uint8([[1, 0, 0], [0, 0, 0], [0, 0, 0]])
    got, moved = paper_recipe(image, mask, 1, *ranges(1, 255), rng())
    # flipped: 0 0 9 / 0 18 0 / 27 0 0. Centre: (9 + 18 + 27) / 9 = 6. Upper left, mirrored without repeating the edge,
    # sees 18 0 18 / 0 0 0 / 18 0 18: 72 / 9 = 8. Upper middle sees 0 18 0 / 0 0 9 / 0 18 0: 45 / 9 = 5.
    assert (got[1, 1, 0], got[0, 0, 0], got[0, 1, 0]) == (6, 8, 5)
    np.testing.assert_array_equal(moved, [[0, 0, 1], [0, 0, 0], [0, 0, 0]])


def test_mean_filter_is_the_mean_of_nine():
    image = rng().integers(0, 3000, (9, 11, 5)).astype(np.float32)
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)), mode="reflect")
    expected = np.mean([padded[y : y + 9, x : x + 11] for y in range(3) for x in range(3)], axis=0)
    np.testing.assert_allclose(mean_filter(image), expected, rtol=1e-5)


def test_recipe_2_is_up_down_flip_and_random_gamma():
    image, mask = marked()
    got, moved = paper_recipe(image, mask, 2, *RANGE8, rng(5))
    np.testing.assert_array_equal(moved, mask[::-1])
    gamma = rng(5).uniform(0.7, 1.5)
    assert set(np.unique(got)) == {round(255 * (70 / 255) ** gamma), round(255 * (180 / 255) ** gamma)}


def test_recipe_3_is_both_flips_and_random_noise():
    mask = np.zeros((300, 300), np.uint8)
    mask[:100, :20] = 1
    image = np.full((300, 300, 3), 120, np.uint8)
    got, moved = paper_recipe(image, mask, 3, *RANGE8, rng())
    np.testing.assert_array_equal(moved, mask[::-1, ::-1])
    noise = got.astype(float) - 120
    # 270,000 draws: the mean is within 8 / 520 = .015 of 0 in two cases of three
    assert abs(noise.mean()) < 0.08 and abs(noise.std() - 8) < 0.1
    assert (noise[1:] != noise[:-1]).any() and abs(
        np.corrcoef(noise[..., 0].ravel(), noise[..., 1].ravel())[0, 1]
    ) < 0.02


def test_there_are_four_recipes():
    image, mask = marked()
    masks = {paper_recipe(image, mask, recipe, *RANGE8, rng())[1].tobytes() for recipe in range(PAPER_RECIPES)}
    assert len(masks) == PAPER_RECIPES == 4


# Tones and noise.


@pytest.mark.parametrize("dtype, high", [(np.uint8, 255), (np.uint16, 3000), (np.float32, 1.0)])
def test_strength_zero_leaves_only_the_symmetry(dtype, high):
    image = (rng().random((16, 16, 3)) * high).astype(dtype)
    mask = rng().integers(0, 2, (16, 16)).astype(np.uint8)
    got, moved = Dihedral(*ranges(3, high), strength=0.0)(image, mask, rng(2))
    expected = symmetry(image, mask, int(rng(2).integers(8)))
    np.testing.assert_allclose(got, expected[0], rtol=1e-6, atol=1e-7 * high)
    np.testing.assert_array_equal(moved, expected[1])


@pytest.mark.parametrize("dtype, high", [(np.uint16, 3000), (np.float32, 0.4)])
def test_values_stay_in_the_range_of_the_bands(dtype, high):
    low, high = np.float32([0.0, 0.1]) * high, np.float32([1.0, 0.9]) * high
    image = (rng().random((40, 40, 2)) * high.max() * 1.5).astype(dtype)
    mask = np.zeros((40, 40), np.uint8)
    for seed in range(30):
        got, _ = Dihedral(low, high)(image, mask, rng(seed))
        slack = 1e-6 * high.max()  # float32 arithmetic
        assert (got >= low - slack).all() and (got <= high + slack).all() and got.std() > 0


def test_uint16_is_rounded():
    # 1000 of 0..3000 with strength 0 stays 1000: 1000 / 3000 * 3000 is 999.99994 in float32
    image = np.full((4, 4, 1), 1000, np.uint16)
    got, _ = Dihedral(*ranges(1, 3000), strength=0.0)(image, np.zeros((4, 4), np.uint8), rng())
    assert (got == 1000).all()


def test_dihedral_of_8_bit_images_equals_the_formula():
    """Compare the lookup table with the formula in float64, without symmetry and noise."""
    image = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2)
    mask = np.zeros((16, 16), np.uint8)
    for seed in range(20):
        draw = rng(seed)
        which = int(draw.integers(8))
        gamma, contrast = np.exp(draw.normal(0, 0.2)), np.exp(draw.normal(0, 0.2))
        shift = draw.normal(0, 0.08) + draw.normal(0, 0.03, 3)
        if draw.random() < 0.25:
            continue  # with noise
        scaled = np.clip(((image / 255) ** gamma - 0.5) * contrast + 0.5 + shift, 0, 1)
        expected, _ = symmetry(np.round(scaled * 255), mask, which)
        got, _ = Dihedral(*RANGE8)(image, mask, rng(seed))
        assert np.abs(got - expected).max() <= 1  # float32 may round the other way


def test_a_quarter_of_the_dihedral_examples_is_noisy():
    image, mask = np.full((32, 32, 3), 128, np.uint8), np.zeros((32, 32), np.uint8)
    noisy = sum(Dihedral(*RANGE8)(image, mask, rng(seed))[0].std(axis=(0, 1)).max() > 0.3 for seed in range(400))
    # 400 draws at .25: 100, standard deviation 8.7; a few of them are too faint to show
    assert 65 < noisy < 126


def test_image_larger_than_the_noise_field():
    image = np.full((1030, 2050, 1), 100, np.uint8)
    got, _ = paper_recipe(image, np.zeros(image.shape[:2], np.uint8), 3, *ranges(1, 255), rng())
    assert got.shape == image.shape and abs(got.std() - 8) < 0.1
    # the field is 1024 wide and read round and round
    np.testing.assert_array_equal(got[:, :1000], got[:, 1024:2024])


def test_opencv_accepts_more_than_four_bands():
    """Check a property of OpenCV that the module relies on."""
    table = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 6, axis=1)
    image = rng().integers(0, 256, (5, 4, 6)).astype(np.uint8)
    np.testing.assert_array_equal(cv2.LUT(image, table[None]), image)


def test_extra_bands_move_and_keep_their_values():
    image = np.random.default_rng(0).integers(0, 256, (12, 12, 4), np.uint8)
    mask = image[..., 3] // 100
    for seed in range(16):
        changed, moved = Dihedral(*RANGE8)(image, mask, rng(seed))
        assert changed.shape == image.shape and changed.dtype == np.uint8
        np.testing.assert_array_equal(changed[..., 3] // 100, moved)
        plain, _ = Dihedral(*RANGE8)(image[..., :3], mask, rng(seed))
        np.testing.assert_array_equal(changed[..., :3], plain)
