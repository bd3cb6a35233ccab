"""Public functions on configurations and tiles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

from lim_keras.api.arguments import as_count, as_path, public
from lim_keras.api.places import json_place
from lim_keras.files import StrPath

if TYPE_CHECKING:
    from lim_keras.config import RunConfig
    from lim_keras.data.augment import AugmentationName
    from lim_keras.data.dataset_report import DatasetReport
    from lim_keras.data.overlap import Overlap
    from lim_keras.data.tiles import TileSet
    from lim_keras.progress import ProgressCallback

Tiles: TypeAlias = "TileSet | StrPath"
"""Tiles, or the path of their folder or tiles.csv."""


@public
def load_config(path: StrPath, overrides: str | Sequence[str] = ()) -> RunConfig:
    """Read the configuration of a training run.

    Args:
        path: YAML file.
        overrides: one or more `key=value` strings, such as "training.epochs=3"; the last value of a key applies.

    Raises:
        ConfigError: unknown keys or invalid values; the message lists them all.

    Examples:
        >>> config = lk.load_config("configs/bijie_edge.yaml", ["training.epochs=3"])
    """
    from lim_keras.config_file import load_config as load

    return load(as_path("path", path), [overrides] if isinstance(overrides, str) else overrides)


@public
def read_tiles(path: StrPath, *, progress: ProgressCallback | None = None) -> TileSet:
    """Read labelled tiles and check every file.

    Args:
        path: a manifest tiles.csv, a folder that contains one, a folder with landslide/ and non-landslide/, or a folder
            with images/ and masks/.
        progress: receives the progress of the check; None: a bar on a terminal.

    Raises:
        DataError: files are missing or invalid; the message lists them all.

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
    wait: bool = False,
    progress: ProgressCallback | None = None,
) -> DatasetReport:
    """Count tiles and pixels, and measure imbalance and centre bias.

    Args:
        tiles: tiles, or their path; see `read_tiles`.
        size: height and width to which masks are resized before they are counted, pixels.
        augmentation: "paper", "dihedral" or "none"; the counts after augmentation depend on it.
        json_file: JSON file to write all counts and ratios to; None: no file. A file that exists is replaced only if
            an earlier call wrote it and nothing changed it since.
        wait: wait for the end of another call that writes the same file; False: raise an error.
        progress: receives the progress of reading tiles; None: a bar on a terminal.

    Returns:
        All counts and ratios; `to_dict()` returns them for JSON.

    Raises:
        DataError: tiles are invalid, or there are none.
        ConfigError: unknown augmentation.

    Examples:
        >>> lk.dataset_report("bijie_tiles.csv").imbalance.ratios
    """
    size = as_count("size", size)
    from lim_keras.data.dataset_report import DatasetReport

    if json_file is None:
        return DatasetReport.measure(as_tiles(tiles, progress), size, augmentation)
    path = as_path("json_file", json_file)
    with json_place(path, wait=wait):
        report = DatasetReport.measure(as_tiles(tiles, progress), size, augmentation)
        report.write_json(path)
    return report


@public
def find_overlaps(tiles: Tiles, *, progress: ProgressCallback | None = None) -> list[Overlap]:
    """Find tiles that show the same ground.

    Georeferenced tiles are compared by their outlines; other tiles are compared by their pixels, which takes longer.

    Args:
        tiles: tiles with the same ground sample distance, or their path; see `read_tiles`.
        progress: receives the progress; None: bars on a terminal.

    Returns:
        Pairs of tile ids in tile order, each with the overlap as a share of the smaller tile's area, 0 to 1.

    Raises:
        DataError: a tile cannot be read.

    Examples:
        >>> tiles = lk.read_tiles("tiles")
        >>> lk.data.write_manifest(lk.data.group_overlaps(tiles, lk.find_overlaps(tiles)), "tiles.csv")
    """
    from lim_keras.data.overlap import find_overlaps as find
    from lim_keras.report.progress import ProgressBar

    return find(as_tiles(tiles, progress), progress=progress or ProgressBar())


def as_tiles(tiles: Tiles, progress: ProgressCallback | None) -> TileSet:
    """Return tiles as they are, or read them from a path."""
    from lim_keras.data.tiles import TileSet

    return tiles if isinstance(tiles, TileSet) else read_tiles(as_path("tiles", tiles), progress=progress)
