"""Samplers: origin of the pixels, positions of landslides, seams, scales, seeds."""

import hashlib
import re
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from lim_keras.data.augment import build_augmentation
from lim_keras.data.sampling import ResizedSampler, WindowSampler
from lim_keras.errors import ConfigError, DataError

RANGE = np.zeros(3, np.float32), np.full(3, 255, np.float32)


class MemoryStore:
    """Tiles in memory, with the interface of a `TileStore`; records the requests."""

    def __init__(self, images, masks, kinds=None):
        self.examples = list(zip(images, masks, strict=True))
        kinds = kinds or ["landslide" if (mask == 1).any() else "non-landslide" for mask in masks]
        self.tiles = [SimpleNamespace(kind=kind) for kind in kinds]
        self.requests = []
        for array in (*images, *masks):
            array.setflags(write=False)

    def __len__(self):
        return len(self.examples)

    def size(self, position):
        return self.examples[position][1].shape

    def get(self, position):
        self.requests.append(position)
        return self.examples[position]

    def is_landslide(self, position):
        return self.tiles[position].kind == "landslide"


def coded(sizes, masks=None):
    """Make tiles with pixels (tile + 1, row, column); landslide where (row + column) % 5 == 0 in every other tile."""
    images = []
    for number, (height, width) in enumerate(sizes):
        rows, columns = np.mgrid[:height, :width]
        images.append(np.stack([np.full((height, width), number + 1), rows, columns], -1).astype(np.uint8))
    if masks is None:
        masks = [
            (((image[..., 1] + image[..., 2]) % 5 == 0) & (number % 2 == 0)).astype(np.uint8)
            for number, image in enumerate(images)
        ]
    return MemoryStore(images, masks)


def mixed_sizes(count=12, low=20, high=90):
    return [(int(h), int(w)) for h, w in np.random.default_rng(1).integers(low, high, (count, 2))]


def assert_pixels_come_from_tiles(store, image, mask):
    for number in np.unique(image[..., 0]):
        assert 1 <= number <= len(store)
        here = image[..., 0] == number
        rows, columns = image[here, 1], image[here, 2]
        np.testing.assert_array_equal(store.examples[number - 1][1][rows, columns], mask[here])


# Origin of the pixels.


@pytest.mark.parametrize("paste", [0.0, 0.5, 1.0])
def test_every_pixel_of_a_window_comes_from_a_tile_with_its_label(paste):
    store = coded(mixed_sizes())
    sampler = WindowSampler(store, 64, 10, 7, paste=paste)
    for position in range(60):
        image, mask = sampler.example(0, position)
        assert image.shape == (64, 64, 3) and mask.shape == (64, 64) and image.dtype == np.uint8
        assert_pixels_come_from_tiles(store, image, mask)


def test_windows_stay_inside_tiles_that_are_large_enough():
    store = coded([(64, 200), (90, 64), (65, 70), (120, 130)])
    sampler = WindowSampler(store, 64, 10, 0, paste=0.0)
    for position in range(100):
        image, _ = sampler.example(0, position)
        assert (image[..., 0] == image[0, 0, 0]).all()
        assert (image[..., 1] == image[0, 0, 1] + np.arange(64)[:, None]).all()
        assert (image[..., 2] == image[0, 0, 2] + np.arange(64)).all()


def test_tile_too_small_on_one_axis_is_filled_on_that_axis():
    store = coded([(40, 100)] * 6)
    sampler = WindowSampler(store, 64, 10, 0, paste=0.0)
    for position in range(30):
        image, _ = sampler.example(0, position)
        # the 40 rows of the first tile go through the whole width
        whole_rows = [(row[:, 0] == row[0, 0]).all() and (np.diff(row[:, 2].astype(int)) == 1).all() for row in image]
        assert sum(whole_rows) >= 24  # with an offset of at most 40 below or above: at least 64 - 40 rows of it show


def test_paste_is_the_share_of_windows_among_other_tiles():
    store = coded([(100, 100)] * 10)
    sampler = WindowSampler(store, 64, 10, 0, paste=0.3)
    several = [len(np.unique(sampler.example(0, n)[0][..., 0])) > 1 for n in range(600)]
    alone = WindowSampler(store, 64, 10, 0, paste=1.0)
    always = [len(np.unique(alone.example(0, n)[0][..., 0])) > 1 for n in range(600)]
    # 30 % of the windows are placed as all of them are with paste = 1; 600 draws: standard deviation .02
    assert abs(np.mean(several) - 0.3 * np.mean(always)) < 0.06


# Seeds.


def test_the_same_seed_epoch_and_position_give_the_same_window():
    store = coded(mixed_sizes())
    make = lambda seed: WindowSampler(store, 48, 10, seed, scale_jitter=(0.7, 1.4))  # noqa: E731
    first = make(5)
    wanted = [first.example(2, n) for n in range(5)]
    backwards = [make(5).example(2, n) for n in reversed(range(5))][::-1]
    for (image, mask), (again, labels) in zip(wanted, backwards, strict=True):
        np.testing.assert_array_equal(image, again)
        np.testing.assert_array_equal(mask, labels)
    for other in (make(5).example(3, 0), make(5).example(2, 7), make(6).example(2, 0)):
        assert (other[0] != wanted[0][0]).any()


def digest_of_examples() -> str:
    rng = np.random.default_rng(0)
    sizes = mixed_sizes()
    images = [rng.integers(0, 255, (*size, 3)).astype(np.uint8) for size in sizes]
    masks = [(rng.random(size) < 0.2 * (n % 2)).astype(np.uint8) for n, size in enumerate(sizes)]
    store, digest = MemoryStore(images, masks), hashlib.sha256()
    dihedral = build_augmentation("dihedral", *RANGE)
    windows = WindowSampler(store, 48, 9, 1, scale_jitter=(0.7, 1.4), augmentation=dihedral)
    resized = ResizedSampler(store, 32, 1, "paper", low=RANGE[0], high=RANGE[1])
    for position in range(8):
        for sampler in (windows, resized):
            for array in sampler.example(1, position):
                digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def test_another_process_draws_the_same_windows():
    program = (
        "import importlib.util; spec = importlib.util.spec_from_file_location('here', "
        f"{__file__!r}); here = importlib.util.module_from_spec(spec); spec.loader.exec_module(here); "
        "print(here.digest_of_examples())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=900, check=True)
    assert done.stdout.strip() == digest_of_examples()


# Positions of landslides and seams carry no information.


def spot(height, width, row, column):
    """Make a tile with one landslide pixel."""
    mask = np.zeros((height, width), np.uint8)
    mask[row, column] = 1
    return np.zeros((height, width, 1), np.uint8), mask


@pytest.mark.parametrize("paste", [0.0, 1.0])
def test_landslide_positions_are_uniform(paste):
    store = MemoryStore(*([array] for array in spot(201, 201, 100, 100)))
    sampler = WindowSampler(store, 64, 10, 3, landslide_share=1.0, paste=paste)
    positions = np.array([np.argwhere(sampler.example(0, n)[1] == 1)[0] for n in range(3000)]) / 63
    # uniform on 0..1: mean 1/2, standard deviation sqrt(1/12) = .2887 (and 65/63 of it on 64 positions);
    # 3000 draws: the mean is known to .0053, the deviation to .0024
    assert np.abs(positions.mean(axis=0) - 0.5).max() < 0.02
    assert np.abs(positions.std(axis=0) - 0.2887 * 65 / 64).max() < 0.012
    counts = np.histogram2d(*positions.T, bins=4, range=[[0, 1], [0, 1]])[0]
    # sixteen cells of 187.5 each: chi-squared with 15 degrees of freedom is below 37.7 in 999 of 1000 cases
    assert ((counts - 187.5) ** 2 / 187.5).sum() < 37.7


def test_share_of_landslides_cut_by_the_edge():
    # a square of 20 x 20 around one of its pixels, drawn evenly: row 0..19, position 0..63. It is cut at the top if the
    # position is less than the row: sum over rows r of r / 64 / 20 = 190 / 1280 = .148
    image, mask = np.zeros((200, 200, 1), np.uint8), np.zeros((200, 200), np.uint8)
    mask[90:110, 90:110] = 1
    sampler = WindowSampler(MemoryStore([image], [mask]), 64, 10, 1, landslide_share=1.0, paste=0.0)
    rows = [np.flatnonzero((sampler.example(0, n)[1] == 1).any(axis=1)) for n in range(2000)]
    cut = np.mean([found[0] == 0 and len(found) < 20 for found in rows])
    assert abs(cut - 0.148) < 0.03


def test_landslide_share():
    store = coded([(30, 30)] * 9)
    for share in (0.0, 0.2, 0.5, 1.0):
        sampler = WindowSampler(store, 32, 10, 0, landslide_share=share)
        first = []
        for position in range(800):
            store.requests.clear()
            sampler.example(0, position)
            first.append(store.is_landslide(store.requests[0]))
        # 800 draws: standard deviation at most .018
        assert abs(np.mean(first) - share) < 0.06


def test_seams_carry_no_information():
    """Background tiles and landslide tiles have as many neighbours, and as many landslide tiles among them."""
    rng = np.random.default_rng(4)
    tiles = [spot(48, 48, *rng.integers(48, size=2)) for _ in range(200)]
    tiles += [(image, np.zeros_like(mask)) for image, mask in tiles]
    store = MemoryStore(*zip(*tiles, strict=True))
    sampler = WindowSampler(store, 64, 10, 0, landslide_share=0.4, paste=1.0)
    patches = {True: [], False: []}
    for position in range(3000):
        store.requests.clear()
        sampler.example(0, position)
        first, *rest = store.requests
        patches[store.is_landslide(first)].append([len(rest), sum(map(store.is_landslide, rest))])
    there, absent = (np.array(patches[kind], float) for kind in (True, False))
    assert len(there) > 1000 and len(absent) > 1000
    for column in (0, 1):
        difference = there[:, column].mean() - absent[:, column].mean()
        error = np.hypot(*(group[:, column].std() / len(group) ** 0.5 for group in (there, absent)))
        assert abs(difference) < 3.5 * error
    for group in (there, absent):
        # about 4,000 patches or more: standard deviation of the share below .008
        assert abs(group[:, 1].sum() / group[:, 0].sum() - 0.4) < 0.03


# Scale.


def test_jitter_magnifies_evenly_on_a_log_scale():
    columns = np.broadcast_to(np.arange(400, dtype=np.float32), (400, 400))[..., None].copy()
    store = MemoryStore([columns], [np.zeros((400, 400), np.uint8)])
    sampler = WindowSampler(store, 64, 10, 0, landslide_share=0.0, scale_jitter=(0.7, 1.4), paste=0.0)
    slopes = np.array([np.polyfit(np.arange(40), sampler.example(0, n)[0][32, 12:52, 0], 1)[0] for n in range(400)])
    scales = 1 / slopes
    assert scales.min() > 0.69 and scales.max() < 1.42
    # even on a log scale: half below sqrt(.7 * 1.4) = .99; 400 draws: standard deviation .025
    assert abs(np.mean(scales < (0.7 * 1.4) ** 0.5) - 0.5) < 0.08


def test_ignored_pixels_at_any_scale():
    mask = np.zeros((90, 90), np.uint8)
    mask[20:50, 20:50], mask[30:40, 30:80] = 1, 255
    store = MemoryStore([np.zeros((90, 90, 1), np.uint8)], [mask])
    dihedral = build_augmentation("dihedral", RANGE[0][:1], RANGE[1][:1])
    sampler = WindowSampler(store, 64, 10, 0, scale_jitter=(0.5, 2.0), augmentation=dihedral)
    seen = set()
    for position in range(50):
        seen |= set(np.unique(sampler.example(0, position)[1]))
    assert seen == {0, 1, 255}


# Special sets of tiles.


def test_no_landslide_tile():
    store = coded([(30, 30)] * 2, [np.zeros((30, 30), np.uint8)] * 2)
    with pytest.raises(DataError, match=r"No landslide tile to draw landslide windows from\. Expected at least one"):
        WindowSampler(store, 32, 10, 0, landslide_share=0.5)
    assert not WindowSampler(store, 32, 10, 0, landslide_share=0.0).example(0, 0)[1].any()


def test_landslide_tiles_only():
    store = coded([(30, 30)] * 2, [np.ones((30, 30), np.uint8)] * 2)
    assert WindowSampler(store, 32, 10, 0, landslide_share=0.5).example(0, 0)[1].all()


def test_a_landslide_tile_without_landslide_pixels():
    store = MemoryStore([np.zeros((30, 30, 1), np.uint8)], [np.zeros((30, 30), np.uint8)], ["landslide"])
    assert not WindowSampler(store, 32, 10, 0, landslide_share=1.0).example(0, 0)[1].any()


def test_tiny_tiles():
    store = coded([(1, 1), (2, 1), (1, 3)])
    assert_pixels_come_from_tiles(store, *WindowSampler(store, 16, 10, 0).example(0, 0))


@pytest.mark.parametrize(
    "argument", [{"landslide_share": 1.5}, {"scale_jitter": (0.0, 1.0)}, {"scale_jitter": (2.0, 1.0)}, {"paste": -0.1}]
)
def test_arguments_out_of_range(argument):
    ((name, value),) = argument.items()
    with pytest.raises(ConfigError, match=rf"`{name}`\. Expected .* Received: {re.escape(str(value))}"):
        WindowSampler(coded([(30, 30)] * 2), 32, 10, 0, **argument)
    with pytest.raises(ConfigError, match="`size`"):
        WindowSampler(coded([(30, 30)] * 2), 0, 10, 0)


# Whole tiles, resized.


def flags(count, side=8):
    """Make tiles, each of one grey, and a mask without symmetry."""
    mask = np.zeros((side, side), np.uint8)
    mask[1:5, 1], mask[4, 1:4] = 1, 1
    images = [np.full((side, side, 3), 10 * (number + 1), np.uint8) for number in range(count)]
    return images, mask


def test_paper_gives_four_examples_of_landslide_tiles_and_one_of_others():
    images, mask = flags(5)
    masks = [mask.copy(), mask.copy(), *(np.zeros_like(mask) for _ in range(3))]
    sampler = ResizedSampler(MemoryStore(images, masks), 8, 0, "paper", low=RANGE[0], high=RANGE[1])
    assert len(sampler) == 2 * 4 + 3
    for epoch in (0, 1):
        examples = [sampler.example(epoch, position) for position in range(len(sampler))]
        labels = [labels for _, labels in examples if labels.any()]
        # itself, left-right, up-down, both: of two tiles
        expected = [m.tobytes() for m in (mask, mask[:, ::-1], mask[::-1], mask[::-1, ::-1])] * 2
        assert sorted(m.tobytes() for m in labels) == sorted(expected)
        greys = sorted(int(image[0, 0, 0]) for image, labels in examples if not labels.any())
        assert greys == [30, 40, 50]  # untouched


@pytest.mark.parametrize("augmentation", ["none", "dihedral"])
def test_other_augmentations_give_one_example_per_tile(augmentation):
    images, mask = flags(7)
    sampler = ResizedSampler(MemoryStore(images, [mask] * 7), 16, 0, augmentation, low=RANGE[0], high=RANGE[1])
    assert len(sampler) == 7
    image, labels = sampler.example(0, 0)
    assert image.shape == (16, 16, 3) and labels.sum() == 4 * mask.sum()


def test_order_by_epoch_and_positions_beyond_the_epoch():
    images, mask = flags(20)
    sampler = ResizedSampler(MemoryStore(images, [mask] * 20), 8, 3, low=RANGE[0], high=RANGE[1])
    orders = [[int(sampler.example(epoch, n)[0][0, 0, 0]) for n in range(20)] for epoch in (0, 1, 0)]
    assert sorted(orders[0]) == [10 * n for n in range(1, 21)]
    assert orders[0] == orders[2] != orders[1]
    assert sampler.example(0, 20)[0][0, 0, 0] == orders[0][0]
