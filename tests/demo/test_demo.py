"""The command `lim-keras demo` and its files."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture
def demo(tmp_path: Path) -> Path:
    """Folder of a finished demo: the one that LIM_KERAS_DEMO names, or a new one."""
    if made := os.environ.get("LIM_KERAS_DEMO"):
        return Path(made)
    folder = tmp_path / "demo"
    command = [sys.executable, "-m", "lim_keras", "demo", "--out", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    evaluation = json.loads((folder / "evaluation.json").read_text())
    f1 = evaluation["protocols"]["tiles"]["subsets"]["all"]["model"]["f1"]["value"]
    assert f"{f1:.3f}" in done.stdout
    return folder


@pytest.mark.slow
def test_demo_finds_the_landslides_of_a_second_world(demo: Path) -> None:
    folder = demo
    evaluation = json.loads((folder / "evaluation.json").read_text())
    f1 = {name: part["subsets"]["all"]["model"]["f1"]["value"] for name, part in evaluation["protocols"].items()}
    blind = evaluation["protocols"]["tiles"]["subsets"]["all"]["blind"]["f1"]["value"]
    # tiles of the second world, and that world as a scene
    assert f1["tiles"] >= 0.8
    assert f1["scene"] >= 0.8
    assert blind < 0.3
    pictures = {path.relative_to(folder).as_posix() for path in folder.rglob("*.png")}
    assert {"imbalance.png", "run/curves.png", "figures/tiles_best.png", "figures/scene.png"} <= pictures
    assert (folder / "exported_models" / "demo" / "ensemble" / "1" / "saved_model.pb").exists()


def test_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    command = [sys.executable, "-m", "lim_keras", "demo", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"Error: {tmp_path} is not empty and holds no demo.")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
