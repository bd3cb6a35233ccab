"""Small scenes and polygons for tilings.

make_scene(path, ...)     GeoTIFF of noise in EPSG:32648, pixels of 2 m, upper left corner at (500000, 3000000)
make_labels(path, boxes)  GeoPackage of rectangles (top, left, bottom, right), in pixels of such a scene
tile(*arguments)          run `lim-keras data tile` in this process; returns click's result
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import shapely
from affine import Affine
from click.testing import CliRunner, Result

from lim_keras.cli import main
from lim_keras.raster.writer import write_raster

TRANSFORM = Affine(2, 0, 500_000, 0, -2, 3_000_000)


@pytest.fixture(scope="session")
def make_scene() -> Callable[..., Path]:
    def make(
        path: Path,
        height: int = 200,
        width: int = 240,
        *,
        bands: int = 3,
        dtype: str = "uint8",
        transform: Affine = TRANSFORM,
        crs: str = "EPSG:32648",
        **options: Any,
    ) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(len(path.stem)).integers(1, 200, (height, width, bands)).astype(dtype)
        return write_raster(path, pixels, crs=crs, transform=transform, **options)

    return make


@pytest.fixture(scope="session")
def make_labels() -> Callable[..., Path]:
    def make(path: Path, boxes: Sequence[tuple[float, float, float, float]], **columns: Sequence[Any]) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        left, top, step = TRANSFORM.c, TRANSFORM.f, TRANSFORM.a
        shapes = [
            shapely.box(left + step * first, top - step * lower, left + step * last, top - step * upper)
            for upper, first, lower, last in boxes
        ]
        geopandas.GeoDataFrame(columns, geometry=shapes, crs="EPSG:32648").to_file(path)
        return path

    return make


@pytest.fixture
def tile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> Result:
        return CliRunner().invoke(main, ["data", "tile", *map(str, arguments)])

    return run
