"""`lim-keras distill` as a user types it: an ensemble teaches a student."""

import json

import keras
import numpy as np
import pytest
from click.testing import CliRunner

from lim_keras.cli import main
from lim_keras.export.bundle import write_bundle
from tests.conftest import model_facts

pytestmark = pytest.mark.slow

SETS = ("--set", "name=pupil", "--set", "export.half_size=true", "--set", "data_terms=For study only.")


def write_teacher(path):
    """The bundle of a cross-validation of two folds: logit (mean of the bands - 150) / 20."""
    names = [f"{kind}_{number}" for kind in ("ls", "nls") for number in range(4)]
    facts = model_facts(training_tiles=tuple(names), held_out={name: int(name[-1]) % 2 for name in names})
    image = keras.Input((None, None, 3))
    kernel, bias = (keras.initializers.Constant(value) for value in (0.05 / 3, -7.5))
    layer = keras.layers.Conv2D(1, 1, kernel_initializer=kernel, bias_initializer=bias)
    write_bundle(path, facts, [keras.Model(image, layer(image)) for _ in range(2)])


def test_an_ensemble_teaches_a_student(workplace, lim_keras, monkeypatch):
    write_teacher(workplace / "exported_models" / "tiny")
    arguments = ("distill", "exported_models/tiny", "tiny.yaml", "--data", "data", *SETS)
    done = lim_keras(*arguments, "--test", "test.txt")
    assert done.returncode == 0, done.stderr
    assert "student: epoch 2/2" in done.stderr and "threshold" in done.stdout
    bundle = workplace / "exported_models" / "pupil"
    facts = json.loads((bundle / "model.json").read_text())
    assert facts["folds"] == 1 and facts["data_terms"] == "For study only."
    assert sorted(facts["test_tiles"]) == ["ls_4", "nls_4"]
    (workplace / "train.txt").write_text("\n".join(facts["training_tiles"]) + "\n")
    answers = {path.stem for path in (workplace / "runs" / "pupil" / "teacher").glob("*.npy")}
    assert answers == set(facts["training_tiles"]) and not answers & {"ls_4", "nls_4"}

    monkeypatch.chdir(workplace)
    run = CliRunner().invoke
    assert run(main, ["verify", "exported_models/pupil"]).exit_code == 0
    further = ("fit", "tiny.yaml", "--data", "data", "--set", "name=further", "--start-from", "exported_models/pupil")
    leak = run(main, [*further, "--val", "train.txt"])
    assert leak.exit_code == 1 and "was trained on" in leak.stderr and leak.stderr.startswith("Error: ")
    single = run(main, ["distill", "exported_models/pupil", "tiny.yaml", "--data", "data", "--run", "runs/other"])
    assert single.exit_code == 1
    assert "expected the bundle of a cross-validation" in single.stderr


def test_a_student_learns_from_negative_tiles(workplace, write_picture, monkeypatch):
    rng = np.random.default_rng(3)
    for number in range(2):
        pixels = rng.integers(150, 190, (36, 40, 3)).astype(np.uint8)
        write_picture(workplace / "fields" / f"field_{number}.png", pixels)
    write_teacher(workplace / "exported_models" / "tiny")
    monkeypatch.chdir(workplace)
    settings = ["negatives.paths=[fields]", "negatives.mine=true", "negatives.rounds=2"]
    command = ["distill", "exported_models/tiny", "tiny.yaml", "--data", "data", *SETS]
    done = CliRunner().invoke(main, [*command, *(part for one in settings for part in ("--set", one))])
    assert done.exit_code == 0, done.output
    run = workplace / "runs" / "pupil"
    (mined,) = run.glob("fold_*/mined/*.json")
    assert set(json.loads(mined.read_text())["mean_probability"]) == {"field_0", "field_1"}
    assert not list((run / "teacher").glob("field_*"))
    facts = json.loads((workplace / "exported_models" / "pupil" / "model.json").read_text())
    assert {"field_0", "field_1"} < set(facts["training_tiles"])
