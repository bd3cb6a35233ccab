"""`lim-keras info` and `lim-keras verify` as a user runs them."""

import os
import shutil
from pathlib import Path

import keras
import pytest
from click.testing import CliRunner, Result

from lim_keras.cli import main
from lim_keras.export.bundle import write_bundle
from lim_keras.metrics.binary import Estimate
from tests.conftest import model_facts


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported_models") / "grey"
    facts = model_facts(
        name="grey",
        model={"name": "fcn", "encoder": "[small]"},
        bands=2,
        dtype="uint16",
        threshold=0.375,
        temperature=1.25,
        metrics={"out_of_fold": {"f1": Estimate(0.7, 0.6, 0.8)}},
        training_tiles=("a", "b", "c"),
    )
    image = keras.Input((None, None, 2))
    write_bundle(path, facts, [keras.Model(image, keras.layers.Conv2D(1, 1)(image))])
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(one) for one in arguments])


def test_info(exported: Path) -> None:
    done = run("info", exported)
    assert done.exit_code == 0, done.output
    lines = [" ".join(part.strip() for part in line.split("│")) for line in done.stdout.splitlines()]
    for words in (
        "network fcn",
        "encoder [small]",
        "ground sample distance 0.8 m",
        "folds 1",
        "threshold 0.3750",
        "calibration temperature 1.2500, bias 0.0000",
        "training tiles 3",
        "out_of_fold f1 0.700 0.600 to 0.800",
        "fold_0 5",
    ):
        assert any(words in line for line in lines), (words, lines)
    assert "tensorflow" in done.stdout and "2, uint16" in done.stdout and "8 files" in done.stdout


def test_verify(exported: Path) -> None:
    done = run("verify", exported)
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout == f"{exported}: 8 files, signatures and the stored answer are as exported.\n"


def test_verify_finds_a_flipped_byte(exported: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(exported, tmp_path / "grey"))
    file = next((copied / "fold_0" / "1" / "variables").glob("*.data-*"))
    content = bytearray(file.read_bytes())
    content[0] ^= 255
    file.write_bytes(content)
    os.truncate(copied / "README.md", 3)
    done = run("verify", copied)
    assert (done.exit_code, done.stdout) == (1, "")
    first, second = done.stderr.splitlines()
    assert first.startswith(f"Difference: {copied / 'README.md'}: expected")
    assert second.startswith(f"Difference: {file}: its content is not what was exported")


@pytest.mark.parametrize("command", ["info", "verify"])
def test_no_bundle(command: str, tmp_path: Path) -> None:
    done = run(command, tmp_path)
    assert done.exit_code == 1
    assert done.stderr.startswith(f"Error: {tmp_path / 'model.json'}: not found")


@pytest.mark.parametrize(("option", "last"), [("--json", "figures.json"), ("--figures", "figures")])
def test_a_result_that_has_no_place_is_said_before_the_work(
    exported: Path, tmp_path: Path, option: str, last: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def evaluate_bundle(*arguments: object, **named: object) -> None:
        raise AssertionError("judged")

    monkeypatch.setattr("lim_keras.evaluation.bundle_report.evaluate_bundle", evaluate_bundle)
    (tmp_path / "file").write_text("mine")
    done = run("evaluate", exported, "--data", tmp_path, option, tmp_path / "file" / last)
    assert done.exit_code == 1, done.output
    assert done.stderr.startswith(f"Error: {tmp_path / 'file' / last}: cannot be ") and option in done.stderr
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("inner", [".", "tflite", "new/folder"])
@pytest.mark.parametrize(
    ("command", "option"),
    [
        (["predict", "grey", "scene.tif"], "--out"),
        (["evaluate", "grey", "--data", "."], "--figures"),
        (["evaluate", "grey", "--data", "."], "--json"),
        (["data", "stats", "."], "--json"),
        (["fit", "fit.yaml", "--data", "."], "--run"),
    ],
)
def test_results_never_lie_in_a_bundle(exported: Path, tmp_path: Path, monkeypatch, command, option, inner) -> None:
    shutil.copytree(exported, tmp_path / "grey")
    (tmp_path / "fit.yaml").write_text("name: fit\n")
    (tmp_path / "scene.tif").touch()
    (tmp_path / "link").symlink_to("grey")
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    for folder in ("grey", "link"):
        place = Path(folder, inner, *(["x.json"] if option == "--json" else []))
        done = CliRunner().invoke(main, [*command, option, str(place)])
        shown = place.parent if option == "--json" else place
        assert done.exit_code == 1 and f"{shown}: expected a place outside of bundles." in done.stderr, done.output
        assert f"in the bundle {tmp_path / 'grey'}, " in done.stderr
        assert done.stderr.endswith(f"Give another place as {option}.\n")
        assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("command", [["evaluate", "grey", "--data", "data"], ["data", "stats", "data"]])
def test_a_json_file_that_cannot_be_written(
    exported: Path, tmp_path: Path, bijie_folder, monkeypatch, command: list[str]
) -> None:
    shutil.copytree(exported, tmp_path / "grey")
    bijie_folder(tmp_path / "data")
    (tmp_path / "my.json").write_text("mine")
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, [*command, "--json", "my.json"])
    assert (done.exit_code, done.stderr) == (
        1,
        "Error: my.json: the report would replace my.json (not written by lim-keras, or changed since). Nothing was "
        "replaced. Move or rename it, or give another file as --json.\n",
    )
    for place in ("my.json/x.json", "my.json/new/x.json"):
        done = CliRunner().invoke(main, [*command, "--json", place])
        reason = "cannot be written (my.json is a file, not a folder). Give another file as --json."
        assert (done.exit_code, done.stderr) == (1, f"Error: {place}: {reason}\n")
    assert (tmp_path / "my.json").read_text() == "mine"
