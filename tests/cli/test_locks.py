"""A second call on one place ends with the name of the first, before any work."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from lim_keras.cli import main
from lim_keras.lock import folder_lock

FIT = ["tiny.yaml", "--data", "data", "--run", "out/run", "--export", "out/tiny"]


@pytest.mark.parametrize(
    ("arguments", "busy", "option"),
    [
        (["fit", *FIT], "out/run", "--run"),
        (["fit", *FIT], "out/tiny", "--export"),
        (["cv", *FIT], "out/run", "--run"),
        (["distill", "out", *FIT], "out/tiny", "--export"),
        (["data", "stats", "data", "--json", "out/stats.json"], "out/stats.json", "--json"),
        (["evaluate", "out", "--data", "data", "--json", "out/scores.json"], "out/scores.json", "--json"),
        (["evaluate", "out", "--data", "data", "--figures", "out/figures"], "out/figures", "--figures"),
        (["export", "out", "--tflite", "float32"], "out", "BUNDLE"),
        (["export", "out", "--tflite", "float32", "--out", "out/files"], "out/files", "--out"),
        (["export", "out", "--serving", "out/served"], "out/served", "--serving"),
        (["demo", "--out", "out/demo"], "out/demo", "--out"),
    ],
)
def test_the_second_call_says_who_works_there(workplace: Path, monkeypatch, arguments, busy, option) -> None:
    monkeypatch.chdir(workplace)
    (workplace / "out").mkdir()
    place = workplace / busy
    with folder_lock(place.parent, entry=place.name):
        done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 1 and len(done.stderr.splitlines()) == 1, done.output
    assert f"{place}: in use by process " in done.stderr and ", since 20" in done.stderr
    assert f"give --wait, or give another folder as {option}." in done.stderr
    assert not list(place.glob("*")) or busy == "out"


def test_a_call_that_waits(workplace: Path, monkeypatch) -> None:
    monkeypatch.chdir(workplace)
    other = folder_lock(workplace, entry="stats.json")
    other.__enter__()
    monkeypatch.setattr("lim_keras.lock.time.sleep", lambda seconds: other.__exit__(None, None, None))
    done = CliRunner().invoke(main, ["data", "stats", "data", "--json", "stats.json", "--wait"])
    assert done.exit_code == 0 and "waiting for the end of process" in done.stderr
    assert (workplace / "stats.json").exists() and not list(workplace.glob(".*"))


def test_a_bundle_that_would_replace_its_run(workplace: Path, monkeypatch) -> None:
    monkeypatch.chdir(workplace)
    arguments = ["fit", "tiny.yaml", "--data", "data", "--run", "out/run"]
    for export in ("out", "out/run", "out/../out"):
        done = CliRunner().invoke(main, [*arguments, "--export", export])
        assert done.exit_code == 2 and "holds the run folder out/run" in done.stderr
        assert not (workplace / "out").exists()


def test_files_that_users_added_to_a_bundle_stop_a_training_before_it_begins(workplace: Path, monkeypatch) -> None:
    monkeypatch.chdir(workplace)
    (workplace / "exported_models" / "tiny").mkdir(parents=True)
    (workplace / "exported_models" / "tiny" / "notes.txt").write_text("mine")
    done = CliRunner().invoke(main, ["fit", "tiny.yaml", "--data", "data"])
    assert done.exit_code == 1 and "Give another folder as --export." in done.stderr
    assert not (workplace / "runs").exists()


def test_a_run_folder_of_other_files_is_named_as_such(workplace: Path, monkeypatch) -> None:
    monkeypatch.chdir(workplace)
    (workplace / "run").mkdir()
    for name in ("config.yaml", "tiles.csv", "statistics.json", "curves.png"):
        (workplace / "run" / name).write_text("mine")
    done = CliRunner().invoke(main, ["fit", "tiny.yaml", "--data", "data", "--run", "run"])
    names = ("config.yaml", "tiles.csv", "statistics.json", "curves.png")
    listed = ", ".join(f"{name} (not written by lim-keras)" for name in names)
    assert done.exit_code == 1 and f"reads: {listed}. Nothing was replaced." in done.stderr
    assert {path.read_text() for path in (workplace / "run").iterdir()} == {"mine"}
