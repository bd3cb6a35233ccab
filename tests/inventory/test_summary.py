"""Entries of a summary on landslides that its inventory lacks."""

import math

import numpy as np
import pytest
from rasterio import Affine

from lim_keras.errors import LimKerasWarning
from lim_keras.inventory.landslides import InventoryTotals
from lim_keras.inventory.options import PredictOptions, settings
from lim_keras.inventory.outputs import summarise
from lim_keras.inventory.predict_scene import predict_scene
from lim_keras.raster.images import read_info
from lim_keras.raster.writer import Counts
from tests.conftest import bundle_info
from tests.inference.conftest import Write, constant_model


def test_what_was_left_out_and_why(write: Write) -> None:
    inventory = InventoryTotals(dropped_small=3, dropped_flat=2, swallowed=1, uncovered=1 / 3)
    columns = {"id": [1, 2], "area_m2": [9.0, 4.0], "below_min_slope": [True, False], "slope_unknown": [False, True]}
    inventory.count({name: np.array(column) for name, column in columns.items()})
    scene = read_info(write("s.tif", np.zeros((4, 5, 3), np.uint8)))
    facts = {
        "options": PredictOptions(),
        "counts": Counts(13, 20, 20),
        "run": {"windows": {}, "seconds": {"predict": 1}},
    }
    summary = summarise(scene, bundle_info(), inventory=inventory, **facts)
    assert summary["landslides"] == 2 and summary["landslide_area_m2"] == 13
    assert summary["left_out"] == {"below_min_area": 3, "below_min_slope": 2, "in_filled_holes": 1}
    assert summary["flagged_below_min_slope"] == 1 and summary["unknown_slope"] == 1
    assert summary["share_outside_dem"] == 0.3333
    plain = InventoryTotals()
    plain.count({name: np.array(columns[name]) for name in ("id", "area_m2")})
    summary = summarise(scene, bundle_info(), inventory=plain, **facts)
    assert summary["left_out"] == {"below_min_area": 0, "below_min_slope": 0, "in_filled_holes": 0}
    assert [summary[name] for name in ("flagged_below_min_slope", "unknown_slope", "share_outside_dem")] == [None] * 3


@pytest.mark.parametrize(("void", "dropped", "unknown"), [(False, 1, 0), (True, 0, 1)])
def test_a_landslide_that_a_slope_left_out_is_not_silently_gone(
    write: Write, tmp_path, recwarn: pytest.WarningsRecorder, void: bool, dropped: int, unknown: int
) -> None:
    # 40 x 50 px, all landslide, on level ground or in the void of a model
    heights = np.full((30, 30, 1), -9999 if void else 500, np.float32)
    if not void:
        heights[6] = 501  # north of the scene
    dem = write("dem.tif", heights, transform=Affine(8, 0, 5e5 - 80, 0, -8, 3e6 + 80), nodata=-9999)
    options = PredictOptions(dem=dem, min_slope_deg=30, drop_flat=True)
    scene = write("s.tif", np.full((40, 50, 3), 90, np.uint8))
    summary = predict_scene(constant_model(), scene, tmp_path / "out", options).summary
    assert (summary["landslides"], summary["landslide_pixels"]) == (unknown, 2000)
    assert summary["left_out"]["below_min_slope"] == dropped and summary["unknown_slope"] == unknown
    said = [str(one.message) for one in recwarn if issubclass(one.category, LimKerasWarning)]
    assert said == summary["warnings"] and len(said) == unknown
    for line in said:
        assert line.startswith(f"{dem}: has no slope for 1 of 1 landslides on {scene}:")


def test_settings_keep_the_names_of_version_0_1() -> None:
    # They are part of a result's identity: with other names, every scene would be mapped again.
    written = settings(PredictOptions(tta=True, dem="dem.tif", min_slope_deg=5, drop_flat=True, fill_holes_m2=math.inf))
    names = {
        "threshold",
        "probability",
        "spread",
        "bands",
        "nodata",
        "scale",
        "gsd_m",
        "resample",
        "symmetries",
        "tile",
    }
    names |= {"exact"}  # since 0.3
    assert written.keys() == names | {"formats", "inventory", "dem"} and written["symmetries"] is True
    inventory = {"min_area_m2": 0, "fill_holes_m2": None, "simplify_m": 0, "min_slope": 5, "drop_below_slope": True}
    assert written["inventory"] == inventory and written["dem"] == "dem.tif"
