"""Georeferences that give no area on the ground are refused with their cause and a cure."""

import math
import warnings
from pathlib import Path

import numpy as np
import pytest
from rasterio import Affine

from lim_keras.errors import DataError
from lim_keras.raster.coordinates import check_coordinates
from lim_keras.raster.georeference import RasterInfo
from lim_keras.raster.images import read_info
from lim_keras.raster.writer import write_raster

UTM, DEGREES = "EPSG:32648", "EPSG:4326"


def scene(folder: Path, crs: str, transform: Affine, width: int = 64, height: int = 40) -> RasterInfo:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pixels = np.zeros((height, width, 3), np.uint8)
        return read_info(write_raster(folder / "scene.tif", pixels, crs=crs, transform=transform))


@pytest.mark.parametrize(
    ("crs", "transform", "said"),
    [
        (UTM, Affine(0.8, 0, math.nan, 0, -0.8, 3e6), r"a finite georeference.*`gdal_edit.py -a_ullr LEFT"),
        (UTM, Affine(math.inf, 0, 5e5, 0, -0.8, 3e6), "a finite georeference"),
        (UTM, Affine(0.8, 0.8, 5e5, 0.8, 0.8, 3e6), "pixels with an area"),
        (UTM, Affine(0, 0, 5e5, 0, 0, 3e6), "pixels with an area"),
        (UTM, Affine(1e-9, 0, 5e5, 0, -1e-9, 3e6), "above the rounding"),
        ("", Affine(0.8, 0, 5e5, 0, 0, 3e6), "pixels with an area"),
        (DEGREES, Affine(7e-6, 0, 27.2, 0, -7e-6, 105.3), r"-a_ullr 105.3 27.2 105.300448 27.19972 .*-a_srs EPSG:CODE"),
        (DEGREES, Affine(0.8, 0, 5.3e5, 0, -0.8, 3e6), r"\(WGS 84\).*x 530000 to 530051.2, y 2999968 .*may be metres"),
        (DEGREES, Affine(7e-6, 0, 541, 0, -7e-6, 20), "may be metres"),
        ("EPSG:4807", Affine(1e-5, 0, 27, 0, -1e-5, 105), "lie outside"),  # grads: 100 at the pole
        (UTM, Affine(7e-6, 0, 105.3, 0, -7e-6, 27.2), "look like degrees"),
    ],
)
def test_impossible_georeferences(crs: str, transform: Affine, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"scene.tif: .*{said}"):
        check_coordinates(scene(tmp_path, crs, transform))


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        (UTM, Affine(0.01, 0, 5e5, 0, -0.01, 3e6)),
        (DEGREES, Affine(7e-6, 0, 539.9, 0, -7e-6, 90)),
        (DEGREES, Affine(5.625, 0, 0, 0, -4.6, 92)),  # a global grid of cells that are centred on the pole
        (DEGREES, Affine(0, 7e-6, 105.3, 7e-6, 0, 27.2)),
        ("EPSG:4807", Affine(1e-5, 0, 27, 0, -1e-5, 99)),
        ("EPSG:3413", Affine(0.8, 0, -20, 0, -0.8, 20)),  # around the pole
        ("", Affine(1, 0, 0, 0, 1, 0)),
    ],
)
def test_possible_georeferences(crs: str, transform: Affine, tmp_path: Path) -> None:
    check_coordinates(scene(tmp_path, crs, transform))
