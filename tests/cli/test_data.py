"""`lim-keras data`: the real command line, its tables, its JSON and its errors."""

import json
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner

from lim_keras.cli import main
from lim_keras.data.layouts import read_tiles


def run(*arguments: object):
    return CliRunner().invoke(main, ["data", *map(str, arguments)])


def test_stats_prints_tables_and_writes_json(tmp_path, bijie_folder):
    data, json_file = bijie_folder(tmp_path / "tiles", 6, 9), tmp_path / "stats.json"
    done = run("stats", data, "--size", 32, "--json", json_file)
    assert done.exit_code == 0, done.output
    for text in ("15 tiles, 3 bands, uint8", "Samples at 32 x 32 (Table 2)", "after augmentation", "image-blind mask"):
        assert text in done.stdout
    assert "\x1b" not in done.stdout
    figures = json.loads(json_file.read_text())
    assert figures["size"] == 32
    table = figures["table_2"]["after_augmentation"]
    assert (table["landslide_samples"], table["non_landslide_samples"]) == (24, 9)
    ratio = table["background_px"] / table["landslide_px"]
    assert figures["imbalance_ratio"]["after_augmentation"] == pytest.approx(ratio)
    assert f"{ratio:.2f}" in done.stdout


def test_stats_of_another_augmentation(tmp_path, bijie_folder):
    json_file = tmp_path / "stats.json"
    assert run("stats", bijie_folder(tmp_path), "--augmentation", "none", "--json", json_file).exit_code == 0
    table = json.loads(json_file.read_text())["table_2"]
    assert table["before_augmentation"] == table["after_augmentation"]


def test_bad_tiles_are_one_error_and_exit_code_1(tmp_path, bijie_folder):
    data = bijie_folder(tmp_path)
    (data / "landslide" / "mask" / "ls_1.png").unlink()
    done = run("stats", data)
    assert done.exit_code == 1
    assert done.stdout == ""
    assert "ls_1" in done.stderr and "Traceback" not in done.stderr


def test_json_that_cannot_be_written(tmp_path, bijie_folder):
    done = run("stats", bijie_folder(tmp_path), "--json", tmp_path / "missing" / "stats.json")
    assert done.exit_code == 1
    assert "stats.json: cannot be written" in done.stderr


@pytest.mark.parametrize("options", [["--size", "0"], ["--augmentation", "fancy"]])
def test_wrong_options(tmp_path, bijie_folder, options):
    assert run("stats", bijie_folder(tmp_path), *options).exit_code == 2


def test_overlaps_writes_a_manifest_with_groups(tmp_path, write_picture):
    rng = np.random.default_rng(0)
    ground = np.kron(rng.integers(0, 255, (60, 60, 3), np.uint8), np.ones((5, 5, 1), np.uint8))
    folder = tmp_path / "tiles" / "non-landslide" / "image"
    write_picture(folder / "a.png", ground[:150, :150])
    write_picture(folder / "b.png", ground[50:200, 60:210])
    write_picture(folder / "c.png", ground[200:, 220:])
    done = run("overlaps", tmp_path / "tiles", "--out", tmp_path / "tiles.csv")
    assert done.exit_code == 0, done.output
    assert "1 overlapping pairs" in done.stdout
    tiles = read_tiles(tmp_path / "tiles.csv")
    assert [tile.group for tile in tiles] == ["a", "a", ""]


def test_tensorflow_stays_out(tmp_path, bijie_folder):
    program = (
        "import sys; from lim_keras.cli import main\n"
        f"main(['data', 'stats', {str(bijie_folder(tmp_path))!r}], standalone_mode=False)\n"
        "sys.exit('tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_files_of_the_user_are_never_replaced(tmp_path, bijie_folder):
    data, report, manifest = bijie_folder(tmp_path / "data"), tmp_path / "stats.json", tmp_path / "tiles.csv"
    assert run("stats", data, "--json", report).exit_code == 0
    assert run("stats", data, "--json", report).exit_code == 0  # of an earlier call, unchanged
    edited = report.read_text().replace('"tiles": 4', '"tiles": 5')
    for content in (edited, "{}", '{"lim_keras_sha256": "x"}', "", "[" * 100_000):
        report.write_text(content)
        done = run("stats", data, "--json", report)
        assert (done.exit_code, done.stdout) == (1, "")
        assert "stats.json (not written by lim-keras, or changed since). Nothing was replaced." in done.stderr
        assert done.stderr.endswith("as --json.\n") and report.read_text() == content
    manifest.write_text("mine")
    done = run("overlaps", data, "--out", manifest)
    assert done.exit_code == 1 and "tiles.csv: exists and would be replaced" in done.stderr
    assert manifest.read_text() == "mine"
    report.unlink()
    report.symlink_to(tmp_path / "mine.json")
    assert run("stats", data, "--json", report).exit_code == 1
    assert not (tmp_path / "mine.json").exists()
