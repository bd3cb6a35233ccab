"""Maps, preview and summary agree on the pixels with data; a stale result is not returned."""

import os
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import rasterio
from matplotlib.colors import to_rgb
from rasterio import Affine
from rasterio.enums import ColorInterp

from lim_keras.errors import DomainWarning
from lim_keras.inference.domain import check_validity
from lim_keras.inventory import predict_scene as module
from lim_keras.inventory.options import PredictOptions
from lim_keras.inventory.scene_prediction import Execution
from lim_keras.raster.reader import RasterReader
from lim_keras.report import preview
from lim_keras.report.preview import read_preview
from tests.inference.conftest import Write
from tests.inventory.test_predict_scene import Bright, meadow

predict_scene = partial(module.predict_scene, execution=Execution(read_preview=read_preview))
GREY = np.round(255 * np.array(to_rgb(preview.NO_DATA)))
RGBA = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
LEFT = np.arange(400) < 200  # columns without data; the landslide of 60 x 80 px lies there


def tagged(path: Path) -> Path:
    """Tag the fourth band as alpha."""
    with rasterio.open(path, "r+") as file:
        file.colorinterp = RGBA
    return path


def check(result: Any, valid: int, landslides: int) -> dict[str, Any]:
    """Compare mask, summary and preview; return the rule in the summary."""
    mask = next(file for file in result.files if file.name.endswith("landslides.tif"))
    with rasterio.open(mask) as file:
        assert (file.read(1) != 255).sum() == valid == result.summary["valid_pixels"]
    assert result.summary["landslides"] == landslides
    picture = cv2.imread(str(next(file for file in result.files if file.suffix == ".png")))[:, :, ::-1]
    grey = (picture == GREY).all(axis=-1)
    rows, columns = np.flatnonzero(grey.any(axis=1)), np.flatnonzero(grey.any(axis=0))
    if valid == 120_000:
        assert grey.mean() < 0.01
    else:  # the left half of the picture: 1.5 times as high as wide
        assert len(rows) > 1.3 * len(columns) > 0 and grey[rows[0] : rows[-1], columns[0] : columns[-1]].mean() > 0.9
    rule: dict[str, Any] = result.summary["validity"]
    return rule


def test_alpha_and_no_marks_at_all(write: Write, tmp_path: Path) -> None:
    alpha = np.where(LEFT, 0, 255).astype(np.uint8) * np.ones((300, 1), np.uint8)
    scene = tagged(write("rgba.tif", np.dstack([meadow(), alpha])))
    rule = check(predict_scene(Bright(), scene, tmp_path / "a"), 60_000, 1)
    assert rule == {
        "nodata_option": "file",
        "alpha_bands": [4],
        "mask": None,
        "nodata_values": None,
        "not_finite_is_no_data": False,
        "partly_nodata_pixels": 0,
    }
    options = PredictOptions(bands=(1, 2, 3), nodata="none")
    rule = check(predict_scene(Bright(), scene, tmp_path / "b", options), 120_000, 2)
    assert (rule["nodata_option"], rule["alpha_bands"]) == ("none", [])


def test_nodata_in_one_band(write: Write, tmp_path: Path) -> None:
    image = meadow().astype(np.float32)
    image[:, LEFT, 1] = -9999
    scene = write("values.tif", image, nodata=-9999)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # -9999 is never ground: nothing to warn of
        result = predict_scene(Bright(dtype="float32"), scene, tmp_path / "out")
    rule = check(result, 60_000, 1)
    assert (rule["nodata_values"], rule["partly_nodata_pixels"]) == ([-9999.0] * 3, 60_000)


def test_dark_pixels_are_counted_and_reported(write: Write, tmp_path: Path) -> None:
    image = meadow()
    image[:, LEFT] = 0
    image[20:30, 300:320, 2] = 0  # 200 dark pixels of 60,000
    scene = write("dark.tif", image, nodata=0)
    with pytest.warns(
        DomainWarning, match=r"dark\.tif: 200 pixels \(0\.33% of those with data\).*value 0.*`nodata` none"
    ):
        result = predict_scene(Bright(), scene, tmp_path / "out")
    assert result.summary["validity"]["partly_nodata_pixels"] == 200
    assert result.summary["valid_pixels"] == 59_800 and "200 pixels" in result.summary["warnings"][0]
    image[20:30, 300:320, 2] = 100
    image[20:25, 300, 2] = 0  # 5 pixels are below 0.1 %
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (
            predict_scene(Bright(), write("few.tif", image, nodata=0), tmp_path / "few").summary["validity"][
                "partly_nodata_pixels"
            ]
            == 5
        )


def test_near_infrared_that_is_tagged_as_alpha(write: Write, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    infrared = np.where(rng.random((300, 400)) < 0.4, 0, rng.integers(20, 250, (300, 400))).astype(np.uint8)
    scene = tagged(write("nir.tif", np.dstack([meadow(), infrared])))
    cure = r"band 4 is tagged as alpha, but.*\(\d\d\.\d\d% of a sample\).*`bands` 1,2,3 and `nodata` none"
    with pytest.warns(DomainWarning, match=cure):
        predict_scene(Bright(), scene, tmp_path / "out")
    for alpha in (np.full((300, 400), 128), np.where(LEFT, 0, 1) * np.ones((300, 1)), np.zeros((300, 400))):
        one = tagged(write("mask.tif", np.dstack([meadow(), alpha.astype(np.uint8)])))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with RasterReader(one) as reader:
                check_validity(reader)


def test_pages_are_reported(write: Write, tmp_path: Path) -> None:
    scene = write("pages.tif", meadow())
    write("pages.tif", 255 - meadow(), APPEND_SUBDATASET="YES")
    with pytest.warns(
        DomainWarning, match=r"holds 2 images \(pages\), of which only the first.*GTIFF_DIR:2:.*pages\.tif"
    ):
        result = predict_scene(Bright(), scene, tmp_path / "out")
    assert result.summary["landslides"] == 2
    one = write("one.tif", meadow(), valid=np.ones((300, 400), bool))
    with rasterio.open(one, "r+") as file:
        file.build_overviews([2, 4])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        predict_scene(Bright(), one, tmp_path / "one")  # overviews and masks are no pages


def mosaic(path: Path, source: str) -> Path:
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{band}"><SimpleSource><SourceFilename relativeToVRT="1">{source}'
        f"</SourceFilename><SourceBand>{band}</SourceBand></SimpleSource></VRTRasterBand>"
        for band in (1, 2, 3)
    )
    place = "<SRS>EPSG:32648</SRS><GeoTransform>500000,0.8,0,3000000,0,-0.8</GeoTransform>"
    path.write_text(f'<VRTDataset rasterXSize="400" rasterYSize="300">{place}{bands}</VRTDataset>')
    return path


def test_a_source_of_a_mosaic_that_was_replaced(write: Write, tmp_path: Path) -> None:
    source = write("part.tif", meadow())
    scene = mosaic(tmp_path / "area.vrt", "part.tif")
    assert predict_scene(Bright(), scene, tmp_path / "out").summary["landslides"] == 2
    assert predict_scene(Bright(), scene, tmp_path / "out").was_there
    before, image = source.stat(), meadow()
    image[200:210, 300:320] = 100
    write("part.tif", image)
    os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))
    result = predict_scene(Bright(), scene, tmp_path / "out")
    assert not result.was_there and result.summary["landslides"] == 1


@pytest.mark.filterwarnings("ignore::lim_keras.errors.DomainWarning")
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_world_file_that_was_added(write: Write, tmp_path: Path) -> None:
    scene = write("area.tif", meadow(), crs=None, transform=None)
    first = predict_scene(Bright(), scene, tmp_path / "out").inventory
    assert predict_scene(Bright(), scene, tmp_path / "out").was_there
    scene.with_suffix(".tfw").write_text("0.8\n0\n0\n-0.8\n500000\n3000000\n")
    second = predict_scene(Bright(), scene, tmp_path / "out")
    assert not second.was_there
    assert second.inventory.total_bounds[0] > 400_000 > first.total_bounds[0]


def test_an_elevation_model_that_was_replaced(write: Write, tmp_path: Path) -> None:
    scene = write("area.tif", meadow())
    heights = np.add.outer(np.zeros(60), np.arange(70.0))[..., np.newaxis].astype(np.float32)
    place = {"crs": "EPSG:32648", "transform": Affine(8, 0, 499_900, 0, -8, 3_000_050)}
    source = write("part.tif", heights, **place)
    dem = tmp_path / "dem.vrt"
    band = '<VRTRasterBand dataType="Float32" band="1"><SimpleSource><SourceFilename relativeToVRT="1">part.tif'
    band += "</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand>"
    grid = "<SRS>EPSG:32648</SRS><GeoTransform>499900,8,0,3000050,0,-8</GeoTransform>"
    dem.write_text(f'<VRTDataset rasterXSize="70" rasterYSize="60">{grid}{band}</VRTDataset>')
    options = PredictOptions(dem=dem)
    first = predict_scene(Bright(), scene, tmp_path / "out", options).inventory["slope_mean_deg"]
    assert predict_scene(Bright(), scene, tmp_path / "out", options).was_there
    source.unlink()
    write("part.tif", 4 * heights, **place)
    second = predict_scene(Bright(), scene, tmp_path / "out", options)
    assert not second.was_there
    # atan(1/8) is 7.1 degrees, atan(4/8) 26.6
    assert second.inventory["slope_mean_deg"].mean() > 3 * first.mean() > 0


def test_a_bundle_with_another_threshold(write: Write, tmp_path: Path) -> None:
    scene = write("area.tif", meadow())
    assert predict_scene(Bright(), scene, tmp_path / "out").summary["landslides"] == 2
    result = predict_scene(Bright(threshold=0.95), scene, tmp_path / "out")
    assert not result.was_there and result.summary["landslides"] == 0
