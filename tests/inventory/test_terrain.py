import math

import numpy as np
import pytest
import rasterio
from pyproj import Transformer
from rasterio import Affine

from lim_keras.errors import DataError, LimKerasWarning
from lim_keras.inventory.terrain import TerrainReader, slope_aspect
from lim_keras.raster.images import read_info
from lim_keras.raster.windows import Box
from lim_keras.raster.writer import write_raster

UTM = "EPSG:32648"
# At the central meridian, where a metre of the grid is 1 / 0.9996 m.
X, Y = 500_000.0, 3_000_000.0


def plane(east, south, height=6, width=7, xres=1.0, yres=1.0):
    """Elevations that rise by `east` a metre to the east and by `south` a metre to the south."""
    rows, columns = np.mgrid[:height, :width]
    return (100 + east * columns * xres + south * rows * yres).astype(np.float32)


# Horn's formula.


@pytest.mark.parametrize(
    ("east", "south", "slope", "aspect"),
    [
        # A slope that rises to the east faces west, and so on; tan 45 = 1.
        (1, 0, 45, 270),
        (-1, 0, 45, 90),
        (0, 1, 45, 0),
        (0, -1, 45, 180),
        # Steepness 0.5 is 26.565 degrees. Downhill is (-0.3 east, 0.4 north): 360 - atan(0.3 / 0.4) = 323.13.
        (0.3, 0.4, 26.5651, 323.1301),
        # Downhill is (-0.3 east, -0.4 north): 180 + 36.87.
        (0.3, -0.4, 26.5651, 216.8699),
        (0, 0, 0, math.nan),
    ],
)
@pytest.mark.parametrize(("xres", "yres"), [(1, 1), (30, 20)])
def test_tilted_planes(east, south, slope, aspect, xres, yres):
    found = slope_aspect(plane(east, south, xres=xres, yres=yres), xres, yres)
    for layer, expected in zip(found, (slope, aspect), strict=True):
        assert layer.dtype == np.float32
        np.testing.assert_allclose(layer[1:-1, 1:-1], expected, atol=2e-3)
        assert np.isnan(layer[[0, -1]]).all() and np.isnan(layer[:, [0, -1]]).all()


def test_hand_worked_neighbourhood():
    # east: ((3 + 2 x 9 + 9) - (1 + 2 x 4 + 7)) / 8 = 1.75; south: ((7 + 2 x 8 + 9) - (1 + 2 x 2 + 3)) / 8 = 3.
    # Steepness sqrt(1.75^2 + 3^2) = 3.4731: 73.94 degrees. Downhill (-1.75 east, 3 north): 360 - 30.26.
    slope, aspect = slope_aspect(np.array([[1, 2, 3], [4, 5, 9], [7, 8, 9]], np.float32), 1, 1)
    assert slope[1, 1] == pytest.approx(73.9370, abs=1e-3)
    assert aspect[1, 1] == pytest.approx(329.7436, abs=1e-3)
    # Cells twice as wide halve the rise to the east: sqrt(0.875^2 + 3^2) = 3.125: 72.2553 degrees.
    slope, _ = slope_aspect(np.array([[1, 2, 3], [4, 5, 9], [7, 8, 9]], np.float32), 2, 1)
    assert slope[1, 1] == pytest.approx(72.2553, abs=1e-3)


def test_a_size_for_each_row():
    xres = np.arange(1.0, 7.0)[:, np.newaxis]
    slope, _ = slope_aspect(plane(1, 0), xres, 1)
    np.testing.assert_allclose(slope[1:-1, 3], np.degrees(np.arctan(1 / np.arange(2, 6))), rtol=1e-6)


@pytest.mark.parametrize("gap", [(2, 2), (3, 4)])
def test_unknown_neighbours_make_it_unknown(gap):
    elevation = plane(1, 0)
    elevation[gap] = np.nan
    slope, _ = slope_aspect(elevation, 1, 1)
    expected = np.zeros((6, 7), bool)
    expected[[0, -1]] = expected[:, [0, -1]] = True
    expected[gap[0] - 1 : gap[0] + 2, gap[1] - 1 : gap[1] + 2] = True
    np.testing.assert_array_equal(np.isnan(slope), expected)


@pytest.mark.parametrize("shape", [(1, 1), (2, 9), (9, 2)])
def test_too_small_for_a_neighbourhood(shape):
    assert np.isnan(slope_aspect(np.zeros(shape, np.float32), 1, 1)).all()


# Below a scene.


@pytest.fixture
def scene(tmp_path):
    """200 x 160 pixels of 1 m."""
    path = write_raster(tmp_path / "scene.tif", np.zeros((160, 200), np.uint8), crs=UTM, transform=at(X, Y, 1))
    return read_info(path)


def at(x, y, step):
    return Affine(step, 0, x, 0, -step, y)


def elevations(crs, transform, height, width, east=0.3, south=0.4):
    """A plane over UTM, sampled at the cells of any grid."""
    rows, columns = np.mgrid[:height, :width] + 0.5
    x = transform.a * columns + transform.b * rows + transform.c
    y = transform.d * columns + transform.e * rows + transform.f
    x, y = Transformer.from_crs(crs, UTM, always_xy=True).transform(x, y)
    return 1000 + east * (x - X) + south * (Y - y)


def write_dem(tmp_path, crs=UTM, transform=None, shape=(30, 30), dtype=np.float32, factor=1.0, nodata=None):
    """30 m cells around the scene unless told."""
    transform = transform or at(X - 300, Y + 300, 30)
    values = elevations(crs, transform, *shape) * factor
    return write_raster(tmp_path / "dem.tif", values.astype(dtype), crs=crs, transform=transform, nodata=nodata)


def read(dem, scene, window=None):
    with TerrainReader(dem, scene) as terrain:
        assert terrain.uncovered == pytest.approx(0, abs=1e-9)
        return terrain.read(window or scene.box)


def check(terrain, elevation=1000 + 0.3 * 100 + 0.4 * 80, slope=26.5651, aspect=323.1301, atol=0.05):
    """The middle of the scene is 100 m east and 80 m south of its corner."""
    assert terrain.elevation.shape == terrain.slope.shape == terrain.aspect.shape == (160, 200)
    assert terrain.elevation[79:81, 99:101].mean() == pytest.approx(elevation, abs=0.3)
    np.testing.assert_allclose(terrain.slope, slope, atol=atol)
    np.testing.assert_allclose(terrain.aspect, aspect, atol=0.1)


def test_dem_in_the_scene_s_crs(tmp_path, scene):
    check(read(write_dem(tmp_path), scene))


def test_dem_in_degrees(tmp_path, scene):
    # Cells of one arc second; the meridian of 105 degrees passes through X.
    step = 1 / 3600
    check(read(write_dem(tmp_path, "EPSG:4326", at(105 - 5 * step, 27.125, step), (30, 20)), scene))


def test_dem_in_web_mercator(tmp_path, scene):
    # Its metres are 0.89 m at latitude 27; taken at their word they would give 24.0 degrees.
    x, y = Transformer.from_crs(UTM, "EPSG:3857", always_xy=True).transform(X, Y)
    check(read(write_dem(tmp_path, "EPSG:3857", at(x - 300, y + 300, 30)), scene))


def test_dem_of_the_next_zone_is_turned_to_true_north(tmp_path, scene):
    # Grid north of zone 47N leans by 2.75 degrees from true north here.
    x, y = Transformer.from_crs(UTM, "EPSG:32647", always_xy=True).transform(X, Y)
    check(read(write_dem(tmp_path, "EPSG:32647", at(x - 300, y + 300, 30)), scene), slope=26.58)


@pytest.mark.parametrize(
    "transform",
    [
        Affine(30, 0, X - 300, 0, 30, Y - 600),  # from south to north
        Affine(24, 18, X - 300, 18, -24, Y - 100),  # turned
    ],
)
def test_dem_that_is_not_north_up(tmp_path, scene, transform):
    check(read(write_dem(tmp_path, transform=transform), scene), atol=0.3)


@pytest.mark.parametrize(("unit", "metres"), [("ft", 0.3048), ("US survey foot", 1200 / 3937), ("Metre", 1.0)])
def test_band_unit(tmp_path, scene, unit, metres):
    dem = write_dem(tmp_path, factor=1 / metres)
    with rasterio.open(dem, "r+") as target:
        target.units = (unit,)
    check(read(dem, scene))


def test_vertical_crs_in_feet(tmp_path, scene):
    check(read(write_dem(tmp_path, f"{UTM}+6360", factor=3937 / 1200), scene))  # NAVD 88 height (ftUS)


def test_unknown_unit(tmp_path, scene):
    dem = write_dem(tmp_path)
    with rasterio.open(dem, "r+") as target:
        target.units = ("fathom",)
    with pytest.raises(DataError, match="metres or feet, but the band's unit is 'fathom'"), TerrainReader(dem, scene):
        pass


# California zone 5: its grid counts in US survey feet.
FEET = {"crs": "EPSG:2229", "transform": Affine(100, 0, 6_500_000, 0, -100, 1_900_000)}


@pytest.mark.parametrize(("unit", "metres"), [("US survey foot", 1200 / 3937), ("metre", 1.0)])
def test_heights_on_a_grid_in_feet_need_a_unit(tmp_path, unit, metres):
    scene = read_info(write_raster(tmp_path / "scene.tif", np.zeros((9, 9), np.uint8), **FEET))
    # Rises by 20 degrees to the east. Feet taken for metres would be atan(tan(20) x 3.2808) = 50.06 degrees.
    rise_m = np.tan(np.radians(20)) * 100 * 1200 / 3937
    heights = np.tile(500 + rise_m * np.arange(30), (30, 1)) / metres
    place = FEET | {"transform": Affine(100, 0, 6_499_000, 0, -100, 1_901_000)}
    dem = write_raster(tmp_path / "dem.tif", heights.astype(np.float32), **place)
    with pytest.raises(DataError, match=r"dem.tif: .* its grid is in US survey foot.*`gdal_edit.py -units metre`"):
        TerrainReader(dem, scene).__enter__()
    with rasterio.open(dem, "r+") as target:
        target.units = (unit,)
    np.testing.assert_allclose(read(dem, scene).slope, 20, atol=0.05)


def test_a_vertical_crs_says_the_unit_on_a_grid_in_feet(tmp_path):
    scene = read_info(write_raster(tmp_path / "scene.tif", np.zeros((9, 9), np.uint8), **FEET))
    heights = np.tile(500 + np.tan(np.radians(20)) * 100 * np.arange(30), (30, 1)).astype(np.float32)
    place = {"crs": "EPSG:2229+6360", "transform": Affine(100, 0, 6_499_000, 0, -100, 1_901_000)}
    dem = write_raster(tmp_path / "dem.tif", heights, **place)
    np.testing.assert_allclose(read(dem, scene).slope, 20, atol=0.05)


@pytest.mark.parametrize("factor", [100, 1000, 1e30])
def test_elevations_beyond_all_mountains_are_refused(tmp_path, scene, factor):
    # 1000 m and more: 100,000 cm
    dem = write_dem(tmp_path, factor=factor)
    with pytest.raises(DataError, match=rf"dem.tif: .*-9000 to 9000 m.*factor to metres.*-scale 0.01 {dem}"):
        read(dem, scene)
    with rasterio.open(dem, "r+") as target:
        target.scales = (1 / factor,)
    check(read(dem, scene))


def test_undeclared_voids_of_two_values_are_no_elevations(tmp_path, scene):
    transform = at(X - 300, Y + 300, 30)
    values = elevations(UTM, transform, 30, 30)
    values[:14], values[14, ::2] = -99999, 1e38
    terrain = read(write_raster(tmp_path / "dem.tif", values, crs=UTM, transform=transform), scene)
    assert np.isnan(terrain.slope[:100]).all() and np.nanmin(terrain.elevation) > 990


def test_scaled_integers(tmp_path, scene):
    # Tenths of a metre above 500 m.
    transform = at(X - 300, Y + 300, 30)
    values = np.rint((elevations(UTM, transform, 30, 30) - 500) * 10).astype(np.int16)
    dem = write_raster(tmp_path / "dem.tif", values, crs=UTM, transform=transform)
    with rasterio.open(dem, "r+") as target:
        target.scales, target.offsets = (0.1,), (500,)
    check(read(dem, scene))


@pytest.mark.parametrize("nodata", [-32768, None])
@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_voids(tmp_path, scene, dtype, nodata):
    # A void cell at the scene's corner; -32768 is no elevation, whether the file says so or not.
    transform = at(X - 300, Y + 300, 30)
    values = elevations(UTM, transform, 30, 30).astype(dtype)
    values[10, 10] = -32768
    dem = write_raster(tmp_path / "dem.tif", values, crs=UTM, transform=transform, nodata=nodata)
    terrain = read(dem, scene)
    # The cell reaches 30 m into the scene, and without it those beside it have no slope: 60 m.
    unknown = np.zeros((160, 200), bool)
    unknown[:30, :30] = True
    np.testing.assert_array_equal(np.isnan(terrain.elevation), unknown)
    unknown[:60, :60] = True
    np.testing.assert_array_equal(np.isnan(terrain.slope), unknown)
    assert np.nanmin(terrain.elevation) > 990
    assert np.nanmax(np.abs(terrain.slope - 26.5651)) < (1 if dtype == np.int16 else 0.05)


@pytest.mark.parametrize(
    ("void", "scaling"),
    [
        (-9999.0, {"units": ("ft",)}),  # -3,048 m as feet
        (-32768.0, {"scales": (0.1,)}),  # -3,277 m as tenths of a metre
        (-9999.0, {"scales": (0.1,), "offsets": (500.0,)}),
    ],
)
def test_undeclared_voids_of_scaled_values(tmp_path, scene, void, scaling):
    transform = at(X - 300, Y + 300, 30)
    values = elevations(UTM, transform, 30, 30)
    values = (values - scaling.get("offsets", (0,))[0]) / scaling.get("scales", (1,))[0]
    values = values / 0.3048 if "units" in scaling else values
    values[10, 10] = void
    dem = write_raster(tmp_path / "dem.tif", values.astype(np.float32), crs=UTM, transform=transform)
    with rasterio.open(dem, "r+") as target:
        for name, value in scaling.items():
            setattr(target, name, value)
    terrain = read(dem, scene)
    assert np.isnan(terrain.elevation[:29, :29]).all() and np.nanmin(terrain.elevation) > 990


@pytest.mark.parametrize("void", [0.0, -999.0, 9999.0])
def test_a_value_far_from_all_others_is_taken_for_voids_with_a_warning(tmp_path, scene, void):
    transform = at(X - 300, Y + 300, 30)
    values = elevations(UTM, transform, 30, 30).astype(np.float32)
    values[10, 10] = void
    dem = write_raster(tmp_path / "dem.tif", values, crs=UTM, transform=transform)
    with pytest.warns(LimKerasWarning, match=rf"dem.tif: {void:g} is far from all .*-a_nodata {void:g}"):
        terrain = read(dem, scene)
    unknown = np.zeros((160, 200), bool)
    unknown[:60, :60] = True
    np.testing.assert_array_equal(np.isnan(terrain.slope), unknown)
    np.testing.assert_allclose(terrain.slope[~unknown], 26.5651, atol=0.05)


def test_the_sea_does_not_count_as_void(tmp_path, scene):
    # A beach: 0 m in the west, rising by 1 in 2 from there on.
    heights = np.tile(np.maximum(np.arange(30) - 13, 0) * 15, (30, 1)).astype(np.float32)
    dem = write_raster(tmp_path / "dem.tif", heights, crs=UTM, transform=at(X - 300, Y + 300, 30))
    terrain = read(dem, scene)
    assert np.isfinite(terrain.slope).all() and terrain.slope[0, 0] == 0


def test_voids_of_a_finer_model_are_not_averaged_with_heights(tmp_path, scene):
    # Cells of 0.25 m: the mean of -9999 and three elevations around 1,000 m would be a depth of 1,750 m.
    transform = at(X - 20, Y + 20, 0.25)
    values = elevations(UTM, transform, 800, 960).astype(np.float32)
    values[400::40, 400::40] = -9999
    terrain = read(write_raster(tmp_path / "dem.tif", values, crs=UTM, transform=transform), scene)
    assert np.nanmin(terrain.elevation) > 990 and np.nanmax(terrain.slope) < 35


def test_level_ground_has_a_slope_and_no_aspect(tmp_path, scene):
    transform = at(X - 300, Y + 300, 30)
    terrain = read(write_raster(tmp_path / "dem.tif", np.full((30, 30), 7.0), crs=UTM, transform=transform), scene)
    assert (terrain.slope == 0).all() and (terrain.elevation == 7).all() and np.isnan(terrain.aspect).all()


def test_finer_dem_is_averaged_to_the_scene(tmp_path, scene):
    # Rough by +-2 m from cell to cell of 0.25 m: slopes of 80 degrees and more, but none at the scene's 1 m.
    transform = at(X - 20, Y + 20, 0.25)
    values = elevations(UTM, transform, 800, 960)
    values += 2 * (-1.0) ** np.add.outer(np.arange(800), np.arange(960))
    dem = write_raster(tmp_path / "dem.tif", values.astype(np.float32), crs=UTM, transform=transform)
    check(read(dem, scene))


def test_windows_are_parts_of_the_whole(tmp_path, scene):
    rough = np.random.default_rng(0).normal(1000, 20, (50, 60)).astype(np.float32)
    dem = write_raster(tmp_path / "dem.tif", rough, crs=UTM, transform=at(X - 60, Y + 60, 7))
    with TerrainReader(dem, scene) as terrain:
        whole = terrain.read(Box.sized(0, 0, 160, 200))
        part = terrain.read(Box.sized(70, 90, 50, 64))
    np.testing.assert_allclose(part.slope, whole.slope[70:120, 90:154], atol=1e-3)
    np.testing.assert_allclose(part.elevation, whole.elevation[70:120, 90:154], atol=1e-3)


def test_slopes_are_those_of_the_model_s_own_cells(tmp_path, scene):
    # A ridge of one cell, 30 m high: Horn gives its flanks 30 m / 60 m, 26.6 degrees, and its top 0. Pixels of 1 m on
    # the facets between the cells' centres would have 45 degrees everywhere.
    values = np.zeros((30, 30), np.float32)
    values[:, 12] = 30
    dem = write_raster(tmp_path / "dem.tif", values, crs=UTM, transform=at(X - 300, Y + 300, 30))
    slope = read(dem, scene).slope[80]
    centres = np.arange(15, 200, 30)  # of cells 10 to 16; between two pixels
    found = (slope[centres] + slope[centres - 1]) / 2
    np.testing.assert_allclose(found, [0, 26.57, 0, 26.57, 0, 0, 0], atol=0.5)


def test_dem_that_covers_a_half(tmp_path, scene):
    # The model ends 100 m east of the scene's western edge.
    dem = write_dem(tmp_path, transform=at(X - 500, Y + 300, 20), shape=(40, 30))
    with pytest.warns(LimKerasWarning, match=r"dem.tif: does not cover 50.0% of .*scene.tif"):
        terrain = TerrainReader(dem, scene).__enter__()
    found = terrain.read(Box.sized(0, 0, 160, 200))
    terrain.__exit__(None, None, None)
    assert terrain.uncovered == pytest.approx(0.5)
    assert np.isfinite(found.elevation[:, :95]).all() and np.isnan(found.elevation[:, 105:]).all()
    assert np.isfinite(found.slope[:, :65]).all() and np.isnan(found.slope[:, 105:]).all()
    # A window that lies wholly outside.
    with pytest.warns(LimKerasWarning), TerrainReader(dem, scene) as terrain:
        assert np.isnan(terrain.read(Box.sized(0, 190, 10, 10)).slope).all()


@pytest.mark.parametrize(
    ("crs", "transform"),
    [(UTM, at(X + 5000, Y, 30)), ("EPSG:4326", at(-70, -20, 0.001)), ("EPSG:3031", at(0, 0, 30))],
)
def test_dem_elsewhere(tmp_path, scene, crs, transform):
    dem = write_raster(tmp_path / "dem.tif", np.zeros((9, 9), np.float32), crs=crs, transform=transform)
    with pytest.raises(DataError, match=r"dem.tif: .*lies elsewhere"), TerrainReader(dem, scene):
        pass


def test_dem_without_crs_or_with_bands(tmp_path, scene):
    cases = (
        (np.zeros((9, 9), np.float32), "", "a georeferenced elevation model. Received: no CRS.*`gdal_edit.py -a_srs"),
        (np.zeros((9, 9, 3), np.float32), UTM, "an elevation model of one band. Received: 3 bands.*`gdal_translate -b"),
    )
    for pixels, crs, said in cases:
        dem = write_raster(tmp_path / "dem.tif", pixels, crs=crs, transform=at(X, Y, 30))
        with pytest.raises(DataError, match=f"expected {said}"):
            TerrainReader(dem, scene).__enter__()


def test_scene_without_crs(tmp_path):
    scene = read_info(write_raster(tmp_path / "scene.tif", np.zeros((4, 4), np.uint8)))
    with pytest.raises(DataError, match=r"scene.tif: has no coordinate reference system"):
        TerrainReader(write_dem(tmp_path), scene).__enter__()


def test_missing_dem(tmp_path, scene):
    with pytest.raises(DataError, match=r"none.tif: not found"):
        TerrainReader(tmp_path / "none.tif", scene).__enter__()


def test_dem_in_the_local_crs_of_the_scene(tmp_path):
    # Feet across and metres up: it rises by tan 20 to the east.
    local = 'LOCAL_CS["site grid",UNIT["foot",0.3048],AXIS["x",EAST],AXIS["y",NORTH]]'
    scene = read_info(write_raster(tmp_path / "a.tif", np.zeros((16, 20), np.uint8), crs=local, transform=at(9, 9, 3)))
    heights = np.tile(500 + np.tan(np.radians(20)) * 3.048 * np.arange(30), (30, 1)).astype(np.float32)
    dem = write_raster(tmp_path / "dem.tif", heights, crs=local, transform=at(-91, 109, 10))
    terrain = read(dem, scene)
    np.testing.assert_allclose(terrain.slope, 20, atol=0.01)
    np.testing.assert_allclose(terrain.aspect, 270, atol=0.01)
    other = write_raster(tmp_path / "utm.tif", heights, crs=UTM, transform=at(-91, 109, 10))
    with pytest.raises(DataError, match=r"utm.tif: its CRS .*48N\) and that of .*a.tif have no known relation"):
        TerrainReader(other, scene).__enter__()


# Across the antimeridian.

FIJI = {"crs": "EPSG:32760", "transform": Affine(10, 0, 819_000, 0, -10, 8_118_000)}  # 200 x 160 pixels around 180 E


def hillside(crs, longitudes, latitudes, step, written_turn=0.0):
    """A plane in degrees that rises by 20 degrees to the east; `written_turn`: added to the longitudes of its file."""
    columns = np.arange(round((longitudes[1] - longitudes[0]) / step)) + 0.5
    rows = np.arange(round((latitudes[1] - latitudes[0]) / step))
    east = (columns * step + longitudes[0] - 180) * 106_487.7  # metres a degree at 17 S (Snyder 1987)
    heights = np.tile(500 + np.tan(np.radians(20)) * east, (len(rows), 1)).astype(np.float32)
    return heights, {"crs": crs, "transform": at(longitudes[0] + written_turn, latitudes[1], step)}


@pytest.mark.parametrize("written_turn", [0.0, -360.0])
@pytest.mark.parametrize(
    "place",
    [
        FIJI,
        {"crs": "EPSG:32701", "transform": Affine(10, 0, 179_600, 0, -10, 8_118_000)},
        {"crs": "EPSG:4326", "transform": Affine(1e-4, 0, 179.99, 0, -1e-4, -16.99)},
        {"crs": "EPSG:4326", "transform": Affine(1e-4, 0, -180.01, 0, -1e-4, -16.99)},
        {"crs": "EPSG:4269", "transform": Affine(1e-4, 0, -180.01, 0, -1e-4, -16.99)},
    ],
)
def test_dem_in_degrees_across_the_antimeridian(tmp_path, place, written_turn):
    scene = read_info(write_raster(tmp_path / "scene.tif", np.zeros((160, 200), np.uint8), **place))
    heights, where = hillside("EPSG:4326", (179.9, 180.1), (-17.1, -16.9), 5e-4, written_turn)
    dem = write_raster(tmp_path / "dem.tif", heights, **where)
    terrain = read(dem, scene)
    np.testing.assert_allclose(terrain.slope, 20, atol=0.1)
    np.testing.assert_allclose(terrain.aspect, 270, atol=0.6)


@pytest.mark.parametrize("west", [20_026_000, -20_049_000])  # of a map whose edge is at 20,037,508 m
@pytest.mark.parametrize(
    "place", [FIJI, {"crs": "EPSG:3857", "transform": Affine(10, 0, 20_036_500, 0, -10, -1_920_000)}]
)
def test_dem_in_web_mercator_across_the_antimeridian(tmp_path, place, west):
    scene = read_info(write_raster(tmp_path / "scene.tif", np.zeros((160, 200), np.uint8), **place))
    east = ((west + 50 * (np.arange(460) + 0.5)) / 20_037_508.34 * 180 % 360 - 180) * 106_487.7
    heights = np.tile(500 + np.tan(np.radians(20)) * east, (600, 1)).astype(np.float32)
    place = {"crs": "EPSG:3857", "transform": at(west, -1_905_000, 50)}
    slope = read(write_raster(tmp_path / "dem.tif", heights, **place), scene).slope
    known = np.isfinite(slope)  # GDAL loses a pixel of a row at the edge of the map
    assert known.mean() > 0.99
    np.testing.assert_allclose(slope[known], 20, atol=0.15)


def test_dem_on_one_side_of_the_antimeridian(tmp_path):
    scene = read_info(write_raster(tmp_path / "scene.tif", np.zeros((160, 200), np.uint8), **FIJI))
    for longitudes, written_turn in (((179.9, 180.0), 0.0), ((180.0, 180.1), -360.0)):
        heights, where = hillside("EPSG:4326", longitudes, (-17.1, -16.9), 5e-4, written_turn)
        dem = write_raster(tmp_path / "dem.tif", heights, **where)
        with pytest.warns(LimKerasWarning, match="does not cover"), TerrainReader(dem, scene) as terrain:
            slope = terrain.read(scene.box).slope
        assert 0.2 < terrain.uncovered < 0.8
        known = np.isfinite(slope)
        # A cell of 53 m at the model's edge has no slope.
        assert known.mean() == pytest.approx(1 - terrain.uncovered, abs=0.06)
        np.testing.assert_allclose(slope[known], 20, atol=0.1)


def test_dem_around_the_earth(tmp_path):
    # One row of degrees from -180 to 180: the scene needs its last and its first columns.
    scene = read_info(write_raster(tmp_path / "scene.tif", np.zeros((160, 200), np.uint8), **FIJI))
    step = 0.002
    columns = np.arange(180_000) * step - 180 + step / 2
    east = np.where(columns < 0, columns + 360, columns) - 180
    row = np.where(abs(east) < 0.2, 500 + np.tan(np.radians(20)) * east * 106_487.7, 0).astype(np.float32)
    dem = write_raster(tmp_path / "dem.tif", np.tile(row, (60, 1)), crs="EPSG:4326", transform=at(-180, -16.94, step))
    terrain = read(dem, scene)
    np.testing.assert_allclose(terrain.slope, 20, atol=0.1)


def test_dem_in_degrees_at_a_pole_is_refused(tmp_path):
    place = {"crs": "EPSG:3031", "transform": at(-1000, 800, 10)}
    scene = read_info(write_raster(tmp_path / "scene.tif", np.zeros((160, 200), np.uint8), **place))
    degrees = at(-180, -89.9, 1.0)
    dem = write_raster(tmp_path / "dem.tif", np.zeros((1, 360), np.float32), crs="EPSG:4326", transform=degrees)
    message = r"dem.tif: expected .* a polar CRS, because .*scene.tif holds a pole. Received: EPSG:4326.*EPSG:3031"
    with pytest.raises(DataError, match=message):
        TerrainReader(dem, scene).__enter__()


@pytest.mark.real_data
def test_real_dem(real_data):
    # Another program's slopes of the same model.
    dem = real_data / "rasters" / "jiuzhaigou_dem_30m.tif"
    info = read_info(dem)
    with rasterio.open(real_data / "rasters" / "jiuzhaigou_slope_30m.tif") as source:
        expected = source.read(1, masked=True).filled(np.nan)
    with rasterio.open(dem) as source:
        nominal, _ = slope_aspect(source.read(1).astype(np.float32), source.transform.a, -source.transform.e)
    with TerrainReader(dem, info) as terrain:
        measured = terrain.read(info.box).slope
    for slope, worst in ((nominal, 1e-4), (measured, 0.01)):  # UTM's scale is 0.9997 there
        difference = np.abs(slope - expected)[1:-1, 1:-1]
        assert np.isfinite(difference).all()
        assert np.median(difference) < 0.1 and np.mean(difference < 1) > 0.99
        assert difference.max() < worst


@pytest.mark.parametrize("turned", [False, True])
def test_an_undeclared_void_besides_a_declared_one_is_not_averaged(turned, tmp_path):
    height = plane(1, 0, 40, 40) + 1000
    height[10:14, 20:24], height[30, 30] = -9999, -32768
    transform = Affine(1, 0, X, 0, -1, Y) @ (Affine.rotation(45) if turned else Affine.identity())
    dem = write_raster(tmp_path / "dem.tif", height, crs=UTM, transform=transform, nodata=-32768)
    box = Affine(4, 0, X, 0, -4, Y) @ (Affine.translation(1, 3) if turned else Affine.identity())
    scene = write_raster(tmp_path / "scene.tif", np.zeros((6, 6), np.uint8), crs=UTM, transform=box)
    with TerrainReader(dem, read_info(scene)) as reader:
        found = reader.read(Box(0, 0, 6, 6))
    assert np.nanmin(found.elevation) > 1090
    assert np.nanmax(found.slope) < 47


def test_columns_from_east_to_west(tmp_path):
    height = plane(0.5, 0.25, 20, 20, 10, 10)
    east = write_raster(tmp_path / "east.tif", height, crs=UTM, transform=Affine(10, 0, X, 0, -10, Y))
    west = write_raster(
        tmp_path / "west.tif", height[:, ::-1].copy(), crs=UTM, transform=Affine(-10, 0, X + 200, 0, -10, Y)
    )
    half_turn = write_raster(
        tmp_path / "turn.tif", height[::-1, ::-1].copy(), crs=UTM, transform=Affine(-10, 0, X + 200, 0, 10, Y - 200)
    )
    place = {"crs": UTM, "transform": Affine(10, 0, X + 50, 0, -10, Y - 50)}
    scene = read_info(write_raster(tmp_path / "scene.tif", np.zeros((8, 8), np.uint8), **place))
    layers = []
    for dem in (east, west, half_turn):
        with TerrainReader(dem, scene) as reader:
            layers.append(reader.read(Box(0, 0, 8, 8)))
    for other in layers[1:]:
        np.testing.assert_allclose(other.aspect, layers[0].aspect, atol=1e-3)
        np.testing.assert_allclose(other.slope, layers[0].slope, atol=1e-3)
