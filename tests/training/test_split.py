"""Spatial folds and allowed leaks in a run: what is trained on, what the run folder holds, and what is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
import rasterio
from affine import Affine
from click.testing import CliRunner

from lim_keras.bundle.info import BundleInfo
from lim_keras.cli import main
from lim_keras.data.layouts import read_tiles
from lim_keras.data.manifest import write_manifest
from lim_keras.data.positions import Positions
from lim_keras.errors import DataError, LeakError, LimKerasWarning
from lim_keras.report.folds import split_tables
from lim_keras.training.begin import begin_cross_validation, begin_fit
from lim_keras.training.finalize import finalize
from lim_keras.training.run import Run
from tests.training.test_finalize import finish

SIDE, STEP = 16, 20
"""Tiles of 16 m with gaps of 4 m."""


@pytest.fixture(scope="module")
def placed(tmp_path_factory):
    """Tiles t_<row>_<column>, 6 x 6 on a regular grid; every other one has a landslide."""
    folder = tmp_path_factory.mktemp("placed")
    rng = np.random.default_rng(0)
    for part in ("images", "masks"):
        (folder / part).mkdir()
    for row in range(6):
        for column in range(6):
            image, mask = rng.integers(0, 99, (3, SIDE, SIDE), np.uint8), np.zeros((1, SIDE, SIDE), np.uint8)
            if (row + column) % 2 == 0:
                mask[0, 4:8, 4:12] = 1
                image[:, mask[0] == 1] = 200
            place = Affine(1, 0, 500_000 + STEP * column, 0, -1, 3_000_000 - STEP * row)
            for part, pixels in (("images", image), ("masks", mask)):
                path = folder / part / f"t_{row}_{column}.tif"
                with rasterio.open(
                    path, "w", "GTiff", SIDE, SIDE, len(pixels), "EPSG:32645", place, "uint8"
                ) as dataset:
                    dataset.write(pixels)
    return folder


@pytest.fixture(scope="module")
def placed_tiles(placed):
    return read_tiles(placed)


@pytest.fixture
def spatial(config):
    """spatial(buffer_m=0, **changes): a configuration of two spatial folds."""
    return lambda buffer_m=0.0, **changes: config(split={"method": "spatial", "buffer_m": buffer_m}, **changes)


def test_a_fold_is_not_trained_on_its_buffer(tmp_path, spatial, placed_tiles):
    run = begin_cross_validation(spatial(buffer_m=10.0), placed_tiles, run=tmp_path / "r")
    positions = Positions.read(placed_tiles)
    for fold in (0, 1):
        held_out, training = run.held_out_tiles(fold).ids, run.training_tiles(fold).ids
        left_out = set(placed_tiles.ids) - {*held_out, *training}
        # gaps are 4 m, or 5.7 m across a corner: whatever touches the other fold is left out, the next is 24 m away
        assert left_out == {
            name for name in placed_tiles.ids if name not in held_out and positions.distance([name], held_out) < 10
        }
        assert left_out and positions.distance(training, held_out) == pytest.approx(24 / 0.9996, rel=0.01)
        facts = run.split.folds[fold]
        assert (facts.tiles, facts.training_tiles, set(facts.left_out)) == (len(held_out), len(training), left_out)
        assert facts.nearest_m == pytest.approx(4, abs=0.02)
        landslides = len(run.held_out_tiles(fold).of_kind("landslide"))
        assert facts.landslide_share == pytest.approx(landslides * 32 / (len(held_out) * 256))
    assert sorted(run.held_out_tiles(0).ids + run.held_out_tiles(1).ids) == sorted(placed_tiles.ids)


def test_the_run_folder_holds_the_split(tmp_path, spatial, placed_tiles):
    run = begin_cross_validation(spatial(buffer_m=10.0), placed_tiles, run=tmp_path / "r")
    assert (tmp_path / "r" / "folds.png").is_file()
    stored = json.loads((tmp_path / "r" / "split.json").read_text())
    assert stored["method"] == "spatial" and stored["buffer_m"] == 10.0
    assert stored["folds"]["1"]["left_out"] == list(run.split.folds[1].left_out)
    assert stored["shortest_m"] == pytest.approx(4, abs=0.02)
    written = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "r").iterdir()}
    again = begin_cross_validation(spatial(buffer_m=10.0), placed_tiles, run=tmp_path / "r")
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "r").iterdir()} == written
    loaded = Run.load(tmp_path / "r")
    for one in (again, loaded):
        assert (one.folds, one.split) == (run.folds, run.split)
        assert one.training_tiles(0).ids == run.training_tiles(0).ids


def test_random_folds_write_no_split(tmp_path, config, placed_tiles):
    run = begin_cross_validation(config(), placed_tiles, run=tmp_path / "r")
    assert sorted(path.name for path in run.folder.iterdir()) == [
        "config.yaml",
        "run.json",
        "statistics.json",
        "tiles.csv",
    ]
    (run.folder / "split.json").write_text("the user's")
    assert begin_cross_validation(config(), placed_tiles, run=run.folder).split == run.split


def test_a_folder_with_files_of_these_names(tmp_path, spatial, placed_tiles):
    (tmp_path / "r").mkdir()
    for name in ("split.json", "folds.png"):
        (tmp_path / "r" / name).write_text("the user's")
    with pytest.raises(DataError, match=r"split\.json \(not written by .*folds\.png \(not written by"):
        begin_cross_validation(spatial(), placed_tiles, run=tmp_path / "r")
    assert {path.name for path in (tmp_path / "r").iterdir()} == {"split.json", "folds.png"}


def test_fit_holds_neighbours_out(tmp_path, spatial, placed_tiles):
    run = begin_fit(spatial(10.0, **{"training.validation_fraction": 0.25}), placed_tiles, run=tmp_path / "r")
    positions = Positions.read(placed_tiles)
    held_out = run.held_out_tiles(0).ids
    assert 6 <= len(held_out) <= 12
    assert positions.distance(run.training_tiles(0).ids, held_out) > 10
    assert set(run.split.folds) == {0}
    chosen = begin_fit(spatial(10.0), placed_tiles, run=tmp_path / "chosen", validation_ids=["t_0_0", "t_0_1"])
    # the neighbours of two tiles in a corner: two below, one to the right, one across
    assert set(chosen.split.left_out(0)) == {"t_1_0", "t_1_1", "t_0_2", "t_1_2"}


def test_test_tiles_have_a_buffer_too(tmp_path, spatial, placed_tiles):
    run = begin_cross_validation(spatial(10.0), placed_tiles, run=tmp_path / "r", test_ids=["t_0_0"])
    near = {"t_0_1", "t_1_0", "t_1_1"}
    for fold in (0, 1):
        assert not near & set(run.training_tiles(fold).ids)
    assert near <= {*run.held_out_tiles(0).ids, *run.held_out_tiles(1).ids}


def test_a_buffer_that_leaves_nothing(tmp_path, spatial, placed_tiles):
    for begin in (begin_cross_validation, begin_fit):
        with pytest.raises(DataError, match=r"tiles are left out, .* Give a smaller buffer as `buffer_m`, or more ti"):
            begin(spatial(buffer_m=500.0), placed_tiles, run=tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_a_test_list_that_splits_a_group(tmp_path, config, spatial, placed_tiles):
    pair = ("t_0_0", "t_5_5")
    grouped = replace(placed_tiles, tiles=tuple(replace(t, group="g" * (t.tile_id in pair)) for t in placed_tiles))
    message = "test tile t_0_0 and training tile t_5_5 have the same group"
    for settings in (config(), spatial()):
        for begin in (begin_cross_validation, begin_fit):
            with pytest.raises(LeakError, match=rf"allow it as `allow_leak`:\n  {message}"):
                begin(settings, grouped, run=tmp_path / "r", test_ids=["t_0_0"])
    with pytest.warns(LimKerasWarning, match=rf"scores on the test tiles are flattered .*\n  {message}$"):
        run = begin_cross_validation(config(), grouped, run=tmp_path / "r", test_ids=["t_0_0"], allow_leak=True)
    assert run.split.leaks == Run.load(run.folder).split.leaks == (message,)
    assert split_tables("name", run.split) == [
        "The scores on the test tiles are flattered: 1 times, test tiles share ground, groups or files with training "
        "tiles."
    ]


def test_a_validation_list_that_splits_a_group(tmp_path, config, spatial, placed_tiles, recwarn):
    pair = ("t_0_0", "t_5_5")
    grouped = replace(placed_tiles, tiles=tuple(replace(t, group="g" * (t.tile_id in pair)) for t in placed_tiles))
    message = "validation tile t_0_0 and training tile t_5_5 have the same group"
    for number, settings in enumerate((config(), spatial())):
        with pytest.warns(LimKerasWarning, match=rf"chosen on ground that the model knows; .*\n  {message}$"):
            begin_fit(settings, grouped, run=tmp_path / f"r{number}", validation_ids=["t_0_0", "t_0_2"])
    recwarn.clear()
    begin_fit(config(), grouped, run=tmp_path / "whole", validation_ids=pair)
    assert not recwarn.list


def test_results_of_a_leak_are_marked(tmp_path, config, placed_tiles, brightness):
    pair = ("t_0_0", "t_5_5")
    grouped = replace(placed_tiles, tiles=tuple(replace(t, group="g" * (t.tile_id in pair)) for t in placed_tiles))
    with pytest.warns(LimKerasWarning):
        run = begin_cross_validation(config(), grouped, run=tmp_path / "r", test_ids=["t_0_0"], allow_leak=True)
    result = finalize(finish(run, brightness), tmp_path / "b")
    assert len(result.split.leaks) == len(json.loads((run.folder / "cv.json").read_text())["split"]["leaks"]) == 1
    info = BundleInfo.read(result.bundle)
    assert set(info.metrics) == {"out_of_fold", "test_tiles_flattered_by_leak", "test_windows_flattered_by_leak"}
    assert "test_tiles_flattered_by_leak" in (result.bundle / "README.md").read_text()


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--buffer", "5"], 2, "--buffer needs spatial folds. Give spatial as --folds, or no buffer."),
        (["--folds", "spatial", "--buffer", "-1"], 2, "--buffer. Expected metres from 0 to 50,000. Received: -1.0"),
        (["--folds", "spatial", "--buffer", "nan"], 2, "--buffer. Expected metres from 0 to 50,000. Received: nan"),
        (["--folds", "spatial", "--buffer", "500"], 1, "Give a smaller buffer as --buffer, or more tiles."),
        (["--folds", "rows"], 2, "'rows' is not one of 'random', 'spatial'"),
        (["--set", "fold=3"], 1, "Unknown key `fold`. Did you mean `folds`?"),
        (["--folds", "spatial", "--set", "split.block_m=1000"], 1, "Set the configuration's key split.block_m to"),
        (["--test", "test.txt"], 1, "flatter the scores, allow it as --allow-leak:"),
    ],
)
def test_refusals_of_the_command_line(tmp_path, config_file, placed_tiles, monkeypatch, options, code, message):
    monkeypatch.chdir(tmp_path)
    pair = ("t_0_0", "t_5_5")
    grouped = replace(placed_tiles, tiles=tuple(replace(t, group="g" * (t.tile_id in pair)) for t in placed_tiles))
    write_manifest(grouped, "tiles.csv")
    (tmp_path / "test.txt").write_text("t_0_0\n")
    for command in ("fit", "cv"):
        result = CliRunner().invoke(main, [command, str(config_file()), "--data", "tiles.csv", *options])
        assert result.exit_code == code and message in " ".join(result.stderr.split()), result.stderr
    assert not (tmp_path / "runs" / "tiny" / "config.yaml").exists()
