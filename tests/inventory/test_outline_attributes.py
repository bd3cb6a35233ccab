import math

import geopandas
import numpy as np
import pytest
import shapely
from rasterio import Affine
from shapely import Polygon, box

from lim_keras.inventory import polygons
from lim_keras.inventory.attributes import outline_attributes, polygon_areas_m2
from lim_keras.inventory.polygons import HoleFiller, ring_sizes, rings_of, simplify
from lim_keras.inventory.tracing import Rings
from lim_keras.raster.georeference import Georeference
from tests.inventory.conftest import trace

PIXELS = Georeference(Affine(1, 0, 0, 0, -1, 0), "", 1.0)


def utm(x=500_000.0, step=1.0) -> Georeference:
    return Georeference(Affine(step, 0, x, 0, -step, 3_000_000), "EPSG:32648", step)


def of(outline, ground):
    return {name: column[0] for name, column in outline_attributes(rings_of(np.array([outline])), ground).items()}


def test_rectangle_without_crs():
    # 10 m x 20 m: area 200, perimeter 60, compactness 4 pi 200 / 3600 = 0.698, elongation 20 / 10.
    found = of(box(5, 5, 15, 25), PIXELS)
    assert found["area_m2"] == pytest.approx(200)
    assert found["perimeter_m"] == pytest.approx(60)
    assert found["compactness"] == pytest.approx(0.6981317)
    assert found["elongation"] == pytest.approx(2)
    assert math.isnan(found["longitude"]) and math.isnan(found["latitude"])


def test_ground_sample_distance_scales():
    # Pixels of 0.5 m: a quarter of the area, half of the perimeter; ratios stay.
    found = of(box(5, 5, 15, 25), Georeference(PIXELS.transform, "", 0.5))
    assert [found["area_m2"], found["perimeter_m"], found["elongation"]] == pytest.approx([50, 30, 2])


def test_without_any_scale_ratios_are_known():
    found = of(box(5, 5, 15, 25), Georeference(PIXELS.transform, "", None))
    assert math.isnan(found["area_m2"]) and math.isnan(found["perimeter_m"])
    assert [found["compactness"], found["elongation"]] == pytest.approx([0.6981317, 2])


def test_rectangle_in_utm():
    # At the central meridian a metre of the grid is 1 / 0.9996 m: area 200 / 0.9996^2 = 200.1601, perimeter 60.0240.
    found = of(box(0, 0, 10, 20), utm())
    assert found["area_m2"] == pytest.approx(200.1601, abs=1e-3)
    assert found["perimeter_m"] == pytest.approx(60.0240, abs=1e-3)
    assert found["compactness"] == pytest.approx(0.6981317, abs=1e-5)
    assert found["elongation"] == pytest.approx(2, abs=1e-5)
    # 5 m east of the central meridian of 105 degrees, of 98.9 km a degree at latitude 27.12.
    assert found["longitude"] == pytest.approx(105.0000504, abs=1e-6)
    assert found["latitude"] == pytest.approx(27.1224, abs=1e-3)


def test_rectangle_in_degrees():
    # At the equator 0.001 degrees are a pi / 180 / 1000 = 111.3195 m of longitude, and a (1 - e^2) pi / 180 / 1000 =
    # 110.5743 m of latitude: 111.3195 x 221.1486 m.
    ground = Georeference(Affine(1e-3, 0, 30, 0, -1e-3, 1e-3), "EPSG:4326", 111.0)
    found = of(box(0, 0, 1, 2), ground)
    assert found["area_m2"] == pytest.approx(111.3195 * 221.1486, rel=1e-5)
    assert found["perimeter_m"] == pytest.approx(2 * (111.3195 + 221.1486), rel=1e-5)
    assert found["elongation"] == pytest.approx(221.1486 / 111.3195, rel=1e-5)
    assert [found["longitude"], found["latitude"]] == pytest.approx([30.0005, 0], abs=1e-9)


def test_rectangle_in_feet():
    # 100 x 200 US survey feet: 30.48006 x 60.96012 m; the projection is true to 1 in 10,000 here.
    ground = Georeference(Affine(10, 0, 6_500_000, 0, -10, 1_850_000), "EPSG:2229", 3.048)
    found = of(box(0, 0, 10, 20), ground)
    assert found["area_m2"] == pytest.approx(30.48006 * 60.96012, rel=5e-4)
    assert found["perimeter_m"] == pytest.approx(2 * (30.48006 + 60.96012), rel=5e-4)


def test_web_mercator_is_measured_on_the_ellipsoid():
    # Latitude 60: N = 1.002520 a, M = 1.000834 a, and a map's metre is N cos / a = 0.501260 m across and M cos / a =
    # 0.500417 m along: 100 x 200 map metres are 50.1260 x 100.0834 m.
    ground = Georeference(Affine(1, 0, 1e6, 0, -1, 8_399_737.89 + 100), "EPSG:3857", 0.5)
    found = of(box(0, 0, 100, 200), ground)
    assert found["area_m2"] == pytest.approx(50.1260 * 100.0834, rel=1e-4)
    assert found["elongation"] == pytest.approx(100.0834 / 50.1260, rel=1e-4)
    assert found["latitude"] == pytest.approx(60, abs=1e-5)


def test_holes_count_in_the_perimeter_and_not_in_the_area():
    # 10 x 10 less 2 x 2: area 96; perimeter 40 + 8.
    outline = Polygon(box(0, 0, 10, 10).exterior.coords, [box(4, 4, 6, 6).exterior.coords])
    found = of(outline, PIXELS)
    assert [found["area_m2"], found["perimeter_m"]] == pytest.approx([96, 48])
    found = of(outline, utm())
    assert found["area_m2"] == pytest.approx(96 / 0.9996**2, rel=1e-5)


def test_elongation_of_a_turned_rectangle():
    # Sides sqrt(2) 3 and sqrt(2).
    assert of(Polygon([(0, 1), (1, 0), (4, 3), (3, 4)]), PIXELS)["elongation"] == pytest.approx(3)


def test_across_the_date_line():
    # From 179.999 to 180.001 degrees: the centroid is on the line, and not on the other side of the Earth.
    found = of(box(0, 0, 2, 2), Georeference(Affine(1e-3, 0, 179.999, 0, -1e-3, 1e-3), "EPSG:4326", 111.0))
    assert abs(found["longitude"]) == pytest.approx(180)
    assert found["area_m2"] == pytest.approx(4 * 111.3195 * 110.5743, rel=1e-5)


def test_crs_without_a_place_on_the_earth():
    local = 'LOCAL_CS["site",UNIT["metre",1],AXIS["x",EAST],AXIS["y",NORTH]]'
    found = of(box(0, 0, 10, 20), Georeference(Affine(2, 0, 0, 0, -2, 0), local, 2.0))
    assert found["area_m2"] == pytest.approx(800) and math.isnan(found["longitude"])


def test_none():
    for ground in (PIXELS, utm()):
        assert {column.shape for column in outline_attributes(Rings.none(), ground).values()} == {(0,)}


# Polygons in any CRS.


def series(*polygons: object, crs: str | None = "EPSG:32648") -> geopandas.GeoSeries:
    return geopandas.GeoSeries(list(polygons), crs=crs)


@pytest.mark.parametrize("crs", ["EPSG:32648", "EPSG:4326", "EPSG:3857"])
def test_areas_are_on_the_ground(crs):
    # 100 x 100 m of UTM with a hole of 50 x 50; on the central meridian UTM shrinks lengths by .9996
    whole, hole = (box(500_000 + d, 3_000_000 + d, 500_100 - d, 3_000_100 - d) for d in (0, 25))
    shape = whole.difference(hole)
    turned = Polygon(shape.exterior.coords[::-1], [ring.coords for ring in shape.interiors])
    areas = polygon_areas_m2(series(shape, turned, hole).to_crs(crs))
    assert areas == pytest.approx([7500 / 0.9996**2, 7500 / 0.9996**2, 2500 / 0.9996**2], rel=1e-5)


def test_areas_in_feet():
    # 1,000 x 1,000 US survey feet around New York
    areas = polygon_areas_m2(series(box(980_000, 200_000, 981_000, 201_000), crs="EPSG:2263"))
    assert areas == pytest.approx([(1000 * 1200 / 3937) ** 2], rel=1e-3)


def test_areas_without_a_place_on_earth():
    assert polygon_areas_m2(series(box(0, 0, 4, 2), crs=None), 0.5).tolist() == [2.0]
    assert np.isnan(polygon_areas_m2(series(box(0, 0, 4, 2), crs=None))).all()
    site = 'LOCAL_CS["site grid",UNIT["metre",1]]'
    assert polygon_areas_m2(series(box(0, 0, 4, 2), crs=site), 1.0).tolist() == [8.0]


@pytest.mark.parametrize("crs", ["EPSG:32648", None])
def test_areas_of_no_polygon(crs):
    assert polygon_areas_m2(series(crs=crs)).shape == (0,)


# Holes.


RING = Polygon(box(0, 0, 20, 20).exterior.coords, [box(2, 2, 4, 4).exterior.coords, box(8, 8, 13, 13).exterior.coords])
INNER = box(9, 9, 10, 10)  # in the hole of 25 m2
SEEDS = np.array([[0, 0], [9, 9]])


@pytest.mark.parametrize(
    ("limit", "area", "swallowed"),
    [(0, 371, False), (3.9, 371, False), (4, 375, False), (24.9, 375, False), (25, 400, True), (math.inf, 400, True)],
)
def test_holes_up_to_a_limit_are_filled(limit, area, swallowed):
    # 400 m2 with holes of 4 and 25 m2.
    outlines, gone = HoleFiller(limit, PIXELS).fill(np.array([RING, INNER]), SEEDS)
    assert outlines[0].area == area and outlines[1].equals(INNER)
    assert gone.tolist() == [False, swallowed]


def test_holes_are_measured_on_the_ground():
    # In UTM the hole of 4 m2 is one of 4.0032 m2.
    assert HoleFiller(4.003, utm()).fill(np.array([RING]), SEEDS[:1])[0][0].area == 371
    assert HoleFiller(4.004, utm()).fill(np.array([RING]), SEEDS[:1])[0][0].area == 375


# Simplified outlines.


def test_a_staircase_becomes_a_slope():
    steps = [(x, y) for n in range(10) for x, y in ((n, n), (n + 1, n))]
    stairs = Polygon([*steps, (10, 20), (0, 20)])
    (simple,) = simplify(np.array([stairs]), 1.0)
    assert len(simple.exterior.coords) < len(stairs.exterior.coords) / 2
    assert simple.area == pytest.approx(stairs.area, rel=0.05)


@pytest.mark.parametrize("native", [True, False])
def test_simplified_outlines_are_valid(write_mask, monkeypatch, native):
    if not native:
        monkeypatch.delattr(shapely, "coverage_simplify", raising=False)
    mask = (np.random.default_rng(1).random((80, 80)) < 0.55).astype(np.uint8)
    outlines, _ = trace(write_mask(mask))
    simple = simplify(outlines, 1.5)
    assert shapely.is_valid(simple).all() and not shapely.is_empty(simple).any()
    assert {one.geom_type for one in simple} == {"Polygon"}
    assert shapely.get_num_coordinates(simple).sum() < 0.8 * shapely.get_num_coordinates(outlines).sum()
    if native:
        assert shapely.coverage_is_valid(simple)


def test_simplifying_in_batches_changes_nothing(write_mask, monkeypatch):
    mask = (np.random.default_rng(4).random((60, 60)) < 0.3).astype(np.uint8)
    outlines, _ = trace(write_mask(mask))
    whole = shapely.coverage_simplify(outlines, 1.2)
    monkeypatch.setattr(polygons, "_BATCH", 5)
    batches = polygons._apart(outlines)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(outlines))) and len(batches) > 10
    simple = simplify(outlines, 1.2)
    assert shapely.equals(simple, whole).mean() > 0.99
    assert shapely.coverage_is_valid(simple)


@pytest.mark.parametrize(
    "ground",
    [
        utm(),
        Georeference(Affine(30, 0, -3_000, 0, -30, 3_000), "EPSG:3413", 30.0),  # around the North Pole
        Georeference(Affine(1e-4, 0, 179.99, 0, -1e-4, 60), "EPSG:4326", 8.0),  # across the antimeridian
    ],
)
def test_an_outline_with_many_holes_is_measured_as_its_rings(ground):
    # 35 x 35 holes of 2 x 1 pixels; every third runs the other way.
    holes = [box(x, y, x + 2, y + 1, ccw=(x + y) % 3 > 0) for x in range(2, 142, 4) for y in range(2, 142, 4)]
    whole, plain = box(0, 0, 144, 144), box(0, 0, 5, 5)
    areas, lengths = ring_sizes(rings_of(np.array([whole, *holes])), ground)
    lace = Polygon(whole.exterior, [hole.exterior for hole in holes])
    found = outline_attributes(rings_of(np.array([plain, lace, plain])), ground)
    assert found["area_m2"][1] == pytest.approx(areas[0] - areas[1:].sum(), rel=1e-12)
    assert found["perimeter_m"][1] == pytest.approx(lengths.sum(), rel=1e-12)
    assert [found["area_m2"][0], found["area_m2"][2]] == [of(plain, ground)["area_m2"]] * 2
