"""From files to a run: what is held out, and lists that cannot be."""

import shutil

import pytest

from lim_keras.errors import ConfigError, DataError, LeakError
from lim_keras.training.run import TEST, begin_cross_validation, begin_fit


@pytest.fixture
def ids(tmp_path):
    """ids("val.txt", "ls_0", ...): a list of tiles."""

    def write(name, *names):
        path = tmp_path / name
        path.write_text("\n".join(names) + "\n")
        return path

    return write


def test_fit_splits_validation_tiles_off(tmp_path, config_file, data, ids):
    test = ids("test.txt", "ls_5", "nls_5")
    run = begin_fit(
        config_file(), data, folder=tmp_path / "r", test=test, overrides=["training.validation_fraction=0.4"]
    )
    assert run.test_tiles.ids == ("ls_5", "nls_5")
    held_out, training = set(run.held_out_tiles(0).ids), set(run.training_tiles(0).ids)
    # five tiles of each kind are left; a fraction of .4 makes two or three parts: two of each kind at least
    assert held_out | training == set(run.seen_tiles.ids) and not held_out & training
    assert {name[:2] for name in held_out} == {name[:2] for name in training} == {"ls", "nl"}
    assert 4 <= len(held_out) <= 5


def test_fit_takes_the_validation_tiles_it_is_given(tmp_path, config_file, data, ids):
    run = begin_fit(config_file(), data, folder=tmp_path / "r", validation=ids("val.txt", "ls_1", "nls_2"))
    assert run.held_out_tiles(0).ids == ("ls_1", "nls_2") and len(run.training_tiles(0)) == 10
    assert run.test_tiles is None


def test_cross_validation_holds_every_tile_out_once(tmp_path, config_file, data, ids):
    test = ids("test.txt", "ls_5", "nls_5")
    run = begin_cross_validation(config_file(), data, folder=tmp_path / "r", test=test)
    assert run.held_out_folds == [0, 1]
    held_out = [name for fold in (0, 1) for name in run.held_out_tiles(fold).ids]
    assert sorted(held_out) == sorted(run.seen_tiles.ids)
    assert run.folds["ls_5"] == TEST
    assert begin_cross_validation(config_file(), data, folder=tmp_path / "r", test=test).folds == run.folds


def test_runs_are_named_by_their_configuration(tmp_path, config_file, data, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = begin_cross_validation(config_file(name="mine"), data)
    assert run.folder.resolve() == tmp_path / "runs" / "mine"


def test_overrides_are_part_of_the_run(tmp_path, config_file, data):
    run = begin_cross_validation(config_file(), data, folder=tmp_path / "r", overrides=["training.epochs=7", "folds=3"])
    assert run.config.training.epochs == 7 and run.held_out_folds == [0, 1, 2]


def test_a_bad_configuration_comes_before_the_data(tmp_path, config_file):
    with pytest.raises(ConfigError, match="epoch"):
        begin_fit(config_file(**{"training.epoch": 3}), tmp_path / "absent")


def test_validation_tiles_that_are_test_tiles(tmp_path, config_file, data, ids):
    test, validation = ids("test.txt", "ls_5", "nls_5"), ids("val.txt", "ls_5", "ls_1", "nls_1")
    with pytest.raises(LeakError, match=r"val\.txt: 1 validation tiles are test tiles too, such as ls_5\."):
        begin_fit(config_file(), data, folder=tmp_path / "r", test=test, validation=validation)


def test_a_copy_of_a_test_tile_among_the_others(tmp_path, config_file, data, ids):
    folder = tmp_path / "data"
    shutil.copytree(data, folder)
    for part, ending in (("image", ".png"), ("mask", ".png")):
        shutil.copy(folder / "landslide" / part / f"ls_5{ending}", folder / "landslide" / part / f"ls_9{ending}")
    with pytest.raises(LeakError, match="ls_5 and training tile ls_9 have the same content"):
        begin_cross_validation(config_file(), folder, folder=tmp_path / "r", test=ids("test.txt", "ls_5"))
    assert not (tmp_path / "r").exists()


def test_unknown_ids(tmp_path, config_file, data, ids):
    with pytest.raises(DataError, match="no tile has the id 'ls_77'"):
        begin_cross_validation(config_file(), data, folder=tmp_path / "r", test=ids("test.txt", "ls_77"))
    with pytest.raises(DataError, match="no tile has the id 'ls_78'"):
        begin_fit(config_file(), data, folder=tmp_path / "r", validation=ids("val.txt", "ls_78"))


def test_every_tile_is_a_test_tile(tmp_path, config_file, data, tiles, ids):
    with pytest.raises(DataError, match=r"test\.txt: names every tile of .*Expected some to be left for training"):
        begin_cross_validation(config_file(), data, folder=tmp_path / "r", test=ids("test.txt", *tiles.ids))


@pytest.mark.parametrize(
    "names, part",
    [
        (["nls_0", "nls_1"], "the validation tiles. Received: none in 2"),
        ([f"ls_{n}" for n in range(6)], "what they leave"),
    ],
)
def test_validation_needs_landslides_on_both_sides(tmp_path, config_file, data, ids, names, part):
    with pytest.raises(DataError, match=rf"val\.txt: expected landslide tiles among {part}"):
        begin_fit(config_file(), data, folder=tmp_path / "r", validation=ids("val.txt", *names))
