"""`--memory` as a limit: the real command line in a process of its own, and its peak."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio

SHIPPED = Path(__file__).parents[2] / "exported_models" / "bijie_edge"
LITERT = SHIPPED / "tflite" / "fold_0_int8.tflite"

SLACK = 32
"""MiB: windows are sized by measured ones, and libraries keep memory that they freed in pieces of some MiB."""

# A process inherits the peak of the one that starts it, so a small one starts the command.
STARTER = """import resource, subprocess, sys
done = subprocess.run(sys.argv[1:], capture_output=True, text=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024, done.returncode)
print(done.stdout, done.stderr)
"""


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a scene that does not fit into one window."""
    path = tmp_path_factory.mktemp("limit") / "scene.tif"
    block = np.random.default_rng(0).integers(1, 255, (3, 256, 256)).astype(np.uint8)
    profile = {"driver": "GTiff", "width": 2100, "height": 1300, "count": 3, "dtype": "uint8", "nodata": 0}
    place = {"crs": "EPSG:32648", "transform": rasterio.Affine(0.8, 0, 5e5, 0, -0.8, 3e6)}
    with rasterio.open(path, "w", **profile, **place) as file:
        file.write(np.tile(block, (1, 6, 9))[:, :1300, :2100])
    return path


def predict(*arguments: str | Path) -> tuple[int, int, str]:
    """Return exit code, peak memory in MiB and output of `lim-keras predict`."""
    command = [sys.executable, "-c", STARTER, sys.executable, "-m", "lim_keras", "predict", *map(str, arguments)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    figures, _, output = said.partition("\n")
    peak, code = map(int, figures.split())
    return code, peak, " ".join(output.split())


@pytest.mark.parametrize(("model", "runtime", "limit"), [(SHIPPED, "openvino", 720), (LITERT, "auto", 620)])
def test_the_process_stays_within_its_memory(
    model: Path, runtime: str, limit: int, scene: Path, tmp_path: Path
) -> None:
    out = tmp_path / "maps"
    code, peak, said = predict(model, scene, "--out", out, "--runtime", runtime, "--memory", f"{limit}M")
    assert code == 0, said
    assert peak <= limit + SLACK
    assert json.loads((out / "scene_summary.json").read_text())["windows"]["count"] > 1


def test_too_little_memory_leaves_nothing_and_names_what_suffices(scene: Path, tmp_path: Path) -> None:
    out, options = tmp_path / "maps", ("--runtime", "openvino", "--memory")
    code, peak, said = predict(SHIPPED, scene, "--out", out, *options, "300M")
    assert code == 1 and peak < 450
    found = re.search(r"Expected --memory of at least (\d+) MiB, for windows of 832 x 832 px.*Received: 300 MiB", said)
    assert found is not None, said
    assert [path.name for path in out.iterdir()] == ["summary.json"]
    code, peak, said = predict(SHIPPED, scene, "--out", out, *options, f"{found[1]}M")
    assert code == 0, said
    assert peak <= int(found[1]) + SLACK
