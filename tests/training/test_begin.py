"""Creating a run: held-out tiles, and lists of tiles that are refused."""

import shutil

import pytest

from lim_keras.data.layouts import read_tiles
from lim_keras.errors import DataError, LeakError
from lim_keras.training.run import TEST, begin_cross_validation, begin_fit

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
        (["nls_0", "nls_1"], r"the validation tiles\. Received: none in 2"),
        ([f"ls_{n}" for n in range(6)], r"the tiles left for training\. Received: none in 6"),
    ],
)
def test_validation_needs_landslides_on_both_sides(tmp_path, config, tiles, names, part):
    with pytest.raises(DataError, match=rf"^Expected landslide tiles among {part}"):
        begin_fit(config(), tiles, run=tmp_path / "r", validation_ids=names)
