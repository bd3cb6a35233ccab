"""Command `lim-keras`. The module of a command is imported on its first call, so that help is quick."""

import importlib
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

import click

from lim_keras import __version__
from lim_keras.cli.options import with_options
from lim_keras.cli.output import discard, report_failure
from lim_keras.errors import LimKerasError, LimKerasWarning

COMMANDS = {
    "data": "Make, convert, count and audit tiles.",
    "fit": "Train one model on tiles and export it.",
    "cv": "Train and export k models in folds, and their ensemble.",
    "distill": "Train one small model on an ensemble and export it.",
    "report": "Report on one training run, or compare several.",
    "evaluate": "Evaluate an exported bundle on tiles, windows and a scene.",
    "predict": "Map the landslides of scenes: maps, polygons, previews.",
    "review": "Check an inventory in the browser, landslide by landslide.",
    "info": "Print model, data, scores and files of an exported bundle.",
    "verify": "Check that an exported bundle is unchanged.",
    "export": "Export a bundle to LiteRT, ONNX or TensorFlow Serving.",
    "demo": "Train, evaluate and map on a small synthetic world.",
    "reproduce": "Reproduce the paper: its tables, figures and claims.",
}
"""Name and summary of every command."""

_MODULES = {
    "data": "data",
    "report": "comparison",
    **dict.fromkeys(("fit", "cv", "distill", "demo"), "training"),
    "reproduce": "reproduction",
    "review": "review",
    "predict": "prediction",
    "export": "exports",
    **dict.fromkeys(("evaluate", "info", "verify"), "models"),
}
"""Module of `lim_keras.cli` that holds the click command of each name."""

_INTERRUPTED = 130  # exit code of programs ended by Ctrl-C: 128 + SIGINT


class _Commands(click.Group):
    """Group of commands, each imported on call. It prints errors and warnings of the package as one line each."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(f"{__name__}.{_MODULES[cmd_name]}"), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        try:
            return super().make_context(*args, **extra)
        except BrokenPipeError:  # click handles it
            raise
        except OSError as error:  # --help and --version print
            discard()
            raise click.ClickException(f"standard output: {_system_error(error)}") from error

    def invoke(self, ctx: click.Context) -> Any:
        with _warnings_as_lines():
            try:
                return _printed(ctx, super().invoke)
            except LimKerasError as error:
                raise click.ClickException(str(error)) from error
            except BrokenPipeError:  # click handles it
                raise
            except OSError as error:
                raise click.ClickException(_system_error(error)) from error
            except MemoryError as error:
                reason = " ".join(str(error).split()) or "no more is free"
                raise click.ClickException(f"Not enough memory ({reason}). Close other programs.") from error
            except KeyboardInterrupt:
                click.echo("Interrupted.", err=True)
                ctx.exit(_INTERRUPTED)


def _printed(context: click.Context, invoke: Callable[[click.Context], Any]) -> Any:
    """Run a command; exit code 1 if it worked, but its lines could not be printed."""
    try:
        result = invoke(context)
    finally:
        failed = report_failure(context)
    if failed:
        context.exit(1)
    return result


def _system_error(error: OSError) -> str:
    """Format an error of the operating system, such as a full disk, as one line."""
    reason = " ".join(str(error.strerror or error).split())
    return f"{error.filename}: {reason}." if error.filename else f"{reason}."


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="lim-keras")
def main() -> None:
    """Map landslides in optical imagery: train models on labelled tiles, evaluate them, and map scenes."""


@contextmanager
def _warnings_as_lines() -> Iterator[None]:
    """Show each warning of the package as one line on standard error, without its line of source code."""
    show = warnings.showwarning

    def show_line(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if issubclass(category, LimKerasWarning):
            context = click.get_current_context(silent=True)
            with suppress(OSError):  # standard error may be closed; the work goes on
                click.echo(f"Warning: {with_options(str(message), context)}", err=True)
        else:
            show(message, category, filename, lineno, file, line)

    with warnings.catch_warnings():
        warnings.simplefilter("default", LimKerasWarning)
        warnings.showwarning = show_line
        yield
