"""`lim-keras data audit --run`: tiles whose out-of-fold predictions contradict the label."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from lim_keras.cli import main
from lim_keras.config_file import load_config
from lim_keras.data.layouts import read_tiles
from lim_keras.data.tiles import read_tile
from lim_keras.training.begin import begin_cross_validation
from lim_keras.training.run import Run

CONFIG = "name: made\nfolds: 2\nmodel: {name: fcn, encoder: small, encoder_weights: none}\n"


def audit(*arguments: object):
    return CliRunner().invoke(main, ["data", "audit", *map(str, arguments)])


@pytest.fixture(scope="module")
def made_run(clean_tiles: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with predictions by hand: all labels are right but those of ls_02 (missed) and nls_05 (a false box)."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "made.yaml").write_text(CONFIG)
    run = begin_cross_validation(load_config(folder / "made.yaml"), read_tiles(clean_tiles), run=folder / "run")
    for fold in run.held_out_folds:
        stored = run.fold_folder(fold) / "out_of_fold"
        stored.mkdir(parents=True)
        for tile in run.held_out_tiles(fold):
            mask = read_tile(tile)[1]
            logit = np.where(mask == 1, 4, -4).astype(np.float16)
            if tile.tile_id == "ls_02":
                logit[:] = -4
            if tile.tile_id == "nls_05":
                logit[10:30, 20:50] = 2
            np.savez(stored / f"{tile.tile_id}.npz", logit=logit, mask=mask)
    (run.folder / "cv.json").write_text(json.dumps({"threshold": 0.5, "temperature": 2.0, "bias": 0.0}))
    return run


def test_disagreements_of_tiles_and_regions(made_run, clean_tiles, tmp_path):
    done = audit(clean_tiles, "--run", made_run.folder, "--json", tmp_path / "a.json", "--html", tmp_path / "a.html")
    assert done.exit_code == 0, done.output
    content = json.loads((tmp_path / "a.json").read_text())
    missed, false = content["disagreements"]
    # logit / temperature: sigmoid(-2) = 0.119, sigmoid(1) = 0.731
    pixels = made_run.tiles["ls_02"].landslide_px
    assert (missed["tile_id"], missed["kind"], missed["area_px"], missed["share"]) == ("ls_02", "missed", pixels, 1)
    assert missed["probability"] == pytest.approx(0.1192, abs=1e-3)
    assert missed["weight"] == pytest.approx(0.8808 * pixels, rel=1e-3)
    assert (false["tile_id"], false["kind"], false["fold"]) == ("nls_05", "false", made_run.folds["nls_05"])
    region = {
        "x": 20,
        "y": 10,
        "width": 30,
        "height": 20,
        "area_px": 600,
        "probability": pytest.approx(0.7311, abs=1e-3),
    }
    assert false["regions"] == [region]
    page = re.sub(r"base64,[\w+/=]+", "", (tmp_path / "a.html").read_text())
    assert page.count('alt="tile nls_05: ') == 3 and "600 px at 0.73" in page


def test_tiles_that_changed_since_the_run(made_run, clean_tiles, tmp_path):
    record = made_run.folder / "run.json"
    before = record.read_text()
    values = json.loads(before)
    values["tiles"]["nls_01"]["image"] = "0" * 64
    record.write_text(json.dumps(values))
    done = audit(clean_tiles, "--run", made_run.folder, "--json", tmp_path / "a.json")
    record.write_text(before)
    changed = next(one for one in json.loads((tmp_path / "a.json").read_text())["checks"] if one["name"] == "changed")
    assert done.exit_code == 0
    assert [(one["tile_id"], one["text"]) for one in changed["evidence"]] == [("nls_01", "image changed")]


def test_a_test_tile_that_trained_the_run(made_run, clean_tiles, tmp_path):
    (tmp_path / "test.txt").write_text("ls_03\n")
    done = audit(clean_tiles, "--run", made_run.folder, "--test", tmp_path / "test.txt")
    assert done.exit_code == 1
    assert "LEAK: Test tiles that trained a model (1)" in done.stdout and "ls_03" in done.stdout


def test_a_run_that_is_not_finished(made_run, clean_tiles):
    summary = made_run.folder / "cv.json"
    content = summary.read_text()
    summary.unlink()
    done = audit(clean_tiles, "--run", made_run.folder)
    summary.write_text(content)
    assert done.exit_code == 1
    assert "the run is not finished (cv.json or fit.json is missing)" in done.stderr
