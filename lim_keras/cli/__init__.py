"""The command `lim-keras`: one short file a command, imported only when it is called, so that help is quick."""

import importlib
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

import click

from lim_keras import __version__
from lim_keras.errors import LimKerasError, LimKerasWarning

COMMANDS = {
    "data": "Look at tiles: counts, imbalance ratios, centre bias.",
    "fit": "Train one model on tiles and export it.",
    "cv": "Train and export k models by cross-validation, and their ensemble.",
    "distill": "Train one small model on what an ensemble says, and export it.",
    "evaluate": "Judge an exported bundle on tiles, windows and a scene.",
    "predict": "Map the landslides of scenes: maps, polygons, previews.",
    "info": "Print what an exported bundle says of itself.",
    "verify": "Check that an exported bundle is still what was exported.",
    "export": "Export a bundle to LiteRT (TFLite) files and to a TensorFlow Serving repository.",
    "demo": "Show the whole way, from tiles to figures, on a made-up world.",
}
"""Name and summary of every command."""

_MODULES = {
    **dict.fromkeys(("fit", "cv", "distill"), "train"),
    **dict.fromkeys(("predict", "evaluate"), "scenes"),
    **dict.fromkeys(("info", "verify", "export"), "bundle"),
    **dict.fromkeys(("data", "demo"), "data"),
}
"""Module of `lim_keras.cli` that holds the click command of each name."""

_INTERRUPTED = 130  # what a shell reports for a program ended by Ctrl-C: 128 + SIGINT


class _Commands(click.Group):
    """A group that knows its commands by name and summary, and turns this package's errors and warnings into lines."""

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

    def invoke(self, ctx: click.Context) -> Any:
        with _warnings_as_lines():
            try:
                return super().invoke(ctx)
            except LimKerasError as error:
                raise click.ClickException(str(error)) from error
            except BrokenPipeError:  # click ends without a word
                raise
            except OSError as error:
                raise click.ClickException(_of_system(error)) from error
            except KeyboardInterrupt:
                click.echo("Interrupted.", err=True)
                ctx.exit(_INTERRUPTED)


def _of_system(error: OSError) -> str:
    """One line of an error that nothing below could say more about, such as a full disk."""
    reason = " ".join(str(error.strerror or error).split())
    return f"{error.filename}: {reason}." if error.filename else f"{reason}."


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="lim-keras")
def main() -> None:
    """Landslide inventory maps from optical imagery: tiles in, five models and their ensemble out."""
    # TensorFlow reads this when it is imported. 3: its log repeats what it raises, or complains of a missing GPU.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@contextmanager
def _warnings_as_lines() -> Iterator[None]:
    """Show this package's warnings as one line each on standard error, without the source line that issued them."""
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
            click.echo(f"Warning: {message}", err=True)
        else:
            show(message, category, filename, lineno, file, line)

    with warnings.catch_warnings():
        warnings.simplefilter("default", LimKerasWarning)
        warnings.showwarning = show_line
        yield
