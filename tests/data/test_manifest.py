import os
import shutil

import numpy as np
import pytest

from lim_keras.data.layouts import read_tiles
from lim_keras.data.manifest import read_folds, read_tile_ids, write_manifest
from lim_keras.errors import DataError
from lim_keras.raster.writer import write_raster

HEADER = "tile_id,image,mask,kind,group,scene,x,y,width,height,gsd_m,crs,landslide_px,valid_px"


@pytest.fixture
def folder(tmp_path, pairs_folder):
    """images/t_0.png (16 x 18, landslide of 4 x 5 = 20 pixels), t_1.png (17 x 18), t_2.png (18 x 18, empty mask)."""
    return pairs_folder(tmp_path)


def read(folder, *lines):
    (folder / "tiles.csv").write_text("\n".join(lines) + "\n")
    return read_tiles(folder)


def test_required_columns(folder):
    tile = read(folder, "tile_id,image", "a,images/t_0.png")[0]
    assert (tile.mask, tile.kind, tile.width, tile.height, tile.landslide_px, tile.valid_px) == (
        None, "non-landslide", 18, 16, 0, 288,
    )  # fmt: skip


def test_all_columns(folder):
    line = "a,images/t_0.png,masks/t_0.png,landslide,g,s,12.5,-3,18,16,0.8,EPSG:32648,20,288.0"
    tile = read(folder, HEADER, line)[0]
    assert (tile.group, tile.scene, tile.x, tile.y, tile.gsd_m, tile.crs) == ("g", "s", 12.5, -3.0, 0.8, "EPSG:32648")
    assert (tile.kind, tile.landslide_px, tile.valid_px) == ("landslide", 20, 288)


def test_manifest_takes_precedence_over_folders(folder):
    assert read(folder, "tile_id,image", "a,images/t_0.png").ids == ("a",)
    other = (folder / "tiles.csv").rename(folder / "some.csv")
    assert read_tiles(other).ids == ("a",)
    assert read_tiles(folder).ids == ("t_0", "t_1", "t_2")


def test_manifest_saved_by_a_spreadsheet(folder):
    """A byte order mark, CRLF, blanks around cells, quotes, an empty last line, and additional columns."""
    text = '\ufefftile_id,image,width,elevation,ignore\r\n a , "images/t_0.png" ,18.0,900,255.0\r\n,,,,\r\n'
    (folder / "tiles.csv").write_bytes(text.replace(' "', '"').replace('" ', '"').encode())
    assert read_tiles(folder)[0].ignore == "255"


def test_written_manifest_reads_back(folder, tmp_path_factory):
    tiles = read(
        folder, HEADER, "a,images/t_0.png,masks/t_0.png,,g,s,0.1,1e-9,,,0.8,EPSG:32648,,", "b,images/t_1.png" + "," * 12
    )
    far = tmp_path_factory.mktemp("far") / "run" / "tiles.csv"
    write_manifest(tiles, far, {"b": -1})
    again = read_tiles(far)
    assert again.tiles == tiles.tiles and again.root == far.parent
    assert read_folds(far) == {"b": -1}
    assert [file.name for file in far.parent.iterdir()] == ["tiles.csv"]


def test_decode_false_gives_the_same_tiles(tmp_path, write_picture):
    images = {
        "bands.tif": np.zeros((4, 5, 5), np.float32),
        "grey.tif": np.zeros((4, 5, 1), np.uint16),
        "grey.png": np.zeros((4, 5), np.uint8),
        "alpha.png": np.full((4, 5, 4), 255, np.uint8),
        "plain.jpg": np.zeros((4, 5, 3), np.uint8),
    }
    for name, pixels in images.items():
        path, far = tmp_path / "one" / name, tmp_path / f"run_{name}" / "tiles.csv"
        path.parent.mkdir(exist_ok=True)
        write_raster(path, pixels) if path.suffix == ".tif" else write_picture(path, pixels)
        (tmp_path / "one" / "tiles.csv").write_text(f"tile_id,image\na,{name}\n")
        checked = read_tiles(tmp_path / "one")
        far.parent.mkdir()
        write_manifest(checked, far)
        again = read_tiles(far, decode=False)
        assert (again.tiles, again.bands, again.dtype) == (checked.tiles, checked.bands, checked.dtype)


def test_decode_false_reads_headers_and_decodes_tiles_without_counts(folder, tmp_path_factory):
    read(folder, "tile_id,image,mask", "a,images/t_0.png,masks/t_0.png", "b,images/t_1.png,masks/t_1.png")
    far = tmp_path_factory.mktemp("run") / "tiles.csv"
    write_manifest(read_tiles(folder), far)
    whole = (folder / "masks" / "t_0.png").read_bytes()
    (folder / "masks" / "t_0.png").write_bytes(whole[:-20])
    assert read_tiles(far, decode=False)[0].landslide_px == 20
    with pytest.raises(DataError, match=r"masks/t_0\.png"):
        read_tiles(far)
    with pytest.raises(DataError, match=r"masks/t_0\.png"):
        read_tiles(folder, decode=False)
    shutil.copy(folder / "images" / "t_2.png", folder / "images" / "t_1.png")
    with pytest.raises(DataError, match="manifest says height 17, but the files have 18"):
        read_tiles(far, decode=False)


def test_manifest_beside_its_tiles_has_relative_paths(folder, tmp_path_factory):
    write_manifest(read_tiles(folder), folder / "tiles.csv")
    assert "images/t_0.png,masks/t_0.png" in (folder / "tiles.csv").read_text()
    moved = tmp_path_factory.mktemp("moved") / "set"
    shutil.move(folder, moved)
    assert read_tiles(moved)["t_0"].image == moved / "images" / "t_0.png"


def test_write_folds_of_unknown_tiles(folder):
    with pytest.raises(DataError, match="no tile has the id 'z'"):
        write_manifest(read_tiles(folder), folder / "tiles.csv", {"z": 0})


def test_manifest_that_cannot_be_written(folder):
    with pytest.raises(DataError, match="cannot be written"):
        write_manifest(read_tiles(folder), folder / "images" / "t_0.png" / "tiles.csv")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["tile_id;image", "a;b"], "expected the columns tile_id, image. Found tile_id;image"),
        (["tile_id,images", "a,b"], "expected the columns image"),
        (["tile_id,image"], "expected a header line and one line for each tile. Found 1"),
        ([""], "Found 0"),
        (["tile_id,image,grup", "a,b,g"], "unknown column 'grup'. Did you mean 'group'"),
        (["tile_id,image,image", "a,b,c"], "two columns are named 'image'"),
        (["tile_id,image", "a,b,c"], "line 2: expected 2 cells. Received 3"),
        (["tile_id,image", "a,"], "line 2: the cell `image` is empty"),
        (
            ["tile_id,image,kind", "a,images/t_0.png,slide"],
            "Input should be 'landslide' or 'non-landslide' in the column `kind`. Received 'slide'",
        ),
        (["tile_id,image,ignore", "a,images/t_0.png,0"], "'255' or 'nodata' in the column `ignore`. Received '0'"),
        (
            ["tile_id,image,x", "a,images/t_0.png,nan"],
            "Input should be a finite number in the column `x`. Received 'nan'",
        ),
        (
            ["tile_id,image,gsd_m", "a,images/t_0.png,0"],
            "Input should be greater than 0 in the column `gsd_m`. Received '0'",
        ),
        (
            ["tile_id,image,width", "a,images/t_0.png,1.5"],
            "Input should be a valid integer.* in the column `width`. Received '1.5'",
        ),
        (["tile_id,image,width", "a,images/t_0.png,19"], "the manifest says width 19, but the files have 18"),
        (
            ["tile_id,image,mask,landslide_px", "a,images/t_0.png,masks/t_0.png,3"],
            "landslide_px 3, but the files have 20",
        ),
        (["tile_id,image,kind", "a,images/t_0.png,landslide"], "its mask is missing: a tile of kind landslide"),
        (["tile_id,image", "a,images/none.png"], r"none\.png: cannot be opened \(No such file"),
        (["tile_id,image,mask", "a,images/t_0.png,masks/none.png"], r"masks.none\.png: cannot be opened"),
        (["tile_id,image", "a,images/t_0.png", "a,images/t_1.png"], "a second tile of the id 'a'"),
    ],
)
def test_bad_manifests(folder, lines, message):
    with pytest.raises(DataError, match=message):
        read(folder, *lines)


@pytest.mark.parametrize("tile_id", ["", "#a", "a/b", "a\\b", "..", ".a", "a\x1b[2Jb", "\x07", "x" * 201])
def test_unusable_ids(folder, tile_id):
    with pytest.raises(DataError, match="cannot be used"):
        read(folder, "tile_id,image", f"{tile_id},images/t_0.png")


def test_null_bytes_pipes_and_long_cells(folder):
    with pytest.raises(DataError, match=r"line 2: expected text\. Received a null byte"):
        read(folder, "tile_id,image", "a,images/t\0_0.png")
    with pytest.raises(DataError, match="column `x`") as raised:
        read(folder, "tile_id,image,x", f"a,images/t_0.png,{'y' * 5000}")
    assert len(str(raised.value)) < 500
    os.mkfifo(folder / "pipe")
    with pytest.raises(DataError, match="pipe: cannot be opened"):
        read(folder, "tile_id,image", "a,pipe")
    for name in ("list.csv", "list.txt"):
        os.mkfifo(folder / name)
        with pytest.raises(DataError, match=r"expected a file\. Received: a pipe"):
            read_tile_ids(folder / name)


@pytest.mark.parametrize("content", [b"tile_id,image\n\xff,b\n", b'tile_id,image\n"a,b\n'])
def test_manifest_that_is_not_a_table(folder, content):
    (folder / "tiles.csv").write_bytes(content)
    with pytest.raises(DataError, match="cannot be read as a table"):
        read_tiles(folder)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["tile_id,image", "a,b"], "expected a column `fold`"),
        (["tile_id,image,fold", "a,b,-2"], "line 2: Input should be greater than or equal to -1 in the column `fold`"),
    ],
)
def test_bad_folds(tmp_path, lines, message):
    path = tmp_path / "tiles.csv"
    path.write_text("\n".join(lines))
    with pytest.raises(DataError, match=message):
        read_folds(path)


def test_manifest_overrides_the_ground_sample_distance_of_a_file(folder):
    write_raster(folder / "a.tif", np.zeros((4, 4, 3), np.uint8))
    assert read(folder, "tile_id,image,gsd_m,crs", "a,a.tif,2.5,EPSG:4326")[0].gsd_m == 2.5


# Lists of ids.


def test_list_of_ids(tmp_path):
    path = tmp_path / "test.txt"
    path.write_bytes("\ufeff# the test tiles\r\n\r\n ls_1 \r\nls 2\r\n  # more\r\nls_1\r\n".encode())
    assert read_tile_ids(path) == ["ls_1", "ls 2"]


def test_manifest_as_list_of_ids(tmp_path):
    path = tmp_path / "test.csv"
    path.write_text("scene,tile_id\ns,a\ns,b\n")
    assert read_tile_ids(path) == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"# nothing\n", "expected one tile id a line"),
        ("a.txt", b"\xff\xfe\x00", "cannot be read as a text file"),
        ("a.txt", None, "cannot be read as a text file"),
        ("a.csv", b"id\na\n", "expected a column tile_id. Found id"),
        ("a.csv", None, "cannot be read as a table"),
    ],
)
def test_bad_lists_of_ids(tmp_path, name, content, message):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_tile_ids(path)
