"""Negative tiles of a run: recorded, mined between parts of the training, and the same after a kill."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from lim_keras.cli import main
from lim_keras.config import RunConfig
from lim_keras.config_file import load_config
from lim_keras.data.negatives import read_negatives
from lim_keras.data.tiles import TileSet, TileStore, read_tile
from lim_keras.errors import ConfigError, DataError, LeakError, LimKerasWarning, TrainingError
from lim_keras.training import fit
from lim_keras.training.begin import begin_cross_validation, begin_fit
from lim_keras.training.callbacks import Checkpoints
from lim_keras.training.distillation import Distillation, NegativeStore
from lim_keras.training.negatives import FoldNegatives, check_negatives, false_alarms, round_ends, run_negatives
from lim_keras.training.run import Run

EPOCHS = 5


@pytest.fixture
def fields(tmp_path: Path, write_picture: Callable[..., Path]) -> Path:
    """Three images: dark, of middle brightness, bright."""
    rng = np.random.default_rng(3)
    for number, brightness in enumerate((40, 150, 200)):
        pixels = rng.integers(brightness, brightness + 40, (36, 40 + number, 3)).astype(np.uint8)
        write_picture(tmp_path / "fields" / f"field_{number}.png", pixels)
    return tmp_path / "fields"


@pytest.fixture
def mined(config: Callable[..., RunConfig], fields: Path) -> RunConfig:
    negatives = {"paths": [str(fields)], "share": 0.5, "mine": True, "rounds": 2}
    epochs = {"training.epochs": EPOCHS, "training.deterministic": True}
    return config(**epochs, **{f"negatives.{key}": value for key, value in negatives.items()})


def history(run: Run) -> list[dict[str, str]]:
    with (run.fold_folder(0) / "history.csv").open() as file:
        return [{name: value for name, value in row.items() if name != "seconds"} for row in csv.DictReader(file)]


# Configuration.


def test_the_section_round_trips_and_old_digests_stay(
    mined: RunConfig, config: Callable[..., RunConfig], tmp_path: Path
):
    file = tmp_path / "again.yaml"
    mined.write(file)
    assert load_config(file) == mined and load_config(file).negatives.paths == mined.negatives.paths
    plain = config()
    assert mined.digest() != config(**{"training.epochs": EPOCHS, "training.deterministic": True}).digest()
    assert (
        "negatives" in plain.to_yaml()
        and plain.digest() == plain.model_copy(update={"negatives": plain.negatives}).digest()
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"negatives.mine": True}, "`negatives.mine`. Expected false without negatives.paths"),
        (
            {"negatives.paths": ["a"], "negatives.mine": True, "negatives.rounds": 3},
            "`negatives.rounds`. Expected at most",
        ),
        ({"negatives.paths": ["a"], "sampling.mode": "resized"}, "`negatives.paths`. Expected [] if sampling.mode is"),
        ({"negatives.share": 1.0}, "`negatives.share`. Expected a number less than 1"),
    ],
)
def test_wrong_settings(config: Callable[..., RunConfig], changes: dict, expected: str) -> None:
    with pytest.raises(ConfigError) as error:
        config(**changes)
    assert expected in str(error.value)


def test_parts_of_a_training(mined: RunConfig, config: Callable[..., RunConfig]) -> None:
    assert round_ends(mined) == [2, 5]  # 5 x 1 // 2 and 5
    assert round_ends(config()) == [2]


# Record.


def test_the_run_folder_records_them(
    mined: RunConfig, tiles: TileSet, tmp_path: Path, fields: Path, write_picture: Callable[..., Path]
) -> None:
    run = begin_fit(mined, tiles, run=tmp_path / "run")
    known = run_negatives(run.folder)
    assert known is not None and known.ids == ("field_0", "field_1", "field_2")
    recorded = json.loads((run.folder / "negatives" / "contents.json").read_text())["tiles"]
    assert all(len(content["image"]) == 64 for content in recorded.values())
    begin_fit(mined, tiles, run=tmp_path / "run")  # the same
    write_picture(fields / "field_1.png", np.zeros((36, 41, 3), np.uint8))
    with pytest.raises(TrainingError, match=r"run with other negative tiles\. Changed since it began: .*field_1\.png"):
        begin_fit(mined, tiles, run=tmp_path / "run")
    with pytest.raises(TrainingError, match=r"other negative tiles"):
        check_negatives(run.folder)


def test_no_run_begins_with_negatives_that_do_not_fit(
    config: Callable[..., RunConfig], tiles: TileSet, data: Path, tmp_path: Path, write_picture: Callable[..., Path]
) -> None:
    def begin(path: Path) -> None:
        begin_cross_validation(config(**{"negatives.paths": [str(path)]}), tiles, run=tmp_path / "run")

    with pytest.raises(DataError, match="absent: no such file or folder"):
        begin(tmp_path / "absent")
    with pytest.raises(DataError, match="the mask of a negative tile holds"):
        begin(data)
    write_picture(tmp_path / "grey" / "one.png", np.zeros((20, 20), np.uint8))
    with pytest.raises(DataError, match="expected negative tiles of 3 bands"):
        begin(tmp_path / "grey")
    copied = tmp_path / "copied" / "other.png"
    copied.parent.mkdir()
    copied.write_bytes((data / "non-landslide" / "image" / "nls_2.png").read_bytes())
    with pytest.raises(LeakError, match=r"1 negative tiles are images of other tiles.* other \(tile nls_2\)"):
        begin(copied.parent)
    assert not (tmp_path / "run").exists()


def test_a_copy_of_a_test_tile_in_another_format_is_named(
    mined: RunConfig, tiles: TileSet, data: Path, fields: Path, tmp_path: Path, write_picture: Callable[..., Path]
) -> None:
    original = data / "non-landslide" / "image" / "nls_2.png"
    copy = write_picture(fields / "field_3.jpg", read_tile(tiles["nls_2"])[0])
    with pytest.warns(LimKerasWarning, match=f"1 negative tiles show the same picture.*{copy} .{original}."):
        begin_fit(mined, tiles, run=tmp_path / "run", test_ids=["nls_2"])
    begin_fit(mined, tiles, run=tmp_path / "run", test_ids=["nls_2"])  # said once


def test_a_folder_of_the_user_is_kept(mined: RunConfig, tiles: TileSet, tmp_path: Path) -> None:
    (tmp_path / "run" / "negatives").mkdir(parents=True)
    (tmp_path / "run" / "negatives" / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match="negatives"):
        begin_fit(mined, tiles, run=tmp_path / "run")
    assert (tmp_path / "run" / "negatives" / "mine.txt").read_text() == "mine"


# Mining.


def test_false_alarms_by_hand(tmp_path: Path, write_picture: Callable[..., Path]) -> None:
    """The predicted probability is red / 255; a tile of two halves, 51 and 153, has the mean 0.4."""
    pixels = np.full((8, 10, 3), 51, np.uint8)
    pixels[:, 5:] = 153
    write_picture(tmp_path / "n" / "a_1.png", pixels)
    write_picture(tmp_path / "n" / "a_2.png", np.zeros((1030, 3, 3), np.uint8))  # two crops
    store = TileStore(read_negatives(tmp_path / "n"))
    np.testing.assert_allclose(false_alarms(lambda images: images[..., 0] / 255, store), [0.4, 0.0])


def test_the_model_of_a_student_sees_only_the_bands_of_images(mined: RunConfig, tiles: TileSet, tmp_path: Path) -> None:
    def mean_probabilities(folder: Path, store: type[TileStore]) -> dict[str, float]:
        found = FoldNegatives.of(mined, run.folder, folder, run.gsd_m, store)
        assert found is not None and found.pool(2, lambda: red).store is found.store
        read: dict[str, float] = json.loads((folder / "mined" / "epoch_0002.json").read_text())["mean_probability"]
        return read

    def red(images: np.ndarray) -> np.ndarray:
        assert images.shape[-1] == 3
        return np.asarray(images[..., 0] / 255)

    run = begin_fit(mined, tiles, run=tmp_path / "run")
    student = mean_probabilities(tmp_path / "student", NegativeStore)
    assert student == mean_probabilities(tmp_path / "fit", TileStore) and min(student.values()) > 0


def test_they_get_the_scale_of_the_tiles(
    config: Callable[..., RunConfig], tiles: TileSet, fields: Path, tmp_path: Path
) -> None:
    """Also where `sampling.gsd_m` is null, and the tiles keep their own distance, 0.8 m."""
    settings = config(**{"gsd_m": 0.8, "negatives.paths": [str(fields)], "negatives.gsd_m": 0.4})
    run = begin_fit(settings, tiles, run=tmp_path / "run")
    found = FoldNegatives.of(settings, run.folder, run.fold_folder(0), run.gsd_m)
    assert run.gsd_m == 0.8 and found is not None
    # images of 36 x 40, 41 and 42 px
    assert [found.store.size(place) for place in range(3)] == [(18, 20), (18, 20), (18, 21)]


def test_mined_files_decide_the_draws(mined: RunConfig, tiles: TileSet, tmp_path: Path) -> None:
    run = begin_fit(mined, tiles, run=tmp_path / "run")
    found = FoldNegatives.of(mined, run.folder, run.fold_folder(0), run.gsd_m)
    assert found is not None
    with pytest.raises(TrainingError, match=r"epoch_0002\.json: the mined negatives are missing, or changed"):
        found.pool(2, None)
    bright = found.pool(2, lambda: lambda images: (images[..., 0] > 190).astype(np.float32))
    draws = np.bincount([bright.draw(np.random.default_rng(one)) for one in range(600)], minlength=3) / 600
    # means 0, 0 and 1: a sixth, a sixth and two thirds
    np.testing.assert_allclose(draws, [1 / 6, 1 / 6, 2 / 3], atol=0.07)
    again = found.pool(2, None)
    assert [again.draw(np.random.default_rng(one)) for one in range(50)] == [
        bright.draw(np.random.default_rng(one)) for one in range(50)
    ]
    path = run.fold_folder(0) / "mined" / "epoch_0002.json"
    path.write_text(path.read_text().replace("1.0", "0.5"))
    with pytest.raises(TrainingError, match="missing, or changed"):
        found.pool(2, None)


@pytest.mark.slow
@pytest.mark.parametrize("taught", [False, True], ids=["fit", "distill"])
def test_a_killed_training_ends_as_an_unbroken_one(
    mined: RunConfig, tiles: TileSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taught: bool
) -> None:
    """It ends at the boundary of two parts, before the mining, and again inside the second part."""
    for tile in tiles:
        np.save(tmp_path / f"{tile.tile_id}.npy", np.full((tile.height, tile.width), 200, np.uint8))
    teacher = Distillation(tmp_path, 0.5) if taught else None

    def trained(name: str, kills: tuple[int, ...]) -> Run:
        run = begin_fit(mined, tiles, run=tmp_path / name)
        saves = Checkpoints.on_epoch_end
        for kill in (*kills, None):

            def save_and_die(self: Checkpoints, epoch: int, logs: dict | None = None, at: int | None = kill) -> None:
                saves(self, epoch, logs)
                if epoch + 1 == at:
                    raise KeyboardInterrupt

            with monkeypatch.context() as patch:
                patch.setattr(Checkpoints, "on_epoch_end", save_and_die)
                if kill is None:
                    fit.train_model(run, 0, distillation=teacher)
                else:
                    with pytest.raises(KeyboardInterrupt):
                        fit.train_model(run, 0, distillation=teacher)
                    assert not (run.fold_folder(0) / "mined").exists() or kill > 2
        return run

    whole, killed = trained("whole", ()), trained("killed", (2, 3))
    assert len(history(whole)) == EPOCHS and history(killed) == history(whole)
    texts = [(run.fold_folder(0) / "mined" / "epoch_0002.json").read_text() for run in (whole, killed)]
    assert texts[0] == texts[1] and set(json.loads(texts[0])["mean_probability"]) == {"field_0", "field_1", "field_2"}
    assert [one.name for one in (whole.fold_folder(0) / "mined").iterdir()] == ["epoch_0002.json"]


# The command line.


@pytest.mark.slow
def test_fit_and_evaluate(config_file: Callable[..., Path], data: Path, fields: Path, tmp_path: Path) -> None:
    file = config_file(**{"negatives.paths": [str(fields)], "training.epochs": 1})
    places = ["--run", str(tmp_path / "run"), "--export", str(tmp_path / "bundle")]
    done = CliRunner().invoke(main, ["fit", str(file), "--data", str(data), *places])
    assert done.exit_code == 0, done.output
    described = json.loads((tmp_path / "bundle" / "model.json").read_text())
    assert {"field_0", "field_1", "field_2"} < set(described["training_tiles"])
    report = tmp_path / "report.json"
    command = ["evaluate", str(tmp_path / "bundle"), "--negatives", str(fields), "--json", str(report)]
    shown = CliRunner().invoke(main, command)
    assert shown.exit_code == 0 and "alarms a km2" in shown.output, shown.output
    assert "3 of 3 tiles were used in training" in shown.output
    counted = json.loads(report.read_text())["negatives"]
    assert counted["all"]["tiles"] == 3 and list(counted["groups"]) == ["field"]
    assert counted["all"]["pixels"] == 36 * (40 + 41 + 42)
    refused = CliRunner().invoke(main, ["evaluate", str(tmp_path / "bundle"), "--negatives", str(data)])
    assert refused.exit_code == 1 and "the mask of a negative tile holds" in refused.output
