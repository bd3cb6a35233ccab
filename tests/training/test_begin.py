"""Creating a run: held-out tiles, and lists of tiles that are refused."""

import shutil
from dataclasses import replace

import pytest

from lim_keras.data.layouts import read_tiles
from lim_keras.errors import DataError, LeakError
from lim_keras.training.begin import begin_cross_validation, begin_fit
from lim_keras.training.run import TEST

TEST_IDS = ("ls_5", "nls_5")


def test_fit_splits_validation_tiles_off(tmp_path, config, tiles):
    run = begin_fit(config(**{"training.validation_fraction": 0.4}), tiles, run=tmp_path / "r", test_ids=TEST_IDS)
    assert run.test_tiles.ids == ("ls_5", "nls_5")
    held_out, training = set(run.held_out_tiles(0).ids), set(run.training_tiles(0).ids)
    # five tiles of each kind are left; 0.4 of them are two of each
    assert held_out | training == set(run.seen_tiles.ids) and not held_out & training
    assert sorted(name[:2] for name in held_out) == ["ls", "ls", "nl", "nl"]


def test_fit_takes_the_validation_tiles_it_is_given(tmp_path, config, tiles):
    run = begin_fit(config(), tiles, run=tmp_path / "r", validation_ids=["ls_1", "nls_2"])
    assert run.held_out_tiles(0).ids == ("ls_1", "nls_2") and len(run.training_tiles(0)) == 10
    assert run.test_tiles is None


def test_cross_validation_holds_every_tile_out_once(tmp_path, config, tiles):
    run = begin_cross_validation(config(), tiles, run=tmp_path / "r", test_ids=TEST_IDS)
    assert run.held_out_folds == [0, 1]
    held_out = [name for fold in (0, 1) for name in run.held_out_tiles(fold).ids]
    assert sorted(held_out) == sorted(run.seen_tiles.ids)
    assert run.folds["ls_5"] == TEST
    assert begin_cross_validation(config(), tiles, run=tmp_path / "r", test_ids=TEST_IDS).folds == run.folds


def test_runs_are_named_by_their_configuration(tmp_path, config, tiles, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = begin_cross_validation(config(name="mine"), tiles)
    assert run.folder.resolve() == tmp_path / "runs" / "mine"


def test_validation_tiles_that_are_test_tiles(tmp_path, config, tiles):
    validation_ids = ["ls_5", "ls_1", "nls_1"]
    with pytest.raises(LeakError, match=r"^1 validation tiles are test tiles too, such as ls_5\."):
        begin_fit(config(), tiles, run=tmp_path / "r", test_ids=TEST_IDS, validation_ids=validation_ids)


def test_a_copy_of_a_test_tile_among_the_others(tmp_path, config, data):
    folder = tmp_path / "data"
    shutil.copytree(data, folder)
    for part, ending in (("image", ".png"), ("mask", ".png")):
        shutil.copy(folder / "landslide" / part / f"ls_5{ending}", folder / "landslide" / part / f"ls_9{ending}")
    with pytest.raises(LeakError, match="ls_5 and training tile ls_9 have the same content"):
        begin_cross_validation(config(), read_tiles(folder), run=tmp_path / "r", test_ids=["ls_5"])
    assert not (tmp_path / "r").exists()


def test_unknown_ids(tmp_path, config, tiles):
    with pytest.raises(DataError, match="no tile has the id 'ls_77'"):
        begin_cross_validation(config(), tiles, run=tmp_path / "r", test_ids=["ls_77"])
    with pytest.raises(DataError, match="no tile has the id 'ls_78'"):
        begin_fit(config(), tiles, run=tmp_path / "r", validation_ids=["ls_78"])


def test_every_tile_is_a_test_tile(tmp_path, config, tiles):
    with pytest.raises(DataError, match=r"^Every tile of .* is a test tile\. Expected some to be left for training"):
        begin_cross_validation(config(), tiles, run=tmp_path / "r", test_ids=tiles.ids)


@pytest.mark.parametrize(
    "names, part",
    [
        (["nls_0", "nls_1"], r"the validation tiles\. Received: no landslide pixel in 2 tiles \(nls_0, nls_1\)"),
        ([f"ls_{n}" for n in range(6)], r"the tiles left for training\. Received: no landslide pixel in 6 tiles \(nls"),
    ],
)
def test_validation_needs_landslides_on_both_sides(tmp_path, config, tiles, names, part):
    with pytest.raises(DataError, match=rf"^{tiles.root}: expected landslide and background pixels in {part}"):
        begin_fit(config(), tiles, run=tmp_path / "r", validation_ids=names)


def labelled(tiles, landslide, other, group=None, **changes):
    """The first tiles of each kind, with these numbers of pixels or these groups."""
    chosen = tiles.subset([*tiles.ids[:landslide], *tiles.ids[6 : 6 + other]])
    group = group or (lambda number: "")
    grouped = [replace(one, group=group(number)) for number, one in enumerate(chosen)]
    return replace(chosen, tiles=tuple(replace(one, **changes) for one in grouped))


NO_CLASS = "expected landslide and background pixels in the tiles. Received: no {} pixel in {} tiles"
SPLIT = "expected at least 5 {} tiles of different groups, because the tiles are split into 5 parts. Received: {}. Give"


@pytest.mark.parametrize(
    ("of", "message"),
    [
        ({"landslide": 0, "other": 6}, NO_CLASS.format("landslide", 6)),
        ({"landslide": 6, "other": 6, "landslide_px": 0}, NO_CLASS.format("landslide", 12)),
        ({"landslide": 6, "other": 0, "landslide_px": 9, "valid_px": 9}, NO_CLASS.format("background", 6)),
        ({"landslide": 6, "other": 6, "landslide_px": 0, "valid_px": 0}, NO_CLASS.format("labelled", 12)),
        ({"landslide": 1, "other": 0}, SPLIT.format("landslide", 1)),
        ({"landslide": 2, "other": 2}, SPLIT.format("landslide", 2)),
        ({"landslide": 6, "other": 4}, SPLIT.format("non-landslide", 4)),
        ({"landslide": 6, "other": 6, "group": lambda number: "one"}, SPLIT.format("landslide", 1)),
        ({"landslide": 6, "other": 6, "group": lambda number: f"{number % 2}"}, SPLIT.format("landslide", 2)),
    ],
)
def test_sets_that_cannot_be_trained_on_are_refused_before_the_run_folder_is_made(tmp_path, config, tiles, of, message):
    settings = config(folds=5, **{"training.validation_fraction": 0.2})
    for begin in (begin_fit, begin_cross_validation):
        with pytest.raises(DataError) as raised:
            begin(settings, labelled(tiles, **of), run=tmp_path / "r")
        assert f"{tiles.root}: {message}" in str(raised.value)
        assert not (tmp_path / "r").exists()


def test_the_cures_of_small_sets_work(tmp_path, config, tiles):
    two = labelled(tiles, 2, 2)
    with pytest.raises(DataError, match=r"key training\.validation_fraction to 0\.5\.$"):
        begin_fit(config(), two, run=tmp_path / "r")
    half = begin_fit(config(**{"training.validation_fraction": 0.5}), two, run=tmp_path / "half")
    assert len(half.held_out_tiles(0)) == 2
    begin_fit(config(), two, run=tmp_path / "chosen", validation_ids=["ls_0", "nls_0"])
    three = labelled(tiles, 3, 4)
    with pytest.raises(DataError, match=r"key training\.validation_fraction to 0\.33\.$"):
        begin_fit(config(), three, run=tmp_path / "r")
    third = begin_fit(config(**{"training.validation_fraction": 0.33}), three, run=tmp_path / "third")
    assert {name[:2] for name in third.held_out_tiles(0).ids} == {"ls", "nl"}
    with pytest.raises(DataError, match=r"set the configuration's key folds to 2\.$"):
        begin_cross_validation(config(folds=5), two, run=tmp_path / "r")
    assert begin_cross_validation(config(folds=2), two, run=tmp_path / "cv").held_out_folds == [0, 1]


def test_landslide_pixels_in_few_tiles_of_kind_landslide(tmp_path, config, tiles):
    def with_pixels(*names):
        return replace(
            tiles, tiles=tuple(one if one.tile_id in names else replace(one, landslide_px=0) for one in tiles)
        )

    with pytest.raises(DataError, match=r"no landslide pixel in .*Choose other tiles as `validation_ids`"):
        begin_fit(config(), with_pixels("ls_3"), run=tmp_path / "r")
    with pytest.raises(
        DataError, match=r"each fold, fold \d\. Received: no landslide pixel .*Give the kind non-landsl"
    ):
        begin_cross_validation(config(folds=2), with_pixels("ls_3"), run=tmp_path / "r")
    two = with_pixels("ls_3", "ls_4")
    marked = tuple(one if one.landslide_px else replace(one, kind="non-landslide") for one in two)
    begin_cross_validation(config(folds=2), replace(tiles, tiles=marked), run=tmp_path / "cv")
    begin_fit(config(), two, run=tmp_path / "fit", validation_ids=["ls_3", "nls_0"])
