"""Sentinel-2 products: values by hand, grids of bands, and products that are incomplete."""

from pathlib import Path

import numpy as np
import pytest
from affine import Affine

from lim_keras.errors import DataError
from lim_keras.raster.georeference import Grid
from lim_keras.raster.opening import raster_stem
from lim_keras.raster.reader import RasterReader
from tests.safe_product import EAST, NORTH, UTM, metres, write_safe, zipped

NUMBERS = np.array([[0, 1, 999, 1000, 1001, 1500], [3000, 11_000, 40_000, 65_534, 65_535, 2000]], np.uint16)
SIZE = 12  # pixels of 10 m


def digital(value: int, bands: tuple[str, ...], size: int = SIZE) -> dict[str, np.ndarray]:
    """Return constant bands, whose values tell them apart."""
    shape = {band: size * 10 // metres(band) for band in bands}
    return {band: np.full((shape[band],) * 2, value + 100 * number) for number, band in enumerate(bands)}


def rgb(numbers: np.ndarray = NUMBERS) -> dict[str, np.ndarray]:
    return dict.fromkeys(("B04", "B03", "B02"), numbers)


@pytest.mark.parametrize(
    ("level", "baseline", "offset", "scale", "expected"),
    [
        # 1 to 1000 would be reflectance of at most 0: the darkest value with data is 1
        ("L2A", "05.10", -1000, 10_000, [[0, 1, 1, 1, 1, 500], [2000, 10_000, 39_000, 64_534, 65_535, 1000]]),
        ("L1C", "04.00", -1000, 10_000, [[0, 1, 1, 1, 1, 500], [2000, 10_000, 39_000, 64_534, 65_535, 1000]]),
        ("L2A", "02.14", None, 10_000, NUMBERS.tolist()),
        ("L1C", "02.09", None, 10_000, NUMBERS.tolist()),
        # reflectance 1 is 1000: all values are multiplied by ten, up to the largest that 16 bits hold
        ("L1C", "02.00", None, 1000, [[0, 10, 9990, 10_000, 10_010, 15_000], [30_000, *[65_535] * 4, 20_000]]),
        ("L2A", "99.99", 0, 20_000, [[0, 1, 500, 500, 501, 750], [1500, 5500, 20_000, 32_767, 65_535, 1000]]),
    ],
)
def test_digital_numbers_become_reflectance(
    level: str, baseline: str, offset: int | None, scale: float, expected: list[list[int]], tmp_path: Path
) -> None:
    product = write_safe(tmp_path / "S2A.SAFE", rgb(), level=level, baseline=baseline, offset=offset, scale=scale)
    with RasterReader(product) as scene:
        pixels, valid = scene.image()
        assert scene.info.dtype == "uint16" and scene.info.crs == UTM and scene.info.gsd_m == 10
        assert (scene.info.transform.c, scene.info.transform.f) == (EAST, NORTH)
    np.testing.assert_allclose(pixels[..., 0], expected, atol=0.5)
    assert valid.tolist() == [[False, *[True] * 5], [True] * 6]
    assert (pixels == pixels[..., :1]).all()


def test_red_green_and_blue_are_the_default(tmp_path: Path) -> None:
    product = write_safe(tmp_path / "S2A.SAFE", digital(2000, ("B02", "B03", "B04", "B08")))
    with RasterReader(product) as scene:
        assert scene.pixels()[0, 0].tolist() == [1200, 1100, 1000]
        assert scene.colour_bands == {"red": 1, "green": 2, "blue": 3}


@pytest.mark.parametrize(
    ("bands", "step", "values"),
    [
        ((4, 3, 2), 10, [1200, 1100, 1000]),
        (("b08", "8A", "B4"), 10, [1300, 1400, 1200]),
        (("B11", 5), 20, [1600, 1500]),
        (("red", "Green", "BLUE"), 10, [1200, 1100, 1000]),
        (("B09", "B01"), 60, [1800, 1700]),
    ],
)
def test_bands_are_named_as_by_esa(bands: tuple[int | str, ...], step: int, values: list[int], tmp_path: Path) -> None:
    there = ("B02", "B03", "B04", "B08", "B8A", "B05", "B11", "B01", "B09")
    product = write_safe(tmp_path / "S2A.SAFE", digital(2000, there))
    with RasterReader(product, bands=bands) as scene:
        pixels, valid = scene.image()
        assert scene.info.gsd_m == step and pixels.shape == (120 // step, 120 // step, len(values))
    assert valid.all() and (pixels == values).all()


def test_coarser_bands_are_interpolated_on_the_finest_grid(tmp_path: Path) -> None:
    fine = np.full((SIZE, SIZE), 3000)
    coarse = 2000 + 100 * np.arange(6) + np.zeros((6, 1), int)  # 100 in a pixel of 20 m, to the east
    coarse[:, 5] = 0
    product = write_safe(tmp_path / "S2A.SAFE", {"B04": fine, "B11": coarse})
    with RasterReader(product, bands=("B04", "B11")) as scene:
        pixels, valid = scene.image()
        assert (scene.pixels(scene.info.box)[3:5, 2:7] == pixels[3:5, 2:7]).all()
    # centres of 10 m pixels lie a quarter of a pixel of 20 m beside its centre; no data does not darken its neighbours
    assert pixels[4, :10, 1].tolist() == [1000, 1025, 1075, 1125, 1175, 1225, 1275, 1325, 1375, 1400]
    assert (pixels[valid][:, 0] == 2000).all()
    assert valid[:, :10].all() and not valid[:, 10:].any()


@pytest.mark.parametrize("inside", ["", "folder/another/"])
def test_archives_and_metadata_files_are_products(inside: str, tmp_path: Path) -> None:
    product = write_safe(tmp_path / "S2A_T48RXV.SAFE", digital(2000, ("B04", "B03", "B02")))
    archive = zipped(product, tmp_path / "S2A_T48RXV.SAFE.zip", inside=inside)
    with RasterReader(product) as scene:
        pixels = scene.pixels()
    for place in (archive, product / "MTD_MSIL2A.xml", product / "manifest.safe", next(product.glob("GRANULE/*"))):
        with RasterReader(place) as scene:
            np.testing.assert_array_equal(scene.pixels(), pixels)
            assert scene.name == str(place.parent if place.parent == product else place)
            assert scene.stem == ("S2A_T48RXV" if "GRANULE" not in place.parts else place.name)


def test_names_of_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    product = write_safe(tmp_path / "Überflug 2022.01.SAFE", digital(2000, ("B04",)))
    assert raster_stem(product) == raster_stem(f"{product}/") == raster_stem(product / "MTD_MSIL2A.xml")
    assert raster_stem(product) == raster_stem(f"{product}.zip") == "Überflug 2022.01"
    assert raster_stem(tmp_path / "a.b.tif") == "a.b" and raster_stem("s3://bucket/a.zip") == "a"
    monkeypatch.chdir(product)
    assert raster_stem(".") == raster_stem("MTD_MSIL2A.xml") == "Überflug 2022.01"
    with RasterReader(".", bands=("B04",)) as scene:
        assert scene.pixels().shape == (12, 12, 1)


def test_granules_are_joined(tmp_path: Path) -> None:
    path = tmp_path / "S2A.SAFE"
    west, east = np.full((4, 6), 2000), np.full((4, 6), 3000)
    west[:, 4:] = 0  # the next granule covers it
    write_safe(path, rgb(west), granule="L2A_T48RXV_A1")
    write_safe(path, rgb(east), granule="L2A_T48RYV_A1", corner=(EAST + 40, NORTH - 10))
    with RasterReader(path) as scene:
        pixels, valid = scene.image()
    row = [1000] * 4 + [2000] * 6
    assert pixels[..., 0].tolist() == [[1000] * 4 + [0] * 6, row, row, row, [0] * 4 + [2000] * 6]
    np.testing.assert_array_equal(valid, pixels[..., 0] > 0)
    with RasterReader(path / "GRANULE" / "L2A_T48RYV_A1") as scene:
        assert (scene.pixels() == 2000).all() and scene.stem == "L2A_T48RYV_A1"
    write_safe(path, rgb(east), granule="L2A_T47RYV_A1", crs="EPSG:32647")
    with pytest.raises(DataError, match=r"several UTM zones\. Give them one by one"):
        RasterReader(path)


def test_products_of_the_old_format(tmp_path: Path) -> None:
    product = write_safe(
        tmp_path / "S2A_OPER_PRD_MSIL1C_PDMC_2015.SAFE", rgb(), level="L1C", offset=None, baseline="02.00"
    )
    granule = next(product.glob("GRANULE/*"))
    granule.rename(granule.with_name("S2A_OPER_MSI_L1C_TL_SGS__20151024T023555_A001758_T53JLJ_N01.04"))
    (product / "MTD_MSIL1C.xml").rename(product / "S2A_OPER_MTD_SAFL1C_PDMC_20151024T141531_R089.xml")
    with RasterReader(product) as scene:
        assert scene.pixels()[..., 0].tolist() == NUMBERS.tolist()


def test_warped_products_keep_their_gaps(tmp_path: Path) -> None:
    product = write_safe(tmp_path / "S2A.SAFE", rgb(np.where(np.eye(12) > 0, 0, 2000)))
    grid = Grid(UTM, Affine(20, 0, EAST, 0, -20, NORTH), 6, 6, 20.0)
    with RasterReader(product) as scene, scene.on_grid(grid) as coarse:
        pixels, valid = coarse.image()
    assert valid.all() and (pixels == 1000).all()  # two of four pixels hold data


def test_the_fingerprint_covers_metadata_and_images(tmp_path: Path) -> None:
    product = write_safe(tmp_path / "S2A.SAFE", rgb())

    def fingerprint(**options: object) -> list[object]:
        with RasterReader(product, **options) as scene:
            return scene.fingerprint

    before = fingerprint()
    assert fingerprint() == before and fingerprint(bands=("B02", "B03", "B04")) != before
    next(product.glob("GRANULE/*/IMG_DATA/R10m/*B03*")).touch()
    after = fingerprint()
    assert after != before
    with RasterReader(product) as scene:
        assert scene.fingerprint == after and not scene.has_changed()
        text = (product / "MTD_MSIL2A.xml").read_text()
        (product / "MTD_MSIL2A.xml").write_text(text.replace("-1000", "-900"))
        assert scene.has_changed()
    (product / "INSPIRE.xml").write_text("<other/>")
    assert fingerprint() == fingerprint()


def test_a_band_that_is_not_there(tmp_path: Path) -> None:
    product = write_safe(tmp_path / "S2A.SAFE", digital(2000, ("B02", "B03", "B04", "B8A")))
    for bands in ((13,), ("B10",), ("SCL",), (8,), ("",)):
        with pytest.raises(DataError, match=r"has no band .* \(L2A\): B02, B03, B04, B8A; a number is that"):
            RasterReader(product, bands=bands)
    for image in product.rglob("*B04*"):
        image.unlink()
    with pytest.raises(DataError, match="has no band 'B04'"):
        RasterReader(product)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot be read"),
        ("<a><b></a>", "cannot be read"),
        ("<Level-1B_User_Product/>", "not that of a product of level 1C or 2A"),
        (("10000</BOA", "ten</BOA"), "no number as BOA_QUANTIFICATION_VALUE"),
        (("10000</BOA", "0</BOA"), "no BOA_QUANTIFICATION_VALUE above 0"),
        (('band_id="3">-1000', 'band_id="3">'), "no number as BOA_ADD_OFFSET"),
        (('band_id="3"', 'band_id="13"'), "unknown band"),
        (('<BOA_ADD_OFFSET band_id="3">-1000</BOA_ADD_OFFSET>', ""), "no offset of band B04, but of others"),
        (("BOA_ADD_OFFSET", "BOA_OTHER"), r"no offsets of bands, which its processing baseline 05\.10 has"),
    ],
)
def test_metadata_that_cannot_be_used(text: str | tuple[str, str], message: str, tmp_path: Path) -> None:
    product = write_safe(tmp_path / "S2A.SAFE", rgb())
    file = product / "MTD_MSIL2A.xml"
    file.write_text(text if isinstance(text, str) else file.read_text().replace(*text))
    with pytest.raises(DataError, match=message) as caught:
        RasterReader(product)
    assert str(caught.value).startswith(str(product)) and "\n" not in str(caught.value)


def test_products_that_are_incomplete(tmp_path: Path) -> None:
    empty = tmp_path / "S1A.SAFE"
    (empty / "measurement").mkdir(parents=True)
    with pytest.raises(DataError, match=r"S1A\.SAFE: expected a Sentinel-2 product .* Received: measurement\."):
        RasterReader(empty)
    product = write_safe(tmp_path / "S2A.SAFE", rgb())
    image = next(product.rglob("*B03*.jp2"))
    content = image.read_bytes()
    for size in (0, 300, len(content) - 20):
        image.write_bytes(content[:size])
        with pytest.raises(DataError, match=r"S2A\.SAFE") as caught, RasterReader(product) as scene:
            scene.pixels()
        assert "B03" in str(caught.value) and "GDAL_" not in str(caught.value), str(caught.value)
        assert "folder, which GDAL" not in str(caught.value)
    for granule in product.glob("GRANULE/*/IMG_DATA/R10m/*"):
        granule.unlink()
    with pytest.raises(DataError, match="without images of bands"):
        RasterReader(product)


def test_an_archive_of_two_products(tmp_path: Path) -> None:
    folder = tmp_path / "both"
    for name in ("A.SAFE", "B.SAFE"):
        write_safe(folder / name, rgb())
    archive = zipped(folder, tmp_path / "both.zip")
    with pytest.raises(DataError, match=r"an archive of one Sentinel-2 product\. Received: 2"):
        RasterReader(archive)
