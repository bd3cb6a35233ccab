"""Masks that can be read in two ways are refused; all others give the labels that were drawn."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio import Affine
from rasterio.enums import ColorInterp

from lim_keras.errors import DataError
from lim_keras.raster.images import read_image
from lim_keras.raster.masks import is_lossy, read_labels
from lim_keras.raster.writer import write_raster

SHAPE = np.uint8([[0, 1, 1], [0, 0, 1]])
WHITE = np.full_like(SHAPE, 255)
PLACE = {"crs": "EPSG:32648", "transform": Affine(1, 0, 5e5, 0, -1, 3e6)}

Save = Callable[[Path], object]


def layers(*bands: np.ndarray) -> Save:
    return lambda path: Image.fromarray(np.dstack(bands)).save(path)


def palette(indices: np.ndarray, *colours: int, **options: Any) -> Save:
    def save(path: Path) -> None:
        image = Image.fromarray(indices, "P")
        image.putpalette(bytes(colours))
        image.save(path, **options)

    return save


def tiff(*bands: np.ndarray, kinds: tuple[ColorInterp, ...] = (), colours: dict[int, Any] | None = None) -> Save:
    def save(path: Path) -> None:
        shape = {"height": 2, "width": 3, "count": len(bands), "dtype": "uint8"}
        with rasterio.open(path, "w", driver="GTiff", **shape, **PLACE) as file:
            if kinds:
                file.colorinterp = kinds
            file.write(np.stack(bands))
            if colours:
                file.write_colormap(1, colours)

    return save


@pytest.mark.parametrize(
    ("name", "save"),
    [
        ("white.png", layers(WHITE, WHITE, WHITE, SHAPE * 255)),
        ("black.png", layers(WHITE * 0, WHITE * 0, WHITE * 0, SHAPE * 255)),
        ("clear.png", layers(WHITE, WHITE, WHITE, WHITE * 0)),  # an empty one of the same tool
        ("grey.png", layers(WHITE, SHAPE * 255)),
        ("palette.png", palette(SHAPE, 0, 0, 0, 255, 255, 255, transparency=0)),
        ("grey.tif", tiff(WHITE, SHAPE * 255, kinds=(ColorInterp.gray, ColorInterp.alpha))),
        ("first.tif", tiff(SHAPE * 255, WHITE, kinds=(ColorInterp.alpha, ColorInterp.gray))),
        ("inner.tif", lambda path: write_raster(path, WHITE, valid=SHAPE > 0, **PLACE)),
    ],
)
def test_a_shape_in_alpha_is_refused_unless_it_marks_pixels_without_a_label(
    tmp_path: Path, name: str, save: Save
) -> None:
    save(tmp_path / name)
    with pytest.raises(DataError, match=rf"{name}: the mask has transparent or masked pixels.* ignore \"nodata\""):
        read_labels(tmp_path / name)
    assert read_labels(tmp_path / name, marked=True).shape == SHAPE.shape


def test_constant_alpha_is_ignored(tmp_path: Path) -> None:
    for alpha in (255, 9):
        layers(*[SHAPE * 255] * 3, np.full_like(SHAPE, alpha))(tmp_path / "a.png")
        assert read_labels(tmp_path / "a.png").tolist() == (SHAPE * 255).tolist()


RED, GREEN = (200, 0, 0), (0, 128, 0)


@pytest.mark.parametrize(
    ("name", "save"),
    [
        ("red_first.png", palette(1 - SHAPE, *RED, 0, 0, 0)),  # index 0 is landslide
        ("white_first.png", palette(SHAPE, 255, 255, 255, *RED)),
        ("green_first.png", palette(SHAPE, *GREEN, *RED)),
        ("only_white.png", palette(SHAPE * 0, 255, 255, 255, *RED)),
        ("red_first.tif", palette(1 - SHAPE, *RED, 0, 0, 0)),
        ("table.tif", tiff(SHAPE, colours={0: (255, 255, 255, 255), 1: (*RED, 255)})),
    ],
)
def test_palettes_of_unclear_order_are_refused(tmp_path: Path, name: str, save: Save) -> None:
    save(tmp_path / name)
    with pytest.raises(DataError, match=rf"{name}: the palette does not tell landslide from background.* Save it grey"):
        read_labels(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "save", "landslide"),
    [
        ("voc.png", palette(SHAPE, 0, 0, 0, *RED), 1),
        ("swapped.png", palette(1 - SHAPE, 255, 255, 255, 0, 0, 0), 255),  # white is landslide, whatever its index
        ("dark.png", palette(SHAPE, 0, 0, 0, 128, 128, 128), 1),
        ("with_others.png", palette(1 - SHAPE, 255, 255, 255, 0, 0, 0, *RED), 255),  # red is not used
        ("voc.tif", tiff(SHAPE, colours={0: (0, 0, 0, 255), 1: (*RED, 255)}), 1),
        ("swapped.tif", palette(1 - SHAPE, 255, 255, 255, 0, 0, 0), 255),
        ("one_bit.png", lambda path: Image.fromarray(SHAPE > 0).save(path), 255),
        ("one_bit.tif", lambda path: Image.fromarray(SHAPE > 0).save(path), 1),
        # white is stored as 0
        ("fax.tif", lambda path: Image.fromarray(SHAPE > 0).save(path, tiffinfo={262: 0}), 255),
        ("min_is_white.tif", lambda path: Image.fromarray(SHAPE * 255).save(path, tiffinfo={262: 0}), 255),
    ],
)
def test_palettes_of_clear_order(tmp_path: Path, name: str, save: Save, landslide: int) -> None:
    save(tmp_path / name)
    assert read_labels(tmp_path / name).tolist() == (SHAPE * landslide).tolist()


def test_only_one_page_is_a_mask(tmp_path: Path) -> None:
    pages = [Image.fromarray(SHAPE), Image.fromarray(1 - SHAPE)]
    for name, message in (("a.tif", "a TIFF of 2 pages"), ("a.png", "an animation of 2 frames")):
        pages[0].save(tmp_path / name, save_all=True, append_images=pages[1:])
        with pytest.raises(DataError, match=rf"expected one image. Received: {message}"):
            read_labels(tmp_path / name)


def test_jpeg_is_recognized_by_its_compression(tmp_path: Path) -> None:
    large = np.kron(SHAPE, np.ones((16, 16), np.uint8))
    Image.fromarray(large).save(tmp_path / "a.png", format="JPEG")
    write_raster(tmp_path / "a.tif", large, compress="jpeg", **PLACE)
    write_raster(tmp_path / "b.tif", large, **PLACE)
    Image.fromarray(large).save(tmp_path / "b.png")
    assert [is_lossy(tmp_path / name) for name in ("a.png", "a.tif", "b.tif", "b.png")] == [True, True, False, False]


def test_a_damaged_directory_of_a_tiff(tmp_path: Path) -> None:
    """GDAL opens such a file, and reports the damage at a later call."""
    path = write_raster(tmp_path / "a.tif", WHITE, valid=SHAPE > 0, **PLACE)
    data = bytearray(path.read_bytes())
    (first,) = struct.unpack_from("<I", data, 4)
    (entries,) = struct.unpack_from("<H", data, first)
    struct.pack_into("<I", data, first + 2 + 12 * entries, len(data) - 3)  # the directory of the mask
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match=r"a\.tif: .*damaged.*directory"):
        read_image(path)
