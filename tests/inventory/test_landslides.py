import dataclasses
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import shapely
from rasterio import Affine
from shapely import box

from lim_keras.errors import ConfigError, DataError, LimKerasWarning
from lim_keras.inventory.landslides import make_inventory
from lim_keras.inventory.options import InventoryOptions
from lim_keras.raster.writer import write_raster

UTM = "EPSG:32648"
COLUMNS = [
    "id",
    "area_m2",
    "perimeter_m",
    "longitude",
    "latitude",
    "compactness",
    "elongation",
    "probability_mean",
    "probability_max",
    "fold_agreement",
    "touches_nodata",
    "touches_edge",
]
TERRAIN = [
    *("slope_mean_deg", "elevation_min_m", "elevation_max_m", "elevation_range_m", "aspect_mean_deg"),
    *("slope_coverage", "slope_unknown"),
]


@pytest.fixture
def mask():
    """Four landslides: 10 x 20 pixels; 6 x 6 with a hole of 2 x 2; one pixel in a hole of 3 x 3 of 5 x 5."""
    pixels = np.zeros((60, 50), np.uint8)
    pixels[5:25, 5:15] = 1
    pixels[5:11, 30:36] = 1
    pixels[7:9, 32:34] = 0
    pixels[40:45, 20:25] = 1
    pixels[41:44, 21:24] = 0
    pixels[42, 22] = 1
    return pixels


@pytest.fixture
def hill(tmp_path):
    """A model of 5 m cells, level up to 22.5 m east of the scene's corner and rising by 1 in 2 from there on."""
    columns = np.arange(60)
    elevation = np.tile(500 + 2.5 * np.maximum(columns - 24, 0), (60, 1)).astype(np.float32)
    transform = Affine(5, 0, 500_000 - 100, 0, -5, 3_000_000 + 100)
    return write_raster(tmp_path / "dem.tif", elevation, crs=UTM, transform=transform)


def test_rows(write_mask, mask, tmp_path):
    probability = np.where(mask == 1, 0.75, 0.125).astype(np.float32)
    votes = np.where(mask == 1, 4, 0).astype(np.float32)
    maps = write_raster(tmp_path / "maps.tif", np.stack([probability, votes], axis=-1), nodata=-1)
    found = make_inventory(write_mask(mask), maps=maps, folds=5)
    frame = found.frame
    assert [*frame.columns] == [*COLUMNS, "geometry"]
    assert frame.id.tolist() == [1, 2, 3, 4]
    # Pixels of 1 m at the central meridian of UTM: 1 / 0.9996 m each.
    assert frame.area_m2.tolist() == pytest.approx(
        [200 / 0.9996**2, 32 / 0.9996**2, 16 / 0.9996**2, 1 / 0.9996**2], rel=1e-5
    )
    assert frame.perimeter_m[0] == pytest.approx(60 / 0.9996, rel=1e-5)
    assert frame.probability_mean.tolist() == [0.75] * 4 and frame.fold_agreement.tolist() == [0.8] * 4
    assert not frame.touches_edge.any() and not frame.touches_nodata.any()
    assert frame.geometry[0].equals(box(500_005, 2_999_975, 500_015, 2_999_995))
    totals = found.totals
    assert totals.crs == UTM == frame.crs.to_string()
    assert (totals.dropped_small, totals.dropped_flat, totals.swallowed, totals.uncovered) == (0, 0, 0, None)
    assert (totals.landslides, totals.area_m2) == (4, pytest.approx(frame.area_m2.sum()))


def test_small_landslides_are_dropped_and_ids_close_up(write_mask, mask):
    # Areas are 200, 32, 16 and 1 m2, each 1.0008 times that.
    found = make_inventory(write_mask(mask), options=InventoryOptions(min_area_m2=16.02))
    assert found.frame.id.tolist() == [1, 2] and found.totals.dropped_small == 2
    assert found.frame.index.tolist() == [0, 1]
    assert len(make_inventory(write_mask(mask), options=InventoryOptions(min_area_m2=16.01)).frame) == 3


def test_filled_holes(write_mask, mask):
    # Holes of 4 and of 9 m2; the second holds a landslide, which becomes part of the one around it.
    found = make_inventory(write_mask(mask), options=InventoryOptions(fill_holes_m2=5))
    assert [round(area) for area in found.frame.area_m2] == [200, 36, 16, 1] and found.totals.swallowed == 0
    found = make_inventory(write_mask(mask), options=InventoryOptions(fill_holes_m2=math.inf))
    assert [round(area) for area in found.frame.area_m2] == [200, 36, 25] and found.totals.swallowed == 1


def test_statistics_are_of_the_pixels_before_holes_are_filled(write_mask, mask, tmp_path):
    probability = np.where(mask == 1, 0.75, 0.125).astype(np.float32)
    maps = write_raster(tmp_path / "maps.tif", probability, nodata=-1)
    options = InventoryOptions(fill_holes_m2=math.inf, simplify_m=2)
    assert make_inventory(write_mask(mask), maps=maps, options=options).frame.probability_mean.tolist() == [0.75] * 3


def test_simplify_is_in_metres(write_mask):
    # 20 steps of one pixel of 2 m, 42 corners: triangles of 2 m2 (half of 2 x 2), left out from sqrt(2) = 1.414 m on.
    steps = np.tril(np.ones((20, 20), np.uint8))
    for transform, crs, gsd in (
        (Affine(2, 0, 500_000, 0, -2, 3_000_000), UTM, None),
        (Affine(2e-5, 0, 105, 0, -2e-5, 0), "EPSG:4326", None),  # 2.23 m x 2.21 m: sqrt(2.46) = 1.57
        (None, "", 2.0),
    ):
        path = write_mask(steps, transform=transform, crs=crs)
        kept, gone = (
            make_inventory(path, options=InventoryOptions(simplify_m=metres), gsd_m=gsd).frame
            for metres in (1.35, 1.65)
        )
        assert kept.geometry.count_coordinates()[0] == 43 and gone.geometry.count_coordinates()[0] < 30
        assert gone.is_valid.all()


def test_terrain(write_mask, mask, hill):
    # The first landslide (columns 5 to 15) lies on level ground; the second (30 to 36) on a slope of atan(0.5) = 26.565
    # degrees that faces west, its pixels' centres 5 m apart: 2.5 m. The others lie on the bend between them.
    found = make_inventory(write_mask(mask), options=InventoryOptions(dem=hill, min_slope_deg=10))
    frame = found.frame
    assert [*frame.columns] == [*COLUMNS, *TERRAIN, "below_min_slope", "geometry"]
    assert frame.slope_mean_deg[0] == 0 and math.isnan(frame.aspect_mean_deg[0])
    assert frame.slope_mean_deg[1] == pytest.approx(26.565, abs=0.02)
    assert frame.aspect_mean_deg[1] == pytest.approx(270, abs=0.01)
    assert frame.elevation_range_m[1] == pytest.approx(2.5, abs=0.01)
    assert frame.elevation_min_m[0] == frame.elevation_max_m[0] == 500
    assert frame.below_min_slope.tolist() == [True, False, False, False]
    assert (len(frame), found.totals.dropped_flat, found.totals.uncovered, found.totals.unknown_slope) == (4, 0, 0, 0)


def test_flat_landslides_are_dropped_on_request(write_mask, mask, hill):
    options = InventoryOptions(dem=hill, min_slope_deg=10, drop_flat=True, min_area_m2=2)
    found = make_inventory(write_mask(mask), options=options)
    assert (len(found.frame), found.totals.dropped_small, found.totals.dropped_flat) == (2, 1, 1)
    assert found.frame.id.tolist() == [1, 2] and not found.frame.below_min_slope.any()


def test_unknown_slope_is_not_below(write_mask, mask, tmp_path):
    # The model ends 30 m east of the scene's edge, its slopes 10 m before: those of the first landslide are all.
    transform = Affine(10, 0, 499_900, 0, -10, 3_000_100)
    heights = np.full((30, 13), 500, np.float32)
    heights[6] = 501  # north of the scene
    dem = write_raster(tmp_path / "dem.tif", heights, crs=UTM, transform=transform)
    options = InventoryOptions(dem=dem, min_slope_deg=10, drop_flat=True)
    with (
        pytest.warns(LimKerasWarning, match="does not cover 40"),
        pytest.warns(LimKerasWarning, match=r"dem.tif: has no slope for 3 of 3 landslides on .*mask.tif"),
    ):
        found = make_inventory(write_mask(mask), options=options)
    assert found.totals.unknown_slope == 3
    assert found.totals.uncovered == pytest.approx(0.4) and found.totals.dropped_flat == 1
    assert found.frame.slope_mean_deg.isna().all() and len(found.frame) == 3
    assert found.frame.elevation_min_m.isna().tolist() == [True, False, False]


def test_a_void_model_is_said_of_the_landslides_that_are_kept(write_mask, mask, tmp_path):
    # Void below the first landslide (columns 5 to 15) alone, and level elsewhere; the smallest, of 1 m2, is left out.
    heights = np.full((60, 60), 500, np.float32)
    heights[:, :23] = -9999
    heights[16, 23:] = 501  # north of the scene
    transform = Affine(5, 0, 500_000 - 100, 0, -5, 3_000_000 + 100)
    dem = write_raster(tmp_path / "dem.tif", heights, crs=UTM, transform=transform, nodata=-9999)
    with pytest.warns(LimKerasWarning, match=r"has no slope for 1 of 3 landslides on valley.tif: more than 50%"):
        found = make_inventory(
            write_mask(mask), options=InventoryOptions(dem=dem, min_area_m2=2), scene=Path("valley.tif")
        )
    assert found.totals.unknown_slope == 1 and found.totals.uncovered == 0
    assert found.frame.slope_mean_deg.isna().tolist() == [True, False, False]


@pytest.mark.parametrize(("void_rows", "coverage"), [(14, 0.5), (15, 0.45), (24, 0.0)])
def test_a_slope_from_a_small_part_of_a_landslide_is_unknown(write_mask, mask, tmp_path, void_rows, coverage):
    # Cells of 1 m on the pixels, level, void above a row. The first landslide has rows 5 to 24; slopes begin a row
    # below the void, so that of 20 rows 10, 9 or none have one.
    heights = np.full((80, 70), 500, np.float32)
    heights[72:] = 501  # south of the scene
    heights[: 10 + void_rows] = np.nan
    transform = Affine(1, 0, 500_000 - 10, 0, -1, 3_000_000 + 10)
    dem = write_raster(tmp_path / "dem.tif", heights, crs=UTM, transform=transform)
    options = {"dem": dem, "min_slope_deg": 18}
    with pytest.warns(LimKerasWarning, match=r"more than 50% of each lies in a void or outside"):
        found = make_inventory(write_mask(mask), options=InventoryOptions(**options))
        kept = make_inventory(write_mask(mask), options=InventoryOptions(**options, drop_flat=True))
    first = found.frame.iloc[0]
    assert first.slope_coverage == pytest.approx(coverage) and first.slope_unknown == (coverage < 0.5)
    assert math.isnan(first.slope_mean_deg) == (coverage < 0.5) and first.below_min_slope == (coverage >= 0.5)
    # The second landslide, in rows 5 to 10, lies in the void; the others are flat.
    assert found.totals.unknown_slope == 1 + (coverage < 0.5)
    assert len(kept.frame) == found.totals.unknown_slope and kept.frame.slope_unknown.all()


def test_a_model_of_few_cells_has_no_slope_at_its_edge(write_mask, mask, tmp_path):
    # 3 x 3 cells of 400 m, the first of which covers the scene
    transform = Affine(400, 0, 500_000, 0, -400, 3_000_000)
    heights = np.arange(9, dtype=np.float32).reshape(3, 3) * 100
    dem = write_raster(tmp_path / "dem.tif", heights, crs=UTM, transform=transform)
    expected = r"dem.tif: has no slope for 4 of 4 .*on the outermost cells of the model.*reaches at least a cell beyond"
    with pytest.warns(LimKerasWarning, match=expected):
        found = make_inventory(write_mask(mask), options=InventoryOptions(dem=dem))
    assert found.totals.unknown_slope == 4 and found.totals.uncovered == 0


@pytest.mark.filterwarnings("default::lim_keras.errors.LimKerasWarning")
def test_a_model_without_relief_is_reported(write_mask, mask, tmp_path):
    transform = Affine(5, 0, 500_000 - 100, 0, -5, 3_000_000 + 100)
    dem = write_raster(tmp_path / "dem.tif", np.full((60, 60), 7, np.int16), crs=UTM, transform=transform)
    with pytest.warns(LimKerasWarning, match=r"dem.tif: all of its elevations on .*mask.tif are 7 m"):
        make_inventory(write_mask(mask), options=InventoryOptions(dem=dem, min_slope_deg=5))


def test_a_model_of_zeros_is_void(write_mask, mask, tmp_path):
    transform = Affine(5, 0, 500_000 - 100, 0, -5, 3_000_000 + 100)
    dem = write_raster(tmp_path / "dem.tif", np.zeros((60, 60), np.int16), crs=UTM, transform=transform)
    options = InventoryOptions(dem=dem, min_slope_deg=5, drop_flat=True)
    with (
        pytest.warns(LimKerasWarning, match=r"dem.tif: 0 is the only elevation of .*mask.tif.*-a_nodata 0"),
        pytest.warns(LimKerasWarning, match=r"has no slope for 4 of 4 landslides"),
    ):
        found = make_inventory(write_mask(mask), options=options)
    assert found.totals.dropped_flat == 0 and found.frame.slope_unknown.all()


def test_messages_name_the_scene_of_the_mask(write_mask, tmp_path):
    path = write_mask([[0, 1]], crs="", transform=None)
    with pytest.raises(ConfigError, match=r"^valley.tif: its ground sample distance is unknown"):
        make_inventory(path, options=InventoryOptions(min_area_m2=1), scene=Path("valley.tif"))
    with pytest.raises(DataError, match=r"^valley.tif: has no coordinate reference system"):
        make_inventory(path, options=InventoryOptions(dem=tmp_path / "dem.tif"), scene=Path("valley.tif"))


def test_without_crs(write_mask, mask):
    path = write_mask(mask, crs="", transform=None)
    found = make_inventory(path)
    assert found.totals.crs == "" and found.frame.crs is None
    assert found.frame[["area_m2", "perimeter_m", "longitude", "latitude"]].isna().all(axis=None)
    assert found.frame.elongation[0] == pytest.approx(2)
    assert found.frame.geometry[0].equals(box(5, -25, 15, -5))
    # 200 pixels of 0.5 m: 50 m2.
    found = make_inventory(path, gsd_m=0.5, options=InventoryOptions(min_area_m2=10))
    assert found.frame.area_m2.tolist() == pytest.approx([50]) and found.totals.dropped_small == 3


@pytest.mark.parametrize("option", ["min_area_m2", "fill_holes_m2", "simplify_m"])
def test_metres_need_a_crs_or_a_gsd(write_mask, option):
    path = write_mask([[0, 1]], crs="", transform=None)
    with pytest.raises(ConfigError, match=rf"mask.tif: its ground sample distance.*needed for `{option}`"):
        make_inventory(path, options=InventoryOptions(**{option: 1}))
    make_inventory(path, options=InventoryOptions(fill_holes_m2=math.inf))


def test_none(write_mask, hill):
    found = make_inventory(
        write_mask(np.zeros((60, 50))), options=InventoryOptions(dem=hill, min_slope_deg=5, simplify_m=1)
    )
    assert [*found.frame.columns] == [*COLUMNS, *TERRAIN, "below_min_slope", "geometry"]
    assert len(found.frame) == 0 and found.frame.crs.to_string() == UTM


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_area_m2": -1}, "`min_area_m2`. Expected a number >= 0. Received: -1"),
        ({"min_area_m2": math.inf}, "`min_area_m2`"),
        ({"fill_holes_m2": math.nan}, "`fill_holes_m2`"),
        ({"simplify_m": -0.1}, "`simplify_m`"),
        ({"min_slope_deg": 91}, "`min_slope_deg`. Expected degrees"),
        ({"drop_flat": True}, "`drop_flat` needs `min_slope_deg`"),
        ({"min_slope_deg": 5}, "`min_slope_deg` needs an elevation model. Give `dem`"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ConfigError, match=message):
        InventoryOptions(**options)


def test_bad_arguments(write_mask):
    path = write_mask([[0, 1]])
    with pytest.raises(ConfigError, match=r"`folds`. Expected a whole number >= 1. Received: 0"):
        make_inventory(path, folds=0)


def test_tensorflow_is_not_needed():
    code = "import sys, lim_keras.inventory; sys.exit(any(name in sys.modules for name in ('tensorflow', 'keras')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.real_data
def test_real_labels(real_data):
    # The 70 polygons that the truth was burnt from.
    import geopandas

    truth = geopandas.read_file(real_data / "scenes" / "bijie_test_composite_landslides.geojson")
    found = make_inventory(real_data / "scenes" / "bijie_test_composite_labels.tif")
    assert len(found.frame) == len(truth) == 70
    assert found.frame.area.sum() == pytest.approx(truth.area.sum())
    # 105.3 degrees is 0.3 degrees off the central meridian: areas are 1 / 0.9996^2 times those of the grid.
    assert found.frame.area_m2.sum() == pytest.approx(truth.area.sum() / 0.9996**2, rel=1e-4)


@pytest.mark.parametrize("options", [{}, {"fill_holes_m2": 3}, {"fill_holes_m2": math.inf}, {"simplify_m": 1.2}])
def test_landslides_in_parts_are_those_of_the_whole(write_mask, monkeypatch, options):
    # Rings in rings: the holes that are filled begin in earlier parts than what lies in them.
    rng = np.random.default_rng(11)
    mask = (rng.random((50, 60)) < 0.35).astype(np.uint8)
    for depth in range(0, 12, 3):
        mask[depth : 40 - depth, depth] = mask[depth : 40 - depth, 50 - depth] = 1
        mask[depth, depth : 51 - depth] = mask[39 - depth, depth : 51 - depth] = 1
    path, options = write_mask(mask), InventoryOptions(**options)
    whole = make_inventory(path, options=options)
    monkeypatch.setattr("lim_keras.inventory.spool._VERTICES", 30)
    parts = make_inventory(path, options=options)
    assert parts.totals == dataclasses.replace(whole.totals, area_m2=pytest.approx(whole.totals.area_m2))
    assert parts.frame.drop(columns="geometry").equals(whole.frame.drop(columns="geometry"))
    assert shapely.equals_exact(parts.frame.geometry.to_numpy(), whole.frame.geometry.to_numpy(), 0).all()


def test_touching_landslides_are_simplified_together_up_to_a_number(write_mask, monkeypatch):
    mask = (np.random.default_rng(12).random((40, 40)) < 0.55).astype(np.uint8)
    monkeypatch.setattr("lim_keras.inventory.spool._VERTICES", 30)
    monkeypatch.setattr("lim_keras.inventory.drawing._TOUCHING", 5)
    found = make_inventory(write_mask(mask), options=InventoryOptions(simplify_m=1.2)).frame
    assert found.is_valid.all() and len(found) == len(make_inventory(write_mask(mask)).frame)
