"""Folds, validation split and leak audit."""

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lim_keras.data.folds import assign_folds, audit_leaks, check_classes, validation_split
from lim_keras.data.layouts import read_tiles
from lim_keras.data.tiles import Tile, TileSet
from lim_keras.errors import ConfigError, DataError, LeakError


def tile(name: str, kind: str = "landslide", group: str = "", image: Path = Path("none.png")) -> Tile:
    return Tile(name, image, None, kind, group, "", None, None, 10, 10, None, "", 0, 100)


def tile_set(*tiles: Tile) -> TileSet:
    return TileSet(Path("here"), tiles, 3, "uint8")


def mixed(landslide: int, background: int, groups: dict[str, str] | None = None) -> TileSet:
    """ls_0, ls_1, ... and nls_0, nls_1, ...; groups: by tile id."""
    groups = groups or {}
    names = [f"ls_{k}" for k in range(landslide)] + [f"nls_{k}" for k in range(background)]
    kinds = ["landslide"] * landslide + ["non-landslide"] * background
    return tile_set(*(tile(name, kind, groups.get(name, "")) for name, kind in zip(names, kinds, strict=True)))


def test_folds_are_stratified_by_kind():
    tiles = mixed(10, 25)
    folds = assign_folds(tiles, 5, seed=1)
    assert tuple(folds) == tiles.ids
    # 10 landslide tiles over 5 folds are 2 each, 25 others are 5 each
    assert Counter((folds[t.tile_id], t.kind) for t in tiles) == Counter(
        {(k, kind): n for k in range(5) for kind, n in (("landslide", 2), ("non-landslide", 5))}
    )


def test_equal_seeds_give_equal_folds():
    tiles = mixed(10, 25)
    assert assign_folds(tiles, 5, 1) == assign_folds(tiles, 5, 1)
    assert assign_folds(tiles, 5, 1) != assign_folds(tiles, 5, 2)
    grouped = mixed(10, 25, {"ls_0": "g", "ls_1": "g"})
    assert assign_folds(grouped, 5, 1) == assign_folds(grouped, 5, 1)


@settings(max_examples=40, deadline=None)
@given(
    group_of=st.lists(st.integers(0, 12), min_size=24, max_size=24),
    folds=st.integers(2, 3),
    seed=st.integers(0, 1000),
)
def test_grouped_folds_partition_the_tiles_and_cut_no_group(group_of, folds, seed):
    # 12 landslide and 12 other tiles without a group keep every fold possible
    groups = {f"ls_{k}": f"g{g}" for k, g in enumerate(group_of[:12])}
    groups |= {f"nls_{k}": f"g{g}" for k, g in enumerate(group_of[12:])}
    tiles = mixed(24, 24, groups)
    assigned = assign_folds(tiles, folds, seed)
    assert tuple(assigned) == tiles.ids
    assert set(assigned.values()) == set(range(folds))
    for name in {t.group for t in tiles} - {""}:
        assert len({assigned[t.tile_id] for t in tiles if t.group == name}) == 1


def test_a_group_named_like_a_tile_is_not_that_tile():
    # were ls_5, which has no group, taken for the group "ls_5", it would follow ls_0 and ls_1 for every seed
    tiles = mixed(6, 6, {"ls_0": "ls_5", "ls_1": "ls_5"})
    apart = [folds for folds in (assign_folds(tiles, 2, seed) for seed in range(20)) if folds["ls_0"] != folds["ls_5"]]
    assert apart


@pytest.mark.parametrize(
    ("tiles", "message"),
    [
        (mixed(4, 20), "here: expected at least 5 landslide tiles of different groups, .* Received: 4"),
        (mixed(20, 3), "expected at least 5 non-landslide tiles .* Received: 3"),
        (mixed(6, 9, {"ls_0": "g", "ls_1": "g", "ls_2": "g"}), "at least 5 landslide tiles .* Received: 4"),
        (tile_set(), "expected tiles to make folds of"),
    ],
)
def test_too_few_tiles_for_the_folds(tiles, message):
    with pytest.raises(DataError, match=message):
        assign_folds(tiles, 5, 0)


def test_less_than_two_folds():
    with pytest.raises(ConfigError, match=r"Invalid value for argument `folds`. Expected .* >= 2. Received: 1"):
        assign_folds(mixed(4, 4), 1, 0)


def test_one_kind_alone_can_be_folded():
    assert Counter(assign_folds(mixed(6, 0), 3, 0).values()) == {0: 2, 1: 2, 2: 2}


def test_groups_that_leave_a_fold_without_a_kind():
    # of the two non-landslide tiles, nls_0 is bound to ls_1; scikit-learn's greedy choice puts nls_1 beside them
    tiles = mixed(2, 2, {"ls_0": "a", "ls_1": "b", "nls_0": "b", "nls_1": "c"})
    with pytest.raises(DataError, match=r"fold 1 of 2 gets no non-landslide tile, .* the largest group has 2 tiles"):
        assign_folds(tiles, 2, 0)


def test_validation_split_is_stratified_and_grouped():
    tiles = mixed(20, 40, {f"ls_{k}": "g" for k in range(3)})
    held_out = validation_split(tiles, 0.2, seed=3)
    kinds = Counter(tiles[name].kind for name in held_out)
    # a fifth of 20 and of 40, give or take the group of 3
    assert 2 <= kinds["landslide"] <= 6 and 6 <= kinds["non-landslide"] <= 10
    assert len({"ls_0", "ls_1", "ls_2"} & set(held_out)) in (0, 3)
    assert held_out == validation_split(tiles, 0.2, seed=3)


@pytest.mark.parametrize(
    "fraction, landslides, others",
    [
        (0.5, 30, 60),
        (0.4, 24, 48),  # two folds of five
        (0.35, 20, 40),  # a third
        (0.3, 20, 40),
        (0.25, 15, 30),
        (0.2, 12, 24),
        (0.1, 6, 12),
        (0.05, 3, 6),
    ],
)
def test_validation_split_takes_the_fraction(fraction, landslides, others):
    tiles = mixed(60, 120)
    kinds = Counter(tiles[name].kind for name in validation_split(tiles, fraction, seed=3))
    assert kinds == {"landslide": landslides, "non-landslide": others}


@pytest.mark.parametrize("fraction", [0.0, -0.2, 0.51, 0.9, 1.0, float("nan")])
def test_fraction_out_of_range(fraction):
    with pytest.raises(ConfigError, match=r"`fraction`\. Expected a number > 0 and <= 0\.5\. Received: "):
        validation_split(mixed(20, 40), fraction, seed=3)


def test_validation_split_avoids_folds_with_one_large_landslide():
    tiles = mixed(20, 40)
    sized = tile_set(*(replace(tile, landslide_px=10 if tile.kind == "landslide" else 0) for tile in tiles))
    for seed in range(8):
        # what would be held out were all alike gets a landslide as large as all others
        unlucky = next(name for name in validation_split(sized, 0.2, seed) if name.startswith("ls"))
        one_large = tile_set(*(replace(t, landslide_px=200) if t.tile_id == unlucky else t for t in sized))
        assert unlucky not in validation_split(one_large, 0.2, seed)
        # a fold whose landslide tiles have no landslide pixel is none that could judge
        held_out = set(validation_split(sized, 0.2, seed))
        empty = tile_set(*(replace(t, landslide_px=0) if t.tile_id in held_out else t for t in sized))
        assert not held_out & set(validation_split(empty, 0.2, seed))
        # nor do two of one ground that are large together
        pair = ["ls_0", "ls_1"]
        both = tile_set(*(replace(t, landslide_px=40, group="g") if t.tile_id in pair else t for t in sized))
        assert not set(pair) & set(validation_split(both, 0.2, seed))


@pytest.fixture
def pictures(tmp_path) -> dict[str, Path]:
    """Files a, b, c of different content, where c is as long as a."""
    paths = {name: tmp_path / f"{name}.png" for name in "abc"}
    for path, content in zip(paths.values(), (b"first", b"second", b"third"), strict=True):
        path.write_bytes(content)
    return paths


def test_audit_without_leaks(pictures):
    train = tile_set(tile("a", image=pictures["a"]), tile("b", image=pictures["b"], group="g"))
    audit_leaks(train, tile_set(tile("c", image=pictures["c"], group="h")))


def test_audit_finds_equal_id_file_content_and_group(pictures, tmp_path):
    copy, link = tmp_path / "copy.png", tmp_path / "link.png"
    shutil.copy(pictures["a"], copy)
    link.symlink_to(pictures["b"])
    train = tile_set(tile("a", image=pictures["a"], group="g"), tile("b", image=pictures["b"]))
    cases = {
        "id": tile("a", image=pictures["c"]),
        "content": tile("x", image=copy),
        "file": tile("y", image=link),
        "group": tile("z", image=pictures["c"], group="g"),
    }
    for what, suspect in cases.items():
        twin = "b" if what == "file" else "a"
        expected = f"test tile {suspect.tile_id} and training tile {twin} have the same {what}"
        with pytest.raises(LeakError, match=expected):
            audit_leaks(train, tile_set(suspect))


def test_audit_lists_twenty_leaks_and_counts_the_rest(pictures):
    # 25 tiles of one file: each test tile has id and group of its own, but file and content of training tiles
    train = tile_set(*(tile(f"t{k}", image=pictures["a"]) for k in range(3)))
    test = tile_set(*(replace(tile(f"u{k}"), image=pictures["a"]) for k in range(25)))
    with pytest.raises(LeakError) as caught:
        audit_leaks(train, test)
    lines = str(caught.value).splitlines()
    assert len(lines) == 1 + 20 + 1
    assert lines[-1].strip() == "and 30 more"  # 25 by file and 25 by content are 50


@pytest.mark.real_data
def test_audit_of_real_tiles(real_data):
    from lim_keras.data.manifest import read_tile_ids

    tiles = read_tiles(real_data / "bijie")
    test = read_tile_ids(real_data / "bijie" / "test_tiles.txt")
    audit_leaks(tiles.without(test), tiles.subset(test))


def test_no_tiles_have_no_classes():
    with pytest.raises(DataError, match=r"pixels in the training tiles\. Received: no tile\. Give a smaller buffer\."):
        check_classes(tile_set(), "the training tiles", "Give a smaller buffer.")
