"""One rule tells which pixels hold data, for reading, warping and overviews alike."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio import Affine
from rasterio.enums import ColorInterp
from rasterio.vrt import WarpedVRT

from lim_keras.raster.georeference import Grid
from lim_keras.raster.reader import RasterReader
from lim_keras.raster.windows import Box

HEIGHT, WIDTH = 37, 53
CRS, PLACE = "EPSG:32648", Affine(2, 0, 500_000, 0, -2, 3_000_000)
SAME_GRID = Grid(CRS, PLACE, WIDTH, HEIGHT, 2.0)
ALPHA, RED, GREEN, BLUE = ColorInterp.alpha, ColorInterp.red, ColorInterp.green, ColorInterp.blue

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def write(bands: Sequence[Any], *, colours: Any = None, mask: Any = None, internal: bool = True, **options: Any):
        values = np.stack([np.asarray(band) for band in bands])
        size = {"count": len(values), "height": HEIGHT, "width": WIDTH, "dtype": values.dtype.name}
        path = tmp_path / "scene.tif"
        with (
            rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal),
            rasterio.open(path, "w", driver="GTiff", crs=CRS, transform=PLACE, **size, **options) as file,
        ):
            file.write(values)
            if colours:
                file.colorinterp = colours
            if mask is not None:
                file.write_mask(mask)
        return path

    return write


def ground(dtype: str = "uint8", seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 250, (3, HEIGHT, WIDTH)).astype(dtype)


def holes(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random((HEIGHT, WIDTH)) < 0.2


def check(source: Any, expected: np.ndarray, **options: Any) -> None:
    """Every way to read a scene marks the same pixels."""
    with RasterReader(source, **options) as scene:
        np.testing.assert_array_equal(scene.valid(), expected)
        pixels, valid = scene.image()
        np.testing.assert_array_equal(valid, expected)
        assert pixels.shape == (HEIGHT, WIDTH, len(scene.bands))
        box = Box(5, 9, 30, 41)
        np.testing.assert_array_equal(scene.valid(box), expected[box.slices])
        np.testing.assert_array_equal(
            scene.filled(box, scene.info.box, [7] * len(scene.bands))[1], expected[box.slices]
        )
        assert not scene.everywhere_valid or expected.all()
        shown, known = scene.overview(1000)  # at full size
        np.testing.assert_array_equal(known, expected)
        np.testing.assert_array_equal(shown[expected], pixels[expected])
        with scene.on_grid(SAME_GRID) as warped:
            values, there = warped.image()
            np.testing.assert_array_equal(there, expected)
            np.testing.assert_allclose(values[expected], pixels[expected], atol=1e-3)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
@pytest.mark.parametrize("position", [0, 1, 3])
def test_alpha_of_any_type_at_any_position(make: Make, dtype: str, position: int) -> None:
    alpha = np.where(holes(1), 0, 1 if dtype == "float32" else np.iinfo(dtype).max).astype(dtype)
    bands, colours = list(ground(dtype)), [RED, GREEN, BLUE]
    bands.insert(position, alpha)
    colours.insert(position, ALPHA)
    path = make(bands, colours=colours)
    check(path, ~holes(1))
    check(path, ~holes(1), bands=("red", "blue"))
    everything = np.ones((HEIGHT, WIDTH), bool)
    check(path, everything, nodata="none")


def test_a_value_of_alpha_above_zero_is_data(make: Make) -> None:
    alpha = np.where(holes(1), 0, 3)
    check(make([*ground(), alpha.astype(np.uint8)], colours=[RED, GREEN, BLUE, ALPHA]), ~holes(1))


def test_alpha_as_the_fifth_band_and_two_alpha_bands(make: Make) -> None:
    one, two = (np.where(holes(seed), 0, 255).astype(np.uint8) for seed in (1, 2))
    undefined = ColorInterp.undefined
    path = make([*ground(), ground()[0], one], colours=[RED, GREEN, BLUE, undefined, ALPHA])
    check(path, ~holes(1), bands=(1, 2, 3))
    check(make([*ground(), one, two], colours=[RED, GREEN, BLUE, ALPHA, ALPHA]), ~holes(1) & ~holes(2))


def test_an_alpha_band_that_is_read_as_an_image_band_marks_nothing(make: Make) -> None:
    infrared = np.where(holes(1), 0, 90).astype(np.uint8)
    path = make([*ground(), infrared], colours=[RED, GREEN, BLUE, ALPHA])
    check(path, np.ones((HEIGHT, WIDTH), bool), bands=(4, 1, 2))


@pytest.mark.parametrize("internal", [True, False])
def test_masks_beside_nodata(make: Make, internal: bool) -> None:
    bands = ground("uint16")
    bands[1][holes(2)] = 0
    path = make(bands, mask=~holes(1), internal=internal, nodata=0)
    check(path, ~holes(1) & ~holes(2))
    check(path, ~holes(1), bands=(1, 3))  # band 2 is not read
    bands[0][holes(3)] = 60_000
    path = make(bands, mask=~holes(1), internal=internal, nodata=0)
    check(path, ~holes(1) & ~holes(3), nodata=60_000.0)
    check(path, np.ones((HEIGHT, WIDTH), bool), nodata="none")


def test_nodata_in_one_band_of_three(make: Make) -> None:
    bands = ground("float32")
    bands[0][holes(1)] = -9999
    check(make(bands, nodata=-9999), ~holes(1))
    bands[2][holes(2)] = np.nan
    bands[1, 0, 0] = np.inf
    expected = ~holes(2)
    expected[0, 0] = False
    check(make(bands), expected)
    check(make(bands), expected, nodata="none")
    expected &= ~holes(1)
    check(make(bands, nodata=-9999), expected)
    check(make(bands), expected, nodata=-9999.0)
    check(make(bands, nodata=np.nan), ~holes(2) & (np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) > 0))


def test_nodata_is_written_with_fewer_digits(make: Make) -> None:
    """ESRI writes -3.40282306e38 for pixels of -3.4028235e38, the lowest 32-bit number."""
    bands = ground("float32")
    bands[1][holes(1)] = np.finfo(np.float32).min
    check(make(bands, nodata=-3.40282306073709653e38), ~holes(1))


@pytest.mark.parametrize("nodata", [-9999.0, 256.0, 0.5, float("nan"), float("inf")])
def test_a_nodata_value_that_no_pixel_can_hold(make: Make, nodata: float) -> None:
    path = make(ground())
    with RasterReader(path, nodata=nodata) as scene:
        assert scene.everywhere_valid
    check(path, np.ones((HEIGHT, WIDTH), bool), nodata=nodata)


def vrt(path: Path, source: Path, nodata: Sequence[float | None]) -> Path:
    lines = [
        f'<VRTRasterBand dataType="UInt16" band="{band}">'
        + (f"<NoDataValue>{value}</NoDataValue>" if value is not None else "")
        + f'<SimpleSource><SourceFilename relativeToVRT="1">{source.name}</SourceFilename>'
        f"<SourceBand>{band}</SourceBand></SimpleSource></VRTRasterBand>"
        for band, value in enumerate(nodata, start=1)
    ]
    place = ", ".join(str(value) for value in PLACE.to_gdal())
    head = (
        f'<VRTDataset rasterXSize="{WIDTH}" rasterYSize="{HEIGHT}"><SRS>{CRS}</SRS><GeoTransform>{place}</GeoTransform>'
    )
    path.write_text("\n".join([head, *lines, "</VRTDataset>"]))
    return path


def test_every_band_has_a_nodata_value_of_its_own(make: Make, tmp_path: Path) -> None:
    bands = ground("uint16")
    bands[0][holes(1)], bands[1][holes(1)], bands[1][holes(2)], bands[2][holes(3)] = 500, 500, 600, 700
    path = vrt(tmp_path / "mosaic.vrt", make(bands), [500, 600, None])
    expected = ~(bands[0] == 500) & ~(bands[1] == 600)  # 500 is data in band 2, and 700 in band 3
    check(path, expected)
    check(path, ~(bands[0] == 500), bands=(3, 1))


def test_every_band_has_a_mask_of_its_own(make: Make, tmp_path: Path) -> None:
    bands = ground("uint16")
    bands[0][holes(1)] = 300
    source = make(bands)
    mask = (
        '<MaskBand><VRTRasterBand dataType="Byte"><ComplexSource><SourceFilename relativeToVRT="1">scene.tif'
        "</SourceFilename><SourceBand>1</SourceBand><NODATA>300</NODATA><ScaleOffset>255</ScaleOffset>"
        "<ScaleRatio>0</ScaleRatio></ComplexSource></VRTRasterBand></MaskBand>"
    )
    path = vrt(tmp_path / "mosaic.vrt", source, [None] * 3)
    text = path.read_text().replace("</VRTRasterBand>", f"{mask}</VRTRasterBand>", 1)
    path.write_text(text)
    check(path, ~(bands[0] == 300))
    check(path, np.ones((HEIGHT, WIDTH), bool), bands=(2, 3))


def test_a_warped_dataset_and_a_dataset_in_memory(make: Make) -> None:
    bands = ground("float32")
    bands[0][holes(1)] = -9999
    path = make(bands, nodata=-9999)
    with rasterio.open(path) as file, WarpedVRT(file, **{**vars_of(SAME_GRID), "nodata": -9999}) as warped:
        check(warped, ~holes(1))
    with rasterio.MemoryFile(path.read_bytes()) as memory, memory.open() as file:
        check(file, ~holes(1))


def vars_of(grid: Grid) -> dict[str, Any]:
    return {"crs": grid.crs, "transform": grid.transform, "width": grid.width, "height": grid.height}


def test_pixels_without_data_do_not_colour_their_neighbours_in_a_warp(make: Make) -> None:
    """-9999 in one band only would pull the mean of the neighbours down."""
    bands = np.full((3, HEIGHT, WIDTH), 100, np.float32)
    bands[1][holes(1)] = -9999
    coarse = Grid(CRS, Affine(4, 0, 500_000, 0, -4, 3_000_000), WIDTH // 2, HEIGHT // 2, 4.0)
    with RasterReader(make(bands, nodata=-9999)) as scene, scene.on_grid(coarse) as warped:
        pixels, valid = warped.image()
    assert valid.mean() > 0.7
    np.testing.assert_allclose(pixels[valid], 100, rtol=1e-6)


def test_an_overview_averages_pixels_with_data_only(make: Make) -> None:
    bands = np.full((3, HEIGHT, WIDTH), 80, np.uint8)
    bands[:, :, ::2] = 0
    bands[0, :, 1::4] = 0  # holds nodata in one band only
    with RasterReader(make(bands, nodata=0)) as scene:
        pixels, valid = scene.overview(13)  # parts of 53/13 x 37/9 pixels, of which one in four columns holds data
        assert pixels.shape == (9, 13, 3) and not valid.any()
        assert scene.overview(53)[1].sum() == HEIGHT * 13
    with RasterReader(make(bands, nodata=0), bands=(2,)) as scene:
        pixels, valid = scene.overview(26)
        assert (pixels[valid] == 80).all()
    with RasterReader(make(bands, nodata=0), nodata="none") as scene:
        pixels, valid = scene.overview(1)
        # 26 of 53 columns are 80 in bands 2 and 3, 13 of them in band 1
        assert valid.all() and pixels[0, 0].tolist() == [round(80 * 13 / 53), round(80 * 26 / 53), round(80 * 26 / 53)]


def test_pixels_with_nodata_in_some_bands_are_counted(make: Make) -> None:
    bands = ground()
    bands[:, :4, :5] = 0  # 20 pixels without data
    bands[2, 10, :7] = 0  # 7 dark ones
    bands[:2, 12, :3] = 0  # and 3
    mask = np.ones((HEIGHT, WIDTH), bool)
    mask[12, 0] = False
    with RasterReader(make(bands, mask=mask, nodata=0)) as scene:
        valid, partly = scene.image_marks(scene.info.box)
        assert (valid.sum(), partly.sum()) == (HEIGHT * WIDTH - 30, 9)
    with RasterReader(make(bands, nodata=0), bands=(3,)) as scene:
        assert scene.image_marks(scene.info.box)[1].sum() == 0
