"""Familiarity of scenes: usual ones pass, others warn, and the summary says how much."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio import Affine

from lim_keras.errors import DomainWarning
from lim_keras.inference.familiarity import FamiliarityMap, SceneFamiliarity, map_familiarity, scene_familiarity
from lim_keras.inference.maps import InputScaling
from lim_keras.raster.georeference import Georeference
from lim_keras.raster.reader import RasterReader
from lim_keras.raster.resampling import grid_with_gsd

from .conftest import Write


class Known:
    """Cells whose mean is within 20 of 120 are familiar."""

    side = 64

    class facts:  # noqa: N801  as the attribute of a model
        limit = 20.0

        @staticmethod
        def familiarity(distances: np.ndarray) -> np.ndarray:
            return np.clip(1 - distances / 40, 0, 1)

    def distances(self, cells: np.ndarray) -> np.ndarray:
        assert cells.shape[1:] == (64, 64, 3)
        return np.abs(cells.reshape(len(cells), -1).mean(axis=1) - 120)


SCALING = InputScaling("uint8", (120.0, 120.0, 120.0))


def measured(path: Path) -> SceneFamiliarity | None:
    with RasterReader(path) as reader:
        return scene_familiarity(Known(), reader, SCALING)  # type: ignore[arg-type]


def test_a_usual_scene_gives_no_warning(write: Write) -> None:
    path = write("usual.tif", np.full((500, 700, 3), 125, np.uint8))
    with warnings.catch_warnings():
        warnings.simplefilter("error", DomainWarning)
        found = measured(path)
    # 8 x 11 cells, those of 52 px at the bottom and of 60 px on the right mirrored
    assert found == SceneFamiliarity(cells=88, unfamiliar=0, median=0.875)


def test_a_bright_half_is_unfamiliar(write: Write) -> None:
    image = np.full((512, 640, 3), 120, np.uint8)
    image[:, :320] = 250
    with pytest.warns(DomainWarning, match=r"bright\.tif: 50% of the scene \(40 of 80 sampled cells of 64 x 64 px\)"):
        found = measured(write("bright.tif", image))
    assert found is not None and found.describe() == {
        "cells": 80, "unfamiliar_share": 0.5, "median_familiarity": 0.5
    }  # fmt: skip


def test_cells_without_data_are_left_out(write: Write) -> None:
    image = np.full((256, 256, 3), 120, np.uint8)
    image[:, 96:] = 0
    found = measured(write("nodata.tif", image, nodata=0))
    assert found is not None and (found.cells, found.unfamiliar) == (4, 0)  # the half-empty column is left out
    assert measured(write("empty.tif", np.where(image > 0, 0, image), nodata=0)) is None


@pytest.mark.parametrize(
    ("cells", "unfamiliar", "warned"), [(128, 10, False), (128, 14, True), (4, 1, False), (4, 4, True)]
)
def test_chance_gives_no_warning(cells: int, unfamiliar: int, warned: bool) -> None:
    assert SceneFamiliarity(cells, unfamiliar, 0.5).is_unusual == warned


def test_a_large_scene_is_sampled(write: Write) -> None:
    found = measured(write("large.tif", np.full((1300, 1300, 3), 120, np.uint8)))
    assert found is not None and found.cells == 128


def mapped(path: Path) -> tuple[FamiliarityMap, Georeference]:
    with RasterReader(path) as reader:
        return map_familiarity(Known(), reader, SCALING), Georeference.of(reader.info)  # type: ignore[arg-type]


def test_the_map_holds_all_cells(write: Write, tmp_path: Path) -> None:
    image = np.full((500, 700, 3), 130, np.uint8)
    image[:64, :128] = 140
    found, ground = mapped(write("usual.tif", image))
    expected = np.full((8, 11), 0.75)
    expected[0, :2] = 0.5
    np.testing.assert_allclose(found.values, expected)
    assert found.summary == SceneFamiliarity(cells=88, unfamiliar=0, median=0.75)
    points = np.array([[0.5, 0.5], [127.5, 63.5], [128.5, 63.5], [127.5, 64.5], [699.5, 499.5]])
    np.testing.assert_allclose(found.at(points, ground), [0.5, 0.5, 0.75, 0.75, 0.75])

    with rasterio.open(found.write(tmp_path / "map.tif")) as file:
        assert (file.dtypes, file.nodata, file.crs.to_epsg()) == (("float32",), -1, 32648)
        assert file.transform == Affine(64 * 0.8, 0, 5e5, 0, -64 * 0.8, 3e6)
        np.testing.assert_array_equal(file.read(1), found.values)


def test_cells_at_the_edge_are_whole(write: Write) -> None:
    image = np.full((100, 100, 3), 120, np.uint8)
    image[64:, :] = 130  # the last row of cells looks at rows 36 to 100, of which 36 are bright
    found, _ = mapped(write("edge.tif", image))
    assert found.values.shape == (2, 2)
    np.testing.assert_allclose(found.values[:, 0], [1, 1 - 10 * 36 / 64 / 40])


def test_the_map_has_gaps_where_the_scene_has_no_data(write: Write, tmp_path: Path) -> None:
    image = np.full((128, 192, 3), 120, np.uint8)
    image[:, :100] = 0
    found, ground = mapped(write("gap.tif", image, nodata=0))
    assert np.isnan(found.values[:, :2]).all()
    assert (found.values[:, 2] == 1).all()
    assert np.isnan(found.at(np.array([[10.5, 10.5]]), ground)).all()
    with rasterio.open(found.write(tmp_path / "map.tif")) as file:
        assert (file.read(1)[:, :2] == -1).all()
    empty, _ = mapped(write("empty.tif", np.zeros((128, 192, 3), np.uint8), nodata=0))
    assert empty.summary is None
    assert np.isnan(empty.values).all()


def test_a_map_on_another_grid_is_read_at_pixels_of_the_scene(write: Write) -> None:
    image = np.full((400, 400, 3), 120, np.uint8)
    image[:, 200:] = 135
    degrees = Affine(1e-5, 0, 104, 0, -1e-5, 30)
    path = write("degrees.tif", image, crs="EPSG:4326", transform=degrees)
    with RasterReader(path) as reader:
        ground = Georeference.of(reader.info)
        with reader.on_grid(grid_with_gsd(reader.info, 1.0, 0.5)) as finer:
            found = map_familiarity(Known(), finer, SCALING)  # type: ignore[arg-type]
    assert "326" in found.crs
    points = np.array([[20.5, 200.5], [380.5, 200.5]])
    np.testing.assert_allclose(found.at(points, ground), [1, 0.625], atol=0.02)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_scene_without_georeference_is_mapped_in_pixels(write: Write, tmp_path: Path) -> None:
    image = np.full((128, 128, 3), 120, np.uint8)
    image[64:] = 130
    found, ground = mapped(write("plain.tif", image, crs=None, transform=None))
    np.testing.assert_allclose(found.at(np.array([[5.5, 5.5], [5.5, 100.5]]), ground), [1, 0.75])
    with rasterio.open(found.write(tmp_path / "map.tif")) as file:
        assert file.crs is None
        assert file.bounds == (0, -128, 128, 0)
