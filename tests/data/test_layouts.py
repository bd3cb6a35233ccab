"""Reading of tile folders: layouts, checks of every file, labels of masks."""

import contextlib
import shutil

import numpy as np
import pytest
from rasterio import Affine

from lim_keras.data.layouts import read_tiles
from lim_keras.data.manifest import read_folds, read_tile_ids, write_manifest
from lim_keras.data.tiles import read_tile
from lim_keras.errors import DataError, LimKerasWarning
from lim_keras.raster.writer import write_raster

GREY = np.full((8, 10, 3), 90, np.uint8)
HALF = np.repeat(np.uint8([[0, 1]]), 5, axis=1).repeat(8, axis=0)  # (8, 10): left half background, right half landslide


# Layouts.


@pytest.mark.parametrize("ending", [".png", ".jpg"])
def test_bijie_layout(tmp_path, bijie_folder, ending):
    tiles = read_tiles(bijie_folder(tmp_path, 2, 3, ending))
    assert tiles.ids == ("ls_0", "ls_1", "nls_0", "nls_1", "nls_2")
    assert (len(tiles), tiles.bands, tiles.dtype, tiles.root) == (5, 3, "uint8", tmp_path)
    tile = tiles["ls_1"]
    # the second tile is 23 x 25; its landslide covers rows 5 to 10 and columns 6 to 11
    assert (tile.kind, tile.height, tile.width, tile.landslide_px, tile.valid_px) == ("landslide", 23, 25, 36, 575)
    assert (tile.gsd_m, tile.crs, tile.x, tile.group, tile.ignore) == (None, "", None, "", "")
    assert (tiles[2].kind, tiles[2].mask, tiles[2].landslide_px) == ("non-landslide", None, 0)
    image, mask = read_tile(tile)
    assert image.shape == (23, 25, 3) and mask.dtype == np.uint8
    assert mask.sum() == 36 and mask[5:11, 6:12].all()
    image, mask = read_tile(tiles["nls_0"])
    assert mask.shape == image.shape[:2] and not mask.any()


def test_bijie_layout_with_mixed_formats_and_other_files(tmp_path, bijie_folder, write_picture):
    root = bijie_folder(tmp_path, 1, 0)
    write_picture(root / "landslide" / "image" / "b.jpg", GREY)
    write_picture(root / "landslide" / "mask" / "b.png", HALF)
    (root / "landslide" / "image" / "c.JPEG").write_bytes((root / "landslide" / "image" / "b.jpg").read_bytes())
    write_raster(root / "landslide" / "mask" / "c.tif", HALF)
    write_raster(root / "landslide" / "image" / "d.e.tif", GREY)
    write_picture(root / "landslide" / "mask" / "d.e.png", HALF)
    for other in ("Thumbs.db", "b.jpg.aux.xml", "._b.jpg", ".hidden.png", "b.jgw"):
        (root / "landslide" / "image" / other).write_bytes(b"?")
    assert read_tiles(root).ids == ("b", "c", "d.e", "ls_0")


def test_masks_of_non_landslide_tiles_must_be_empty(tmp_path, bijie_folder, write_picture):
    root = bijie_folder(tmp_path, 1, 2)
    path = write_picture(root / "non-landslide" / "mask" / "nls_0.png", np.zeros((22, 30), np.uint8))
    assert read_tiles(root)["nls_0"].mask == path
    write_picture(path, np.ones((22, 30), np.uint8))
    with pytest.raises(DataError, match=r"nls_0\.png: the mask of a non-landslide tile holds 660 landslide pixels"):
        read_tiles(root)


def test_pairs_layout_takes_the_kind_from_the_mask(tmp_path, pairs_folder):
    tiles = read_tiles(pairs_folder(tmp_path))
    assert [tile.kind for tile in tiles] == ["landslide", "landslide", "non-landslide"]
    assert tiles.of_kind("non-landslide").ids == ("t_2",)


@pytest.mark.parametrize(("dtype", "bands"), [("uint16", 4), ("float32", 1), ("uint8", 5)])
def test_tiff_tiles_keep_position_and_ground_sample_distance(tmp_path, dtype, bands):
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    georeference = {"crs": "EPSG:32648", "transform": Affine(0.8, 0, 500000, 0, -0.8, 3000000)}
    write_raster(tmp_path / "images" / "a.tif", np.full((8, 10, bands), 7, dtype), **georeference)
    write_raster(tmp_path / "masks" / "a.tif", HALF, **georeference)
    tiles = read_tiles(tmp_path)
    assert (tiles.bands, tiles.dtype) == (bands, dtype)
    assert (tiles[0].crs, tiles[0].gsd_m) == ("EPSG:32648", pytest.approx(0.8))
    assert (tiles[0].x, tiles[0].y) == pytest.approx(
        (500004, 2999996.8)
    )  # 5 columns and 4 rows of 0.8 m from the corner


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        ([], "Found an empty folder"),
        (["pictures"], "expected a tiles.csv, or folders landslide/image.*Found pictures"),
        (["images"], "no tiles were found"),
        (["landslide/img"], r"landslide: expected a folder `image` in it. Found img"),
    ],
)
def test_unknown_layouts(tmp_path, folders, message):
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True)
    with pytest.raises(DataError, match=message):
        read_tiles(tmp_path)


def test_path_that_does_not_exist(tmp_path):
    with pytest.raises(DataError, match="nowhere: no such file or folder"):
        read_tiles(tmp_path / "nowhere")


# Errors.


def test_all_bad_files_are_listed_in_one_error(tmp_path, bijie_folder, write_picture):
    root = bijie_folder(tmp_path, 6, 3)
    image, mask = root / "landslide" / "image", root / "landslide" / "mask"
    (mask / "ls_0.png").unlink()
    write_picture(mask / "ls_1.png", HALF)  # 8 x 10, its image is 23 x 25
    (image / "ls_2.png").write_bytes((image / "ls_2.png").read_bytes()[:-300])
    write_picture(mask / "ls_3.png", np.uint8(np.arange(29 * 27).reshape(29, 27) % 9))
    write_picture(mask / "orphan.png", HALF)
    shutil.copy(image / "ls_4.png", root / "non-landslide" / "image" / "ls_4.png")
    write_picture(image / "ls_5.png", np.zeros((35, 29), np.uint8))  # one band where the others have three
    (root / "non-landslide" / "image" / "nls_0.png").write_bytes(b"")
    (root / "non-landslide" / "image" / "x.bmp").write_bytes(b"BM")
    with pytest.raises(DataError) as caught:
        read_tiles(root)
    lines = str(caught.value).split("\n  ")
    expected = [
        "ls_0.png: its mask is missing",
        "orphan.png: a mask without an image",
        "x.bmp: files of .bmp are not read",
        "ls_4.png: a second tile of the id 'ls_4'",
        "ls_1.png: the mask is 10 x 8 pixels, but its image ls_1.png is 25 x 23",
        "ls_2.png: the file is truncated",
        "ls_3.png: expected a mask of 0 and 1, or 0 and 255. Received the values 2, 3, 4, 5, 6",
        "nls_0.png: expected a PNG, JPEG or TIFF file, but it is empty",
        "ls_5.png: 1 band(s) of uint8, but 4 of the 5 tiles have 3 of uint8",
    ]
    assert lines[0] == f"{root}: 9 problems with the tiles:"
    assert all(sum(part in line for line in lines) == 1 for part in expected), lines
    assert len(lines) == 10


def test_long_lists_are_cut_after_twenty(tmp_path, bijie_folder):
    root = bijie_folder(tmp_path, 23, 1)
    for number in range(23):
        (root / "landslide" / "mask" / f"ls_{number}.png").unlink()
    with pytest.raises(DataError) as caught:
        read_tiles(root)
    lines = str(caught.value).split("\n  ")
    assert len(lines) == 22 and lines[-1] == "... and 3 more."


def test_two_files_for_one_tile(tmp_path, pairs_folder, write_picture):
    root = pairs_folder(tmp_path)
    write_picture(root / "images" / "t_0.jpg", np.zeros((16, 18, 3), np.uint8))
    write_picture(root / "masks" / "t_1.jpg", np.zeros((17, 18), np.uint8))
    with pytest.raises(DataError, match=r"(?s)a second mask of the tile t_1.*a second tile of the id 't_0'"):
        read_tiles(root)


def test_folders_whose_images_would_be_lost(tmp_path, bijie_folder, write_picture):
    root = bijie_folder(tmp_path, 1, 1)
    write_picture(root / "non_landslide" / "image" / "a.png", GREY)
    write_picture(root / "landslide" / "image" / "area_1" / "b.png", GREY)
    (root / "landslide" / "image" / "notes").mkdir()
    with pytest.raises(DataError, match=r"(?s)2 problems.*non_landslide: its tiles .*area_1: a folder of images") as e:
        read_tiles(root)
    assert "notes" not in str(e.value)


def test_folder_in_place_of_a_file(tmp_path, pairs_folder):
    root = pairs_folder(tmp_path)
    (root / "images" / "t_0.png").unlink()
    (root / "images" / "t_0.png").mkdir()
    with pytest.raises(DataError, match=r"t_0\.png: cannot be opened"):
        read_tiles(root)


# Labels of masks.


@pytest.fixture
def manifest(tmp_path, write_picture):
    """A function: rows of `mask array, ignore` -> tiles of a manifest of grey 8 x 10 tiles."""

    def read(*rows, image=GREY):
        lines = ["tile_id,image,mask,ignore"]
        for number, (mask, ignore) in enumerate(rows):
            picture = tmp_path / f"i{number}.tif"
            write_raster(picture, image)
            write_picture(tmp_path / f"m{number}.png", mask)
            lines.append(f"t{number},i{number}.tif,m{number}.png,{ignore}")
        (tmp_path / "tiles.csv").write_text("\n".join(lines))
        return read_tiles(tmp_path)

    return read


def test_values_of_masks(manifest):
    full, ignored = np.full((8, 10), 255, np.uint8), np.where(HALF, 255, 0).astype(np.uint8)
    three = HALF.copy()
    three[0] = 255
    with (
        pytest.warns(LimKerasWarning, match=r"1 of 6 tiles are more than 80% landslide.* Tiles: t2\."),
        pytest.warns(LimKerasWarning, match=r"2 of 6 tiles are read with 255 as landslide, .* Tiles: t1, t2\."),
    ):
        tiles = manifest((HALF, ""), (HALF * 255, ""), (full, ""), (ignored, "255"), (three, "255"), (HALF, "nodata"))
    # half of 8 x 10 is 40; with the first row ignored 35 of 70 are landslide
    assert [tile.landslide_px for tile in tiles] == [40, 40, 80, 0, 35, 40]
    assert [tile.valid_px for tile in tiles] == [80, 80, 80, 40, 70, 80]
    assert [tile.kind for tile in tiles] == ["landslide"] * 3 + ["non-landslide"] + ["landslide"] * 2
    mask = read_tile(tiles["t4"])[1]
    assert (mask[0] == 255).all() and mask[1:, :5].sum() == 0 and (mask[1:, 5:] == 1).all()


def test_masks_of_both_1_and_255_need_ignore(manifest):
    three = HALF.copy()
    three[0] = 255
    with pytest.raises(DataError, match=r'both 1 and 255\. If 255 means no label, set ignore "255"'):
        manifest((three, ""))


@pytest.mark.parametrize("value", [2, 127, 254])
def test_unknown_values(manifest, value):
    with pytest.raises(DataError, match=f"Received the values {value}\\. Save landslide as 1"):
        manifest((HALF * value, "255"))


def test_jpeg_masks_are_refused(tmp_path, write_picture):
    write_picture(tmp_path / "images" / "a.png", np.zeros((40, 40, 3), np.uint8))
    noise = np.random.default_rng(0).integers(0, 2, (40, 40), np.uint8) * 255
    write_picture(tmp_path / "masks" / "a.jpg", noise)
    with pytest.raises(DataError, match="JPEG blurs labels"):
        read_tiles(tmp_path)


def test_nodata_of_the_image_is_ignored(tmp_path, write_picture):
    image = np.full((8, 10, 2), 50, np.float32)
    image[:2], image[2, 0, 1] = -9999, np.nan
    write_raster(tmp_path / "i.tif", image, nodata=-9999)
    write_picture(tmp_path / "m.png", HALF)
    csv = tmp_path / "tiles.csv"
    csv.write_text("tile_id,image,mask,ignore\na,i.tif,m.png,\nb,i.tif,,\nc,i.tif,m.png,nodata\nd,i.tif,m.png,255\n")
    tiles = read_tiles(csv)
    # 2 rows of 10 and one pixel are absent: 80 - 21 = 59; of the landslide's 40 pixels, 2 rows of 5 are: 30
    assert [(tile.valid_px, tile.landslide_px) for tile in tiles] == [(59, 30), (59, 0), (59, 30), (59, 30)]
    pixels, mask = read_tile(tiles["a"])
    assert (pixels == 50).all()  # the mean of what is present
    np.testing.assert_array_equal(mask == 255, ~np.isfinite(image).all(-1) | (image[..., 0] == -9999))


def test_nodata_of_the_mask(tmp_path):
    mask = np.where(HALF, 1, 0).astype(np.int16)
    mask[0] = -1
    write_raster(tmp_path / "i.tif", GREY)
    write_raster(tmp_path / "m.tif", mask, nodata=-1)
    csv = tmp_path / "tiles.csv"
    csv.write_text("tile_id,image,mask,ignore\na,i.tif,m.tif,nodata\n")
    assert (read_tile(read_tiles(csv)[0])[1][0] == 255).all()
    csv.write_text("tile_id,image,mask\na,i.tif,m.tif\n")
    with pytest.raises(DataError, match="Received the values -1"):
        read_tiles(csv)


def test_mask_whose_nodata_value_equals_landslide(tmp_path):
    write_raster(tmp_path / "i.tif", GREY)
    write_raster(tmp_path / "m.tif", np.where(HALF, 255, 0).astype(np.uint8), nodata=255)
    csv = tmp_path / "tiles.csv"
    csv.write_text("tile_id,image,mask\na,i.tif,m.tif\n")
    with pytest.raises(DataError, match=r'holds its nodata value 255\. Set ignore "nodata"'):
        read_tiles(csv)
    write_raster(tmp_path / "m.tif", HALF, nodata=0)  # background named nodata is common, and harmless
    assert read_tiles(csv)[0].landslide_px == 40


def test_progress_counts_the_checked_tiles(tmp_path, pairs_folder):
    class Recorder:
        tasks, steps = [], 0

        def begin(self, label, total, done=0, *, unit=""):
            self.tasks.append((label, total, unit))
            return contextlib.nullcontext()

        def advance(self, count=1, note=""):
            self.steps += count

    recorder = Recorder()
    read_tiles(pairs_folder(tmp_path), progress=recorder)
    assert (recorder.tasks, recorder.steps) == ([("checking tiles", 3, "tiles")], 3)


# The real tiles.


@pytest.mark.real_data
def test_real_tiles(real_data, tmp_path):
    root = real_data / "bijie"
    tiles = read_tiles(root)
    images = sum(len(list((root / kind / "image").iterdir())) for kind in ("landslide", "non-landslide"))
    assert len(tiles) == images and (tiles.bands, tiles.dtype) == (3, "uint8")
    test = read_tile_ids(root / "test_tiles.txt")
    assert len(tiles.subset(test)) == 250 and len(tiles.without(test)) == images - 250
    assert all(tile.landslide_px > 0 for tile in tiles.of_kind("landslide"))
    write_manifest(tiles, tmp_path / "tiles.csv", dict.fromkeys(test, -1))
    again = read_tiles(tmp_path)
    assert again.tiles == tiles.tiles
    assert read_folds(tmp_path / "tiles.csv") == dict.fromkeys(test, -1)
