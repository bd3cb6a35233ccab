"""Parts of a scene's maps: the same values as in one call, whoever makes them and in which order."""

import os
import pickle
import re
import socket
from contextlib import nullcontext
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import rasterio
from affine import Affine

from lim_keras.bundle.info import BundleInfo
from lim_keras.bundle.protocol import EnsemblePrediction
from lim_keras.errors import DataError, DomainWarning
from lim_keras.files import shared_file
from lim_keras.inference.domain import reading_grid
from lim_keras.inference.predict_maps import MapOptions, predict_maps
from lim_keras.inference.scene_plan import ScenePlan, Share, cell_jobs, make_plan, map_facts, read_cells
from lim_keras.inference.strips import PartTask, finished_parts, merge, missing_strips, part_ranges
from lim_keras.raster.georeference import Grid
from lim_keras.raster.map_part import MapPart
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
        plan = make_plan(model, reader, options, facts, warped=grid is not None)
    work.mkdir()
    (work / "parts").mkdir()
    plan.write(work)
    read = ScenePlan.read(work)
    assert read is not None and [one.box for one in read.regions] == [one.box for one in plan.regions]
    for number in range(parts, 0, -1):
        first, last = Share.of(number, parts).strips(read.pixels)
        for one in part_ranges(read, finished_parts(work, read), first, last, pixels=40_000):
            PartTask(model, source, options, read, work, f"{number}/{parts}").predict(*one)
    with rasterio.open(merge(work, read)) as file:
        return np.asarray(file.read()), read


CASES: dict[str, tuple[tuple[int, int], bool, MapOptions]] = {
    "odd size": ((333, 517), False, MapOptions(tile=192)),
    "islands": ((400, 450), True, MapOptions(tile=192)),
    "windows of two islands": ((400, 450), True, MapOptions(tile=384)),
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


def test_windows_that_overlap_inside_a_part(write: Write, tmp_path: Path) -> None:
    options, work = MapOptions(tile=384), tmp_path / "work"
    with RasterReader(write("scene.tif", texture(400, 450), valid=islands(400, 450))) as scene:
        whole, model = one_call(Blur(), scene, tmp_path / "one", options), Blur()
        plan = make_plan(model, scene, options, map_facts(scene, model.info, "", options))
        (work / "parts").mkdir(parents=True)
        made = PartTask(model, scene, options, plan, work).predict(0, len(plan.pixels))
        assert made.pixels == plan.layout["pixels"] and made.is_whole(work)
        with rasterio.open(merge(work, plan)) as file:
            assert np.array_equal(file.read(), whole)


def test_a_warped_scene(write: Write, tmp_path: Path) -> None:
    place = {"transform": Affine(2.4, 0, 5e5, 0, -2.4, 3e6), "valid": islands(200, 230)}
    with RasterReader(write("scene.tif", texture(200, 230), **place)) as scene:
        model, options = Blur(), MapOptions(tile=192, resample=True)
        with pytest.warns(DomainWarning, match="is warped"):
            grid = reading_grid(scene.info, model.info, True)
        assert grid is not None and grid.height == 600
        with scene.on_grid(grid) as reader:
            whole = one_call(model, reader, tmp_path / "one", options)
        merged, plan = in_parts(model, scene, tmp_path / "work", options, grid)
        with rasterio.open(tmp_path / "work" / "maps.vrt") as file:
            assert file.transform == grid.transform and file.crs.to_epsg() == 32648
    assert merged.shape == (2, 600, 690) and np.array_equal(whole, merged)
    assert plan.layout["islands"] == len(plan.regions) == 2


def test_cells_may_be_read_by_jobs(write: Write, tmp_path: Path) -> None:
    path = write("scene.tif", texture(2100, 300), valid=islands(2100, 300))
    with RasterReader(path) as scene:
        model, options = Blur(), MapOptions(tile=192)
        facts = map_facts(scene, model.info, "", options)
        jobs = cell_jobs(model.info, scene, options, None)
        cells = [read_cells(pickle.loads(pickle.dumps(job))) for job in jobs]
        # strips of 16 cells of 64 px: 1024, 1024 and 52 rows
        assert [part.shape for part in cells] == [(16, 5), (16, 5), (1, 5)]
        plans = [make_plan(model, scene, options, facts, cells=one) for one in (cells, None)]
    joined, whole = ([one.box for one in plan.regions] for plan in plans)
    assert joined == whole and len(whole) == 3
    with RasterReader(write("full.tif", texture(80, 80))) as scene:
        assert cell_jobs(model.info, scene, options, None) == []


@pytest.mark.parametrize("parts", [1, 2, 3, 7, 50])
def test_shares_cover_each_strip_once_and_are_even(parts: int) -> None:
    pixels = np.random.default_rng(parts).integers(1, 1000, 40)
    ranges = [Share.of(number, parts).strips(pixels) for number in range(1, parts + 1)]
    assert ranges[0][0] == 0 and ranges[-1][1] == 40
    assert all(left[1] == right[0] for left, right in pairwise(ranges))
    # the middle of each strip lies in the share, so that a share is too large by two halves of strips at most
    assert max(pixels[first:last].sum() for first, last in ranges) <= pixels.sum() / parts + pixels.max()


def test_a_share_of_many_scenes() -> None:
    second = Share.of(2, 4)  # 1/4..1/2 of the work
    assert second.within(Fraction(0), Fraction(1, 4)) is None
    assert second.within(Fraction(0), Fraction(1, 2)) == Share(Fraction(1, 2), Fraction(1))
    assert second.within(Fraction(1, 3), Fraction(2, 3)) == Share(Fraction(0), Fraction(1, 2))
    # a scene that cannot be read takes no room: it falls to one share
    assert [Share.of(number, 4).within(Fraction(1), Fraction(1)) for number in (1, 2, 3, 4)] == [None] * 3 + [Share()]
    assert [Share.of(number, 4).within(Fraction(1, 4), Fraction(1, 4)) for number in (1, 2)] == [None, Share()]


def test_what_is_missing(write: Write, tmp_path: Path) -> None:
    with RasterReader(write("scene.tif", texture(700, 200))) as scene:
        model, options = Blur(), MapOptions(tile=192)
        plan = make_plan(model, scene, options, map_facts(scene, model.info, "", options))
        work = tmp_path / "work"
        (work / "parts").mkdir(parents=True)
        plan.write(work)
        task = PartTask(model, scene, options, plan, work)
        # 9 rows of windows: 128 rows, 64 rows each, and the last 124
        assert plan.pixels.tolist() == [200 * 128, *[200 * 64] * 7, 200 * 124]
        task.predict(2, 4)
        done = finished_parts(work, plan)
        assert missing_strips(done, 0, 9) == [(0, 2), (4, 9)] and missing_strips(done, 3, 4) == []
        assert part_ranges(plan, done, 0, 9, pixels=30_000) == [(0, 2), (4, 7), (7, 9)]
        with pytest.raises(DataError, match=r"the strips 0-1, 4-8 of 9 are missing"):
            merge(work, plan)
        # parts that other calls made for other shares may overlap
        for first, last in ((3, 9), (0, 3), (1, 2)):
            task.predict(first, last)
        assert np.array_equal(
            rasterio.open(merge(work, plan)).read(), one_call(model, scene, tmp_path / "one", options)
        )


def test_a_scene_that_changes_while_a_part_is_made(write: Write, tmp_path: Path) -> None:
    path = write("scene.tif", texture(300, 200))
    with RasterReader(path) as scene:
        model, options = Blur(), MapOptions(tile=192)
        plan = make_plan(model, scene, options, map_facts(scene, model.info, "", options))
        (tmp_path / "work" / "parts").mkdir(parents=True)
        os.utime(path, ns=(1, 1))
        with pytest.raises(DataError, match="changed while it was read"):
            PartTask(model, scene, options, plan, tmp_path / "work").predict(0, 1)
    assert list((tmp_path / "work" / "parts").iterdir()) == []


def test_a_disk_that_is_full_at_the_end_of_a_part(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    close = MapPart.__exit__

    def cut_short(part: MapPart, *error: object) -> None:  # GDAL closes a file that did not fit without an error
        close(part, *error)
        os.truncate(part._path, 8)

    monkeypatch.setattr(MapPart, "__exit__", cut_short)
    with RasterReader(write("scene.tif", texture(300, 200))) as scene:
        model, options = Blur(), MapOptions(tile=192)
        plan = make_plan(model, scene, options, map_facts(scene, model.info, "", options))
        (tmp_path / "work" / "parts").mkdir(parents=True)
        with pytest.raises(DataError, match=r"parts/0-1\.tif: cannot be written .* Free disk space"):
            PartTask(model, scene, options, plan, tmp_path / "work").predict(0, 1)
    assert list((tmp_path / "work" / "parts").iterdir()) == []


def test_drafts_of_other_machines_stay(write: Write, tmp_path: Path, ended: int) -> None:
    path = tmp_path / "0-1.tif"
    host = re.sub(r"\W", "-", socket.gethostname())
    names = [f".0-1.{host}.{ended}.1.partial.tif", f".0-1.elsewhere.{ended}.1.partial.tif"]
    names += [f".0-1.{host}.1.1.partial.tif", f".0-12.{host}.{ended}.1.partial.tif"]
    for name in names:
        (tmp_path / name).touch()
    with shared_file(path) as draft:
        draft.touch()
        assert host in draft.name
    assert sorted(one.name for one in tmp_path.iterdir()) == sorted([*names[1:], path.name])
