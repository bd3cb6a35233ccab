"""Measure which share of a scene looks unlike the training imagery, warn if it is large, and map it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from affine import Affine
from numpy.typing import NDArray
from pyproj import Transformer

from lim_keras.bundle.familiarity import FamiliarityModel
from lim_keras.errors import DomainWarning
from lim_keras.inference.maps import InputScaling
from lim_keras.progress import ProgressCallback, track
from lim_keras.raster.georeference import Floats, Georeference, apply, same_crs
from lim_keras.raster.opening import is_remote
from lim_keras.raster.reader import RasterReader
from lim_keras.raster.windows import Box, Window
from lim_keras.raster.writer import MAP_NODATA, write_raster

_SAMPLE, _REMOTE_SAMPLE = 128, 32  # most cells that are sampled of a local scene, and of one on a server
_LEAST_DATA = 0.9  # smallest share of a cell's pixels with data: filled pixels do not look like ground
_USUAL = 0.05  # twice the share of unfamiliar cells among held-out imagery
_Z = 1.96  # of a 95 % interval


@dataclass(frozen=True)
class SceneFamiliarity:
    """Familiarity of cells of a scene.

    Attributes:
        cells: number of cells that were measured.
        unfamiliar: number of cells whose distance from the training imagery exceeds that of 97.5 % of held-out cells.
        median: median familiarity of the cells, 0..1; about .5 for imagery like that of training.
    """

    cells: int
    unfamiliar: int
    median: float

    @property
    def unfamiliar_share(self) -> float:
        """Share of unfamiliar cells, 0..1."""
        return self.unfamiliar / self.cells

    @property
    def is_unusual(self) -> bool:
        """True if more cells are unfamiliar than a sample of usual imagery has by chance (Wilson's interval)."""
        n, share = self.cells, self.unfamiliar_share
        centre = share + _Z**2 / (2 * n)
        spread = _Z * math.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
        return (centre - spread) / (1 + _Z**2 / n) > _USUAL

    def describe(self) -> dict[str, float]:
        """Return the entry `familiarity` of a summary."""
        shares = {"unfamiliar_share": round(self.unfamiliar_share, 4), "median_familiarity": round(self.median, 4)}
        return {"cells": self.cells, **shares}


@dataclass(frozen=True)
class FamiliarityMap:
    """Familiarity of all cells of a scene.

    Attributes:
        values: familiarity (rows, columns), 0..1; NaN where less than 90 % of a cell hold data.
        side: side of a cell, pixels of the grid on which the scene was read.
        crs: CRS of that grid; "" if there is none.
        transform: from cells to units of the CRS; to (column, -row) of pixels without a georeference, as in QGIS.
        summary: counts over all cells; None if no cell holds enough data.
    """

    values: NDArray[np.float32]
    side: int
    crs: str
    transform: Affine
    summary: SceneFamiliarity | None

    def write(self, path: Path) -> Path:
        """Write a GeoTIFF of one pixel a cell, float32, nodata -1.

        Raises:
            DataError: the file cannot be written.
        """
        values = np.where(np.isnan(self.values), np.float32(MAP_NODATA), self.values)
        return write_raster(path, values, crs=self.crs, transform=self.transform, nodata=MAP_NODATA)

    def at(self, points: Floats, ground: Georeference) -> Floats:
        """Return the familiarity (n,), 0..1, of the cells that hold points of a scene; NaN where it is not known.

        Args:
            points: (n, 2), column and row in pixels of the scene.
            ground: georeference of the scene.
        """
        placed = ground.place(points)
        if not same_crs(ground.crs, self.crs):
            change = Transformer.from_crs(ground.crs, self.crs, always_xy=True)
            placed = np.stack(change.transform(placed[:, 0], placed[:, 1]), axis=-1)
        cells = apply(~self.transform, placed)
        last = np.array(self.values.shape[::-1]) - 1
        # Rounding may place a pixel at the edge of the scene just outside of the cells.
        known: NDArray[np.bool_] = np.asarray(np.isfinite(cells).all(axis=1))
        columns, rows = np.clip(np.floor(np.where(known[:, np.newaxis], cells, 0)), 0, last).astype(np.int64).T
        return np.where(known, self.values[rows, columns], np.nan).astype(np.float64)


def scene_familiarity(model: FamiliarityModel, scene: RasterReader, scaling: InputScaling) -> SceneFamiliarity | None:
    """Measure the familiarity of a scene in a random sample of its cells; None if no cell holds enough data.

    Args:
        scene: reader of the model's bands, on the grid on which the scene is predicted.
        scaling: conversion of the scene's values, as for the prediction.

    Warns:
        DomainWarning: significantly more than 5 % of the cells are unfamiliar.
    """
    cells = _sample(scene, scaling, model.side, _REMOTE_SAMPLE if is_remote(scene.name) else _SAMPLE)
    # One cell at a time: a sample of many bands takes hundreds of megabytes.
    distances = np.array([model.distances(cell[np.newaxis])[0] for cell in cells], np.float64)
    found = _judged(model, distances) if len(distances) else None
    _warn(found, model, scene, "sampled ")
    return found


def map_familiarity(
    model: FamiliarityModel, scene: RasterReader, scaling: InputScaling, progress: ProgressCallback | None = None
) -> FamiliarityMap:
    """Measure the familiarity of all cells of a scene; arguments and warning as in `scene_familiarity`.

    The cells of the last row and the last column reach back into their neighbours, so that each one is whole.
    """
    height, width, side = scene.info.height, scene.info.width, model.side
    distances = np.full((-(-height // side), -(-width // side)), np.nan)
    places = [(row, column) for row in range(distances.shape[0]) for column in range(distances.shape[1])]
    for row, column in track(places, "measuring familiarity", len(places), progress, "cells"):
        top, left = (max(min(at * side, end - side), 0) for at, end in ((row, height), (column, width)))
        pixels = _cell(scene, scaling, Box(top, left, min(top + side, height), min(left + side, width)), side)
        if pixels is not None:
            distances[row, column] = model.distances(pixels[np.newaxis])[0]
    known = np.isfinite(distances)
    values = np.full(distances.shape, np.nan, np.float32)
    values[known] = model.facts.familiarity(distances[known])
    found = _judged(model, distances[known]) if known.any() else None
    _warn(found, model, scene, "")
    ground = Georeference.of(scene.info)
    pixel = ground.transform
    cell = Affine(pixel.a * side, pixel.b * side, pixel.c, pixel.d * side, pixel.e * side, pixel.f)
    return FamiliarityMap(values, side, ground.crs, cell, found)


def _judged(model: FamiliarityModel, distances: NDArray[np.float64]) -> SceneFamiliarity:
    return SceneFamiliarity(
        cells=len(distances),
        unfamiliar=int((distances > model.facts.limit).sum()),
        median=float(np.median(model.facts.familiarity(distances))),
    )


def _warn(found: SceneFamiliarity | None, model: FamiliarityModel, scene: RasterReader, which: str) -> None:
    if found is not None and found.is_unusual:
        warnings.warn(
            f"{scene.name}: {found.unfamiliar_share:.0%} of the scene ({found.unfamiliar} of {found.cells} {which}"
            f"cells of {model.side} x {model.side} px) looks unlike the training imagery of the model, of which 2.5 % "
            "does. Check bands, value range and ground sample distance. If they are right, the model's scores do not "
            "hold here: review the map, or train on tiles of such ground.",
            DomainWarning,
            stacklevel=3,
        )


def _sample(scene: RasterReader, scaling: InputScaling, side: int, most: int) -> Iterator[NDArray[np.generic]]:
    """Yield cells of a scene, mirrored at its edges; others replace cells that lack data."""
    height, width = scene.info.height, scene.info.width
    corners = [(top, left) for top in range(0, height, side) for left in range(0, width, side)]
    # A fixed order that spreads the first cells over the scene.
    order = np.random.default_rng(2022).permutation(len(corners))[: 4 * most]
    found = 0
    for number in order.tolist():
        top, left = corners[number]
        box = Box(top, left, min(top + side, height), min(left + side, width))
        if 2 * min(box.height, box.width) < min(side, height, width):
            continue  # a narrow strip at the edge
        if (cell := _cell(scene, scaling, box, side)) is not None:
            yield cell
            found += 1
        if found == most:
            return


def _cell(scene: RasterReader, scaling: InputScaling, box: Box, side: int) -> NDArray[np.generic] | None:
    """Read a cell (side, side, bands), mirrored where the box is smaller; None if it holds too little data."""
    pixels, valid = scaling.load(scene, Window(box, box), scene.info.box)
    if valid.mean() < _LEAST_DATA:
        return None
    edges = cv2.copyMakeBorder(pixels, 0, side - box.height, 0, side - box.width, cv2.BORDER_REFLECT)
    return edges.reshape(side, side, -1)
