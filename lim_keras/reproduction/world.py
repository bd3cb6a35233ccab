"""Synthetic data of a smoke test: tiles, an unseen scene, tiles of another region, and tiles and a scene of 10 m."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from lim_keras.data.layouts import read_tiles
from lim_keras.demo.world import World, make_world, world_files, write_landslides, write_rasters
from lim_keras.errors import DataError
from lim_keras.files import make_folder, write_text
from lim_keras.reproduction.settings import ReproductionSettings
from lim_keras.seals import is_sealed, sealed_json
from lim_keras.tiling.labels import LabelOptions
from lim_keras.tiling.options import TilingOptions
from lim_keras.tiling.tile_scenes import TilingTask, tile_scenes

WORLD, MARKER = "world", "world.json"
"""Folder of the synthetic data, and the file that marks it."""

TEST_IDS = "test_tiles.txt"


@dataclass(frozen=True, slots=True)
class _Region:
    """World of one seed."""

    name: str
    size: int
    seed: int
    gsd_m: float = 2.0
    landslides: int | None = None


_TRAINING, _UNSEEN = _Region("training", 704, 1), _Region("unseen", 544, 2)
_TRANSFER = _Region("transfer", 384, 3)
_COARSE, _COARSE_SCENE = _Region("coarse", 320, 4, 10.0, 40), _Region("coarse_unseen", 256, 5, 10.0, 20)

_SETS: tuple[tuple[str, int, tuple[_Region, ...]], ...] = (
    ("tiles", 96, (_TRAINING, _UNSEEN)),
    ("transfer_tiles", 96, (_TRANSFER,)),
    ("coarse_tiles", 32, (_COARSE,)),
)
"""Folder, size in pixels and regions of each set of tiles."""


def with_synthetic_data(settings: ReproductionSettings) -> ReproductionSettings:
    """Make the synthetic data in the folder of the results, and return the settings that use them.

    What is there is kept, so a call that was killed goes on.

    Raises:
        DataError: the folder `world` holds files of the user.
    """
    folder = settings.out / WORLD
    _begin(folder)
    scenes = folder / "scenes"
    for name, size, regions in _SETS:
        _cut(scenes, folder / name, size, regions)
    if not (scene := world_files(scenes, _COARSE_SCENE.name).scene).exists():
        write_rasters(_make(_COARSE_SCENE), world_files(scenes, _COARSE_SCENE.name))
    ids = [tile.tile_id for tile in read_tiles(folder / "tiles", decode=False) if tile.scene == _UNSEEN.name]
    write_text(folder / TEST_IDS, "\n".join(ids) + "\n")
    unseen = world_files(scenes, _UNSEEN.name)
    return replace(
        settings,
        data=folder / "tiles",
        test_ids=folder / TEST_IDS,
        scene=unseen.scene,
        truth=unseen.labels,
        transfer=folder / "transfer_tiles",
        coarse=folder / "coarse_tiles",
        coarse_scene=scene,
    )


def _begin(folder: Path) -> None:
    """Mark a new folder; refuse a folder of the user."""
    make_folder(folder, "out")
    if not any(os.scandir(folder)):
        write_text(folder / MARKER, sealed_json({"folder": "synthetic data of `lim-keras reproduce`"}))
    if not is_sealed(folder / MARKER):
        raise DataError(
            f"{folder}: expected no such folder, or the synthetic data of an earlier call. Received: a folder of other "
            "files. Move or rename it, or give another folder as `out`."
        )


def _cut(scenes: Path, folder: Path, size: int, regions: tuple[_Region, ...]) -> None:
    """Write the scenes of a set of tiles and their landslides, and cut the tiles; what is there is kept."""
    landslides = scenes / f"{folder.name}.gpkg"
    files = [world_files(scenes, region.name) for region in regions]
    if not landslides.exists():  # it is written last
        worlds = [_make(region) for region in regions]
        for world, places in zip(worlds, files, strict=True):
            write_rasters(world, places)
        write_landslides(worlds, landslides)
    make_folder(folder, "out")
    options = TilingOptions(size=size, background="all")
    tile_scenes(TilingTask(tuple(one.scene for one in files), LabelOptions(landslides), options), folder, jobs=1)


def _make(region: _Region) -> World:
    return make_world(region.size, region.seed, gsd_m=region.gsd_m, landslides=region.landslides)
