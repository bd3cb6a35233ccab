"""`lim-keras predict --part K/N` and `--merge` as a user runs them."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import pytest
import rasterio
from click.testing import CliRunner, Result
from rasterio import Affine

from lim_keras.cli import main
from lim_keras.export.bundle import write_bundle
from lim_keras.files import locked_folder
from tests.conftest import largest_file, model_facts

SMALL = "lim_keras.inventory.scene_parts.PART_PIXELS"

KILLED = """
import os, signal, sys
import lim_keras.inventory.scene_parts as module
from lim_keras.cli import main
from lim_keras.raster.map_part import MapPart
verify = MapPart.verify
def killed(part):
    verify(part)
    if len(os.listdir(sys.argv[1])) > 2:  # a part, its record, and this draft
        os.kill(os.getpid(), signal.SIGKILL)
MapPart.verify, module.PART_PIXELS = killed, 1
main(sys.argv[2:])
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Logit (mean of 9 x 9 pixels and all bands - 150) / 10: a halo of 4 px."""
    image = keras.Input((None, None, 3))
    kernel, bias = (keras.initializers.Constant(value) for value in (0.1 / 243, -15.0))
    score = keras.layers.Conv2D(1, 9, padding="same", kernel_initializer=kernel, bias_initializer=bias)(image)
    path = tmp_path_factory.mktemp("exported_models") / "blur"
    write_bundle(path, model_facts(name=path.name, stride=1), [keras.Model(image, score)])
    return path


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SMALL, 1)  # each row of windows is a part


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """Scene of odd size with an L of data around an island; the boxes of both overlap."""
    return write_scene(tmp_path / "valley.tif", holes=True)


def write_scene(path: Path, *, holes: bool = False, seed: int = 0, **options: object) -> Path:
    height, width = 401, 523
    coarse = np.random.default_rng(seed).integers(60, 240, (3, 14, 18)).astype(np.uint8)
    image = np.kron(coarse, np.ones((1, 30, 30), np.uint8))[:, :height, :width]
    if holes:
        valid = np.zeros((height, width), bool)
        valid[:, :90] = valid[-100:, :] = valid[64:180, 256:400] = True
        image = np.where(valid, image, 0)
    place = {"crs": "EPSG:32648", "transform": Affine(0.8, 0, 5e5, 0, -0.8, 3e6), "nodata": 0} | options
    profile = {"driver": "GTiff", "width": width, "height": height, "count": 3, "dtype": "uint8"}
    with rasterio.open(path, "w", **profile, **place) as file:
        file.write(image)
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["predict", *map(str, arguments)])


def make(bundle: Path, scene: Path, out: Path, part: str, *more: object) -> Path:
    """Make a part, and return the folder of all parts."""
    done = run(bundle, scene, "--out", out, "--tile", 192, "--part", part, *more)
    assert done.exit_code == 0, done.output
    return out / ".valley.lim-keras.partial" / "parts"


def state(folder: Path) -> dict[Path, tuple[int, bytes]]:
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


def assert_same(folder: Path, other: Path) -> None:
    """Compare all files but those that hold the time of the call."""
    names = sorted(path.name for path in folder.iterdir())
    assert names == sorted(path.name for path in other.iterdir())
    for name in names:
        if not name.endswith("json") or name.endswith("geojson"):
            assert (folder / name).read_bytes() == (other / name).read_bytes(), name


def test_parts_in_any_order_give_the_bytes_of_one_call(bundle: Path, scene: Path, tmp_path: Path) -> None:
    options = ["--tile", 192, "--spread", "--probability", "float32", "--geojson", "--threshold", 0.4]
    one, parts = tmp_path / "one", tmp_path / "parts"
    assert run(bundle, scene, "--out", one, *options).exit_code == 0
    for number in (3, 1, 2):
        done = run(bundle, scene, "--out", parts, *options, "--part", f"{number}/3")
        assert done.exit_code == 0 and f"valley.tif: part {number}/3 done: " in done.output
        assert [path.name for path in parts.iterdir()] == [".valley.lim-keras.partial"]
    assert len(list((parts / ".valley.lim-keras.partial" / "parts").glob("*.tif"))) > 3
    merged = run(bundle, scene, "--out", parts, *options, "--merge")
    assert merged.exit_code == 0, merged.output
    assert_same(one, parts)
    again = run(bundle, scene, "--out", parts, *options, "--merge")
    assert again.exit_code == 0 and "was there already" in again.output
    assert "was there already" in run(bundle, scene, "--out", parts, *options, "--part", "2/3").output


def test_scenes_are_shared_by_pixels(bundle: Path, tmp_path: Path) -> None:
    scenes = [write_scene(tmp_path / f"{name}.tif", seed=seed) for seed, name in enumerate("abcd")]
    (tmp_path / "e.tif").write_text("no raster")
    one, parts, every = tmp_path / "one", tmp_path / "parts", [*scenes, tmp_path / "e.tif"]
    assert run(bundle, *every, "--out", one).exit_code == 1
    said = [run(bundle, *every, "--out", parts, "--part", f"{number}/2") for number in (1, 2)]
    # one window each: the first two scenes are half of the work; the last file counts nothing
    for name, expected in zip("abcde", (0, 0, 1, 1, 1), strict=True):
        assert [f"{name}.tif: part" in one.output or ("e.tif: is a" in one.output and name == "e") for one in said] == [
            expected == 0, expected == 1,
        ]  # fmt: skip
    assert [one.exit_code for one in said] == [0, 1]
    merged = run(bundle, *every, "--out", parts, "--merge")
    assert merged.exit_code == 1 and "e.tif: is a text file" in merged.output
    assert_same(one, parts)


def test_a_missing_part_is_named_and_nothing_is_written(bundle: Path, scene: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    call = [bundle, scene, "--out", out, "--tile", 192]
    none = run(*call, "--merge")
    assert none.exit_code == 1 and none.output.count("\n") == 1 and not out.exists()
    assert "no part of" in none.output and "--part 1/N to N/N" in none.output
    make(bundle, scene, out, "1/3")
    make(bundle, scene, out, "3/3")
    refused = run(*call, "--merge")
    assert refused.exit_code == 1 and refused.output.count("\n") == 1
    assert "valley.tif: 2/3. Run the command with --part 2/3 and otherwise the same options" in refused.output
    assert [path.name for path in out.iterdir()] == [".valley.lim-keras.partial"]
    make(bundle, scene, out, "2/3")
    assert run(*call, "--merge").exit_code == 0


def test_other_options_replace_nothing(bundle: Path, scene: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    make(bundle, scene, out, "1/2")
    before = state(out)
    for call, said in (
        (["--part", "2/2", "--tile", 256], "--tile 192 there, 256 here"),
        (["--part", "2/2", "--tile", 192, "--tta"], "--tta not given there, given here"),
        (["--merge", "--tile", 192, "--nodata", "none"], "--nodata file there, none here"),
        (["--tile", 192, "--scale", "0,100"], "--scale not given there, 0.0,100.0 here"),
    ):
        done = run(bundle, scene, "--out", out, *call)
        assert done.exit_code == 1 and said in done.output and "Traceback" not in done.output
        (out / "summary.json").unlink(missing_ok=True)  # the ordinary call reports its failures
        assert state(out) == before
    os.utime(scene)
    changed = run(bundle, scene, "--out", out, "--tile", 192, "--part", "2/2")
    assert changed.exit_code == 1 and "the scene's file is another one, or changed since" in changed.output
    assert state(out) == before


def test_an_ordinary_call_continues_from_parts(bundle: Path, scene: Path, tmp_path: Path) -> None:
    parts = make(bundle, scene, tmp_path / "out", "2/3")
    kept = next(parts.glob("*.tif"))
    os.utime(kept, ns=(1, 1))
    seen: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lim_keras.inventory.scene_parts.merge", spy(seen, kept))
        assert run(bundle, scene, "--out", tmp_path / "out", "--tile", 192).exit_code == 0
    assert seen == [1] and not parts.exists()
    assert run(bundle, scene, "--out", tmp_path / "one", "--tile", 192).exit_code == 0
    assert_same(tmp_path / "one", tmp_path / "out")


def spy(seen: list[int], file: Path):
    from lim_keras.inventory.scene_parts import merge

    def watched(*arguments):
        seen.append(file.stat().st_mtime_ns)
        return merge(*arguments)

    return watched


@pytest.fixture
def killed(bundle: Path, scene: Path, tmp_path: Path) -> Iterator[Path]:
    """The folder of the parts after a call that was killed while it wrote the second one of its share."""
    folder = tmp_path / "out" / ".valley.lim-keras.partial" / "parts"
    call = [sys.executable, "-c", KILLED, str(folder), "predict", str(bundle), str(scene), "--tile", "192"]
    package = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    ended = subprocess.run([*call, "--out", str(tmp_path / "out"), "--part", "1/1"], env=package, check=False)
    assert ended.returncode == -signal.SIGKILL
    return folder


def test_a_killed_part_makes_only_what_is_missing(killed: Path, bundle: Path, scene: Path, tmp_path: Path) -> None:
    (whole,) = killed.glob("[0-9]*.tif")
    assert len(list(killed.glob(".*.partial.tif"))) == 1
    before = whole.stat().st_mtime_ns
    make(bundle, scene, tmp_path / "out", "1/1")
    assert whole.stat().st_mtime_ns == before and list(killed.glob(".*.tif")) == []
    assert run(bundle, scene, "--out", tmp_path / "out", "--tile", 192, "--merge").exit_code == 0
    assert run(bundle, scene, "--out", tmp_path / "one", "--tile", 192).exit_code == 0
    assert_same(tmp_path / "one", tmp_path / "out")


@pytest.mark.parametrize("damage", ["cut", "edited", "deleted"])
def test_a_damaged_part_is_named_and_made_anew(bundle: Path, scene: Path, tmp_path: Path, damage: str) -> None:
    parts = make(bundle, scene, tmp_path / "out", "1/1")
    path = min(parts.glob("*.tif"))
    content = path.read_bytes()
    changed = content[:-1] + bytes([content[-1] ^ 1])
    path.write_bytes(content[:-7] if damage == "cut" else changed)
    if damage == "deleted":
        path.unlink()
    call = [bundle, scene, "--out", tmp_path / "out", "--tile", 192]
    refused = run(*call, "--merge")
    assert refused.exit_code == 1 and f"{path}: missing, cut short, or changed" in refused.output
    assert "--part 1/1, which makes it anew" in refused.output
    again = run(*call, "--part", "1/1")
    assert f"part 1/1 done: 1 of {len(list(parts.glob('*.tif')))} files made" in again.output
    assert path.read_bytes() == content and run(*call, "--merge").exit_code == 0


def test_a_full_disk_keeps_finished_parts(
    bundle: Path, scene: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    parts = make(bundle, scene, tmp_path / "out", "1/2")
    before = state(parts)
    call = [bundle, scene, "--out", tmp_path / "out", "--tile", 192]
    with largest_file(2_000):
        full = run(*call, "--part", "2/2")
    assert full.exit_code == 1 and "cannot be written" in full.output and "Traceback" not in full.output
    assert capfd.readouterr().err == ""  # libtiff would print lines of its own
    assert state(parts) == before
    make(bundle, scene, tmp_path / "out", "2/2")
    assert run(*call, "--merge").exit_code == 0


def test_calls_at_the_same_time(bundle: Path, scene: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    call = [bundle, scene, "--out", out, "--tile", 192]
    with locked_folder(out, entry="part-1-of-2"):
        make(bundle, scene, out, "2/2")  # another part
        for more, said in (
            (["--part", "1/2"], "part-1-of-2: in use by"),
            (["--merge"], "in use by"),
            ([], "in use by"),
        ):
            refused = run(*call, *more)
            assert refused.exit_code == 1 and said in refused.output
    with locked_folder(out):
        refused = run(*call, "--part", "1/2")
        assert refused.exit_code == 1 and f"{out}: in use by process" in refused.output
    make(bundle, scene, out, "1/2")
    assert run(*call, "--merge").exit_code == 0


def test_options_that_exclude_each_other(bundle: Path, scene: Path, tmp_path: Path) -> None:
    for more, said in (
        (["--part", "0/3"], "Expected K/N, part K of N parts, counted from 1"),
        (["--part", "4/3"], "Received: '4/3'"),
        (["--part", "1/3", "--merge"], "--part and --merge exclude each other"),
        (["--part", "1/3", "--memory", "4G"], "--part and --memory exclude each other"),
        (["--part", "1/3", "--server", "http://localhost:1/v1/models/m"], "not for --server"),
        (["--runtime", "openvino", "--server", "http://localhost:1/v1/models/m"], "--runtime: not with --server"),
    ):
        refused = run(bundle, scene, "--out", tmp_path / "out", *more)
        assert refused.exit_code == 2 and said in refused.output
    assert not (tmp_path / "out").exists()


def test_a_scene_without_data(bundle: Path, scene: Path, tmp_path: Path) -> None:
    empty = write_scene(tmp_path / "empty.tif", nodata=None)
    with rasterio.open(empty, "r+") as file:
        file.write(np.zeros((3, 401, 523), np.uint8))
        file.nodata = 0
    for more in ([], ["--part", "1/1"], ["--merge"]):
        done = run(bundle, empty, scene, "--out", tmp_path / "out", *more)
        assert done.exit_code == 1 and "empty.tif: no pixel holds data" in done.output, more
        assert len(list((tmp_path / "out").glob(".empty*"))) == ("--part" in more)  # the plan, for other parts
        for path in (tmp_path / "out").glob("valley*"):
            path.unlink()


def test_an_error_before_the_first_window_is_said(bundle: Path, scene: Path, tmp_path: Path) -> None:
    for more in ([], ["--part", "1/2"]):
        done = run(bundle, scene, "--out", tmp_path / "out", "--tile", 64, *more)
        assert done.exit_code == 2 and "Expected a --tile of at least 192 px" in done.output
        assert not (tmp_path / "out").exists()
