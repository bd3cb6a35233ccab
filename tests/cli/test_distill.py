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
    (workplace / "train.txt").write_text("\n".join(facts["training_tiles"]) + "\n")
    answers = {path.stem for path in (workplace / "runs" / "pupil" / "teacher").iterdir()}
    assert answers == set(facts["training_tiles"]) and not answers & {"ls_4", "nls_4"}
    assert lim_keras("verify", "exported_models/pupil").returncode == 0

    # Train on: the second model begins where the first ended, and answers for what that has seen.
    further = ("fit", "tiny.yaml", "--data", "data", "--set", "name=further", "--start-from", "exported_models/pupil")
    leak = lim_keras(*further, "--val", "train.txt")
    assert leak.returncode == 1 and "was trained on" in leak.stderr and "Traceback" not in leak.stderr
    done = lim_keras(*further, "--val", "test.txt", "--run", "runs/second")
    assert done.returncode == 0, done.stderr
    second = json.loads((workplace / "exported_models" / "further" / "model.json").read_text())
    assert second["started_from"].startswith("pupil (")

    single = lim_keras("distill", "exported_models/pupil", "tiny.yaml", "--data", "data", "--run", "runs/other")
    assert single.returncode == 1
    assert "expected the bundle of a cross-validation" in single.stderr and "Traceback" not in single.stderr
