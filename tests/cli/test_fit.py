"""`lim-keras fit` as a user types it."""

import json

import pytest
from click.testing import CliRunner

from lim_keras.cli import main

FIT = ("fit", "tiny.yaml", "--data", "data", "--test", "test.txt")


def in_process(*arguments):
    """Run a command in this process."""
    return CliRunner().invoke(main, arguments)


@pytest.mark.slow
def test_from_tiles_to_a_bundle(workplace, lim_keras, monkeypatch):
    done = lim_keras(
        *FIT, "--set", "training.epochs=1", "--set", "training.tensorboard=true", "--encoder-weights", "none"
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[0].startswith("fit: epoch 1/1  loss ")
    assert len(done.stderr.splitlines()) == 1  # nothing of TensorFlow's, no warnings
    run, bundle = workplace / "runs" / "tiny", workplace / "exported_models" / "tiny"
    assert {path.name for path in run.iterdir()} == {
        *("config.yaml", "tiles.csv", "statistics.json", "run.json", "fold_0", "fit.json", "curves.png"),
    }
    assert {path.name for path in bundle.iterdir()} == {
        "fold_0",
        "model.json",
        "README.md",
        "baseline.npz",
        "stac-item.json",
        "verify.npz",
    }
    summary = json.loads((run / "fit.json").read_text())
    assert {sample["name"] for sample in summary["test"]["tiles"]["samples"]} == {"ls_4", "nls_4"}
    for piece in ("tiny: validation tiles, all pixels", "landslide tiles", "all windows", "blind F1", "run: runs/tiny"):
        assert piece in done.stdout
    assert "\x1b" not in done.stdout + done.stderr  # no colours in files

    monkeypatch.chdir(workplace)
    again = in_process(*FIT, "--set", "training.epochs=1", "--set", "training.tensorboard=true")
    assert again.exit_code == 0 and again.stderr == "" and again.stdout == done.stdout

    other = in_process(*FIT, "--run", str(run))
    assert other.exit_code == 1
    assert "holds a run of another configuration; training.epochs, training.tensorboard differ" in other.stderr

    finished = {path: path.read_bytes() for path in workplace.glob("*s/tiny/**/*") if path.is_file()}
    mask = workplace / "data" / "landslide" / "mask" / "ls_1.png"
    mask.write_bytes((workplace / "data" / "landslide" / "mask" / "ls_2.png").read_bytes())
    image = workplace / "data" / "landslide" / "image" / "ls_1.png"
    image.write_bytes((workplace / "data" / "landslide" / "image" / "ls_2.png").read_bytes())
    corrected = in_process(*FIT, "--set", "training.epochs=1", "--set", "training.tensorboard=true")
    assert corrected.exit_code == 1 and len(corrected.stderr.splitlines()) == 1
    assert f"{image.relative_to(workplace)}, {mask.relative_to(workplace)}. Give another folder as --run" in (
        corrected.stderr
    )
    assert {path: path.read_bytes() for path in workplace.glob("*s/tiny/**/*") if path.is_file()} == finished


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--set", "training.epoch=3"], "training.epochs"),
        (["--set", "sampling.size=33"], "sampling.size"),
        (["--val", "{}/test.txt", "--test", "{}/test.txt"], "2 validation tiles are test tiles too"),
        (["--export", "{}/data"], "data: expected a folder with model.json, an empty one or none"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_trained(workplace, arguments, message):
    given = [argument.format(workplace) for argument in arguments]
    done = in_process(
        "fit", f"{workplace}/tiny.yaml", "--data", f"{workplace}/data", "--run", f"{workplace}/run", *given
    )
    assert done.exit_code == 1 and done.stderr.startswith("Error: ") and message in done.stderr
    assert not (workplace / "run").exists()


def test_bad_tiles_are_all_named_before_anything_is_trained(workplace):
    for name in ("ls_0", "ls_1"):
        (workplace / "data" / "landslide" / "mask" / f"{name}.png").unlink()
    done = in_process("fit", f"{workplace}/tiny.yaml", "--data", f"{workplace}/data", "--run", f"{workplace}/run")
    assert done.exit_code == 1 and "ls_0" in done.stderr and "ls_1" in done.stderr
    assert not (workplace / "run").exists()


def test_missing_files_are_usage_errors(workplace):
    for arguments in (["absent.yaml", "--data", "."], [f"{workplace}/tiny.yaml", "--data", "absent"], []):
        assert in_process("fit", *arguments).exit_code == 2
