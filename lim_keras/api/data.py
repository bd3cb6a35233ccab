"""Read tiles, report on data sets, and run the demo."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lim_keras.api.arguments import as_path, check_count, public
from lim_keras.files import StrPath
from lim_keras.tensorflow_import import load_tensorflow

if TYPE_CHECKING:
    from lim_keras.data.augment import AugmentationName
    from lim_keras.data.dataset_report import DatasetReport
    from lim_keras.data.overlap import Overlap
    from lim_keras.data.tiles import TileSet
    from lim_keras.demo import DemoResult
    from lim_keras.progress import ProgressCallback

    Tiles = TileSet | StrPath


@public
def read_tiles(path: StrPath, *, progress: ProgressCallback | None = None) -> TileSet:
    """Read labelled tiles and check every file.

    Args:
        path: a manifest (tiles.csv, or a folder with one), or a folder with landslide/ and non-landslide/, or with
            images/ and masks/.
        progress: receives the progress of the check; None: a bar on a terminal.

    Raises:
        DataError: one error that lists every bad file.

    Examples:
        >>> tiles = lk.read_tiles("bijie_tiles.csv")
        >>> len(tiles), tiles.bands, tiles.dtype
    """
    from lim_keras.data.layouts import read_tiles as read
    from lim_keras.report.progress import ProgressBar

    return read(as_path("path", path), progress=progress or ProgressBar())


@public
def dataset_report(
    tiles: Tiles,
    *,
    size: int = 256,
    augmentation: AugmentationName = "paper",
    json_file: StrPath | None = None,
    progress: ProgressCallback | None = None,
) -> DatasetReport:
    """Count tiles and pixels, and measure imbalance and centre bias.

    Args:
        tiles: tiles, or where they are; see `read_tiles`.
        size: side that masks are resized to before counting, pixels.
        augmentation: "paper", "dihedral" or "none"; the counts after augmentation depend on it.
        json_file: JSON file for all counts and ratios.
        progress: receives the progress of reading tiles; None: a bar on a terminal.

    Returns:
        The figures; `to_dict()` gives them all.

    Raises:
        DataError: bad tiles, or none.
        ConfigError: unknown augmentation.

    Examples:
        >>> lk.dataset_report("bijie_tiles.csv").imbalance.ratios
    """
    check_count(size=size)
    from lim_keras.data.dataset_report import DatasetReport

    report = DatasetReport.measure(as_tiles(tiles, progress), size, augmentation)
    if json_file is not None:
        report.write_json(as_path("json_file", json_file))
    return report


@public
def find_overlaps(tiles: Tiles, *, progress: ProgressCallback | None = None) -> list[Overlap]:
    """Find tiles that show the same ground.

    Tiles with a georeference are compared by their outlines, the others by their pixels (a minute for 2,000 tiles).

    Args:
        tiles: tiles of one ground sample distance, or where they are; see `read_tiles`.
        progress: receives the progress; None: bars on a terminal.

    Returns:
        Pairs of ids with the shared part of the smaller tile's area, 0 to 1, in the order of the tiles.

    Raises:
        DataError: a tile cannot be read.

    Examples:
        >>> tiles = lk.read_tiles("tiles")
        >>> lk.data.write_manifest(lk.data.group_overlaps(tiles, lk.find_overlaps(tiles)), "tiles.csv")
    """
    from lim_keras.data.overlap import find_overlaps as find
    from lim_keras.report.progress import ProgressBar

    return find(as_tiles(tiles, progress), progress=progress or ProgressBar())


@public
def run_demo(out: StrPath = "demo", *, jobs: int = 3, say: Callable[[list[Any]], None] | None = None) -> DemoResult:
    """Make a synthetic world, train five small models on its tiles, evaluate and map a second world.

    Args:
        out: folder of all results; an interrupted demo continues.
        jobs: folds trained at a time.
        say: called with tables and lines of text as the demo proceeds; None: nothing is printed.

    Raises:
        DataError: the folder holds something that is not a demo.

    Examples:
        >>> lk.run_demo("demo").f1
    """
    folder = as_path("out", out)
    check_count(jobs=jobs)
    load_tensorflow()
    from lim_keras.demo import run_demo as run

    return run(folder, say or (lambda parts: None), jobs)


def as_tiles(tiles: Tiles, progress: ProgressCallback | None) -> TileSet:
    """Read tiles where they are given by a path."""
    from lim_keras.data.tiles import TileSet

    return tiles if isinstance(tiles, TileSet) else read_tiles(as_path("tiles", tiles), progress=progress)
