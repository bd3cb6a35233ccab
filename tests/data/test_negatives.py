"""Negative tiles: read from any folder, refused where they show landslides, drawn at their share."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lim_keras.data.layouts import read_tiles
from lim_keras.data.negatives import group_of, join_negatives, read_negatives
from lim_keras.data.sampling import NegativePool, WindowSampler
from lim_keras.data.tiles import TileSet, TileStore
from lim_keras.errors import DataError

BLUE, GREY = 240, 10


@pytest.fixture
def tiles(tmp_path: Path, bijie_folder: Callable[..., Path]) -> TileSet:
    return read_tiles(bijie_folder(tmp_path / "tiles", 3, 3))


def images(folder: Path, write_picture: Callable[..., Path], count: int = 4, bands: int = 3) -> Path:
    """Flat images of one value, which no tile has in all of its pixels."""
    for number in range(count):
        write_picture(folder / f"field_{number}.png", np.full((40 + number, 50, bands), BLUE + number, np.uint8))
    return folder


def test_a_folder_of_images(tmp_path: Path, write_picture: Callable[..., Path]) -> None:
    found = read_negatives(images(tmp_path / "plain", write_picture))
    assert found.ids == ("field_0", "field_1", "field_2", "field_3")
    assert {(one.kind, one.landslide_px, one.mask) for one in found} == {("non-landslide", 0, None)}
    assert [one.height for one in found] == [40, 41, 42, 43]


def test_a_manifest_and_a_layout_with_masks(tmp_path: Path, write_picture: Callable[..., Path]) -> None:
    folder = images(tmp_path / "images", write_picture, 2)
    (tmp_path / "tiles.csv").write_text(
        "tile_id,image,group,gsd_m\na,images/field_0.png,grass,0.5\nb,images/field_1.png,,\n"
    )
    found = read_negatives(tmp_path)
    assert [(one.tile_id, one.group, one.gsd_m) for one in found] == [("a", "grass", 0.5), ("b", "", None)]
    for number in range(2):
        write_picture(tmp_path / "masks" / f"field_{number}.png", np.zeros((40 + number, 50), np.uint8))
    (tmp_path / "tiles.csv").unlink()
    assert {one.kind for one in read_negatives(tmp_path)} == {"non-landslide"} and folder.exists()


def test_bad_folders(tmp_path: Path, tiles: TileSet, write_picture: Callable[..., Path]) -> None:
    with pytest.raises(DataError, match="absent: no such file or folder"):
        read_negatives(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: no tiles were found\. Expected images of \.png"):
        read_negatives(tmp_path / "empty")
    with pytest.raises(DataError, match=r"ls_0\.png: the mask of a negative tile holds \d+ landslide pixels"):
        read_negatives(tiles.root)
    grey = images(tmp_path / "grey", write_picture, 2, bands=1)
    with pytest.raises(
        DataError, match=r"grey: expected negative tiles of 3 bands of uint8.*Received: 1 bands of uint8"
    ):
        join_negatives([str(grey)], tiles)
    one, other = (images(tmp_path / name, write_picture, 2) for name in ("one", "other"))
    with pytest.raises(DataError, match=r"Received: 2 ids that other tiles have, too: field_0, field_1"):
        join_negatives([str(one), str(other)], tiles)
    assert join_negatives([], tiles) is None
    joined = join_negatives([str(one)], tiles)
    assert joined is not None and joined.ids == ("field_0", "field_1")


@pytest.mark.parametrize(
    ("tile_id", "group", "expected"),
    [("aGrass_202", "", "aGrass"), ("aGrass_202", "mine", "mine"), ("0007", "", "all"), ("x-1 2", "", "x-1")],
)
def test_groups(tile_id: str, group: str, expected: str) -> None:
    assert group_of(tile_id, group) == expected


def sampler(tiles: TileSet, pool: NegativePool | None, **changes: float) -> WindowSampler:
    return WindowSampler(TileStore(tiles), 16, 400, 7, negatives=pool, **changes)


def pool(
    tmp_path: Path, write_picture: Callable[..., Path], share: float, alarms: list[float] | None = None
) -> NegativePool:
    store = TileStore(read_negatives(images(tmp_path / "plain", write_picture)))
    return NegativePool(store, share, None if alarms is None else np.array(alarms))


def test_their_share_of_windows(tmp_path: Path, tiles: TileSet, write_picture: Callable[..., Path]) -> None:
    # Windows of 16 px lie inside a tile without paste, so a window is of one tile. 400 windows at 0.3: 120 +- 9.2
    drawn = sampler(tiles, pool(tmp_path, write_picture, 0.3), paste=0.0)
    windows = [drawn.example(0, position) for position in range(400)]
    negative = [image.min() >= BLUE and image.max() < BLUE + 4 and image.std() < 1e-6 for image, _ in windows]
    assert 90 < sum(negative) < 150
    assert not any((mask == 1).any() for (_, mask), one in zip(windows, negative, strict=True) if one)
    assert any((mask == 1).any() for _, mask in windows)
    again = sampler(tiles, pool(tmp_path, write_picture, 0.3), paste=0.0)
    for position in (0, 17, 399):
        for one, other in zip(again.example(0, position), windows[position], strict=True):
            np.testing.assert_array_equal(one, other)


def test_they_surround_other_tiles_and_are_surrounded(
    tmp_path: Path, tiles: TileSet, write_picture: Callable[..., Path]
) -> None:
    """A window of negative tiles alone would let the look of their region tell that there is no landslide."""
    drawn = sampler(tiles, pool(tmp_path, write_picture, 0.5), paste=1.0)
    negative = [(drawn.example(0, position)[0] >= BLUE).all(axis=-1).mean() for position in range(100)]
    assert sum(0 < share < 1 for share in negative) > 20


def test_without_negatives_windows_are_as_before(tiles: TileSet) -> None:
    """A pinned window: earlier configurations train on the same examples."""
    image, mask = sampler(tiles, None).example(1, 5)
    rng = np.random.default_rng((7, 1, 5))
    rng.uniform(0, 0)  # scale
    landslides = [number for number, tile in enumerate(tiles) if tile.kind == "landslide"]
    background = [number for number, tile in enumerate(tiles) if tile.kind != "landslide"]
    chosen = landslides if rng.random() < 0.5 else background
    store = TileStore(tiles)
    pixels, labels = store.get(chosen[int(rng.integers(3))])
    found = np.flatnonzero(labels == 1)
    if chosen is landslides and len(found):
        row, column = divmod(int(found[int(rng.integers(len(found)))]), labels.shape[1])
    else:
        row, column = int(rng.integers(labels.shape[0])), int(rng.integers(labels.shape[1]))
    top, left = row - int(rng.integers(16)), column - int(rng.integers(16))
    inside = np.s_[max(0, -top) : labels.shape[0] - top, max(0, -left) : labels.shape[1] - left]
    part = np.s_[max(0, top) : top + 16, max(0, left) : left + 16]
    np.testing.assert_array_equal(image[inside], pixels[part])
    np.testing.assert_array_equal(mask[inside], labels[part])


def test_mined_tiles_by_hand(tmp_path: Path, write_picture: Callable[..., Path]) -> None:
    # Half of the draws even, 1/8 each; half by false alarms 0.6, 0.2, 0.2 and 0: 0.425, 0.225, 0.225, 0.125
    chosen = pool(tmp_path, write_picture, 0.3, [0.6, 0.2, 0.2, 0.0])
    rng = np.random.default_rng(0)
    counts = np.bincount([chosen.draw(rng) for _ in range(8000)], minlength=4) / 8000
    np.testing.assert_allclose(counts, [0.425, 0.225, 0.225, 0.125], atol=0.02)
    even = NegativePool(chosen.store, 0.3, np.zeros(4))
    counts = np.bincount([even.draw(rng) for _ in range(8000)], minlength=4) / 8000
    np.testing.assert_allclose(counts, 0.25, atol=0.02)
