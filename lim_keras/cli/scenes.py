"""What the commands that read scenes share: their options, by which a scene is shown to a model as it expects it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from lim_keras.errors import DataError


class NodataType(click.ParamType):  # type: ignore[type-arg]
    """A number, "nan", or "none"."""

    name = "VALUE|nan|none"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Text to what `SceneReader` takes."""
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
        from lim_keras.inference.memory import parse_memory

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
    "symmetries": "--tta",
    "memory": "--memory",
    "tile": "--tile",
}
"""The options, by their names in `lim_keras.inference.options.PredictOptions`."""


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
            click.option(
                "--tta", "symmetries", is_flag=True, help="Average over eight symmetries: eight times the time."
            ),
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
