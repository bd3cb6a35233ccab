"""Areas and lengths of rings on the ellipsoid, against GeographicLib and formulas for small rectangles."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from rasterio import Affine
from shapely import Polygon, box

from lim_keras.inventory import geodesic
from lim_keras.inventory.geodesic import geodesic_sizes
from lim_keras.inventory.polygons import rings_of
from lim_keras.raster.georeference import ELLIPSOID, Georeference, metres_per_degree


def grid(crs: str, x: float, y: float, step: float, turn: float = 0) -> Georeference:
    cosine, sine = step * math.cos(math.radians(turn)), step * math.sin(math.radians(turn))
    return Georeference(Affine(cosine, sine, x, sine, -cosine, y), crs, None)


GROUNDS = {
    **{f"UTM, {step} m": grid("EPSG:32648", 300_000, 3_000_000, step) for step in (0.1, 0.8, 10, 30)},
    "UTM, southern hemisphere": grid("EPSG:32719", 700_000, 4_800_000, 10),
    "UTM, rotated by 33 degrees": grid("EPSG:32633", 500_000, 6_900_000, 5, 33),
    "UTM, across 180 degrees": grid("EPSG:32660", 833_900, 500, 10),
    "degrees at the equator": grid("EPSG:4326", 30, 0.01, 1e-4),
    "degrees at 75 north": grid("EPSG:4326", -40, 75, 2e-4),
    "degrees across 180 degrees": grid("EPSG:4326", 179.99, -17, 1e-4),
    "polar stereographic, 70 north": grid("EPSG:3413", 1_500_000, -1_500_000, 30),
    "polar stereographic, pole": grid("EPSG:3413", -300, 300, 30),
    "Web Mercator at 60 north": grid("EPSG:3857", 1_000_000, 8_400_000, 10),
    "Lambert": grid("EPSG:2154", 900_000, 6_500_000, 20),
}


def stairs(steps: int) -> Polygon:
    """Triangle with two sides of `steps` pixels, and steps of one pixel between them."""
    return Polygon(
        [(0, 0), *((x, y) for n in range(steps) for x, y in ((n, steps - n), (n + 1, steps - n))), (steps, 0)]
    )


SHAPES = [
    box(3, 4, 4, 5),
    box(0, 7, 100, 8),
    box(7, 0, 8, 100),
    Polygon([(0, 0), (90, 90), (91, 90), (1, 0)]),
    *(stairs(steps) for steps in (2, 5, 20, 100, 700)),
    Polygon(box(0, 0, 9, 9, ccw=False).exterior),
]


@pytest.mark.parametrize("ground", GROUNDS.values(), ids=GROUNDS)
def test_sizes_are_those_of_geographiclib(ground):
    rings = rings_of(np.array(SHAPES))
    degrees = ground.degrees(rings.points)
    areas, lengths = geodesic_sizes(degrees, rings.ring_sizes)
    parts = np.split(degrees, np.cumsum(rings.ring_sizes)[:-1])
    expected = np.array([ELLIPSOID.polygon_area_perimeter(*part.T) for part in parts])
    assert lengths == pytest.approx(expected[:, 1], rel=1e-8, abs=1e-7)
    assert areas == pytest.approx(np.abs(expected[:, 0]), rel=1e-8, abs=1e-4)  # GeographicLib rounds


@pytest.mark.parametrize("latitude", [0.0, 27.5, -45.0, 75.0, 89.5])
def test_small_rectangles_are_more_exact_than_geographiclib(latitude):
    # Powers of 2, so that differences of degrees are exact: a pixel of about 0.1 m.
    step = 2.0**-20
    corners = np.array(box(10 - step, latitude - step / 2, 10, latitude + step / 2).exterior.coords)
    areas, lengths = geodesic_sizes(corners, np.array([len(corners)]))
    across, along = metres_per_degree(np.array([latitude]))[0] * step
    assert areas[0] == pytest.approx(across * along, rel=1e-11)
    assert lengths[0] == pytest.approx(2 * (across + along), rel=1e-11)


def test_rings_of_short_edges_are_measured_at_once(monkeypatch):
    # Only the outer ring of 2,000 x 1,000 pixels of 30 m has long edges.
    calls = []

    def measured(*vertices):
        calls.append(vertices)
        return ELLIPSOID.polygon_area_perimeter(*vertices)

    monkeypatch.setattr(
        geodesic, "ELLIPSOID", SimpleNamespace(a=ELLIPSOID.a, es=ELLIPSOID.es, polygon_area_perimeter=measured)
    )
    holes = [box(x, y, x + 1, y + 1).exterior for x in range(1, 81, 2) for y in range(1, 81, 2)]
    rings = rings_of(np.array([Polygon(box(0, 0, 2000, 1000).exterior, holes)]))
    ground = GROUNDS["UTM, 30 m"]
    areas, _ = geodesic_sizes(ground.degrees(rings.points), rings.ring_sizes)
    assert len(calls) == 1 and len(areas) == 1601


def test_rings_outside_the_crs_are_unknown():
    degrees = np.array([[0, 0], [1e-4, 0], [1e-4, 1e-4], [0, 0], [np.inf, np.inf], [0, 1], [1, 1], [np.inf, np.inf]])
    areas, lengths = geodesic_sizes(degrees, np.array([4, 4]))
    assert np.isnan([areas[1], lengths[1]]).all() and areas[0] == pytest.approx(61.55, abs=0.01)


def test_no_ring():
    assert [values.shape for values in geodesic_sizes(np.zeros((0, 2)), np.zeros(0, np.int32))] == [(0,), (0,)]
