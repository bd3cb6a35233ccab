"""Options shared by commands, and their click types."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lim_keras.errors import DataError
from lim_keras.tensorflow_import import load_tensorflow

if TYPE_CHECKING:
    from lim_keras.training.run import Run


_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def _replaceable(context: click.Context, option: click.Parameter, path: Path | None) -> Path | None:
    """Refused now rather than when the training is over."""
    from lim_keras.bundle.info import INFO_FILE
    from lim_keras.files import check_replaceable

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
        from lim_keras.training.warm_start import prepare_warm_start

        prepare_warm_start(run, start)


class NodataType(click.ParamType):  # type: ignore[type-arg]
    """A number, "nan", or "none"."""

    name = "VALUE|nan|none"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Text to what `RasterReader` takes."""
        if value in ("file", "none"):
            return value
        try:
            return float(value)
        except ValueError:
            self.fail(f"{value!r} is no number, and neither `nan` nor `none`", param, ctx)


class BandsType(click.ParamType):  # type: ignore[type-arg]
    """Numbers or names, separated by commas."""

    name = "B,B,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Text to band numbers and names."""
        if isinstance(value, tuple):
            return value
        parts = [part.strip() for part in str(value).split(",")]
        if not all(parts):
            self.fail(f"{value!r}: expected band numbers or names separated by commas, such as 3,2,1", param, ctx)
        return tuple(int(part) if part.isdecimal() else part for part in parts)


class ScaleType(click.ParamType):  # type: ignore[type-arg]
    """Two numbers, separated by a comma."""

    name = "LOW,HIGH"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Text to two numbers."""
        if isinstance(value, tuple):
            return value
        try:
            low, high = (float(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r}: expected two numbers with a comma between them, such as 0,3000", param, ctx)
        if not low < high:
            self.fail(f"{value!r}: expected LOW < HIGH", param, ctx)
        return low, high


class MemoryType(click.ParamType):  # type: ignore[type-arg]
    """A size such as 2G."""

    name = "SIZE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Text to bytes."""
        from lim_keras.bundle.window_size import parse_memory

        if isinstance(value, int):
            return value
        try:
            return parse_memory(value)
        except DataError as error:
            self.fail(str(error), param, ctx)


SCENE_OPTIONS = {
    "bands": "--bands",
    "scale": "--scale",
    "nodata": "--nodata",
    "gsd_m": "--gsd",
    "resample": "--resample",
    "tta": "--tta",
    "memory": "--memory",
    "tile": "--tile",
}
"""The options, by their names in `lim_keras.inference.options.MapOptions`."""


def scene_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options of a command that reads scenes; it gets them by the names of `SCENE_OPTIONS`."""
    for option in reversed(
        [
            click.option(
                "--bands", type=BandsType(), help="Bands by number, description or colour, in the bundle's order."
            ),
            click.option(
                "--scale", type=ScaleType(), help="Raw values that are the darkest and the brightest for the model."
            ),
            click.option(
                "--nodata",
                type=NodataType(),
                default="file",
                help="Which pixels hold no data [default: the file says].",
            ),
            click.option(
                "--gsd",
                "gsd_m",
                type=click.FloatRange(0, min_open=True),
                help="Metres a pixel, where the file does not say.",
            ),
            click.option(
                "--resample", is_flag=True, help="Warp scenes to the bundle's metres a pixel beyond a factor 1.5."
            ),
            click.option("--tta", is_flag=True, help="Average over eight symmetries: eight times the time."),
            click.option(
                "--memory",
                type=MemoryType(),
                help="What the process may take, such as 4G [default: 40 % of what is free]",
            ),
            click.option(
                "--tile", type=click.IntRange(1), help="Pixels a side of a window [default: as the memory allows]."
            ),
        ]
    ):
        command = option(command)
    return command
