"""What is wrong with the wishes for an inventory, said before the scene is predicted."""

from __future__ import annotations

import warnings
from pathlib import Path

from lim_keras.data.raster import RasterInfo
from lim_keras.errors import DataError, LimKerasWarning
from lim_keras.inventory.ground import Ground
from lim_keras.inventory.landslides import InventoryOptions
from lim_keras.inventory.terrain import TerrainReader

_OPTIONS = {"min_area_m2": "--min-area", "fill_holes_m2": "--fill-holes", "simplify_m": "--simplify"}


def check_inventory(scene: RasterInfo, options: InventoryOptions, dem: Path | None) -> None:
    """Refuse at once what `polygonise` would refuse after hours, in the words of the command line.

    Args:
        scene: with its ground sample distance, where that is known.
        options: which landslides are wanted, and how they are drawn.
        dem: elevation model.

    Raises:
        DataError: an option needs an elevation model or a ground sample distance that is not there, or the model cannot
            be used with this scene.
    """
    ground, asked = Ground.of(scene, scene.gsd_m), [_OPTIONS[name] for name in options.in_metres]
    if asked and ground.gsd_m is None:
        raise DataError(
            f"{scene.path}: its ground sample distance is not known, but needed for {', '.join(asked)}. Say it with "
            "--gsd, or leave that out."
        )
    if dem is None:
        if options.min_slope is not None:
            raise DataError(f"{scene.path}: --min-slope needs an elevation model. Give it with --dem.")
        return
    if not ground.crs:
        raise DataError(
            f"{scene.path}: has no coordinate reference system, so its place in {dem} is not known. Give it one "
            "(`gdal_translate -a_srs ... -a_ullr ...`), or leave --dem out."
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LimKerasWarning)  # `polygonise` says what the model does not cover
        with TerrainReader(dem, scene):
            pass  # entering it is the check
