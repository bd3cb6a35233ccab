"""Image and mask of a tile: pixels of the image without data are ignored; pairs that do not fit are refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio import Affine
from rasterio.enums import ColorInterp

from lim_keras.data.dataset_report import DatasetReport
from lim_keras.data.layouts import read_tiles
from lim_keras.data.tile_statistics import TileStatistics
from lim_keras.data.tiles import read_pair, read_tile
from lim_keras.errors import DataError
from lim_keras.raster.writer import write_raster

RGB = np.random.default_rng(0).integers(20, 90, (16, 16, 3)).astype(np.uint8)
LABELS = np.zeros((16, 16), np.uint8)
LABELS[2:6, 4:12] = 1  # 32 px, 16 of them in the upper four rows
ABSENT = np.zeros((16, 16), bool)
ABSENT[:4] = True
PLACE = {"crs": "EPSG:32648", "transform": Affine(1, 0, 5e5, 0, -1, 3e6)}
ALPHA = np.where(ABSENT, 0, 255).astype(np.uint8)

Save = Callable[[Path], object]


def absent_as(value: Any, image: np.ndarray = RGB) -> np.ndarray:
    filled = image.copy()
    filled[ABSENT] = value
    return filled


def tiff(image: np.ndarray, kinds: tuple[ColorInterp, ...]) -> Save:
    def save(path: Path) -> None:
        shape = {"height": 16, "width": 16, "count": image.shape[2], "dtype": "uint8"}
        with rasterio.open(path, "w", driver="GTiff", **shape, **PLACE) as file:
            file.colorinterp = kinds
            file.write(np.moveaxis(image, -1, 0))

    return save


def picture(image: np.ndarray, **options: Any) -> Save:
    return lambda path: Image.fromarray(image).save(path, **options)


def palette_with_a_clear_colour(path: Path) -> None:
    image = Image.fromarray(np.where(ABSENT, 2, LABELS).astype(np.uint8), "P")
    image.putpalette(bytes([10, 20, 30, 90, 80, 70, 200, 0, 200]))
    image.save(path, transparency=2)


COLOURS = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)


@pytest.mark.parametrize(
    ("name", "save"),
    [
        ("rgba.png", picture(np.dstack([RGB, ALPHA]))),
        ("grey_alpha.png", picture(np.dstack([RGB[..., 0], ALPHA]))),
        ("key_colour.png", picture(absent_as((255, 0, 255)), transparency=(255, 0, 255))),
        ("key_grey.png", picture(absent_as(0)[..., 0], transparency=0)),
        ("key_two_bits.png", picture(np.where(ABSENT, 2, LABELS).astype(np.uint8), bits=2, transparency=2)),
        ("palette.png", palette_with_a_clear_colour),
        ("alpha.tif", tiff(np.dstack([RGB, ALPHA]), (*COLOURS, ColorInterp.alpha))),
        ("nodata.tif", lambda path: write_raster(path, absent_as(0), nodata=0, **PLACE)),
        ("inner.tif", lambda path: write_raster(path, RGB, valid=~ABSENT, **PLACE)),
        ("nan.tif", lambda path: write_raster(path, absent_as(np.nan, RGB.astype(np.float32)), **PLACE)),
        ("minus.tif", lambda path: write_raster(path, absent_as(-9999, RGB * np.float32(1)), nodata=-9999, **PLACE)),
    ],
)
def test_pixels_of_the_image_without_data_are_ignored(tmp_path: Path, name: str, save: Save) -> None:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    save(tmp_path / "images" / name)
    picture(LABELS * 255)(tmp_path / "masks" / f"{Path(name).stem}.png")
    tiles = read_tiles(tmp_path)
    # 16 x 16 - 4 x 16 = 192 pixels with data; of the landslide, 2 of 4 rows of 8 remain
    assert [(tile.landslide_px, tile.valid_px) for tile in tiles] == [(16, 192)]
    image, mask = read_tile(tiles[0])
    assert ((mask == 255) == ABSENT).all() and ((mask == 1) == (LABELS == 1) & ~ABSENT).all()
    assert len(np.unique(image[ABSENT].reshape(-1, image.shape[2]), axis=0)) == 1  # the mean of each band
    report = DatasetReport.measure(tiles, size=16)
    assert report.to_dict()["tiles"]["landslide"]["ignored_px"] == 64
    counts = report.imbalance.before
    assert (counts.landslide_px, counts.background_px) == (16, 176)
    statistics = TileStatistics.measure(tiles)
    assert max(statistics.maximum) <= 90 and min(statistics.minimum) >= 0  # none of the key colour, none of -9999


def test_a_tile_without_a_mask_is_background_only_where_it_has_data(tmp_path: Path) -> None:
    for kind, count in (("landslide", 1), ("non-landslide", 2)):
        (tmp_path / kind / "image").mkdir(parents=True)
        for number in range(count):
            picture(np.dstack([RGB, ALPHA]))(tmp_path / kind / "image" / f"{kind}_{number}.png")
    (tmp_path / "landslide" / "mask").mkdir()
    picture(LABELS)(tmp_path / "landslide" / "mask" / "landslide_0.png")
    report = DatasetReport.measure(read_tiles(tmp_path), size=16)
    assert report.imbalance.non_landslide.background_px == 2 * 192


def test_near_infrared_in_the_alpha_of_a_png_is_refused(tmp_path: Path) -> None:
    picture(np.dstack([RGB, RGB[..., 0]]))(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png: its alpha channel varies more than a mask does"):
        read_pair(tmp_path / "a.png", None, "")
    soft = ALPHA.copy()
    soft[4, :8] = 128  # the soft edge of a mask: 8 of 256 pixels
    picture(np.dstack([RGB, soft]))(tmp_path / "a.png")
    assert ((read_pair(tmp_path / "a.png", None, "")[1] == 255) == ABSENT).all()


# Orientation.


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif"])
@pytest.mark.parametrize("orientation", range(2, 9))
def test_an_orientation_of_the_image_alone_is_refused(tmp_path: Path, name: str, orientation: int) -> None:
    tag = {"tiffinfo": {0x0112: orientation}} if name == "a.tif" else {"exif": turned(orientation)}
    picture(RGB, **tag)(tmp_path / name)
    picture(LABELS)(tmp_path / "m.png")
    with pytest.raises(DataError, match=rf"{name}: its EXIF orientation is {orientation}, that of its mask m.png is 1"):
        read_pair(tmp_path / name, tmp_path / "m.png", "")
    assert read_pair(tmp_path / name, None, "")[0].shape == RGB.shape  # there is nothing to mismatch


def test_an_orientation_of_the_mask_alone_is_refused_and_a_common_one_is_read(tmp_path: Path) -> None:
    picture(RGB)(tmp_path / "a.png")
    picture(LABELS, exif=turned(6))(tmp_path / "m.png")
    with pytest.raises(DataError, match=r"a\.png: its EXIF orientation is 1, that of its mask m\.png is 6"):
        read_pair(tmp_path / "a.png", tmp_path / "m.png", "")
    picture(RGB, exif=turned(6))(tmp_path / "a.png")
    assert (read_pair(tmp_path / "a.png", tmp_path / "m.png", "")[1] == LABELS).all()


@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0MM\0*\0\0\0\x08\0\x01", b"Exif\0\0junk junk junk"])
def test_unreadable_metadata_do_not_turn_the_pixels(tmp_path: Path, exif: bytes) -> None:
    picture(RGB, exif=exif)(tmp_path / "a.jpg")
    picture(LABELS)(tmp_path / "m.png")
    assert (read_pair(tmp_path / "a.jpg", tmp_path / "m.png", "")[1] == LABELS).all()


# Place.


@pytest.mark.parametrize(
    ("place", "refused"),
    [
        ({"transform": Affine(1, 0, 5e5 + 0.5, 0, -1, 3e6 - 0.5)}, False),  # centres in place of corners
        ({"transform": Affine(1, 0, 5e5 + 8, 0, -1, 3e6)}, True),
        ({"transform": Affine(1, 0, 5e5, 0, 1, 3e6 - 16)}, True),  # the same ground, south up
        ({"crs": "EPSG:32647"}, True),
        ({"crs": ""}, False),
    ],
)
def test_a_mask_lies_where_its_image_lies(tmp_path: Path, place: dict[str, Any], refused: bool) -> None:
    write_raster(tmp_path / "a.tif", RGB, **PLACE)
    write_raster(tmp_path / "m.tif", LABELS, **(PLACE | place))
    if not refused:
        assert (read_pair(tmp_path / "a.tif", tmp_path / "m.tif", "")[1] == LABELS).all()
        return
    with pytest.raises(DataError, match=r"m\.tif: the mask does not lie on its image"):
        read_pair(tmp_path / "a.tif", tmp_path / "m.tif", "")


def test_labels_that_jpeg_has_changed_are_refused(tmp_path: Path) -> None:
    """A JPEG of 0 and 1 may come back as other pixels of 0 and 1."""
    picture(RGB)(tmp_path / "a.png")
    picture(LABELS, format="JPEG", quality=95)(tmp_path / "m.png")
    with Image.open(tmp_path / "m.png") as stored:
        values = np.array(stored)
    assert set(np.unique(values)) == {0, 1} and (values != LABELS).any()
    with pytest.raises(DataError, match="JPEG blurs labels"):
        read_pair(tmp_path / "a.png", tmp_path / "m.png", "")


def test_the_advice_fits_the_unknown_value(tmp_path: Path) -> None:
    write_raster(tmp_path / "a.tif", RGB, **PLACE)
    values = np.where(ABSENT, np.nan, LABELS).astype(np.float32)
    for nodata in (None, np.nan):
        write_raster(tmp_path / "m.tif", values, nodata=nodata, **PLACE)
        with pytest.raises(DataError, match=r'Received the values nan\. .*set ignore "nodata"'):
            read_pair(tmp_path / "a.tif", tmp_path / "m.tif", "")
        assert ((read_pair(tmp_path / "a.tif", tmp_path / "m.tif", "nodata")[1] == 255) == ABSENT).all()
