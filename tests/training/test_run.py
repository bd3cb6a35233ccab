"""Run folders: begun once, gone on with only by the same settings on the same tiles."""

import json
from dataclasses import replace

import pytest

from lim_keras.data.tiles import TileSet
from lim_keras.errors import TrainingError
from lim_keras.training.run import TEST, Run


def folds_of(tiles, count):
    return {name: int(name[-1]) % count for name in tiles.ids}


def test_a_run_is_read_back_as_it_was_begun(run):
    begun = run()
    again = Run.load(begun.folder)
    assert (again.config, again.folds, again.statistics) == (begun.config, begun.folds, begun.statistics)
    assert again.tiles.ids == begun.tiles.ids
    assert [tile.image for tile in again.tiles] == [tile.image for tile in begun.tiles]
    assert sorted(path.name for path in begun.folder.iterdir()) == ["config.yaml", "statistics.json", "tiles.csv"]


def test_tiles_by_fold(run):
    begun = run()
    assert begun.held_out_folds == [0, 1]
    assert begun.held_out_tiles(1).ids == ("ls_1", "ls_3", "nls_1", "nls_3")
    assert begun.training_tiles(1).ids == ("ls_0", "ls_2", "ls_4", "nls_0", "nls_2", "nls_4")
    assert begun.test_tiles.ids == ("ls_5", "nls_5")
    assert len(begun.seen_tiles) == 10 and "ls_5" not in begun.seen_tiles
    assert begun.fold_folder(1) == begun.folder / "fold_1"


@pytest.mark.parametrize("count", [2, 3])
def test_every_fold_has_a_model(tmp_path, tiles, config, count):
    assert Run.open(tmp_path / "r", config(), tiles, folds_of(tiles, count)).held_out_folds == list(range(count))


def test_a_run_of_one_model_holds_some_tiles_out(tmp_path, tiles, config):
    begun = Run.open(tmp_path / "r", config(), tiles, {"ls_0": 0, "nls_0": 0})
    for same in (begun, Run.load(begun.folder)):
        assert same.held_out_folds == [0]
        assert same.held_out_tiles(0).ids == ("ls_0", "nls_0")
        assert len(same.training_tiles(0)) == 10
        assert same.test_tiles is None


@pytest.mark.parametrize(
    ("of_tiles", "settings", "expected"),
    [
        ((None, None), {}, None),
        ((2.0, 2.0), {}, 2.0),
        ((2.0, 2.0), {"gsd_m": 0.8}, 2.0),  # which is for tiles that do not say
        ((2.0, 2.0), {"sampling.gsd_m": 4.0}, 4.0),
        ((None, 0.8), {"gsd_m": 0.8}, 0.8),
        ((None, 2.0), {}, None),
        ((1.0, 2.0), {}, None),
        ((1.0, 2.0), {"gsd_m": 0.8}, 0.8),
        ((2.0, 2.01), {}, 2.005),
    ],
)
def test_the_ground_sample_distance_is_that_of_the_tiles(tmp_path, tiles, config, of_tiles, settings, expected):
    distances = dict(zip(("ls_0", "nls_0"), of_tiles, strict=True)) | {"nls_1": 30.0}  # a test tile
    placed = tuple(replace(tiles[name], gsd_m=distance) for name, distance in distances.items())
    begun = Run.open(tmp_path / "r", config(**settings), tiles, {"ls_0": 0, "nls_0": 1, "nls_1": TEST})
    of_these = replace(begun, tiles=TileSet(tiles.root, placed, tiles.bands, tiles.dtype))
    assert of_these.gsd_m == (expected if expected is None else pytest.approx(expected))


def test_statistics_leave_test_tiles_out(tmp_path, tiles, config):
    only = Run.open(
        tmp_path / "r", config(), tiles, {name: TEST for name in tiles.ids if name != "nls_0"} | {"nls_0": 0}
    )
    assert only.seen_tiles.ids == ("nls_0",)
    every = Run.open(tmp_path / "every", config(), tiles, folds_of(tiles, 2))
    assert only.statistics != every.statistics


def test_the_same_call_goes_on(run):
    first = run()
    (first.folder / "fold_0").mkdir()
    statistics = (first.folder / "statistics.json").stat().st_mtime_ns
    assert run().folds == first.folds
    assert (first.folder / "statistics.json").stat().st_mtime_ns == statistics


def test_other_settings_are_refused_by_name(run):
    run()
    with pytest.raises(TrainingError, match=r"run holds a run of another configuration; seed, training\.epochs differ"):
        run(**{"training.epochs": 5, "seed": 1})


def test_other_folds_are_refused(tmp_path, tiles, config):
    Run.open(tmp_path / "r", config(), tiles, folds_of(tiles, 2))
    with pytest.raises(TrainingError, match=r"r holds a run on other tiles or folds\. Give another folder as `run`"):
        Run.open(tmp_path / "r", config(), tiles, folds_of(tiles, 3))


def test_a_run_killed_while_it_began_begins_again(tmp_path, tiles, config):
    folder = tmp_path / "r"
    Run.open(folder, config(), tiles, folds_of(tiles, 2))
    (folder / "statistics.json").rename(folder / "statistics.json.partial")
    begun = Run.open(folder, config(seed=5), tiles, folds_of(tiles, 3))
    assert begun.config.seed == 5 and begun.held_out_folds == [0, 1, 2]
    assert json.loads((folder / "statistics.json").read_text())["dtype"] == "uint8"
