"""Data of a reproduction: tiles, test tiles, transfer tiles and coarse tiles, read and checked before any work."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from lim_keras.data.contents import Contents, tile_contents
from lim_keras.data.folds import audit_leaks, find_leaks, listed_leaks, validation_split
from lim_keras.data.layouts import read_tiles
from lim_keras.data.manifest import read_tile_ids
from lim_keras.data.tiles import TileSet
from lim_keras.errors import DataError, LeakError
from lim_keras.evaluation.truth import read_truth
from lim_keras.progress import ProgressCallback
from lim_keras.raster.opening import gdal_settings
from lim_keras.raster.reader import RasterReader
from lim_keras.reproduction.experiments import Experiment
from lim_keras.reproduction.settings import ReproductionSettings

_TEST_SHARE, _TEST_SEED = 0.1, 2022

_FEWEST_OTHERS = 5  # validation tiles are drawn from as many parts


@dataclass(frozen=True)
class LabelledTiles:
    """Tiles, and the ids of those that no model is trained on."""

    tiles: TileSet
    test_ids: tuple[str, ...]

    @property
    def test(self) -> TileSet:
        """Test tiles."""
        return self.tiles.subset(self.test_ids)

    @property
    def training(self) -> TileSet:
        """All other tiles."""
        return self.tiles.without(self.test_ids)

    @cached_property
    def contents(self) -> Contents:
        """Hashes of the files of every tile."""
        return tile_contents(self.tiles)


@dataclass(frozen=True)
class ReproductionData:
    """Tiles of a reproduction.

    Attributes:
        tiles: tiles of the paper's region, with test tiles.
        coarse: tiles of about 10 m, with test tiles; None if none were given.
        transfer: tiles of another region; None if none were given.
    """

    tiles: LabelledTiles
    coarse: LabelledTiles | None = None
    transfer: TileSet | None = None

    def of(self, experiment: Experiment) -> LabelledTiles:
        """Return the tiles of an experiment."""
        if experiment.data == "tiles":
            return self.tiles
        if self.coarse is None:
            raise DataError("Expected tiles of about 10 m as `coarse`. Received: none.")
        return self.coarse


def read_data(settings: ReproductionSettings, progress: ProgressCallback | None = None) -> ReproductionData:
    """Read and check all tiles.

    Raises:
        DataError: tiles or ids are invalid, or transfer tiles lack landslides.
        LeakError: test tiles share ground, files or groups with other tiles, or tiles with transfer tiles.
    """
    tiles = _labelled(settings.data, settings.test_ids, "test_ids", progress)
    coarse = settings.coarse and _without_few_others(
        _labelled(settings.coarse, settings.coarse_test, "coarse_test", progress)
    )
    transfer = None if settings.transfer is None else read_tiles(settings.transfer, progress=progress)
    if transfer is not None:
        _check_transfer(tiles.training, transfer)
    return ReproductionData(tiles, coarse or None, transfer)


def _labelled(path: Path, ids: Path | None, argument: str, progress: ProgressCallback | None) -> LabelledTiles:
    tiles = read_tiles(path, progress=progress)
    chosen = _draw(tiles, argument) if ids is None else read_tile_ids(ids)
    found = LabelledTiles(tiles, tuple(tiles.subset(chosen).ids))
    for part, name in ((found.test, "test"), (found.training, "other")):
        if not len(part.of_kind("landslide")):
            raise DataError(
                f"{path}: expected landslide tiles among the {name} tiles. Received: none among {len(part)}. Give "
                f"other ids as `{argument}`."
            )
    try:
        audit_leaks(found.training, found.test)
    except LeakError as error:
        lines = str(error).partition("\n")[2]
        raise LeakError(
            f"{path}: test tiles would be trained on. Give ids of tiles that share nothing with the others as "
            f"`{argument}`:\n{lines}"
        ) from error
    return found


def _without_few_others(found: LabelledTiles) -> LabelledTiles:
    """Leave out training tiles without landslides where they are too few to be split by kind, as in Landslide4Sense.

    Windows of such a set would repeat them.
    """
    others = found.training.of_kind("non-landslide")
    few = len({tile.group or tile.tile_id for tile in others}) < _FEWEST_OTHERS
    return LabelledTiles(found.tiles.without(others.ids), found.test_ids) if few else found


def _draw(tiles: TileSet, argument: str) -> Collection[str]:
    """Draw test tiles, stratified by kind; groups stay whole, and equal data give equal tiles."""
    try:
        return validation_split(tiles, _TEST_SHARE, _TEST_SEED)
    except DataError as error:
        raise DataError(
            f"{tiles.root}: too few tiles or groups of a kind to draw a tenth of them as test tiles. Received: "
            f"{len(tiles)} tiles, {len(tiles.of_kind('landslide'))} of them with landslides. Give a file of their ids "
            f"as `{argument}`."
        ) from error


def check_scene(scene: Path, truth: Path, tiles: TileSet) -> None:
    """Check that a scene can be mapped by models of these tiles, and scored with its truth.

    Raises:
        DataError: scene or truth cannot be read or do not fit, or the scene has other bands or values than the tiles.
    """
    with gdal_settings(), RasterReader(scene) as reader:
        info = reader.info
        values = tiles.bands, tiles.dtype
        if (info.bands, info.dtype) != values:
            raise DataError(
                f"{scene}: expected {tiles.bands} bands of type {tiles.dtype}, as the tiles have, as `scene`. "
                f"Received: {info.bands} bands of type {info.dtype}. Write the bands of the tiles into a file of their "
                "type (`gdal_translate -b 1 -b 2 -b 3`; `-ot Byte -scale` for other values)."
            )
        if read_truth(truth, info).empty:
            raise DataError(
                f"{truth}: expected landslides of {scene} as `truth`. Received: none that lies on the scene."
            )


def _check_transfer(tiles: TileSet, transfer: TileSet) -> None:
    if not len(transfer.of_kind("landslide")):
        raise DataError(f"{transfer.root}: expected landslide tiles as `transfer`. Received: none.")
    if transfer.bands != tiles.bands:
        raise DataError(
            f"{transfer.root}: expected tiles of {tiles.bands} bands as `transfer`. Received: {transfer.bands} bands."
        )
    # Tiles of two data sets may have equal ids and groups.
    leaks = [one for one in find_leaks(tiles, transfer, "transfer") if not one.endswith(("same id", "same group"))]
    if leaks:
        raise LeakError(
            f"{transfer.root}: expected tiles of another region as `transfer`; models are trained on some of these:\n"
            f"  {listed_leaks(leaks)}"
        )
