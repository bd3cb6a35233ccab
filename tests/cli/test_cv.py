"""`lim-keras cv` as a user types it: folds in processes of their own, failures named, finished folds kept."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from lim_keras.cli import main
from lim_keras.config_file import load_config
from lim_keras.data.layouts import read_tiles
from lim_keras.training.begin import begin_cross_validation

pytestmark = pytest.mark.slow

CV = ("cv", "tiny.yaml", "--data", "data", "--test", "test.txt")


def written(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_failing_fold_is_named_and_trained_again_alone(workplace, lim_keras, monkeypatch):
    run = workplace / "runs" / "tiny"
    config, tiles = load_config(workplace / "tiny.yaml"), read_tiles(workplace / "data")
    begin_cross_validation(config, tiles, run=run, test_ids=("ls_4", "nls_4"))
    damaged = run / "fold_1" / "checkpoints"
    damaged.mkdir(parents=True)
    (damaged / "state.json").write_text("{")

    failed = lim_keras(*CV)
    assert failed.returncode == 1
    assert "fold 1: " in failed.stderr and "the checkpoint cannot be read" in failed.stderr
    assert failed.stderr.rstrip().endswith(
        "Error: runs/tiny: fold 1 failed, see above. The same command trains only what is not finished."
    )
    assert "Traceback" not in failed.stderr
    assert not list((workplace / "exported_models").iterdir()) and not (run / "cv.json").exists()

    finished = written(run / "fold_0")
    (damaged / "state.json").unlink()
    done = lim_keras(*CV)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[0] == "finished before: fold 0"
    assert [line.split(":")[0] for line in done.stderr.splitlines()[1:]] == ["fold 1", "fold 1"]  # two epochs
    assert written(run / "fold_0") == finished

    bundle = workplace / "exported_models" / "tiny"
    assert {path.name for path in bundle.iterdir()} == {
        "fold_0",
        "fold_1",
        "ensemble",
        "model.json",
        "README.md",
        "baseline.npz",
        "stac-item.json",
        "verify.npz",
    }
    assert set(json.loads((bundle / "model.json").read_text())["held_out"].values()) == {0, 1}
    summary = json.loads((run / "cv.json").read_text())
    names = sorted(sample["name"] for sample in summary["pooled_out_of_fold"]["samples"])
    assert names == sorted(f"{kind}_{n}" for kind in ("ls", "nls") for n in range(4))
    for piece in ("out-of-fold tiles", "fold 0", "fold 1", "mean of the folds", "pooled", "ensemble", "threshold"):
        assert piece in done.stdout

    # nothing is left to train: the result is made again from what is there
    both = written(run / "fold_0") | written(run / "fold_1")
    monkeypatch.chdir(workplace)
    again = CliRunner().invoke(main, CV)
    assert again.exit_code == 0 and again.stdout == done.stdout
    assert again.stderr == "finished before: fold 0, fold 1\n"
    assert written(run / "fold_0") | written(run / "fold_1") == both


def children(process: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks processes up in /proc")
def test_a_fold_does_not_outlive_its_command(workplace):
    command = [sys.executable, "-m", "lim_keras", *CV, "--set", "training.epochs=500"]
    package = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([package, os.environ.get("PYTHONPATH", "")])}
    process = subprocess.Popen(command, cwd=workplace, env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 900
    while not (workplace / "runs" / "tiny" / "fold_0" / "history.csv").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    folds = children(process.pid)
    assert folds
    process.send_signal(signal.SIGKILL)
    process.wait()
    while any(alive(fold) for fold in folds):
        assert time.monotonic() < deadline, "a fold went on training"
        time.sleep(0.05)
