"""The tutorial "Train on your own scenes": its commands, in their order, with its files."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import geopandas
import pandas
import pytest

PAGE = Path(__file__).parents[1] / "docs" / "tutorials" / "train_on_your_scenes.md"


@pytest.mark.slow
def test_the_commands_of_the_tutorial_lead_from_polygons_to_an_inventory(tmp_path: Path) -> None:
    kinds = []
    for kind, text in re.findall(r"```(\w+)\n(.*?)```", PAGE.read_text(), flags=re.DOTALL):
        kinds.append(kind)
        if kind == "yaml":
            (tmp_path / "mine.yaml").write_text(text)
        elif kind == "python":
            run(tmp_path, [sys.executable, "-c", text])
        else:
            printed = run(tmp_path, ["bash", "-euo", "pipefail", "-c", text])
            assert ("--dry-run" in text) == (not (tmp_path / "tiles").exists()), printed
    assert kinds.count("sh") == 8
    tiles = pandas.read_csv(tmp_path / "tiles" / "tiles.csv")
    assert set(tiles["scene"]) == {"valley", "ridge"}
    assert {"landslide", "non-landslide"} == set(tiles["kind"])
    scores = json.loads((tmp_path / "north.json").read_text())["protocols"]["scene"]["subsets"]["all"]["model"]
    assert scores["f1"]["value"] > 0.5
    assert len(geopandas.read_file(tmp_path / "maps" / "north_inventory.gpkg", layer=0)) > 3
    assert {"audit.html", "labels.html", "harder", "figures"} <= {path.name for path in tmp_path.iterdir()}


def run(folder: Path, command: list[str]) -> str:
    """Run a command in `folder` as a user with this environment's commands; return what it prints."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command[-1]}\n{done.stdout}\n{done.stderr}"
    return done.stdout
