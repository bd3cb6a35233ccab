"""Overlaps by pixels and by outline, and groups of them."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from rasterio import Affine

from lim_keras.data.layouts import read_tiles
from lim_keras.data.overlap import Overlap, find_copies, find_overlaps, group_overlaps, read_footprints
from lim_keras.data.tiles import TileSet
from lim_keras.errors import DataError
from lim_keras.raster.writer import write_raster

SHAPE = (700, 900)


def ground(seed: int, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    """Make an image with detail of every size: (height, width, 3) uint8."""
    rng = np.random.default_rng(seed)
    picture = np.zeros((*shape, 3), np.float32)
    for cell in (2, 4, 8, 16, 64):
        coarse = rng.normal(0, cell**0.5, (shape[0] // cell + 2, shape[1] // cell + 2, 3)).astype(np.float32)
        picture += cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC)
    return np.clip(128 + 8 * picture, 0, 255).astype(np.uint8)


def write_jpeg(path: Path, image: np.ndarray, quality: int = 90) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes())


@pytest.fixture(scope="module")
def survey(tmp_path_factory) -> TileSet:
    """Write tiles: a and b share half, b and c a third; d, e, f and the grey tile share nothing."""
    folder = tmp_path_factory.mktemp("survey") / "non-landslide" / "image"
    one = ground(1)
    write_jpeg(folder / "a.jpg", one[0:240, 0:260])
    write_jpeg(folder / "b.jpg", one[3:230, 131:391], 80)  # 129 of 260 columns of a
    write_jpeg(folder / "c.jpg", one[117:317, 257:477])  # 113 rows and 134 columns of b
    write_jpeg(folder / "d.jpg", one[400:660, 500:800])
    write_jpeg(folder / "e.jpg", ground(2)[:250, :250])
    write_jpeg(folder / "f.jpg", ground(3)[:120, :150])
    write_jpeg(folder / "flat.jpg", np.full((200, 200, 3), 90, np.uint8))
    return read_tiles(folder.parent.parent)


def test_shifted_tiles_with_different_jpeg_noise(survey):
    found = find_overlaps(survey)
    assert [(overlap.first, overlap.second) for overlap in found] == [("a", "b"), ("b", "c")]
    # a and b: 227 rows x 129 columns of b's 227 x 260; b and c: 113 x 134 of c's 200 x 220
    assert found[0].share == pytest.approx(129 / 260, abs=0.01)
    assert found[1].share == pytest.approx(113 * 134 / (200 * 220), abs=0.01)


def test_copies_with_other_compression_or_size(survey, tmp_path):
    """The other images are a turned tile, a cut one, another place of the same survey, and a flat image."""
    folder, one = tmp_path / "non-landslide" / "image", ground(1)
    write_jpeg(folder / "cut.jpg", one[20:240, 30:260])
    write_jpeg(folder / "even.jpg", np.full((200, 200, 3), 90, np.uint8))
    write_jpeg(folder / "low_quality.jpg", one[0:240, 0:260], 30)
    write_jpeg(folder / "other.jpg", one[440:680, 0:260])
    write_jpeg(folder / "small.jpg", cv2.resize(one[400:660, 500:800], (210, 182), interpolation=cv2.INTER_AREA))
    write_jpeg(folder / "turned.jpg", np.rot90(one[0:240, 0:260], 2))
    found = find_copies(read_tiles(tmp_path), survey)
    assert [(image.tile_id, tile.tile_id) for image, tile in found] == [("low_quality", "a"), ("small", "d")]
    assert find_copies([], survey) == find_copies(survey, []) == []


def test_results_are_repeatable(survey):
    cv2.setRNGSeed(99)
    first = find_overlaps(survey)
    cv2.setRNGSeed(7)
    assert find_overlaps(survey) == first


def test_groups_join_chains_and_are_named_after_their_first_tile(survey):
    grouped = group_overlaps(survey, [Overlap("a", "b", 0.5), Overlap("b", "c", 0.3), Overlap("e", "f", 0.1)])
    assert [tile.group for tile in grouped] == ["a", "a", "a", "", "e", "e", ""]
    assert grouped.ids == survey.ids


def test_existing_groups_are_joined(survey):
    # d and f share a group already; a link from f to a joins all three, and what overlaps a
    before = group_overlaps(survey, [Overlap("d", "f", 0.5)])
    after = group_overlaps(before, [Overlap("a", "b", 0.5), Overlap("a", "f", 0.1)])
    assert [tile.group for tile in after] == ["a", "a", "", "a", "", "a", ""]
    assert group_overlaps(before, []) == before


def test_groups_of_unknown_tiles(survey):
    with pytest.raises(DataError, match="no tile has the id 'z'"):
        group_overlaps(survey, [Overlap("a", "z", 0.5)])


def test_small_tiles_that_share_a_corner(tmp_path):
    one = ground(4)
    folder = tmp_path / "non-landslide" / "image"
    write_jpeg(folder / "a.jpg", one[0:90, 0:100])
    write_jpeg(folder / "b.jpg", one[41:131, 38:128])  # 49 rows x 62 columns
    found = find_overlaps(read_tiles(tmp_path))
    assert [(o.first, o.second) for o in found] == [("a", "b")]
    assert found[0].share == pytest.approx(49 * 62 / (90 * 90), abs=0.02)


def test_equal_tiles_without_texture_overlap(tmp_path, write_picture):
    for name in ("a", "b", "c"):
        write_picture(tmp_path / "non-landslide" / "image" / f"{name}.png", np.full((30, 30, 3), 70, np.uint8))
    write_picture(tmp_path / "non-landslide" / "image" / "d.png", np.full((30, 30, 3), 71, np.uint8))
    assert find_overlaps(read_tiles(tmp_path)) == [Overlap("a", "b", 1.0), Overlap("b", "c", 1.0)]


def test_sixteen_bit_tiles(tmp_path):
    one = ground(5).astype(np.uint16) * 37 + 500
    for name, picture in (("a", one[0:220, 0:230]), ("b", one[30:250, 111:341]), ("c", one[450:670, 600:830])):
        (tmp_path / "non-landslide" / "image").mkdir(parents=True, exist_ok=True)
        write_raster(tmp_path / "non-landslide" / "image" / f"{name}.tif", picture)
    found = find_overlaps(read_tiles(tmp_path))
    assert [(overlap.first, overlap.second) for overlap in found] == [("a", "b")]


@pytest.mark.parametrize("count", [1, 2])
def test_few_or_tiny_tiles(tmp_path, write_picture, count):
    for number in range(count):
        picture = np.full((1, 3, 3), 10 * number, np.uint8)
        write_picture(tmp_path / "non-landslide" / "image" / f"{number}.png", picture)
    assert find_overlaps(read_tiles(tmp_path)) == []


def georeferenced(folder: Path, name: str, crs: str, left: float, top: float, pixel: float = 2.0) -> None:
    """Write a tile of 50 x 40 pixels without texture, which only its georeference can compare."""
    folder.mkdir(parents=True, exist_ok=True)
    transform = Affine(pixel, 0, left, 0, -pixel, top)
    write_raster(folder / f"{name}.tif", np.full((40, 50, 3), len(name), np.uint8), crs=crs, transform=transform)


def test_touching_footprints_do_not_overlap(tmp_path):
    folder = tmp_path / "non-landslide" / "image"
    # each covers 100 m x 80 m
    georeferenced(folder, "a", "EPSG:32648", 500000, 3000000)
    georeferenced(folder, "bb", "EPSG:32648", 500100, 3000000)  # shares an edge with a
    georeferenced(folder, "ccc", "EPSG:32648", 500075, 2999960)  # 25 m x 40 m of a, 75 m x 40 m of bb
    tiles = read_tiles(tmp_path)
    found = find_overlaps(tiles)
    assert [(overlap.first, overlap.second) for overlap in found] == [("a", "ccc"), ("bb", "ccc")]
    assert [overlap.share for overlap in found] == pytest.approx([25 * 40 / 8000, 75 * 40 / 8000])


def test_footprints_in_two_coordinate_systems(tmp_path):
    folder = tmp_path / "non-landslide" / "image"
    georeferenced(folder, "a", "EPSG:32648", 500000, 3000000)  # 105 degrees east is the middle of zone 48
    footprint = read_footprints(read_tiles(tmp_path))["a"]
    assert footprint.bounds == (500000, 2999920, 500100, 3000000)
    # about 27.1 degrees north; a tile in degrees around the same point
    georeferenced(folder, "bb", "EPSG:4326", 105.0003, 27.1224, 1e-5)
    assert [(one.first, one.second) for one in find_overlaps(read_tiles(tmp_path))] == [("a", "bb")]


def test_footprints_on_the_antimeridian(tmp_path):
    folder = tmp_path / "non-landslide" / "image"
    # 0.05 degrees wide and 0.04 high each; "a" and "bb" cross the antimeridian, "ccc" and "dddd" lie far from it
    georeferenced(folder, "a", "EPSG:4326", 179.98, -17.0, 1e-3)
    georeferenced(folder, "bb", "EPSG:4326", -180.01, -17.0, 1e-3)
    georeferenced(folder, "ccc", "EPSG:4326", 0.0, -17.0, 1e-3)
    georeferenced(folder, "dddd", "EPSG:32660", 500000, 8_120_000)  # 177 degrees east
    [found] = find_overlaps(read_tiles(tmp_path))
    assert (found.first, found.second) == ("a", "bb")
    assert found.share == pytest.approx(0.04 / 0.05, rel=1e-3)  # 179.99 to 180.03 of 179.98 to 180.03


@pytest.mark.real_data
@pytest.mark.slow
def test_real_landslide_tiles(real_data):
    """654 of the 770 published landslide tiles, of which 209 share ground: here in proportion at least 170."""
    tiles = read_tiles(real_data / "bijie").of_kind("landslide")
    grouped = group_overlaps(tiles, find_overlaps(tiles))
    assert sum(bool(tile.group) for tile in grouped) >= 170
    assert grouped["ls_0302"].group == grouped["ls_0303"].group == "ls_0302"
