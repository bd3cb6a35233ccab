"""The image-blind baseline: by hand, as good as any threshold, stored and read back."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from lim_keras.bundle.saved_model import read_baseline
from lim_keras.errors import BundleError, DataError
from lim_keras.metrics.binary import count, pool
from lim_keras.metrics.calibration import ImageBlindMask, everywhere


def test_threshold_by_hand() -> None:
    # Two tiles of two pixels: landslide left in both, right in one: mean (1, .5).
    # Cut above .5: tp 2, fp 0, fn 1, f1 = 4 / 5. Cut at or below .5: tp 3, fp 1, fn 0, f1 = 6 / 7.
    masks = [np.array([[1, 1]], np.uint8), np.array([[1, 0]], np.uint8)]
    blind = ImageBlindMask.fit(np.array([[1.0, 0.5]]), masks)
    assert blind.threshold < 0.5
    assert blind.mask((1, 2)).tolist() == [[True, True]]
    assert pool(count(blind.mask(mask.shape), mask) for mask in masks).scores()["f1"] == pytest.approx(6 / 7)


def test_centred_landslides_are_found_without_looking_at_tiles_of_any_size() -> None:
    rng = np.random.default_rng(4)
    masks = []
    for height, width in rng.integers(20, 60, (30, 2)):
        mask = np.zeros((height, width), np.uint8)
        mask[height // 3 : -height // 3, width // 3 : -width // 3] = 1
        mask[0, 0] = 255
        masks.append(mask)
    mean = np.zeros((32, 32))
    mean[10:22, 10:22] = 0.9
    blind = ImageBlindMask.fit(mean, masks)
    f1 = pool(count(blind.mask(mask.shape), mask) for mask in masks).scores()["f1"]
    assert f1 > 0.9
    for other in np.linspace(0.05, 0.85, 9):
        rival = ImageBlindMask(mean.astype(np.float32), other)
        assert f1 >= pool(count(rival.mask(mask.shape), mask) for mask in masks).scores()["f1"] - 1e-9


def test_the_threshold_depends_on_the_size_that_tiles_are_judged_at() -> None:
    # A large tile of landslide on the left, three small ones of none: mean (1/4, 0). By native pixels the large tile
    # decides: 16 landslide and 3 background pixels on the left. Resized to 2 x 2 each tile weighs the same: left there
    # are 2 landslide and 6 background pixels, f1 = 4 / (4 + 6) = .4; everything: 4 / (4 + 14) is worse as well.
    large = np.zeros((4, 8), np.uint8)
    large[:, :4] = 1
    small = [np.zeros((1, 2), np.uint8)] * 3
    mean = np.array([[0.25, 0.0]])

    def f1(size: int | None) -> float:
        blind = ImageBlindMask.fit(mean, [large, *small], size)
        sized = [large, *small] if size is None else [cv2.resize(mask, (2, 2)) for mask in (large, *small)]
        return pool(count(blind.mask(mask.shape), mask) for mask in sized).scores()["f1"]

    assert f1(2) == pytest.approx(0.4)
    assert f1(None) > 0.8


def test_stored_and_read_back(tmp_path: Path) -> None:
    blind = ImageBlindMask(np.random.default_rng(1).random((9, 7)).astype(np.float32), 0.4375)
    blind.write(tmp_path / "baseline.npz")
    again = read_baseline(tmp_path / "baseline.npz")
    assert again.threshold == blind.threshold
    assert (again.mean_mask == blind.mean_mask).all()
    assert (again.mask((30, 20)) == blind.mask((30, 20))).all()


def test_damaged_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "baseline.npz"
    with pytest.raises(BundleError, match=r"baseline\.npz"):
        read_baseline(path)
    path.write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(BundleError, match=r"baseline\.npz"):
        read_baseline(path)
    path.write_bytes(b"")
    with pytest.raises(BundleError, match=r"baseline\.npz"):
        read_baseline(path)
    with path.open("wb") as file:
        np.save(file, np.zeros((3, 3)))
    with pytest.raises(BundleError, match=r"baseline\.npz"):
        read_baseline(path)
    np.savez(path, mean_mask=np.zeros((3, 3)))
    with pytest.raises(BundleError, match="threshold"):
        read_baseline(path)
    np.savez(path, mean_mask=np.zeros(3), threshold=0.5)
    with pytest.raises(BundleError, match="`mean_mask`"):
        read_baseline(path)
    np.savez(path, mean_mask=np.array([{}]), threshold=0.5)
    with pytest.raises(BundleError, match=r"baseline\.npz"):
        read_baseline(path)


def test_masks_without_landslides_fix_no_threshold() -> None:
    with pytest.raises(DataError, match="no landslide pixel"):
        ImageBlindMask.fit(np.zeros((4, 4)), [np.zeros((5, 5), np.uint8)])


def test_everywhere_is_everywhere() -> None:
    assert everywhere((3, 5)).shape == (3, 5) and everywhere((3, 5)).all()
