"""Sets of tiles, resampling, and the store of decoded tiles."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from lim_keras.data.layouts import read_tiles
from lim_keras.data.recent_pixels import RecentPixels
from lim_keras.data.tiles import TileSet, TileStore, resample
from lim_keras.errors import ConfigError, DataError

# Sets of tiles.


def test_set_is_a_sequence_with_ids(tmp_path, bijie_folder):
    tiles = read_tiles(bijie_folder(tmp_path, 2, 2))
    assert tiles[0] is tiles["ls_0"] and tiles[-1].tile_id == "nls_1"
    assert tiles[1:3] == (tiles[1], tiles[2])
    assert "ls_0" in tiles and tiles[0] in tiles and "other" not in tiles
    assert [tile.tile_id for tile in reversed(tiles)] == list(reversed(tiles.ids))
    assert pickle.loads(pickle.dumps(tiles)) == tiles


def test_subsets_keep_order_and_are_disjoint(tmp_path, bijie_folder):
    tiles = read_tiles(bijie_folder(tmp_path, 2, 2))
    some = tiles.subset(iter(["nls_0", "ls_1", "nls_0"]))
    assert some.ids == ("ls_1", "nls_0")
    assert tiles.without(some.ids).ids == ("ls_0", "nls_1")
    assert (some.bands, some.dtype, some.root) == (3, "uint8", tmp_path)
    assert len(tiles.subset([])) == 0
    assert tiles.of_kind("landslide").ids == ("ls_0", "ls_1")


def test_unknown_ids_are_listed(tmp_path, bijie_folder):
    tiles = read_tiles(bijie_folder(tmp_path, 1, 0))
    for call in (tiles.subset, tiles.without):
        with pytest.raises(DataError, match=r"(?s)2 problems.*'a'.*'b'"):
            call(["a", "ls_0", "b"])
    with pytest.raises(DataError, match="no tile has the id 'a'"):
        tiles["a"]
    with pytest.raises(IndexError):
        tiles[1]


# Resampling.


def test_images_shrink_by_area_averaging():
    image = np.float32([[1, 3, 0, 0], [5, 7, 0, 8]])[..., None]
    # (1 + 3 + 5 + 7) / 4 = 4, (0 + 0 + 0 + 8) / 4 = 2
    got, _ = resample(image, np.zeros((2, 4), np.uint8), (1, 2))
    np.testing.assert_array_equal(got[..., 0], [[4, 2]])


def test_images_shrink_by_fractions_of_pixels():
    image = np.float32([[0, 6, 12]])[..., None]
    # a pixel of the result covers 1.5 of the image: (0 + 6 / 2) / 1.5 = 2, (6 / 2 + 12) / 1.5 = 10
    got, _ = resample(image, np.zeros((1, 3), np.uint8), (1, 2))
    np.testing.assert_allclose(got[..., 0], [[2, 10]], rtol=1e-5)


def test_images_grow_bilinearly():
    image = np.float32([[0, 10]])[..., None]
    # centres of the result lie at -.25, .25, .75 and 1.25 of the image, the outer ones held at the edge
    got, _ = resample(image, np.zeros((1, 2), np.uint8), (1, 4))
    np.testing.assert_allclose(got[..., 0], [[0, 2.5, 7.5, 10]], rtol=1e-6)


@pytest.mark.parametrize("size", [(7, 9), (50, 61), (20, 90)])
def test_masks_take_the_nearest_label(size):
    mask = np.random.default_rng(0).choice([0, 1, 255], (23, 31)).astype(np.uint8)
    _, got = resample(np.zeros((23, 31, 1), np.uint8), mask, size)
    # oracle: the label under the centre of each pixel
    rows, columns = (((np.arange(new) + 0.5) * old / new).astype(int) for new, old in zip(size, (23, 31), strict=True))
    np.testing.assert_array_equal(got, mask[rows[:, None], columns])


@pytest.mark.parametrize("size", [(6, 9), (40, 50)])
@pytest.mark.parametrize("bands", [1, 2, 4, 5, 13])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_any_number_of_bands(dtype, bands, size):
    image = (np.random.default_rng(0).random((20, 30, bands)) * 250).astype(dtype)
    got, _ = resample(image, np.zeros((20, 30), np.uint8), size)
    assert got.shape == (*size, bands) and got.dtype == dtype
    for band in range(bands):
        alone, _ = resample(np.ascontiguousarray(image[..., band : band + 1]), np.zeros((20, 30), np.uint8), size)
        np.testing.assert_allclose(got[..., band], alone[..., 0], atol=1 if dtype != np.float32 else 1e-3)


def test_equal_size_changes_nothing():
    image, mask = np.zeros((3, 4, 1), np.uint8), np.zeros((3, 4), np.uint8)
    got = resample(image, mask, (3, 4))
    assert got[0] is image and got[1] is mask


# Scale.


def manifest(folder: Path, write_picture, gsd_m: str = "") -> TileSet:
    """Write two tiles of 20 x 24 and 11 x 30 pixels with greys of 100 and 101."""
    lines = ["tile_id,image,mask,gsd_m"]
    for number, (height, width) in enumerate([(20, 24), (11, 30)]):
        mask = np.zeros((height, width), np.uint8)
        mask[4:8, 6:10] = 255
        write_picture(folder / f"t{number}.png", np.full((height, width, 3), 100 + number, np.uint8))
        write_picture(folder / f"m{number}.png", mask)
        lines.append(f"t{number},t{number}.png,m{number}.png,{gsd_m}")
    (folder / "tiles.csv").write_text("\n".join(lines) + "\n")
    return read_tiles(folder)


def test_tiles_are_resampled_to_the_ground_sample_distance(tmp_path, write_picture):
    tiles = manifest(tmp_path, write_picture, gsd_m="0.8")
    store = TileStore(tiles, gsd_m=1.6, assumed_gsd_m=5.0)
    # half the pixels on each axis: 11 becomes 5.5, rounded to the even 6
    assert [store.size(n) for n in range(len(store))] == [(10, 12), (6, 15)]
    image, mask = store.get(0)
    assert image.shape == (10, 12, 3) and (image == 100).all()
    assert mask.sum() == 4 and mask[2:4, 3:5].all()


@pytest.mark.parametrize(
    "wanted, assumed, size",
    [(None, None, (20, 24)), (None, 0.8, (20, 24)), (0.4, None, (20, 24)), (0.4, 0.8, (40, 48)), (80.0, 0.8, (1, 1))],
)
def test_tiles_without_ground_sample_distance(tmp_path, write_picture, wanted, assumed, size):
    store = TileStore(manifest(tmp_path, write_picture), gsd_m=wanted, assumed_gsd_m=assumed)
    assert store.size(0) == size == store.get(0)[1].shape


# Cache.


def remove_images(folder: Path) -> None:
    for path in folder.glob("t*.png"):
        path.unlink()


def test_memory_keeps_decoded_tiles(tmp_path, write_picture):
    store = TileStore(manifest(tmp_path, write_picture))
    first = store.get(1)
    remove_images(tmp_path)
    assert store.get(1) is first
    with pytest.raises(DataError, match=r"t0\.png"):
        store.get(0)


def test_none_decodes_each_time(tmp_path, write_picture):
    store = TileStore(manifest(tmp_path, write_picture), cache="none")
    store.get(0)
    remove_images(tmp_path)
    with pytest.raises(DataError, match=r"t0\.png"):
        store.get(0)


def test_recent_keeps_the_last_tiles(tmp_path, write_picture, monkeypatch):
    # tile 0: 20 x 24 x (3 bands + mask), tile 1: 11 x 30 x 4: there is room for one of them
    monkeypatch.setattr("lim_keras.data.tiles._RECENT_BYTES", 20 * 24 * 4 + 11 * 30 * 4 - 1)
    store = TileStore(manifest(tmp_path, write_picture), cache="recent")
    store.get(0)
    last = store.get(1)
    remove_images(tmp_path)
    assert store.get(1) is last
    with pytest.raises(DataError, match=r"t0\.png"):
        store.get(0)


def test_recent_keeps_tiles_up_to_a_limit(tmp_path, write_picture, monkeypatch):
    tiles = manifest(tmp_path, write_picture)
    monkeypatch.setattr("lim_keras.data.tiles._RECENT_BYTES", 20 * 24 * 4)  # the first tile
    monkeypatch.setattr("lim_keras.data.tiles._recent", RecentPixels(0))
    store = TileStore(tiles, cache="recent")
    first = store.get(0)[0]
    assert store.get(0)[0] is first
    store.get(1)
    assert store.get(0)[0] is not first


def test_disk_keeps_arrays_for_the_next_store(tmp_path, write_picture):
    tiles = manifest(tmp_path, write_picture)
    wanted = TileStore(tiles).get(0)
    TileStore(tiles, cache="disk", folder=tmp_path / "cache").get(0)
    remove_images(tmp_path)
    for kept, expected in zip(TileStore(tiles, cache="disk", folder=tmp_path / "cache").get(0), wanted, strict=True):
        np.testing.assert_array_equal(kept, expected)
        assert isinstance(kept, np.memmap) and not kept.flags.writeable
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == ["0000000_image.npy", "0000000_mask.npy"]


def test_partial_file_of_a_killed_process_is_not_read(tmp_path, write_picture):
    tiles = manifest(tmp_path, write_picture)
    folder = tmp_path / "cache"
    folder.mkdir()
    (folder / "0000000_image.1.partial").write_bytes(b"\x93NUMPY")
    image, _ = TileStore(tiles, cache="disk", folder=folder).get(0)
    assert (image == 100).all()


def test_disk_needs_a_folder(tmp_path, write_picture):
    with pytest.raises(ConfigError, match=r"`folder` is needed when `cache` is 'disk'\. Received: folder=None"):
        TileStore(manifest(tmp_path, write_picture), cache="disk")


@pytest.mark.parametrize(("argument", "value"), [("gsd_m", 0.0), ("cache", "ram")])
def test_arguments_out_of_range(tmp_path, write_picture, argument, value):
    with pytest.raises(ConfigError, match=rf"`{argument}`\. Expected .* Received: {value}"):
        TileStore(manifest(tmp_path, write_picture), **{argument: value})
