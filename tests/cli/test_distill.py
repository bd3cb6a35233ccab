"""`lim-keras distill` as a user types it: an ensemble, then its student."""

import json

import pytest

pytestmark = pytest.mark.slow

SETS = ("--set", "name=pupil", "--set", "export.half_size=true", "--set", "data_terms=For study only.")


def test_an_ensemble_teaches_a_student(workplace, lim_keras):
    trained = lim_keras("cv", "tiny.yaml", "--data", "data", "--test", "test.txt")
    assert trained.returncode == 0, trained.stderr
    teacher = workplace / "exported_models" / "tiny"
    assert set(json.loads((teacher / "model.json").read_text())["held_out"].values()) == {0, 1}

    arguments = ("distill", "exported_models/tiny", "tiny.yaml", "--data", "data", *SETS)
    done = lim_keras(*arguments, "--test", "test.txt")
    assert done.returncode == 0, done.stderr
    assert "student: epoch 2/2" in done.stderr and "threshold" in done.stdout
    bundle = workplace / "exported_models" / "pupil"
    facts = json.loads((bundle / "model.json").read_text())
    assert facts["folds"] == 1 and facts["data_terms"] == "For study only."
    assert sorted(facts["test_tiles"]) == ["ls_4", "nls_4"]
    answers = {path.stem for path in (workplace / "runs" / "pupil" / "teacher").iterdir()}
    assert answers == set(facts["training_tiles"]) and not answers & {"ls_4", "nls_4"}
    assert lim_keras("verify", "exported_models/pupil").returncode == 0

    single = lim_keras("distill", "exported_models/pupil", "tiny.yaml", "--data", "data", "--run", "runs/other")
    assert single.returncode == 1
    assert "expected a bundle of `lim-keras cv`" in single.stderr and "Traceback" not in single.stderr
