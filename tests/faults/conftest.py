"""Fixtures and report of the fault harness (`make faults`).

Every case draws from a generator of its own, made from the seed and the case's name. The seed is LIM_KERAS_FAULTS_SEED,
or 2022; the report prints it, so that a failure can be repeated.
"""

import os
import shutil
import subprocess
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
import shapely

from tests.faults.cases import LITERT
from tests.faults.fault_server import FaultServer

SEED = int(os.environ.get("LIM_KERAS_FAULTS_SEED", "2022"))

PROJECT = Path(__file__).parents[2]


RIGHT, ERROR = "right result", "one clear error"

CONFIG = """
name: tiny
model: {name: fcn, encoder: small, encoder_weights: none, decoder_channels: 4}
sampling: {size: 32}
training: {epochs: 3, steps_per_epoch: 2, batch_size: 2, tensorboard: false, validation_fraction: 0.5,
           deterministic: true}
folds: 2
evaluation: {windows: 4, bootstrap: 20}
"""

CALLS = {
    "predict": ("predict", str(LITERT), "area.tif", "--out", "out/maps", "--geojson", "--probability", "float32"),
    "export": ("export", "teacher", "--tflite", "float32,dynamic", "--data", "data", "--out", "out/tflite"),
    "fit": ("fit", "tiny.yaml", "--data", "data", "--test", "test.txt", "--run", "out/run", "--export", "out/tiny"),
    "cv": ("cv", "tiny.yaml", "--data", "data", "--test", "test.txt", "--run", "out/run", "--export", "out/tiny"),
    "distill": (
        *("distill", "teacher", "tiny.yaml", "--data", "data", "--test", "test.txt"),
        *("--run", "out/run", "--export", "out/tiny"),
    ),
    "evaluate": (
        *("evaluate", "single", "--data", "data", "--windows", "4", "--bootstrap", "20"),
        *("--json", "out/scores.json", "--figures", "out/figures"),
    ),
    "tile": (
        *("data", "tile", "area.tif", "--labels", "landslides.geojson", "--out", "out/tiles"),
        *("--size", "64", "--background", "all"),
    ),
    "reproduce": (
        *("reproduce", "--budget", "smoke", "--data", "data", "--test", "test.txt"),
        *("--out", "out/paper", "--only", "table2,figure6"),
    ),
}
"""Commands that are killed or run out of room, in a copy of `trained`; all they write lies in the folder `out`."""

IN_PARTS = "predict in parts"
"""Name of a job array: the parts of a prediction run at the same time, each in a process of its own, then `--merge`."""

_WHOLE = (
    *("predict", "single", "area.tif", "--out", "out/maps", "--runtime", "openvino", "--tile", "128"),
    *("--threshold", "0.2", "--probability", "float32"),
)

_ARRAY = """
for part in 1/3 2/3 3/3; do "$@" --part $part & calls="$calls $!"; done
for call in $calls; do wait $call || exit 1; done
exec "$@" --merge
"""


def process_of(command: str, *, whole: bool = False) -> list[str]:
    """Return the process that runs one of `CALLS`, or the job array; `whole`: one call in place of the array."""
    call = [sys.executable, "-m", "lim_keras", *(_WHOLE if command == IN_PARTS else CALLS[command])]
    return ["sh", "-c", _ARRAY, "sh", *call] if command == IN_PARTS and not whole else call


@dataclass(frozen=True)
class Twins:
    """Undisturbed results of two equal calls, and the seconds from the first file to the end."""

    folders: tuple[Path, Path]
    seconds: float


def generator(name: str) -> np.random.Generator:
    """Return the random numbers of a case."""
    return np.random.default_rng([SEED, zlib.crc32(name.encode())])


def pytest_report_header() -> str:
    return f"faults: LIM_KERAS_FAULTS_SEED={SEED}"


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print how many cases of each kind ended in which way, as the table of docs/concepts/promises.md."""
    counted: dict[str, Counter[str]] = {}
    for report in (one for reports in terminalreporter.stats.values() for one in reports):
        if getattr(report, "when", "") == "call":
            for kind, end in report.user_properties:
                counted.setdefault(kind, Counter())["failed" if report.failed else end] += 1
    if not counted:
        return
    terminalreporter.section(f"faults, seed {SEED}")
    terminalreporter.write_line("| cases | number | right result | clear error | failed |\n|---|---|---|---|---|")
    for kind, ends in sorted(counted.items()):
        columns = " | ".join(str(ends[end]) for end in (RIGHT, ERROR, "failed"))
        terminalreporter.write_line(f"| {kind} | {ends.total()} | {columns} |")


@pytest.fixture
def ended(record_property: Callable[[str, object], None]) -> Callable[[str, str], None]:
    """ended(kind, RIGHT or ERROR): count a case in the report."""
    return record_property


@pytest.fixture(scope="session")
def server() -> Iterator[FaultServer]:
    started = FaultServer()
    yield started
    started.close()


def command_line(folder: Path, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run `lim-keras` in a process of its own."""
    return run_in(folder, [sys.executable, "-m", "lim_keras", *arguments], **options)


def run_in(folder: Path, command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a program in a folder."""
    return subprocess.run(
        command,
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        **options,
    )


def environment() -> dict[str, str]:
    """Return the environment of commands: this package, one OpenMP thread."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(PROJECT), os.environ.get("PYTHONPATH", "")])}


def write_scene(path: Path, height: int = 160, width: int = 200, seed: int = 0, **profile: Any) -> Path:
    """Write a georeferenced scene of three bands: noise, darker and brighter patches."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(40, 160, (3, height // 20 + 1, width // 20 + 1))
    pixels = coarse.repeat(20, axis=1).repeat(20, axis=2)[:, :height, :width] + rng.integers(0, 40, (3, height, width))
    options = {
        **{"driver": "GTiff", "dtype": "uint8", "count": 3, "height": height, "width": width, "crs": "EPSG:32648"},
        "transform": rasterio.Affine(0.8, 0, 530000, 0, -0.8, 3020000),
        **{"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate"},
    }
    with rasterio.open(path, "w", **(options | profile)) as raster:
        raster.write(pixels.astype(np.uint8))
    return path


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, bijie_folder: Callable[..., Path]) -> Path:
    """A folder with data/, tiny.yaml, test.txt, area.tif with truth.tif and landslides.geojson, and two bundles.

    The bundles are teacher/ (two folds) and single/ (one).
    """
    from lim_keras.export.bundle import write_bundle
    from tests.conftest import model_facts
    from tests.export.conftest import constant

    place = tmp_path_factory.mktemp("trained")
    bijie_folder(place / "data", 5, 5)
    (place / "tiny.yaml").write_text(CONFIG)
    (place / "test.txt").write_text("ls_4\nnls_4\n")
    write_scene(place / "area.tif", 400, 640)
    truth = np.zeros((400, 640), np.uint8)
    truth[100:200, 100:200] = 1
    with rasterio.open(place / "area.tif") as scene:
        profile = scene.profile | {"count": 1}
    with rasterio.open(place / "truth.tif", "w", **profile) as raster:
        raster.write(truth, 1)
    corners = [(530040, 3019900), (530250, 3019950), (530400, 3019760)]
    shapes = [shapely.box(x, y, x + 25, y + 20) for x, y in corners]
    geopandas.GeoDataFrame(geometry=shapes, crs=32648).to_crs(4326).to_file(place / "landslides.geojson")
    names = [f"{kind}_{number}" for kind in ("ls", "nls") for number in range(4)]
    facts = model_facts(training_tiles=tuple(names), held_out={name: int(name[-1]) % 2 for name in names})
    write_bundle(place / "teacher", facts.model_copy(update={"name": "teacher"}), [constant(-1.0), constant(1.0)])
    write_bundle(place / "single", facts.model_copy(update={"name": "single", "held_out": {}}), [constant(-1.0)])
    return place


@pytest.fixture
def workplace(trained: Path, tmp_path: Path) -> Path:
    """A copy of `trained` that a case may change."""
    return Path(shutil.copytree(trained, tmp_path / "work"))


@pytest.fixture(scope="session")
def twins(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Twins]:
    """twins(command): the results of two undisturbed calls of one of `CALLS`, or of one call and of the job array."""
    known: dict[str, Twins] = {}

    def undisturbed(command: str, *, whole: bool = False) -> tuple[Path, float]:
        folder = Path(shutil.copytree(trained, tmp_path_factory.mktemp("twin") / "work"))
        began = time.time()
        done = run_in(folder, process_of(command, whole=whole))
        assert done.returncode == 0, done.stderr
        ended = time.time()
        first = min((path.stat().st_mtime for path in (folder / "out").rglob("*")), default=began)
        return folder / "out", ended - max(began, first)

    def run(command: str) -> Twins:
        if command not in known:
            (one, _), (other, seconds) = undisturbed(command, whole=True), undisturbed(command)
            known[command] = Twins((one, other), seconds)
        return known[command]

    return run


def command_cases(counts: dict[str, int], sample: tuple[str, int]) -> list:
    """Number the cases of each command; `sample` also runs among all tests."""
    made = []
    for command, count in counts.items():
        for number in range(count):
            marks = [pytest.mark.faults, pytest.mark.slow]
            if (command, number) == sample:
                marks.append(pytest.mark.faults_sample)
            made.append(pytest.param(command, number, marks=marks, id=f"{command}-{number}"))
    return made
