"""Group of commands on reviews: `review`."""

from __future__ import annotations

import os
import sys
import webbrowser
from pathlib import Path
from typing import Any

import click

from lim_keras import api
from lim_keras.cli.options import DEM, NEW_FOLDER, RASTER, SCENE, Command, Parsed

_PAGE = "page"


class _WithPage(click.Group):
    """Group whose command `page` runs where no other is named."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = [_PAGE, *args]
        return super().parse_args(ctx, args)


@click.group(cls=_WithPage)
def review() -> None:
    """Check an inventory: `lim-keras review MAPS` opens the review page in the browser.

    `lim-keras review page --help` shows its options.
    """


def _names(text: str) -> tuple[str, ...]:
    names = tuple(part.strip() for part in text.split(","))
    if not all(names) or len(set(names)) < len(names):
        raise ValueError(f"{text!r}: expected different names with commas between them, such as slide,debris flow")
    return names


@review.command(_PAGE, cls=Command, short_help="Open the review page of MAPS; the word `page` may be left out.")
@click.argument("maps", type=SCENE)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8765,
    show_default=True,
    help="Port of the page on this machine; 0: any that is free.",
)
@click.option("--reviewer", metavar="NAME", help="Name that verdicts record [default: that of the user].")
@click.option("--dem", type=DEM, help="Elevation model for a hillshade, of any CRS and resolution.")
@click.option("--before", type=RASTER, help="Image of another date, to compare the scene with.")
@click.option("--scene", type=RASTER, help="Scene that was mapped, if its file was moved.")
@click.option(
    "--classes",
    type=Parsed("NAME,NAME,...", _names),
    help="Classes of landslides, for a new review [default: slide,debris flow,rockfall,other].",
)
def page(maps: Path, **options: Any) -> None:
    """Open the review page of the folder MAPS that `lim-keras predict` wrote, or of one inventory in it.

    The page is served to this machine only, until Ctrl-C. Verdicts are saved at once in MAPS/<scene>_review.gpkg.
    """
    api.review_maps(maps, ready=_show_link, **options)


@review.command(cls=Command, short_help="Write the reviewed landslides of MAPS in all formats, with a summary.")
@click.argument("maps", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=NEW_FOLDER, help="Folder of the files.")
@click.option(
    "--all-statuses",
    is_flag=True,
    help="Write all landslides with their status, also rejected ones and those without a verdict [default: accepted "
    "ones].",
)
def export(maps: Path, out: Path, all_statuses: bool) -> None:
    """Write the reviewed landslides of the folder MAPS, or of one inventory or review in it.

    Each scene gets <scene>_reviewed as GeoPackage, GeoParquet, GeoJSON and shapefile, and <scene>_review.html with a
    map, counts and plots; review_counts.csv has the counts of all scenes.
    """
    done = api.export_review(maps, out, all_statuses=all_statuses)
    table = done.counts.groupby("status")[["landslides", "area_m2"]].sum()
    for status, row in table.iterrows():
        noun = "landslide" if row["landslides"] == 1 else "landslides"
        click.echo(f"{status}: {row['landslides']:,.0f} {noun}, {row['area_m2']:,.0f} m2")
    for path in done.files:
        click.echo(str(path))


def _show_link(link: str) -> None:
    """Print the link; open it where somebody sits at a desktop."""
    click.echo(f"Review page: {link}")
    click.echo("Ctrl-C ends it; all verdicts are saved.")
    desktop = sys.platform in ("win32", "darwin") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if desktop and sys.stdout.isatty():
        webbrowser.open(link)
