"""Masks shifted against their images: planted shifts are found, and tiles without one are not reported."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import rasterio
from rasterio.windows import Window

import lim_keras as lk
from lim_keras.demo.world import make_world
from tests.audit.conftest import landslide


def reported(folder: Path) -> dict[str, str]:
    """Return the texts of the tiles whose masks are reported as shifted, and of the shift that all have in common."""
    found = {check.name: check for check in lk.audit_tiles(folder).findings}
    single = found["shifted_masks"].evidence if "shifted_masks" in found else ()
    common = {"common": found["common_shift"].note} if "common_shift" in found else {}
    return {one.tile_id: one.text for one in single} | common


def write(folder: Path, name: str, image: np.ndarray, mask: np.ndarray) -> None:
    for part, pixels in (("images", image), ("masks", mask)):
        (folder / part).mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / part / f"{name}.png"), pixels)


def test_noise_is_not_reported(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(60):
        mask = landslide(rng, 64, 64).astype(np.uint8) * 255
        write(tmp_path / "tiles", f"t{number}", rng.integers(0, 256, (64, 64, 3), np.uint8), mask)
    assert reported(tmp_path / "tiles") == {}


def test_shifts_of_single_tiles(tmp_path):
    world = make_world(640, 2022, landslides=12)
    wanted = {}
    for number in range(12):
        left, top, width, height = cv2.boundingRect((world.instances == number + 1).astype(np.uint8))
        x, y = (int(np.clip(start + side // 2 - 64, 8, 504)) for start, side in ((left, width), (top, height)))
        shift, side = (8, "right") if number % 2 else (-8, "left")
        image = world.scene[y : y + 128, x : x + 128, ::-1]
        write(tmp_path / "tiles", f"t{number}", image, world.mask[y : y + 128, x + shift : x + shift + 128] * 255)
        wanted[f"t{number}"] = tuple(f"mask should move {length} px {side}" for length in (7, 8, 9))
    found = reported(tmp_path / "tiles")
    found.pop("common", None)  # the landslides of both sides differ in size
    assert len(found) >= 6 and all(text.startswith(wanted[name]) for name, text in found.items())


@pytest.mark.real_data
def test_tiles_of_a_real_scene_are_not_reported(real_data, tmp_path):
    scene = real_data / "scenes" / "bijie_test_composite"
    rng = np.random.default_rng(0)
    with rasterio.open(f"{scene}.tif") as images, rasterio.open(f"{scene}_labels.tif") as labels:
        _, _, boxes, centres = cv2.connectedComponentsWithStats((labels.read(1) == 1).astype(np.uint8))
        large = centres[1:][boxes[1:, cv2.CC_STAT_AREA] > 100]
        for number, centre in enumerate(np.repeat(large, 2, axis=0)):
            left, top = np.clip((centre - rng.uniform(10, 54, 2)), 0, (images.width - 64, images.height - 64))
            window = Window(int(left), int(top), 64, 64)
            image, mask = images.read((3, 2, 1), window=window).transpose(1, 2, 0), labels.read(1, window=window)
            if 0 < (mask == 1).mean() < 0.8:
                write(tmp_path / "tiles", f"t{number}", image, np.where(mask == 1, 255, 0).astype(np.uint8))
    number = len(list((tmp_path / "tiles" / "images").iterdir()))
    assert number > 100 and len(reported(tmp_path / "tiles")) <= number / 50
