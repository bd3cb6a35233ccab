"""What the commands that train share: their options, and the way from options to a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lim_keras.cli.startup import load_tensorflow

if TYPE_CHECKING:
    from lim_keras.training.run import Run

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def _replaceable(context: click.Context, option: click.Parameter, path: Path | None) -> Path | None:
    """Refused now rather than when the training is over."""
    from lim_keras.export.bundle_info import INFO_FILE
    from lim_keras.export.folders import check_replaceable

    if path is not None:
        check_replaceable(path, INFO_FILE)
    return path


def run_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Arguments and options of a command that trains."""
    for option in reversed(
        [
            click.argument("config", type=_FILE),
            click.option(
                "--data",
                required=True,
                type=click.Path(exists=True, path_type=Path),
                help="Folder of tiles, or a tiles.csv.",
            ),
            click.option("--test", type=_FILE, help="Ids of tiles that no model may see, one a line."),
            click.option(
                "--encoder-weights",
                metavar="FILE",
                help="Weights of the encoder: a file, `imagenet` or `none`; default: what the configuration says.",
            ),
            click.option(
                "--start-from",
                "start",
                metavar="BUNDLE",
                type=click.Path(exists=True, file_okay=False, path_type=Path),
                help="Train on from all weights of this bundle's model; it must not have seen --val or --test tiles.",
            ),
            click.option("--run", "folder", type=click.Path(path_type=Path), help="Run folder [default: runs/<name>]."),
            click.option(
                "--export",
                "bundle",
                type=click.Path(path_type=Path),
                callback=_replaceable,
                help="Where the bundle lands [default: exported_models/<name>].",
            ),
            click.option(
                "--set",
                "overrides",
                multiple=True,
                metavar="KEY=VALUE",
                help="Set a key of the configuration, such as training.epochs=3; may be repeated.",
            ),
        ]
    ):
        command = option(command)
    return command


def begin_at(run: Run, start: Path | None) -> None:
    """Let a run start at a bundle's weights, where --start-from names one."""
    if start is not None:
        load_tensorflow()
        from lim_keras.training.starting import prepare_start

        prepare_start(run, start)


def print_result(text: Sequence[Any]) -> None:
    """Tables and lines to standard output, without colour codes where that is a file."""
    from rich.console import Console

    console = Console(highlight=False, emoji=False)  # a path may hold `:car:`
    if not console.is_terminal:
        console = Console(highlight=False, emoji=False, width=160)
    for part in text:
        console.print(part, soft_wrap=isinstance(part, str))  # a path that is broken in two cannot be copied
