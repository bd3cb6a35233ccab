"""Familiarity of scenes: usual ones pass, others warn, and the summary says how much."""

import warnings
from pathlib import Path

import numpy as np
import pytest

from lim_keras.errors import DomainWarning
from lim_keras.inference.familiarity import SceneFamiliarity, scene_familiarity
from lim_keras.inference.maps import InputScaling
from lim_keras.raster.reader import RasterReader

from .conftest import Write


class Known:
    """Cells whose mean is within 20 of 120 are familiar."""

    side = 64

    class facts:  # noqa: N801  as the attribute of a model
        limit = 20.0

        @staticmethod
        def familiarity(distances: np.ndarray) -> np.ndarray:
            return np.clip(1 - distances / 40, 0, 1)

    def distances(self, cells: np.ndarray) -> np.ndarray:
        assert cells.shape[1:] == (64, 64, 3)
        return np.abs(cells.reshape(len(cells), -1).mean(axis=1) - 120)


SCALING = InputScaling("uint8", (120.0, 120.0, 120.0))


def measured(path: Path) -> SceneFamiliarity | None:
    with RasterReader(path) as reader:
        return scene_familiarity(Known(), reader, SCALING)  # type: ignore[arg-type]


def test_a_usual_scene_gives_no_warning(write: Write) -> None:
    path = write("usual.tif", np.full((500, 700, 3), 125, np.uint8))
    with warnings.catch_warnings():
        warnings.simplefilter("error", DomainWarning)
        found = measured(path)
    # 8 x 11 cells, those of 52 px at the bottom and of 60 px on the right mirrored
    assert found == SceneFamiliarity(cells=88, unfamiliar=0, median=0.875)


def test_a_bright_half_is_unfamiliar(write: Write) -> None:
    image = np.full((512, 640, 3), 120, np.uint8)
    image[:, :320] = 250
    with pytest.warns(DomainWarning, match=r"bright\.tif: 50% of the scene \(40 of 80 sampled cells of 64 x 64 px\)"):
        found = measured(write("bright.tif", image))
    assert found is not None and found.describe() == {
        "cells": 80, "unfamiliar_share": 0.5, "median_familiarity": 0.5
    }  # fmt: skip


def test_cells_without_data_are_left_out(write: Write) -> None:
    image = np.full((256, 256, 3), 120, np.uint8)
    image[:, 96:] = 0
    found = measured(write("nodata.tif", image, nodata=0))
    assert found is not None and (found.cells, found.unfamiliar) == (4, 0)  # the half-empty column is left out
    assert measured(write("empty.tif", np.where(image > 0, 0, image), nodata=0)) is None


@pytest.mark.parametrize(
    ("cells", "unfamiliar", "warned"), [(128, 10, False), (128, 14, True), (4, 1, False), (4, 4, True)]
)
def test_chance_gives_no_warning(cells: int, unfamiliar: int, warned: bool) -> None:
    assert SceneFamiliarity(cells, unfamiliar, 0.5).is_unusual == warned


def test_a_large_scene_is_sampled(write: Write) -> None:
    found = measured(write("large.tif", np.full((1300, 1300, 3), 120, np.uint8)))
    assert found is not None and found.cells == 128
