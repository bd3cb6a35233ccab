"""Feed hostile files to the command line: the right result or one clear error, and nothing else touched."""

import json
from collections.abc import Callable, Collection
from pathlib import Path

import pytest
import rasterio

from tests.faults import hostile_bundles, hostile_models, hostile_rasters, hostile_results, hostile_tables
from tests.faults.cases import Assets, Case, Function
from tests.faults.completeness import hashes, unreadable
from tests.faults.conftest import ERROR, RIGHT, command_line, generator
from tests.faults.fault_server import FaultServer, Outcome
from tests.faults.outcome import check_error

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

CASES = [
    *hostile_rasters.cases(),
    *hostile_tables.cases(),
    *hostile_bundles.cases(),
    *hostile_models.cases(),
    *hostile_results.cases(),
]

SAMPLE = 23
"""Every n-th case also runs among all tests, and a third time in a process of its own."""

MEMORY = 3 * 2**30
"""Bytes that a case may add."""

RESIDENT = 2 * 2**30
"""Largest memory in use at the end of a case, TensorFlow included, bytes."""


def marked() -> list:
    made = []
    for number, case in enumerate(CASES):
        marks = [pytest.mark.faults] + [pytest.mark.faults_sample] * (number % SAMPLE == 0)
        made.append(pytest.param(case, marks=marks, id=f"{case.kind}: {case.name}"))
    return made


@pytest.fixture(scope="session")
def assets(trained: Path) -> Assets:
    return Assets(trained / "data", trained / "single", trained / "tiny.yaml")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return make_place(tmp_path)


def make_place(root: Path) -> Path:
    """Make a folder between two others, with files that no call may change."""
    for folder in (root, root / "user" / "work", root / "user"):
        folder.mkdir(exist_ok=True, parents=True)
        (folder / "notes.txt").write_text("the user's own")
        (folder / "tiles.csv.bak").write_text("kept")
    (root / "user" / "work" / "maps").mkdir()
    return root / "user" / "work"


@pytest.mark.parametrize("case", marked())
def test_hostile_file(case: Case, place: Path, assets: Assets, server: FaultServer, ended: Callable[..., None]):
    call = case.make(place, generator(f"{case.kind} {case.name}"), assets)
    before, planted = hashes(place.parents[1], without=("user/work/out",)), hashes(place / "out")
    if isinstance(call, Function):
        outcome = server.function(place, call.name, *call.values, seconds=case.seconds, memory=MEMORY)
    else:
        outcome = server.call(place, *call, seconds=case.seconds, memory=MEMORY)
    ended(f"hostile: {case.kind}", RIGHT if outcome.code == 0 else ERROR)
    check(case, outcome, place, set(planted))
    after = hashes(place.parents[1], without=("user/work/out",))
    assert before.items() <= after.items()
    assert case.follows or after == before
    assert planted.items() <= hashes(place / "out").items()


def check(case: Case, outcome: Outcome, place: Path, planted: Collection[str] = ()) -> None:
    assert not outcome.hang, f"no end after {case.seconds} s"
    assert outcome.signal is None, f"ended by signal {outcome.signal}"
    assert outcome.memory <= RESIDENT, f"{outcome.memory / 2**20:.0f} MiB in use"
    assert (place / "planted").exists() is False
    if outcome.code == 0:
        assert case.fails is not True, f"accepted: {outcome.stdout[-1000:]}"
        assert "Traceback" not in outcome.stderr
        check_maps(place)
    else:
        assert case.fails is not False, outcome.stderr
        check_error(outcome.code, outcome.stdout, outcome.stderr)
    if (place / "out").is_dir():
        assert [line for line in unreadable(place / "out") if line.partition(":")[0] not in planted] == []


def check_maps(place: Path) -> None:
    """Check that maps have the size of their scene, and are among the files of the summary."""
    for summary in (place / "out").glob("*_summary.json"):
        files = json.loads(summary.read_text())["files"]
        assert all((place / "out" / name).is_file() for name in files)
        stem = summary.name.removesuffix("_summary.json")
        scene = next(path for path in place.iterdir() if path.stem == stem and path.suffix in (".tif", ".png", ".jpg"))
        with rasterio.open(scene) as raster, rasterio.open(place / "out" / f"{stem}_landslides.tif") as made:
            assert raster.shape == made.shape


@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.parametrize("number", range(0, len(CASES), SAMPLE))
def test_hostile_file_in_a_process_of_its_own(number: int, tmp_path: Path, assets: Assets, server: FaultServer):
    case, places = CASES[number], [make_place(tmp_path / name) for name in ("forked", "alone")]
    call, _ = (case.make(place, generator(f"{case.kind} {case.name}"), assets) for place in places)
    if isinstance(call, Function):
        pytest.skip("a function of the package, not a command")
    forked = server.call(places[0], *call, seconds=case.seconds, memory=MEMORY)
    alone = command_line(places[1], *call)
    assert alone.returncode == forked.code, alone.stderr
    if alone.returncode:
        check_error(alone.returncode, alone.stdout, alone.stderr)


def test_there_are_200_cases():
    assert len(CASES) >= 200
    assert len({(case.kind, case.name) for case in CASES}) == len(CASES)
