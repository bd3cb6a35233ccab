"""Shared options and click types of the commands, and error messages that name options."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from lim_keras.errors import ConfigError, LimKerasError
from lim_keras.object_storage import is_storage_address

Function = TypeVar("Function", bound=Callable[..., Any])


class NewPath(click.Path):
    """Click type of a path to write to; an empty text, such as that of an unset variable, is no path."""

    expected = "a path on this machine"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("expected a path. Received: an empty text.", param, ctx)
        if isinstance(value, str) and _ADDRESS.match(value) and not os.path.lexists(value):
            self.fail(f"expected {self.expected}. Received: the address {value}.", param, ctx)
        return super().convert(value, param, ctx)


class NewPlace(NewPath):
    """Click type of a folder to write to, or of an address in object storage, which stays a text."""

    expected = "a path on this machine, or s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and is_storage_address(value):
            return value  # the function that is called checks it
        return super().convert(value, param, ctx)


class Scene(click.Path):
    """Click type of a raster: a path, or a text for a URL or a GDAL name, of which a path would lose slashes."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and _REMOTE.match(value) and not os.path.lexists(value):
            return value
        return super().convert(value, param, ctx)


_REMOTE = re.compile(r"/vsi\w+/|[A-Za-z][\w+.-]+:/")
_ADDRESS = re.compile(r"(?!file:)(/vsi\w+/|[A-Za-z][\w+.-]+://)")

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
SCENE = click.Path(exists=True, path_type=Path)
RASTER = Scene(exists=True, path_type=Path)
DEM = Scene(exists=True, dir_okay=False, path_type=Path)
SCENES = Scene(path_type=Path)
FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
TILES = click.Path(exists=True, path_type=Path)
NEW_FILE = NewPath(dir_okay=False, path_type=Path)
NEW_FOLDER = NewPath(file_okay=False, path_type=Path)
NEW_PLACE = NewPlace(file_okay=False, path_type=Path)

_ARGUMENT = re.compile(r"(?<!column )(?<!key )(?<!output )(?<!mean )`(\w+)`")


class Command(click.Command):
    """Command that replaces argument names of the API by option names in error messages."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except LimKerasError as error:
            message = with_options(str(error), ctx)
            if isinstance(error, ConfigError) and message != str(error):
                raise click.UsageError(message, ctx) from error
            raise click.ClickException(message) from error


def with_options(message: str, context: click.Context | None) -> str:
    """Replace each argument in backticks by the option of the running command that sets it."""
    parameters = {} if context is None else {one.name: one for one in context.command.params}

    def replaced(match: re.Match[str]) -> str:
        parameter = parameters.get(match[1])
        return match[0] if parameter is None else _label(parameter)

    return _ARGUMENT.sub(replaced, message)


def _label(parameter: click.Parameter) -> str:
    return parameter.opts[0] if isinstance(parameter, click.Option) else parameter.human_readable_name


def refuse_without(option: str, names: Collection[str]) -> None:
    """Refuse options of the running command that need another, missing option.

    Args:
        option: the option that is missing, for the message.
        names: parameters that need it.
    """
    context = click.get_current_context()
    given = [
        _label(one)
        for one in context.command.params
        if one.name in names and context.get_parameter_source(one.name) is not ParameterSource.DEFAULT
    ]
    if given:
        raise click.UsageError(f"{', '.join(given)}: only with {option}. Give it, or leave the others out.")


class Parsed(click.ParamType):  # type: ignore[type-arg]
    """Click type of a value that a function parses.

    Args:
        name: placeholder of the value in help texts.
        parse: converts the text. For invalid text it raises ValueError or LimKerasError; the message is shown.
    """

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except (ValueError, LimKerasError) as error:
            named = f"Invalid value for `{param.name}`. " if param else ""  # click names the option itself
            self.fail(str(error).removeprefix(named), param, ctx)


def _nodata(text: str) -> float | str:
    if text in ("file", "none"):
        return text
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{text!r}: expected a number, `nan` or `none`") from None


def _bands(text: str) -> tuple[int | str, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise ValueError(f"{text!r}: expected band numbers or names separated by commas, such as 3,2,1")
    return tuple(int(part) if part.isdecimal() else part for part in parts)


def _scale(text: str) -> tuple[float, float]:
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"{text!r}: expected two numbers with a comma between them, such as 0,3000") from None
    if not low < high:
        raise ValueError(f"{text!r}: expected LOW < HIGH")
    return low, high


def _memory(text: str) -> int:
    from lim_keras.bundle.window_size import parse_memory

    return parse_memory(text)


BANDS = Parsed("B,B,...", _bands)
SCALE = Parsed("LOW,HIGH", _scale)
NODATA = Parsed("VALUE", _nodata)
"""Types of the options that say how scenes are read."""

READING = ("bands", "scale", "nodata", "gsd_m", "resample", "tta", "exact", "memory", "tile")
"""Parameters of `scene_options`."""


def scene_options(command: Function) -> Function:
    """Add the options for reading and predicting scenes."""
    return _add(
        command,
        click.option(
            "--bands",
            type=BANDS,
            help="Bands to read, in the bundle's order: numbers from 1, descriptions or colours [default: all; of "
            "Sentinel-2 products B04,B03,B02].",
        ),
        click.option(
            "--scale",
            type=SCALE,
            help="Map raw values LOW..HIGH to the full range of the model's data type [default: no scaling; of "
            "Sentinel-2 products as in their true-colour images].",
        ),
        click.option(
            "--nodata",
            type=NODATA,
            metavar="VALUE|nan|none",
            default="file",
            help="Value that replaces the nodata value of the file; none: ignore nodata value, mask and alpha "
            "[default: use those of the file].",
        ),
        click.option(
            "--gsd",
            "gsd_m",
            type=click.FloatRange(0, min_open=True),
            help="Ground sample distance, metres, of scenes whose files do not record it.",
        ),
        click.option(
            "--resample",
            is_flag=True,
            help="Resample scenes to square pixels of the bundle's ground sample distance, if the distances differ by "
            "more than a factor of 1.5, or the pixels are stretched by more than 1.2:1 on the ground.",
        ),
        click.option(
            "--tta", is_flag=True, help="Average over the eight symmetries of each window; takes eight times as long."
        ),
        click.option(
            "--exact",
            is_flag=True,
            help="Give windows the network's whole receptive field as halo [default: the halo measured to change no "
            "probability by more than 0.001, if the bundle has one].",
        ),
        click.option(
            "--memory",
            type=Parsed("SIZE", _memory),
            help="Largest memory of the process, such as 4G [default: 1.5G for one network, 2.5G for five].",
        ),
        click.option(
            "--tile",
            type=click.IntRange(1),
            help="Height and width of a window, pixels [default: a size that fits into the default of --memory].",
        ),
    )


def rule_options(command: Function) -> Function:
    """Add the options that choose which regions of a map are landslides."""
    return _add(
        command,
        click.option(
            "--working-point",
            type=click.Choice(["sensitive", "balanced", "strict"]),
            help="Working point of the bundle's object rule, which decides which regions of a map are landslides: "
            "sensitive finds more landslides, strict gives fewer false alarms [default: balanced, if the bundle has a "
            "rule].",
        ),
        click.option(
            "--all",
            "all_regions",
            is_flag=True,
            help="Do not use the bundle's object rule: every region of pixels that reach the threshold is a landslide.",
        ),
    )


def run_options(command: Function) -> Function:
    """Add the argument and the options of a command that trains."""
    return _add(
        command,
        click.argument("config", type=FILE),
        click.option(
            "--data", "tiles", required=True, type=TILES, help="Tiles: a folder or a tiles.csv.", metavar="PATH"
        ),
        *_split_options(),
        click.option(
            "--encoder-weights",
            metavar="FILE",
            help="Weights of the encoder: a file, `imagenet` or `none` [default: model.encoder_weights].",
        ),
        click.option(
            "--start-from",
            metavar="BUNDLE",
            type=FOLDER,
            help="Bundle of one model: training starts from its weights. It must not have been trained on test or "
            "validation tiles.",
        ),
        click.option("--run", type=NewPath(path_type=Path), help="Run folder [default: runs/NAME]."),
        click.option(
            "--export",
            type=NewPath(path_type=Path),
            help="Folder of the exported bundle [default: exported_models/NAME].",
        ),
        click.option(
            "--set",
            "overrides",
            multiple=True,
            metavar="KEY=VALUE",
            help="Set a key of the configuration, such as training.epochs=3; may be repeated.",
        ),
    )


def _split_options() -> tuple[Callable[[Function], Function], ...]:
    """Return the options that set test tiles and folds."""
    return (
        click.option(
            "--test",
            "test_ids",
            type=FILE,
            help="File with the ids of the test tiles, one a line. They train no model.",
        ),
        click.option(
            "--folds",
            type=click.Choice(["random", "spatial"]),
            help="Folds and validation tiles: random, or spatial, whole blocks of neighbouring tiles "
            "[default: split.method]. The number of folds of cv: --set folds=5.",
        ),
        click.option(
            "--buffer",
            "buffer_m",
            type=float,
            metavar="METRES",
            help="Spatial folds: leave out training tiles that are nearer to a held-out tile than this "
            "[default: split.buffer_m].",
        ),
        click.option(
            "--allow-leak",
            is_flag=True,
            help="Warn, in place of an error, if test tiles share ground, groups or files with training tiles. The "
            "test scores are then too good, and they are marked.",
        ),
    )


def validation_option(command: Function) -> Function:
    """Add the option `--val`."""
    return _add(
        command,
        click.option(
            "--val",
            "validation_ids",
            type=FILE,
            help="File with the ids of the validation tiles, one a line [default: a share of "
            "training.validation_fraction, drawn as --folds says; groups stay whole].",
        ),
    )


def wait_option(command: Function) -> Function:
    """Add the option `--wait`."""
    return _add(
        command,
        click.option(
            "--wait",
            is_flag=True,
            help="Wait for the end of another call that writes to the same place [default: end with an error].",
        ),
    )


def workers_option(command: Function) -> Function:
    """Add the option `--workers`."""
    return _add(
        command,
        click.option(
            "--workers",
            metavar="ray://HOST:PORT|auto",
            help="Work on the machines of this Ray cluster. auto: the cluster that RAY_ADDRESS names, otherwise a Ray "
            "that is started here. All machines must have the files under the same paths [default: this machine, "
            "without Ray].",
        ),
    )


def _add(command: Function, *options: Callable[[Function], Function]) -> Function:
    for option in reversed(options):
        command = option(command)
    return command
