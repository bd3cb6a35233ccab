"""Public function that opens the review page."""

from __future__ import annotations

import getpass
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from lim_keras.api.arguments import as_path, as_raster_path, public
from lim_keras.errors import ConfigError
from lim_keras.files import StrPath

if TYPE_CHECKING:
    from lim_keras.review.export import ReviewExport


@public
def review_maps(
    maps: StrPath,
    *,
    port: int = 8765,
    reviewer: str | None = None,
    dem: StrPath | None = None,
    before: StrPath | None = None,
    scene: StrPath | None = None,
    classes: Sequence[str] | None = None,
    ready: Callable[[str], None] = print,
) -> None:
    """Open the review page of maps on this machine, until Ctrl-C. Needs the extra `review`.

    Each verdict is on the disk before the page shows it, in `<scene>_review.gpkg` beside the maps, which the first call
    makes from the inventory. `predict_scene` never touches that file.

    Args:
        maps: folder that `predict_scene` wrote, or an inventory or a review in it.
        port: port of the page on 127.0.0.1; 0: any that is free.
        reviewer: name that verdicts record; None: that of the user.
        dem: elevation model for a hillshade, of any CRS and resolution.
        before: image of another date, of any CRS and resolution, to compare the scene with.
        scene: the scene that was mapped, if it is no longer where the summary of its maps says.
        classes: classes of landslides to choose from, for a new review; None: slide, debris flow, rockfall, other.
        ready: called with the link of the page, which holds a secret of this call.

    Raises:
        ConfigError: invalid arguments, or the port is taken.
        DataError: the maps, a review or a raster cannot be read.

    Examples:
        >>> lk.review_maps("maps", reviewer="Bea", dem="dem.tif")
    """
    if isinstance(port, bool) or not isinstance(port, int) or not 0 <= port <= 65535:
        raise ConfigError(f"Invalid value for `port`. Expected a number from 0 to 65535. Received: {port!r}.")
    rasters = {"dem": dem, "before": before, "scene": scene}
    given = {name: None if value is None else as_raster_path(name, value) for name, value in rasters.items()}
    folder = as_path("maps", maps)
    from lim_keras.review.review_file import CLASSES
    from lim_keras.review.scenes import find_scenes

    scenes = find_scenes(folder)
    if scene is not None and len(scenes) > 1:
        names = ", ".join(one.name for one in scenes)
        raise ConfigError(f"`scene` needs the maps of one scene. Received: those of {names}. Give one inventory.")
    try:
        from lim_keras.review.page.server import ReviewOptions, ReviewServer
    except ImportError as error:
        raise ConfigError(
            f"The review page needs NiceGUI ({error}). Install it: pip install 'lim-keras[review]'."
        ) from error
    options = ReviewOptions(
        reviewer=_user() if reviewer is None else reviewer, port=port, classes=tuple(classes or CLASSES), **given
    )
    server = ReviewServer(scenes, options)
    try:
        server.run(ready)
    finally:
        server.close()


@public
def export_review(maps: StrPath, out: StrPath, *, all_statuses: bool = False) -> ReviewExport:
    """Write the reviewed landslides of maps as GeoPackage, GeoParquet, GeoJSON and shapefile, with counts and a page.

    Files in `out`: `<scene>_reviewed` in each format, `<scene>_review.html` (map, counts, areas by class, share
    accepted, size-frequency plot), and `review_counts.csv`. Another program may have the review open.

    Args:
        maps: folder that `predict_scene` wrote, or an inventory or a review in it.
        out: folder; files of an earlier export are replaced, if nobody changed them.
        all_statuses: write all landslides with their `status`, also rejected ones; else the accepted ones.

    Returns:
        The files, and the counts as a table.

    Raises:
        DataError: there is no review, it cannot be read, or files of the user would be replaced.

    Examples:
        >>> lk.export_review("maps", "inventory").counts
    """
    if not isinstance(all_statuses, bool):
        text = f"Expected True or False. Received: {all_statuses!r}."
        raise ConfigError(f"Invalid value for `all_statuses`. {text}")
    from lim_keras.review.export import export_reviews
    from lim_keras.review.scenes import find_scenes

    return export_reviews(find_scenes(as_path("maps", maps)), as_path("out", out), all_statuses=all_statuses)


def _user() -> str:
    """Return the name of the user; a container may have none."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "reviewer"
