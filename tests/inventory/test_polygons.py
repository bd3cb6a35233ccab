import numpy as np
import pytest
import shapely
from rasterio import Affine
from shapely import Polygon, box

from lim_keras.errors import DataError
from lim_keras.inventory.polygons import place, read_mask_info, rings_of
from lim_keras.raster.georeference import Georeference
from lim_keras.raster.writer import write_raster
from tests.inventory.conftest import trace


def test_one_polygon_for_each_group_that_shares_sides(write_mask, picture):
    # Two pixels that meet in a corner are two landslides. The third row holds one whose first pixel is in column 1.
    path = write_mask(
        picture("""
        ..#..
        ...#.
        .###.
    """)
    )
    outlines, seeds = trace(path)
    assert seeds.tolist() == [[2, 0], [3, 1]]
    assert outlines[0].equals(box(2, 0, 3, 1))
    assert outlines[1].equals(Polygon([(3, 1), (4, 1), (4, 3), (1, 3), (1, 2), (3, 2)]))


def test_order_is_by_upper_left_pixel(write_mask, picture):
    # The ring begins in row 0, column 3; the pixel in its hole in row 2; the column at the left in row 1.
    path = write_mask(
        picture("""
        ...###
        #.##.#
        #.#.##
        ..#..#
        ..####
    """)
    )
    mask = picture("""
        ...###
        #.####
        #.#..#
        ..#.##
        ..####
    """)
    assert trace(path)[1].tolist() == [[3, 0], [0, 1]]
    mask[2, 3] = 1
    assert trace(write_mask(mask))[1].tolist() == [[3, 0], [0, 1]]


def test_nodata_is_no_landslide(write_mask, picture):
    outlines, _ = trace(write_mask(picture("oo#\noo#")))
    assert [outline.bounds for outline in outlines] == [(2, 0, 3, 2)]


@pytest.mark.parametrize(
    "transform",
    [
        Affine(0.8, 0, 530_000, 0, -0.8, 3_020_000),
        Affine(1e-5, 0, 105, 0, -1e-5, 27),
        Affine(3, 4, 500_000, 4, -3, 3_000_000),  # rotated
        None,
    ],
)
def test_noise_gives_valid_polygons_of_all_its_pixels(write_mask, transform):
    mask = (np.random.default_rng(0).random((60, 70)) < 0.55).astype(np.uint8)
    outlines, seeds = trace(write_mask(mask, transform=transform, crs="EPSG:32648" if transform else ""))
    assert shapely.is_valid(outlines).all() and shapely.coverage_is_valid(outlines)
    assert shapely.area(outlines).sum() == mask.sum()
    assert (mask[seeds[:, 1], seeds[:, 0]] == 1).all()
    assert (np.diff(seeds[:, 1] * 70 + seeds[:, 0]) > 0).all()


def test_none(write_mask):
    outlines, seeds = trace(write_mask(np.zeros((5, 6))))
    assert outlines.shape == (0,) and seeds.shape == (0, 2)


def test_place(write_mask):
    path = write_mask([[0, 1]], transform=Affine(2, 0, 100, 0, -3, 50))
    placed = place(rings_of(trace(path)[0]), Georeference.of(read_mask_info(path)))
    assert placed[0].equals(box(102, 47, 104, 50))


def test_without_a_place_rows_go_down(write_mask):
    path = write_mask([[0, 0], [0, 1]], crs="", transform=None)
    ground = Georeference.of(read_mask_info(path))
    assert place(rings_of(trace(path)[0]), ground)[0].equals(box(1, -2, 2, -1))
    assert ground.crs == ""


def test_other_values(write_mask):
    with pytest.raises(DataError, match="but it holds 7"):
        trace(write_mask([[0, 7]]))


@pytest.mark.parametrize("pixels", [np.zeros((2, 2), np.float32), np.zeros((2, 2, 2), np.uint8)])
def test_other_rasters(tmp_path, pixels):
    with pytest.raises(DataError, match="expected a mask of one band of uint8"):
        read_mask_info(write_raster(tmp_path / "a.tif", pixels))
