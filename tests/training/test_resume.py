"""Kill the real command with SIGKILL, run it again: it ends with the history and the weights of an unbroken run."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest

import lim_keras.models  # noqa: F401  registers the layers that are read back

pytestmark = pytest.mark.slow

EPOCHS = 5


def start(config: Path, data: Path, folder: Path) -> subprocess.Popen:
    places = ["--run", str(folder / "run"), "--export", str(folder / "bundle")]
    command = [sys.executable, "-m", "lim_keras", "fit", str(config), "--data", str(data), *places]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process: subprocess.Popen) -> str:
    output, _ = process.communicate(timeout=900)
    assert process.returncode == 0, output
    return output


def history(folder: Path) -> list[dict[str, str]]:
    with (folder / "run" / "fold_0" / "history.csv").open() as file:
        return [{name: value for name, value in row.items() if name != "seconds"} for row in csv.DictReader(file)]


def kill_after_first_epoch(process: subprocess.Popen, folder: Path) -> None:
    state = folder / "run" / "fold_0" / "checkpoints" / "state.json"
    deadline = time.monotonic() + 900
    while not state.exists():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is a POSIX signal")
def test_a_killed_fit_ends_as_an_unbroken_one(tmp_path, config_file, data):
    config = config_file(
        **{
            "training.epochs": EPOCHS,
            "training.steps_per_epoch": 4,
            "training.deterministic": True,
            "training.schedule": "plateau",
            "model.name": "fcn_fl",
            "model.dropout": 0.3,  # random numbers inside the model, too, must go on where they stood
        }
    )
    unbroken, killed = tmp_path / "unbroken", tmp_path / "killed"
    whole = start(config, data, unbroken)
    cut = start(config, data, killed)
    kill_after_first_epoch(cut, killed)
    finish(whole)
    # The kill may have come before history.csv, which the next call writes from the state.
    done = json.loads((killed / "run" / "fold_0" / "checkpoints" / "state.json").read_text())["epoch"]
    assert 1 <= done < EPOCHS
    assert f"continuing after epoch {done} of {EPOCHS}" in finish(start(config, data, killed))

    assert history(killed) == history(unbroken)
    assert len(history(killed)) == EPOCHS
    ours, theirs = (
        keras.saving.load_model(folder / "run" / "fold_0" / "model.keras", compile=False).get_weights()
        for folder in (killed, unbroken)
    )
    for got, wanted in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(got, wanted)
