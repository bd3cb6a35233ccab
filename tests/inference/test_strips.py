"""Parts of a scene's maps: the same values as in one call, whoever makes them and in which order."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import rasterio

from lim_keras.bundle.info import BundleInfo
from lim_keras.bundle.protocol import EnsemblePrediction
from lim_keras.inference import strips
from lim_keras.inference.predict_maps import MapOptions, predict_maps
from lim_keras.inference.scene_plan import ScenePlan, Share, make_plan, map_facts
from lim_keras.inference.strips import (
    PartTask,
    finished_parts,
    merge,
    part_ranges,
)
from lim_keras.raster.georeference import Grid
from lim_keras.raster.reader import RasterReader

from .conftest import Write, bundle_info, texture


class Blur:
    """Mean of 9 x 9 pixels, an exact halo of 4 px, and two more maps made of it."""

    def __init__(self, **changes: Any) -> None:
        self.info: BundleInfo = bundle_info(halo=4, folds=3, stride=1, **changes)
        self.pixels = 0

    def predict_all(self, images: np.ndarray) -> EnsemblePrediction:
        self.pixels += images.shape[1] * images.shape[2]
        grey = images[0].astype(np.float32).mean(axis=-1)
        probability = cv2.blur(grey, (9, 9), borderType=cv2.BORDER_CONSTANT)[np.newaxis] / np.float32(255)
        return EnsemblePrediction(probability, probability / 3, (probability * 4).astype(np.int32))


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strips, "PART_PIXELS", 40_000)


def islands(height: int, width: int) -> np.ndarray:
    """Valid pixels of an L around a small island, whose boxes overlap, and of one more at the lower right edge."""
    valid = np.zeros((height, width), bool)
    valid[:, :70] = valid[-70:, :] = True
    valid[130:200, 260:340] = True
    valid[20:40, -30:] = True
    return valid


def one_call(model: Blur, scene: RasterReader, folder: Path, options: MapOptions) -> np.ndarray:
    vrt, _ = predict_maps(model, scene, folder, options=options)
    with rasterio.open(vrt) as file:
        return np.asarray(file.read())


def in_parts(
    model: Blur, source: RasterReader, work: Path, options: MapOptions, grid: Grid | None = None, parts: int = 3
) -> tuple[np.ndarray, ScenePlan]:
    """Make the last part first, and read what is merged."""
    with source.on_grid(grid) if grid else nullcontext(source) as reader:
        facts = map_facts(source, model.info, "", options)
        plan = make_plan(model.info, reader, options, facts, warped=grid is not None)
    work.mkdir()
    (work / "parts").mkdir()
    plan.write(work)
    read = ScenePlan.read(work)
    assert read is not None and [one.box for one in read.regions] == [one.box for one in plan.regions]
    for number in range(parts, 0, -1):
        first, last = Share.of(number, parts).strips(read.pixels)
        for one in part_ranges(read, finished_parts(work, read), first, last):
            PartTask(model, source, options, read, work, f"{number}/{parts}").predict(*one)
    with rasterio.open(merge(work, read)) as file:
        return np.asarray(file.read()), read


CASES: dict[str, tuple[tuple[int, int], bool, MapOptions]] = {
    "odd size": ((333, 517), False, MapOptions(tile=192)),
    "islands": ((400, 450), True, MapOptions(tile=192)),
    "spread and tta": ((400, 450), True, MapOptions(tile=192, spread=True, tta=True)),
    "one window": ((100, 90), False, MapOptions()),
    "scale": ((200, 300), False, MapOptions(tile=192, scale=(20.0, 180.0))),
}


@pytest.mark.parametrize("name", CASES)
def test_parts_hold_the_values_of_one_call(name: str, write: Write, tmp_path: Path) -> None:
    shape, holes, options = CASES[name]
    valid = islands(*shape) if holes else None
    with RasterReader(write("scene.tif", texture(*shape), valid=valid)) as scene:
        whole = one_call(Blur(), scene, tmp_path / "one", options)
        merged, plan = in_parts(Blur(), scene, tmp_path / "work", options)
    assert np.array_equal(whole, merged)
    assert (merged == -1).any() == holes and (merged[0] > 0.1).any()
    assert len(finished_parts(tmp_path / "work", plan)) > 1 or name == "one window"
    if holes:
        first, second = plan.regions[0].box, plan.regions[2].box
        assert first.top < second.top < first.bottom and first.left < second.left < first.right
