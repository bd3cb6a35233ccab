"""Conversion of each format: labels by hand, ids, splits, groups, and what is left out."""

import csv
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from PIL import Image

import lim_keras as lk
from lim_keras.data.convert.rle import decode_counts
from lim_keras.data.tiles import read_tile

_spec = importlib.util.spec_from_file_location("sources", Path(__file__).with_name("sources.py"))
make = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(make)


def labels_of(out: Path, tile_id: str) -> list[list[int]]:
    return read_tile(lk.read_tiles(out)[tile_id])[1].tolist()


def rows(out: Path) -> dict[str, dict[str, str]]:
    with (out / "tiles.csv").open(encoding="utf-8", newline="") as stream:
        return {row["tile_id"]: row for row in csv.DictReader(stream)}


def reasons(result) -> dict[str, int]:
    return {reason: len(some) for reason, some in result.reasons().items()}


def test_landslide4sense(tmp_path):
    out = tmp_path / "out"
    result = lk.convert_tiles(make.landslide4sense(tmp_path / "l4s"), out, bands=(4, 3, 2))
    # 1 + 4 pixels of train, 1 pixel of val
    assert {name: (one.tiles, one.landslide_px) for name, one in result.splits.items()} == {
        "train": (2, 5),
        "val": (1, 1),
    }
    assert (result.bands, result.dtype, result.format) == (3, "float32", "landslide4sense")
    assert reasons(result) == {"image without a mask": 1}
    # image_1 is in two splits, image_2 in one
    assert list(rows(out)) == ["train_image_1", "image_2", "val_image_1"]
    image, labels = read_tile(lk.read_tiles(out)["image_2"])
    assert image.dtype == np.float32 and image[5, 6].tolist() == [3.5, 2.5, 1.5]  # bands 4, 3, 2 are 3, 2, 1 + .5
    assert labels[:3, :3].tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 0]] and labels.sum() == 4
    assert {row["gsd_m"] for row in rows(out).values()} == {"10.0"}
    assert (out / "val.txt").read_text() == "val_image_1\n" and not (out / "test.txt").exists()


def test_other_hdf5_has_no_ground_sample_distance_and_names_of_data_sets(tmp_path):
    make.landslide4sense(tmp_path / "l4s", size=16)
    make.hdf5(tmp_path / "l4s" / "TrainData" / "img" / "image_2.h5", "image", np.zeros((16, 16, 14)))
    result = lk.convert_tiles(tmp_path / "l4s", tmp_path / "out")
    assert {row["gsd_m"] for row in rows(tmp_path / "out").values()} == {""}
    left = {one.name: one.detail for one in result.left_out}["TrainData/img/image_2.h5"]
    assert "expected a data set `img`. Found image" in left


@pytest.mark.parametrize(
    ("image", "drawn"),
    [
        ("images/a.png", "masks/a.png"),
        ("Images/a.png", "Ground Truth/a.png"),
        ("a.png", "a_mask.png"),
        ("image_7.png", "label_7.png"),
        ("a_sat.png", "a_mask.png"),
        ("imgs/a.png", "gt/a_gt.png"),
        ("images/train/a.png", "masks/train/a.png"),
        ("train/rgb/a.png", "train/label/a.png"),
        ("landslide_segmentation/TrainImages/target_1.png", "landslide_segmentation/TrainMasks/target_1.png"),
    ],
)
def test_pairs_by_names(tmp_path, image, drawn):
    make.picture(tmp_path / "in" / image)
    make.mask(tmp_path / "in" / drawn, make.corner())
    result = lk.convert_tiles(tmp_path / "in", tmp_path / "out")
    assert (result.format, result.tiles, result.kinds["landslide"].landslide_px) == ("pairs", 1, 6)
    (tile,) = lk.read_tiles(tmp_path / "out")
    assert tile.tile_id == Path(image).stem
    assert tile.image.read_bytes() == (tmp_path / "in" / image).read_bytes()
    assert rows(tmp_path / "out")[tile.tile_id]["ignore"] == "255"


def test_masks_of_0_and_1_and_ignored_255(tmp_path):
    make.picture(tmp_path / "in" / "a.png")
    values = make.corner(1)
    values[5] = 255
    make.mask(tmp_path / "in" / "a_mask.png", values)
    with pytest.raises(lk.ConfigError, match=r"holds 0, 1 and 255. If 255 means no label, give 255 as `ignore`"):
        lk.convert_tiles(tmp_path / "in", tmp_path / "out")
    result = lk.convert_tiles(tmp_path / "in", tmp_path / "out", ignore=255)
    assert (result.kinds["landslide"].landslide_px, result.kinds["landslide"].ignored_px) == (6, 8)
    assert labels_of(tmp_path / "out", "a")[5] == [255] * 8
    result = lk.convert_tiles(tmp_path / "in", tmp_path / "out", landslide=[1, 255])
    assert result.kinds["landslide"].landslide_px == 14


def test_masks_in_colours(tmp_path):
    colours = np.zeros((6, 8, 3), np.uint8)
    colours[0, :4], colours[1, :2] = (255, 0, 0), (0, 255, 0)
    make.picture(tmp_path / "in" / "images" / "a.png")
    make.mask(tmp_path / "in" / "masks" / "a.png", colours)
    with pytest.raises(lk.ConfigError, match=r"Received: 0,0,0; 0,255,0; 255,0,0\."):
        lk.convert_tiles(tmp_path / "in", tmp_path / "out")
    with pytest.raises(lk.ConfigError, match="no pixel of any mask has a value of `landslide`"):
        lk.convert_tiles(tmp_path / "in", tmp_path / "out", landslide=[(0, 0, 255)])
    lk.convert_tiles(tmp_path / "in", tmp_path / "out", landslide=[(255, 0, 0)], ignore=[(0, 255, 0)])
    assert labels_of(tmp_path / "out", "a")[:2] == [[1] * 4 + [0] * 4, [255] * 2 + [0] * 6]


def test_palette_by_index_and_by_colour(tmp_path):
    image = Image.fromarray(make.corner(2))
    image.putpalette([9, 9, 9, 1, 2, 3, 200, 0, 0])
    make.picture(tmp_path / "in" / "images" / "a.png")
    (tmp_path / "in" / "masks").mkdir()
    image.convert("P").save(tmp_path / "in" / "masks" / "a.png")
    with pytest.raises(lk.ConfigError, match="Or name its index or colour as `landslide`"):
        lk.convert_tiles(tmp_path / "in", tmp_path / "out")
    for value in (2, (200, 0, 0)):
        result = lk.convert_tiles(tmp_path / "in", tmp_path / "out", landslide=[value])
        assert result.kinds["landslide"].landslide_px == 6


def test_grey_masks_need_a_range(tmp_path):
    make.picture(tmp_path / "in" / "images" / "a.png")
    make.mask(tmp_path / "in" / "masks" / "a.png", np.arange(48).reshape(6, 8) * 5)  # 0, 5, ..., 235
    with pytest.raises(lk.ConfigError, match=r"Received the values 0, 5, 10, .*\(48 values\)"):
        lk.convert_tiles(tmp_path / "in", tmp_path / "out")
    result = lk.convert_tiles(tmp_path / "in", tmp_path / "out", landslide=[(128, 255)])
    assert result.kinds["landslide"].landslide_px == 22  # 130, 135, ..., 235


def test_jpeg_masks_ignore_grey_pixels(tmp_path):
    make.picture(tmp_path / "in" / "images" / "a.png", height=32, width=32)
    values = np.zeros((32, 32), np.uint8)
    values[:16] = 255
    values[16:24, :8] = 128  # a block of its own, which JPEG keeps
    (tmp_path / "in" / "masks").mkdir()
    Image.fromarray(values).save(tmp_path / "in" / "masks" / "a.jpg", quality=95)
    tally = lk.convert_tiles(tmp_path / "in", tmp_path / "out").kinds["landslide"]
    assert (tally.landslide_px, tally.ignored_px) == (512, 64)


def test_a_georeferenced_image_keeps_its_place_and_its_mask_gets_it(tmp_path):
    (tmp_path / "in" / "images").mkdir(parents=True)
    place = {"crs": "EPSG:32645", "transform": Affine(10, 0, 300000, 0, -10, 3000000)}
    profile = {"driver": "GTiff", "width": 8, "height": 6, "count": 1, "dtype": "uint16", **place}
    with rasterio.open(tmp_path / "in" / "images" / "ä b.tif", "w", **profile) as target:
        target.write(np.arange(48, dtype=np.uint16).reshape(1, 6, 8))
    make.mask(tmp_path / "in" / "masks" / "ä b.png", make.corner())
    lk.convert_tiles(tmp_path / "in", tmp_path / "out")
    (tile,) = lk.read_tiles(tmp_path / "out")
    assert (tile.crs, tile.gsd_m, tile.x, tile.y) == ("EPSG:32645", pytest.approx(10, rel=0.01), 300040, 2999970)
    with rasterio.open(tile.mask) as found:
        assert (found.crs, found.transform, found.dtypes) == (place["crs"], place["transform"], ("uint8",))


def test_int16_images_become_float32(tmp_path):
    (tmp_path / "in" / "images").mkdir(parents=True)
    profile = {"driver": "GTiff", "width": 8, "height": 6, "count": 1, "dtype": "int16", "nodata": -9999}
    values = np.full((1, 6, 8), -7, np.int16)
    values[0, 0, 0] = -9999
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning):
        target = rasterio.open(tmp_path / "in" / "images" / "a.tif", "w", **profile)
    with target:
        target.write(values)
    make.mask(tmp_path / "in" / "masks" / "a.png", make.corner())
    tally = lk.convert_tiles(tmp_path / "in", tmp_path / "out").kinds["landslide"]
    assert (tally.landslide_px, tally.ignored_px) == (5, 1)
    image, _ = read_tile(lk.read_tiles(tmp_path / "out")[0])
    assert image.dtype == np.float32 and image[3, 3] == -7


def test_what_pairs_leave_out(tmp_path):
    for number in range(3):
        make.picture(tmp_path / "in" / "images" / f"{number}.png", seed=number)
        make.mask(tmp_path / "in" / "masks" / f"{number}.png", make.corner())
    make.picture(tmp_path / "in" / "images" / "alone.png")
    make.mask(tmp_path / "in" / "masks" / "lonely.png", make.corner())
    make.picture(tmp_path / "in" / "images" / "grey.png", bands=1)
    make.mask(tmp_path / "in" / "masks" / "grey.png", make.corner())
    make.picture(tmp_path / "in" / "images" / "large.png", height=12)
    make.mask(tmp_path / "in" / "masks" / "large.png", make.corner())
    whole = make.picture(tmp_path / "in" / "images" / "cut.jpg", height=64, width=64).read_bytes()
    (tmp_path / "in" / "images" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    make.mask(tmp_path / "in" / "masks" / "cut.png", make.corner(height=64, width=64))
    result = lk.convert_tiles(tmp_path / "in", tmp_path / "out")
    assert {one.name: one.reason for one in result.left_out} == {
        "images/alone.png": "image without a mask",
        "masks/lonely.png": "mask without an image",
        "images/grey.png": "image of other bands or another type than most (3 of uint8)",
        "images/large.png": "image or mask that cannot be used",
        "images/cut.jpg": "image that cannot be read",
    }
    assert list(rows(tmp_path / "out")) == ["0", "1", "2"]
    assert sorted(path.name for path in (tmp_path / "out" / "images").iterdir()) == ["0.png", "1.png", "2.png"]


def test_coco_draws_by_pixel_centres(tmp_path):
    annotations = [
        outline := make.outline(1, 1, 1, 4, 1, 4, 3, 1, 3),  # columns 1..3, rows 1 and 2
        make.outline(2, 5.6, 0, 7.4, 0, 7.4, 1, 5.6, 1),  # of columns 5..7 only the centre 6.5 lies inside
        make.outline(3, 6, 5, 20, 5, 20, 9, 6, 9),  # beyond the edge: columns 6 and 7 of row 5 remain
    ]
    assert outline["image_id"] == 0
    lk.convert_tiles(make.coco(tmp_path / "in", annotations), tmp_path / "out")
    assert labels_of(tmp_path / "out", "0") == [
        [0, 0, 0, 0, 0, 0, 1, 0],
        [0, 1, 1, 1, 0, 0, 0, 0],
        [0, 1, 1, 1, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 1, 1],
    ]
    assert rows(tmp_path / "out")["1"]["kind"] == "non-landslide"


def test_coco_run_lengths_boxes_and_what_is_left_out(tmp_path):
    size = [6, 8]
    runs = {"id": 1, "image_id": 0, "category_id": 1, "iscrowd": 1}
    box = {"id": 3, "image_id": 1, "category_id": 1, "segmentation": [], "bbox": [0, 0, 2, 1]}
    annotations = [
        runs | {"segmentation": {"size": size, "counts": [6, 2, 40]}},  # column 1, rows 0 and 1
        runs | {"id": 2, "segmentation": {"size": size, "counts": "<2X1"}},  # 12, 2, 40 - but 34 are left
        box,
        make.outline(4, 1, 1, 2, 2),
        make.outline(5, 1, 1, float("nan"), 1, 2, 2),
        make.outline(6, 9, 9, 12, 9, 12, 12),
        make.outline(7, 1, 1, 2, 1, 2, 2, image=7),
        make.outline(8, 1, 1, 2, 1, 2, 2, category=9),
        make.outline(9, 3.1, 3.1, 3.2, 3.1, 3.2, 3.2),
        {"id": 10, "image_id": 1, "category_id": 1},
        make.outline(11, 1, 1, 2),
        runs | {"id": 12, "image_id": 1, "segmentation": {"size": size, "counts": "~~"}},
    ]
    result = lk.convert_tiles(make.coco(tmp_path / "in", annotations), tmp_path / "out")
    assert labels_of(tmp_path / "out", "0")[:2] == [[0, 1, 0, 0, 0, 0, 0, 0]] * 2
    assert labels_of(tmp_path / "out", "1")[0] == [255, 255, 0, 0, 0, 0, 0, 0]
    assert {one.name.split()[-1]: one.reason for one in result.left_out} == {
        "2": "run lengths that do not fill the image",
        "4": "polygon of fewer than 3 points",
        "5": "coordinates that are not finite",
        "6": "polygon outside its image",
        "7": "annotation of a missing image",
        "8": "annotation of an unknown category",
        "10": "annotation without an outline",
        "11": "polygon that is no list of x and y",
        "12": "run lengths that cannot be read",
    }
    assert result.notes == {
        "regions of run lengths, of several objects (iscrowd)": 1,
        "boxes without an outline (no label inside)": 1,
        "polygons": 1,
        "outlines that contain no pixel centre": 1,
    }


def test_run_lengths_as_text():
    # 5 bits a character, low bits first; 0x20 more follows, 0x10 negative; from the fourth run on, differences:
    # "6" = 6; "2" = 2; "X1" = 8 + 32 = 40; then 3 - 2 = 1 ("1"); 39 - 40 = -1 ("O", 31: sign bit)
    assert decode_counts("62X11O") == [6, 2, 40, 3, 39]


@pytest.mark.parametrize("text", ["6X", "6 ", "6é"])
def test_run_lengths_that_are_no_text_of_them(text):
    with pytest.raises(ValueError):
        decode_counts(text)


def test_coco_files_of_splits_and_categories(tmp_path):
    root = make.coco(tmp_path / "in", [])
    document = json.loads((root / "annotations.json").read_text())
    (root / "annotations.json").unlink()
    document["categories"] = [{"id": 1, "name": "scar"}, {"id": 2, "name": "road"}, {"id": 3, "name": "maybe"}]
    square = (0, 0, 2, 0, 2, 2, 0, 2)
    annotations = [
        make.outline(1, *square),
        make.outline(2, 0, 4, 2, 4, 2, 6, 0, 6, category=2),
        make.outline(3, 4, 0, 6, 0, 6, 2, 4, 2, category=3),
    ]
    (root / "annotations").mkdir()
    for number, split in ((0, "train"), (1, "val")):
        one = document | {"images": [document["images"][number]], "annotations": annotations if number == 0 else []}
        (root / "annotations" / f"instances_{split}2017.json").write_text(json.dumps(one))
    with pytest.raises(lk.ConfigError, match=r"as `classes`. Found scar \(1\), road \(2\), maybe \(3\)"):
        lk.convert_tiles(root, tmp_path / "out")
    with pytest.raises(lk.ConfigError, match=r"`classes`. Expected classes of .* Received: scars"):
        lk.convert_tiles(root, tmp_path / "out", classes=["scars"])
    result = lk.convert_tiles(root, tmp_path / "out", classes=["Scar"], ignore_classes=["3"])
    tally = result.splits["train"]
    assert (tally.landslide_px, tally.ignored_px, result.splits["val"].tiles) == (4, 4, 1)
    one_file = root / "annotations" / "instances_train2017.json"
    assert lk.convert_tiles(one_file, tmp_path / "one", classes=["scar"]).tiles == 1


def test_yolo(tmp_path):
    square = "0 0 0 0.3 0 0.3 0.2 0 0.2\n"  # 3 x 2 px of 10 x 10
    labels = {
        "train/a": square + "0 0.5 0.5 0.2 0.2\n",  # a box of 2 x 2 px from (4, 4)
        "valid/a": "",
        "test/b": "0 0 0 1 1\n0 2 2 3 2 3 3\n0 .1 .1 .2\n5 0 0 1 0 1 1\nhello\n" + square,
    }
    root = make.yolo(tmp_path / "in", labels)
    make.picture(root / "train" / "images" / "bare.png", height=10, width=10, seed=9)
    make.picture(root / "results.png")
    (root / "train" / "labels" / "gone.txt").write_text(square)
    result = lk.convert_tiles(root, tmp_path / "out")
    assert reasons(result) == {
        "polygon outside its image": 1,
        "polygon of an odd number of coordinates": 1,
        "object of an unknown class": 1,
        "line that is not a class and numbers": 1,
        "image in a folder without labels": 1,
        "label file without an image": 1,
    }
    assert list(rows(tmp_path / "out")) == ["b", "train_a", "bare", "val_a"]
    labels = np.array(labels_of(tmp_path / "out", "train_a"))
    assert labels[:2, :3].tolist() == [[1, 1, 1], [1, 1, 1]] and (labels == 1).sum() == 6
    assert (labels[4:6, 4:6] == 255).all() and (labels == 255).sum() == 4
    assert (tmp_path / "out" / "test.txt").read_text() == "b\n"


@pytest.mark.parametrize(
    ("lines", "val"),
    [
        ("path: /else/where\ntrain: images/more/part.txt\nval: ./val.txt\n", ["b", "c"]),
        ("train: images\nval: [../in/images/more]\n", ["c"]),
        ("train: images\nval: images\n", []),  # no validation part
        ("val: none.txt\ntest: 5\n", []),
    ],
)
def test_yolo_splits_of_lists_and_folders(tmp_path, lines, val):
    square = "0 0 0 0.3 0 0.3 0.2 0 0.2\n"
    root = make.yolo(tmp_path / "in", {"x/a": square}, names="names: [landslide]\n" + lines)
    for name in ("a", "b", "more/c"):
        make.picture(root / "images" / f"{name}.png", height=10, width=10, seed=len(name))
        (root / "labels" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "labels" / f"{name}.txt").write_text(square)
    (root / "val.txt").write_bytes(b"/home/user/in/images/b.png\r\n./images/more/c.png\r\n\r\ngone.png\r\n")
    lk.convert_tiles(root, tmp_path / "out")
    listed = tmp_path / "out" / "val.txt"
    assert (listed.read_text().split() if listed.exists() else []) == val


def test_coco_numbers_written_as_text(tmp_path):
    square = make.outline(0, 0, 0, 3, 0, 3, 2, 0, 2) | {"category_id": "1", "image_id": "0"}
    make.coco(tmp_path / "in", [square], categories=[{"id": "1", "name": "landslide"}])
    assert lk.convert_tiles(tmp_path / "in", tmp_path / "out").kinds["landslide"].landslide_px == 6


def test_yolo_without_names_of_classes(tmp_path):
    root = make.yolo(tmp_path / "in", {"x/a": "3 0 0 1 0 1 1 0 1\n"}, names=None)
    assert lk.convert_tiles(root, tmp_path / "out").kinds["landslide"].landslide_px == 100
    with pytest.raises(lk.ConfigError, match=r"Expected classes of .*: 3\. Received: landslide"):
        lk.convert_tiles(root, tmp_path / "out", classes=["landslide"])


def test_copies_of_an_image_share_a_group(tmp_path):
    square = "0 0 0 0.3 0 0.3 0.2 0 0.2\n"
    names = ("train/a_jpg.rf.111", "train/a_jpg.rf.222", "train/c", "valid/d", "valid/e")
    root = make.yolo(tmp_path / "in", dict.fromkeys(names, square))
    twin = root / "train" / "images" / "c.png"
    (root / "valid" / "images" / "d.png").write_bytes(twin.read_bytes())
    result = lk.convert_tiles(root, tmp_path / "out")
    groups = {tile.tile_id: tile.group for tile in lk.read_tiles(tmp_path / "out")}
    assert groups == {"a_jpg.rf.111": "a_jpg.rf.111", "a_jpg.rf.222": "a_jpg.rf.111", "c": "c", "d": "c", "e": ""}
    assert result.duplicates == 1


def test_a_turned_photo_is_labelled_as_it_is_shown(tmp_path):
    root = make.yolo(tmp_path / "in", {"train/a": "0 0 0 0.5 0 0.5 0.25 0 0.25\n"})
    (root / "train" / "images" / "a.png").unlink()
    stored = np.random.default_rng(0).integers(0, 256, (4, 8, 3), np.uint8)
    exif = Image.Exif()
    exif[274] = 6  # viewers turn it clockwise: 4 wide, 8 high
    Image.fromarray(stored).save(root / "train" / "images" / "a.jpg", exif=exif)
    with Image.open(root / "train" / "images" / "a.jpg") as photo:
        expected = np.rot90(np.asarray(photo), -1)
    lk.convert_tiles(root, tmp_path / "out")
    image, labels = read_tile(lk.read_tiles(tmp_path / "out")["a"])
    assert np.array_equal(image, expected)
    assert labels.tolist() == [[1, 1, 0, 0]] * 2 + [[0] * 4] * 6


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turns_like_viewers(orientation):
    from PIL import ImageOps

    from lim_keras.data.convert.image_file import turn

    array = np.arange(6, dtype=np.uint8).reshape(2, 3)
    image = Image.fromarray(array)
    image.getexif()[274] = orientation
    assert turn(array, orientation).tolist() == np.asarray(ImageOps.exif_transpose(image)).tolist()


def test_ids_that_differ_in_case_or_cannot_be_used(tmp_path):
    for number, name in enumerate(("#1", "A", "a", "x" * 190)):
        make.picture(tmp_path / "in" / "images" / f"{name}.png", seed=number)
        make.mask(tmp_path / "in" / "masks" / f"{name}.png", make.corner())
    lk.convert_tiles(tmp_path / "in", tmp_path / "out")
    ids = list(rows(tmp_path / "out"))
    assert len({one.casefold() for one in ids}) == 4 and ids[0] == "1" and ids[-1] == "x" * 180


def test_a_nodata_value_that_may_be_landslide(tmp_path):
    make.picture(tmp_path / "in" / "images" / "a.png")
    (tmp_path / "in" / "masks").mkdir()
    profile = {"driver": "GTiff", "width": 8, "height": 6, "count": 1, "dtype": "uint8", "nodata": 255}
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning):
        target = rasterio.open(tmp_path / "in" / "masks" / "a.tif", "w", **profile)
    with target:
        target.write(make.corner()[np.newaxis])
    with pytest.raises(lk.ConfigError, match=r"holds its nodata value 255"):
        lk.convert_tiles(tmp_path / "in", tmp_path / "out")
    assert lk.convert_tiles(tmp_path / "in", tmp_path / "out", landslide=255).kinds["landslide"].landslide_px == 6
    with pytest.warns(lk.LimKerasWarning, match="no image has a landslide"):
        result = lk.convert_tiles(tmp_path / "in", tmp_path / "out", ignore=255)
    assert result.kinds["non-landslide"].ignored_px == 6


def test_transparent_masks_need_the_colour(tmp_path):
    make.picture(tmp_path / "in" / "images" / "a.png")
    (tmp_path / "in" / "masks").mkdir()
    drawn = np.zeros((6, 8, 4), np.uint8)
    drawn[:2, :3] = (255, 0, 0, 255)
    Image.fromarray(drawn).save(tmp_path / "in" / "masks" / "a.png")
    with pytest.raises(lk.ConfigError, match=r"transparent or masked pixels\. Name the values or colours"):
        lk.convert_tiles(tmp_path / "in", tmp_path / "out")
    tally = lk.convert_tiles(tmp_path / "in", tmp_path / "out", landslide=[(255, 0, 0)]).kinds["landslide"]
    assert (tally.landslide_px, tally.ignored_px) == (6, 0)


def test_two_images_for_one_mask(tmp_path):
    make.picture(tmp_path / "in" / "images" / "a.png")
    make.picture(tmp_path / "in" / "images" / "a.jpg")
    make.mask(tmp_path / "in" / "masks" / "a.png", make.corner())
    with pytest.raises(lk.DataError, match=r"Found several images or masks of one name: images/a\.jpg"):
        lk.convert_tiles(tmp_path / "in", tmp_path / "out")
