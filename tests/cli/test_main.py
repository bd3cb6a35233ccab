"""The root command: help without TensorFlow, errors and warnings as lines, exit codes."""

import os
import subprocess
import sys
import time
import types
import warnings
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import lim_keras
from lim_keras.cli import COMMANDS, main
from lim_keras.cli.options import Command
from lim_keras.errors import ConfigError, DataError, DomainWarning
from lim_keras.tensorflow_import import load_tensorflow


def run(*arguments: str) -> subprocess.CompletedProcess:
    """The real program in a process of its own."""
    command = [sys.executable, "-m", "lim_keras", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_help_lists_every_command_and_is_quick():
    fastest = float("inf")
    for _ in range(3):  # the best of three: another process may hold the machine
        start = time.perf_counter()
        done = run("--help")
        fastest = min(fastest, time.perf_counter() - start)
    assert done.returncode == 0
    assert done.stderr == ""
    assert done.stdout.startswith("Usage: lim-keras [OPTIONS] COMMAND")
    for name, summary in COMMANDS.items():
        assert name in done.stdout
        assert summary in done.stdout
    assert fastest < 1.5


def test_version():
    assert run("--version").stdout == f"lim-keras, version {lim_keras.__version__}\n"


def test_unknown_command():
    done = run("trane")
    assert done.returncode == 2
    assert "No such command 'trane'" in done.stderr


def test_options_of_the_object_rule_are_the_same_in_all_commands():
    from lim_keras.cli.models import evaluate
    from lim_keras.cli.prediction import predict

    for name in ("working_point", "all_regions"):
        one, other = (next(p for p in command.params if p.name == name) for command in (predict, evaluate))
        assert one.to_info_dict() == other.to_info_dict()


def test_help_of_every_command_does_not_load_tensorflow():
    program = """
import sys
from lim_keras.cli import COMMANDS, main
for name in COMMANDS:
    main([name, "--help"], standalone_mode=False)
    assert not {"tensorflow", "keras"} & set(sys.modules), f"{name}: TensorFlow or Keras was imported"
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.count("Usage: ") == len(COMMANDS)


@pytest.fixture
def demo_that(monkeypatch):
    """Put a function in the place of `lim-keras demo` and run it; the result holds exit code and both streams."""

    def run_function(function):
        stand_in = types.ModuleType("lim_keras.cli.training")
        stand_in.demo = click.command()(function)
        monkeypatch.setitem(sys.modules, "lim_keras.cli.training", stand_in)
        return CliRunner().invoke(main, ["demo"])

    return run_function


def test_error_of_the_package_is_one_line_and_exit_code_1(demo_that):
    def fail():
        raise DataError("tiles.csv: the column `tile_id` is missing.")

    result = demo_that(fail)
    assert result.exit_code == 1
    assert result.stderr == "Error: tiles.csv: the column `tile_id` is missing.\n"
    assert result.stdout == ""


@pytest.fixture
def command_that(monkeypatch):
    """Like `demo_that`, with an argument and options as commands have them."""

    def run_function(function, *arguments):
        stand_in = types.ModuleType("lim_keras.cli.training")
        declared = [
            click.argument("tiles", metavar="DATA"),
            click.option("--min-slope", "min_slope_deg"),
            click.option("--dem"),
        ]
        for one in declared:
            function = one(function)
        stand_in.demo = click.command(cls=Command)(function)
        monkeypatch.setitem(sys.modules, "lim_keras.cli.training", stand_in)
        return CliRunner().invoke(main, ["demo", "tiles", *arguments])

    return run_function


def test_errors_and_warnings_name_options(command_that):
    def fail(**given):
        warnings.warn("`dem` is in feet", DomainWarning, stacklevel=1)
        raise ConfigError("`min_slope_deg` needs `dem`; `tiles` and `truth` do not, nor does the key `dem`.")

    result = command_that(fail)
    assert result.exit_code == 2
    assert result.stderr.startswith("Warning: --dem is in feet\nUsage: ")
    said = "Error: --min-slope needs --dem; DATA and `truth` do not, nor does the key `dem`.\n"
    assert result.stderr.endswith(said)


def test_an_error_of_data_is_no_error_of_usage(command_that):
    def fail(**given):
        raise DataError("dem.tif: cannot be read. Give another file as `dem`.")

    result = command_that(fail)
    assert (result.exit_code, result.stderr) == (1, "Error: dem.tif: cannot be read. Give another file as --dem.\n")


def test_any_other_error_keeps_its_traceback(demo_that):
    def fail():
        raise ZeroDivisionError

    assert isinstance(demo_that(fail).exception, ZeroDivisionError)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(28, "No space left on device", "figures.json"), "figures.json: No space left on device."),
        (OSError("cannot open\n  weights"), "cannot open weights."),
        (
            MemoryError("Unable to allocate\n9 GiB"),
            "Not enough memory (Unable to allocate 9 GiB). Close other programs.",
        ),
        (MemoryError(), "Not enough memory (no more is free). Close other programs."),
    ],
)
def test_an_error_of_the_system_is_one_line_and_exit_code_1(demo_that, error, line):
    def fail():
        raise error

    result = demo_that(fail)
    assert (result.exit_code, result.stderr) == (1, f"Error: {line}\n")


def test_a_reader_that_has_gone_is_no_error_to_speak_of(demo_that):
    def fail():
        raise BrokenPipeError(32, "Broken pipe")

    result = demo_that(fail)
    assert (result.exit_code, result.stderr) == (1, "")


def test_interruption_ends_with_130(demo_that):
    def interrupt():
        raise KeyboardInterrupt

    result = demo_that(interrupt)
    assert result.exit_code == 130
    assert result.stderr == "Interrupted.\n"


def test_warning_of_the_package_is_one_line(demo_that):
    def warn():
        for _ in range(2):  # said once, however often it is issued
            warnings.warn("the scene has 10 m pixels, the model learned at 0.8 m", DomainWarning, stacklevel=1)

    show = warnings.showwarning
    result = demo_that(warn)
    assert result.exit_code == 0
    assert result.stderr == "Warning: the scene has 10 m pixels, the model learned at 0.8 m\n"
    assert warnings.showwarning is show


def test_other_warnings_are_left_alone(demo_that):
    def warn():
        warnings.warn("from elsewhere", UserWarning, stacklevel=1)

    result = demo_that(warn)
    assert isinstance(result.exception, UserWarning)  # pytest turns warnings into errors


def test_tensorflow_is_told_to_be_quiet_unless_the_user_decides(monkeypatch):
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    load_tensorflow()
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "3"
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    load_tensorflow()
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "0"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("arguments", ["--version", "--help", "data stats data"])
def test_a_full_standard_output_is_named(tmp_path, bijie_folder, arguments):
    bijie_folder(tmp_path / "data")
    command = f"{sys.executable} -m lim_keras {arguments}"
    program = ["sh", "-c", f"{command} > /dev/full; echo $?; {command} | true"]
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "1\n"
    assert done.stderr.startswith("Error: standard output: ") and done.stderr.count("\n") == 1
    assert "No space left on device" in done.stderr
