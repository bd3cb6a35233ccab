"""Measure which share of a scene looks unlike the training imagery, and warn if it is large."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from lim_keras.bundle.familiarity import FamiliarityModel
from lim_keras.errors import DomainWarning
from lim_keras.inference.maps import InputScaling
from lim_keras.raster.opening import is_remote
from lim_keras.raster.reader import RasterReader
from lim_keras.raster.windows import Box, Window

_SAMPLE, _REMOTE_SAMPLE = 128, 32  # most cells that are sampled of a local scene, and of one on a server
_LEAST_DATA = 0.9  # smallest share of a cell's pixels with data: filled pixels do not look like ground
_USUAL = 0.05  # twice the share of unfamiliar cells among held-out imagery
_Z = 1.96  # of a 95 % interval


@dataclass(frozen=True)
class SceneFamiliarity:
    """Familiarity of sampled cells of a scene.

    Attributes:
        cells: number of sampled cells.
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
    if not len(distances):
        return None
    found = SceneFamiliarity(
        cells=len(distances),
        unfamiliar=int((distances > model.facts.limit).sum()),
        median=float(np.median(model.facts.familiarity(distances))),
    )
    if found.is_unusual:
        warnings.warn(
            f"{scene.name}: {found.unfamiliar_share:.0%} of the scene ({found.unfamiliar} of {found.cells} sampled "
            f"cells of {model.side} x {model.side} px) looks unlike the training imagery of the model, of which 2.5 % "
            "does. Check bands, value range and ground sample distance. If they are right, the model's scores do not "
            "hold here: review the map, or train on tiles of such ground.",
            DomainWarning,
            stacklevel=2,
        )
    return found


def _sample(scene: RasterReader, scaling: InputScaling, side: int, most: int) -> Iterator[NDArray[np.generic]]:
    """Yield cells of a scene, mirrored at its edges; others replace cells that lack data."""
    height, width = scene.info.height, scene.info.width
    corners = [(top, left) for top in range(0, height, side) for left in range(0, width, side)]
    # A fixed order that spreads the first cells over the scene.
    order = np.random.default_rng(2022).permutation(len(corners))[: 4 * most]
    around, found = Box(0, 0, height, width), 0
    for number in order.tolist():
        top, left = corners[number]
        box = Box(top, left, min(top + side, height), min(left + side, width))
        if 2 * min(box.height, box.width) < min(side, height, width):
            continue  # a narrow strip at the edge
        pixels, valid = scaling.load(scene, Window(box, box), around)
        if valid.mean() >= _LEAST_DATA:
            edges = cv2.copyMakeBorder(pixels, 0, side - box.height, 0, side - box.width, cv2.BORDER_REFLECT)
            yield edges.reshape(side, side, -1)
            found += 1
        if found == most:
            return
