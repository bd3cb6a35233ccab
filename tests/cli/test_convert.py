"""`lim-keras data convert`: the real command line, what it prints, refuses and leaves in place."""

import hashlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from lim_keras.cli import main
from lim_keras.data.layouts import read_tiles

_spec = importlib.util.spec_from_file_location("sources", Path(__file__).parents[1] / "data" / "convert" / "sources.py")
make = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(make)


def run(*arguments: object, command: str = "convert"):
    return CliRunner().invoke(main, ["data", command, *map(str, arguments)])


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Two images with masks in one folder, and one without a mask."""
    for number in range(2):
        make.picture(tmp_path / "in" / f"p{number}.png", seed=number)
        make.mask(tmp_path / "in" / f"p{number}_mask.png", make.corner())
    make.picture(tmp_path / "in" / "alone.png")
    return tmp_path / "in"


def contents(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_it_prints_tables_and_records_every_file(tmp_path, pairs):
    out = tmp_path / "out"
    done = run(pairs, "--out", out)
    assert done.exit_code == 0, done.output
    for text in ("2 tiles, 3 bands, uint8 (pairs)", "image without a mask", "alone.png", f"tiles: {out}"):
        assert text in done.stdout
    record = json.loads((out / "convert.json").read_text())
    assert record["files"] == {name: text for name, text in contents(out).items() if name != "convert.json"}
    assert record["left_out"] == {"image without a mask": ["alone.png"]}
    assert record["kinds"]["landslide"] == {"tiles": 2, "landslide_px": 12, "ignored_px": 0, "px": 96}
    assert run(out, command="stats").exit_code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


def test_dry_run_writes_nothing(tmp_path, pairs):
    done = run(pairs, "--out", tmp_path / "out", "--dry-run")
    assert done.exit_code == 0 and "2 tiles" in done.stdout and "nothing was written" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_again_gives_the_same_files_also_below_the_source(tmp_path, pairs):
    out = pairs / "tiles"
    assert run(pairs, "--out", out).exit_code == 0
    before = contents(out)
    assert run(pairs, "--out", out).exit_code == 0
    assert contents(out) == before
    make.mask(pairs / "alone_mask.png", make.corner())
    assert run(pairs, "--out", out).exit_code == 0
    assert len(read_tiles(out)) == 3


@pytest.mark.parametrize("name", ["notes.txt", "images/p0.png", "tiles.csv"])
def test_files_of_the_user_stay(tmp_path, pairs, name):
    out = tmp_path / "out"
    assert run(pairs, "--out", out).exit_code == 0
    (out / name).write_bytes(b"mine")
    before = contents(out)
    done = run(pairs, "--out", out)
    assert done.exit_code == 1 and Path(name).name in done.stderr and "--out" in done.stderr
    assert contents(out) == before


def test_a_folder_of_the_user_and_a_file(tmp_path, pairs):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "tiles.csv").write_text("tile_id,image\n")
    assert run(pairs, "--out", tmp_path / "mine").exit_code == 1
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["tiles.csv"]
    done = run(pairs, "--out", pairs)
    assert done.exit_code == 2 and "--out" in done.stderr and "holds the data set" in done.stderr
    done = run(pairs, "--out", pairs / "p0.png")
    assert done.exit_code == 2 and "p0.png" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--classes", "landslide"], 2, "--classes is for coco and yolo only"),
        (["--bands", "4,3,2"], 2, "--bands is for landslide4sense only"),
        (["--bands", "4,x"], 2, "expected band numbers from 1"),
        (["--landslide", "red"], 2, "a range such as 128-255, or a colour R,G,B"),
        (["--landslide", "7"], 2, "no pixel of any mask has a value of --landslide (7.0)"),
        (["--format", "coco"], 1, "expected a JSON file of `images` and `annotations`"),
        (["--format", "yolo"], 1, "no image has a label file of its name"),
        (["--format", "landslide4sense"], 1, "no HDF5 image has a mask"),
    ],
)
def test_options_that_do_not_fit(tmp_path, pairs, arguments, code, said):
    done = run(pairs, "--out", tmp_path / "out", *arguments)
    assert (done.exit_code, said in done.stderr) == (code, True), done.stderr
    assert not (tmp_path / "out").exists()


def test_bands_that_the_file_does_not_have(tmp_path):
    done = run(make.landslide4sense(tmp_path / "in", 16), "--out", tmp_path / "out", "--bands", "4,15")
    assert done.exit_code == 2 and "--bands" in done.stderr and "Expected numbers 1 to 14" in done.stderr


def empty(folder: Path) -> None:
    folder.mkdir()


def images_only(folder: Path) -> None:
    make.picture(folder / "a.png")


def broken_json(folder: Path) -> None:
    make.coco(folder, [])
    (folder / "annotations.json").write_text("{")


def lost_images(folder: Path) -> None:
    make.coco(folder, [])
    shutil.rmtree(folder / "images")


def broken_yaml(folder: Path) -> None:
    make.yolo(folder, {"train/a": "0 0 0 1 0 1 1\n"}, names="names: [a\n")


def binary_labels(folder: Path) -> None:
    make.yolo(folder, {"train/a": "0 0 0 1 0 1 1\n", "train/b": ""})
    (folder / "train" / "labels" / "b.txt").write_bytes(b"\xff\xfe\x00")


def no_hdf5(folder: Path) -> None:
    make.landslide4sense(folder, 16)
    for path in folder.rglob("*.h5"):
        path.write_bytes(b"not HDF5")


def other_sizes(folder: Path) -> None:
    make.picture(folder / "images" / "a.png")
    make.mask(folder / "masks" / "a.png", make.corner(height=7))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (empty, "Found no files"),
        (images_only, "expected Landslide4Sense HDF5 files, images and masks"),
        (broken_json, "annotations.json: expected a JSON file"),
        (lost_images, "First image: 0.png (image file that does not exist)"),
        (broken_yaml, "data.yaml: expected a YAML file with the names of the classes"),
        (binary_labels, "b.txt: cannot be read as a label file"),
        (no_hdf5, "no readable HDF5 file"),
        (other_sizes, "the mask is 8 x 7 px, its image is 8 x 6 px"),
    ],
)
def test_sources_that_cannot_be_used(tmp_path, spoil, said):
    spoil(tmp_path / "in")
    done = run(tmp_path / "in", "--out", tmp_path / "out")
    assert (done.exit_code, done.stdout) == (1, ""), done.output
    assert said in done.stderr and "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_archives_are_unpacked_first(tmp_path):
    (tmp_path / "set.zip").write_bytes(b"PK")
    done = run(tmp_path / "set.zip", "--out", tmp_path / "out")
    assert done.exit_code == 1 and "Unpack it first" in done.stderr


def test_two_formats_in_one_folder(tmp_path, pairs):
    make.coco(pairs, [make.outline(1, 0, 0, 2, 0, 2, 2)])
    done = run(pairs, "--out", tmp_path / "out")
    assert done.exit_code == 2 and "holds coco and pairs. Name the one to convert as --format" in done.stderr
    assert run(pairs, "--out", tmp_path / "out", "--format", "coco").exit_code == 0


def test_a_killed_call_begins_again(tmp_path):
    for number in range(40):
        make.picture(tmp_path / "in" / f"{number}.png", height=64, width=64, seed=number)
        make.mask(tmp_path / "in" / f"{number}_mask.png", make.corner(height=64, width=64))
    out = tmp_path / "out"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-m", "lim_keras", "data", "convert", str(tmp_path / "in"), "--out", str(out)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not any(tmp_path.glob(".out.*.partial/images/*")):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and not out.exists()
    assert run(tmp_path / "in", "--out", out).exit_code == 0
    assert len(read_tiles(out)) == 40
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


def test_images_of_no_landslide_get_a_warning(tmp_path):
    make.picture(tmp_path / "in" / "a.png")
    make.mask(tmp_path / "in" / "a_mask.png", np.zeros((6, 8)))
    done = run(tmp_path / "in", "--out", tmp_path / "out")
    assert done.exit_code == 0 and "no image has a landslide" in done.stderr
