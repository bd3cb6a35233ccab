"""Options and elevation models that are refused before a scene is predicted."""

import math
import re
import warnings
from dataclasses import replace

import numpy as np
import pytest
import rasterio
from rasterio import Affine

from lim_keras.errors import ConfigError, DataError, LimKerasError
from lim_keras.inventory.options import InventoryOptions, PredictOptions, check_inventory
from lim_keras.inventory.predict_scene import predict_scene
from lim_keras.raster.images import read_info
from lim_keras.raster.writer import write_raster
from tests.conftest import bundle_info

UTM = "EPSG:32648"


@pytest.fixture
def scene(tmp_path):
    transform = Affine(1, 0, 500_000, 0, -1, 3_000_000)
    return read_info(write_raster(tmp_path / "valley.tif", np.zeros((50, 60), np.uint8), crs=UTM, transform=transform))


@pytest.fixture
def nowhere(tmp_path):
    """A scene without CRS and ground sample distance."""
    return read_info(write_raster(tmp_path / "nocrs.tif", np.zeros((50, 60), np.uint8)))


def write_dem(tmp_path, bands=1, crs=UTM, left=499_900, size=30):
    heights = np.zeros((30, size, bands), np.float32)
    return write_raster(tmp_path / "dem.tif", heights, crs=crs, transform=Affine(10, 0, left, 0, -10, 3_000_100))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"min_area_m2": 5}, "`min_area_m2`"),
        ({"fill_holes_m2": 5}, "`fill_holes_m2`"),
        ({"simplify_m": 0.5, "min_area_m2": 5}, "`min_area_m2`, `simplify_m`"),
    ],
)
def test_metres_without_a_ground_sample_distance(nowhere, scene, options, named):
    expected = f"{nowhere.path}: its ground sample distance is unknown, but needed for {named}. Give `gsd_m`"
    with pytest.raises(ConfigError, match="^" + re.escape(expected)):
        check_inventory(nowhere, InventoryOptions(**options))
    check_inventory(replace(nowhere, gsd_m=0.8), InventoryOptions(**options))
    check_inventory(scene, InventoryOptions(**options))
    check_inventory(nowhere, InventoryOptions(fill_holes_m2=math.inf))


def test_a_model_needs_a_place(nowhere, tmp_path):
    dem = write_dem(tmp_path)
    with pytest.raises(DataError, match=r"nocrs.tif: has no coordinate reference system.*dem.tif"):
        check_inventory(replace(nowhere, gsd_m=0.8), InventoryOptions(dem=dem))


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ({"left": 600_000}, r"dem.tif: expected an elevation model of .*/valley.tif, but it lies elsewhere"),
        ({"bands": 3}, r"dem.tif: .* of one band. Received: 3 bands"),
        ({"crs": ""}, r"dem.tif: expected a georeferenced elevation model"),
    ],
)
def test_models_that_cannot_be_used(scene, tmp_path, place, said):
    with pytest.raises(DataError, match=said):
        check_inventory(scene, InventoryOptions(min_slope_deg=5, dem=write_dem(tmp_path, **place)))


def test_a_unit_that_is_not_known(scene, tmp_path):
    dem = write_dem(tmp_path)
    with rasterio.open(dem, "r+") as target:
        target.units = ("fathom",)
    with pytest.raises(DataError, match=r"dem.tif: .*'fathom'"):
        check_inventory(scene, InventoryOptions(dem=dem))


def test_a_model_of_a_part_is_left_to_the_inventory_to_warn_of(scene, tmp_path):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_inventory(scene, InventoryOptions(min_slope_deg=5, dem=write_dem(tmp_path, size=13)))
    assert caught == []


class NeverAsked:
    """A model that must not be asked: what cannot be used is refused before."""

    info = bundle_info(name="local", sampling={}, halo=4)

    def predict_all(self, images):
        raise AssertionError("the scene was predicted first")


@pytest.mark.parametrize("wrong", ["model elsewhere", "no ground sample distance"])
def test_a_scene_is_not_predicted_first(tmp_path, wrong):
    place = {"crs": UTM, "transform": Affine(0.8, 0, 500_000, 0, -0.8, 3_000_000)} if "model" in wrong else {}
    path = write_raster(tmp_path / "valley.tif", np.full((50, 60, 3), 90, np.uint8), **place)
    dem = write_dem(tmp_path, left=600_000) if place else None
    with pytest.raises(LimKerasError) as raised:
        predict_scene(NeverAsked(), path, tmp_path / "out", PredictOptions(min_area_m2=0 if place else 5, dem=dem))
    assert str(path) in str(raised.value) and ".partial" not in str(raised.value)
    assert not (tmp_path / "out").exists()
