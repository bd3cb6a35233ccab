import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from pyproj import Transformer
from rasterio.crs import CRS

from lim_keras.raster.georeference import (
    Georeference,
    RasterInfo,
    apply,
    border,
    full_turn,
    ground_sample_distance,
    inverse,
    mean_pixel_area,
    metres_per_degree,
    pixel_shape,
    same_crs,
    shifted,
)
from lim_keras.raster.windows import Box

SHEARED = Affine(2, 1, 100, 0.5, -3, 200)


def test_affine_by_hand() -> None:
    # x = 2 * 4 + 1 * 5 + 100 = 113, y = 0.5 * 4 - 3 * 5 + 200 = 187
    points = np.array([[4.0, 5.0], [0.0, 0.0]])
    assert apply(SHEARED, points).tolist() == [[113, 187], [100, 200]]
    np.testing.assert_allclose(apply(inverse(SHEARED), apply(SHEARED, points)), points, atol=1e-12)


def test_a_grid_that_starts_elsewhere_has_the_same_places() -> None:
    moved, point = shifted(SHEARED, 4, 5), np.array([[1.5, 2.5]])
    np.testing.assert_allclose(apply(moved, point), apply(SHEARED, point + np.array([4, 5])))
    # pixels of twice the size: point (1, 1) lies where (2, 2) was
    assert apply(shifted(SHEARED, 0, 0, 2), np.ones((1, 2))).tolist() == apply(SHEARED, np.full((1, 2), 2.0)).tolist()


def test_border_goes_round_a_box() -> None:
    # clockwise from the upper left corner, two points a side
    assert border(Box(10, 20, 14, 28), points=2).tolist() == [
        [20, 10], [24, 10], [28, 10], [28, 12], [28, 14], [24, 14], [20, 14], [20, 12],
    ]  # fmt: skip


def test_metres_per_degree() -> None:
    # Equator: a * pi / 180 = 111319.49 and a (1 - e2) * pi / 180 = 110574.28; pole: 0 and a / sqrt(1 - e2) * pi / 180
    found = metres_per_degree(np.array([0.0, 90.0]))
    np.testing.assert_allclose(found, [[111319.491, 110574.276], [0, 111693.980]], atol=1e-2)


def test_pixel_sides_and_north() -> None:
    # 30 m pixels of UTM on the central meridian (scale 0.9996), turned by 90 degrees: up the columns is west
    turned = Georeference(Affine(0, 30, 5e5, 30, 0, 0), "EPSG:32648", 30.0)
    across, down, azimuth = turned.pixel_sides(np.array([0.0]), np.array([0.0]))
    np.testing.assert_allclose([across[0], down[0]], 30 / 0.9996, rtol=1e-5)
    assert azimuth[0] == pytest.approx(-90, abs=1e-3)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("", "", True),
        ("EPSG:4326", "", False),
        ("EPSG:4326", "OGC:CRS84", False),
        ("EPSG:32648", "+init=epsg:32648", True),
    ],
)
def test_same_crs(one: str, other: str, same: bool) -> None:
    assert same_crs(one, other) is same


def centred(crs: str, longitude: float, latitude: float, axes: Affine, size: int = 100) -> Affine:
    """Place size x size pixels around a position; `axes` says how a pixel lies."""
    x, y = Transformer.from_crs("OGC:CRS84", crs, always_xy=True).transform(longitude, latitude)
    return Affine.translation(x, y) @ axes @ Affine.translation(-size / 2, -size / 2)


def distance(crs: str, transform: Affine) -> float | None:
    return ground_sample_distance(CRS.from_user_input(crs), transform, 100, 100)


@pytest.mark.parametrize("axes", [Affine.scale(2, -2), Affine.scale(2, 2), Affine.rotation(30) @ Affine.scale(2, -2)])
@pytest.mark.parametrize(
    ("crs", "latitude"),
    [("EPSG:32760", -17), ("EPSG:32701", -17), ("EPSG:32660", 66), ("EPSG:32601", 66), ("EPSG:3460", -17)],
)
def test_pixels_across_the_antimeridian(crs: str, latitude: float, axes: Affine) -> None:
    assert distance(crs, centred(crs, 180, latitude, axes)) == pytest.approx(2)


@pytest.mark.parametrize("longitude", [-180, 0, 105, 179.999, 180, 185, 360])
def test_pixels_in_degrees_are_as_large_at_every_longitude(longitude: float) -> None:
    # At 60 N, a degree is 55,799.98 m across and 111,412.24 m down (a / sqrt(1 - e2 sin2) cos and its like, Snyder).
    transform = Affine(1e-5, 0, longitude - 5e-4, 0, -1e-5, 60 + 5e-4)
    assert distance("EPSG:4326", transform) == pytest.approx(math.sqrt(0.557999 * 1.114122), rel=1e-5)


def test_pixels_of_a_mercator_map_and_of_polar_maps() -> None:
    # Web Mercator stretches by 1 / cos 60 = 2, less what the ellipsoid's radii of curvature differ from its sphere.
    for longitude in (0, 179.9999, -179.9999):
        transform = centred("EPSG:3857", longitude, 60, Affine.scale(2, -2))
        across, along = metres_per_degree(np.array([60.0]))[0] * 180 / math.pi / 6378137
        assert distance("EPSG:3857", transform) == pytest.approx(2 * math.sqrt(across * along * 0.5), rel=1e-6)
    # True scale at 71 S; at the pole k = (1 + sin 71) / 2 = 0.97276, so that 2 m of the map are 2.0560 m (sphere).
    for crs in ("EPSG:3031", "EPSG:3995"):
        assert distance(crs, Affine(2, 0, -100, 0, -2, 100)) == pytest.approx(2.0560, rel=1e-3)


def test_pixels_of_a_local_crs() -> None:
    for unit, metres in (('UNIT["metre",1]', 1.0), ('UNIT["foot",0.3048]', 0.3048)):
        local = f'LOCAL_CS["site grid",{unit},AXIS["x",EAST],AXIS["y",NORTH]]'
        assert distance(local, Affine(0.5, 0, 100, 0, -2, 100)) == pytest.approx(metres)  # sqrt(0.5 x 2)
    assert distance("EPSG:4978", Affine(1, 0, 0, 0, -1, 0)) is None  # geocentric


@pytest.mark.parametrize(
    ("crs", "transform", "shape"),
    [
        # At 60 N a degree of longitude is half as long as one of latitude: 55,799.98 to 111,412.24 m.
        ("EPSG:4326", Affine(1e-5, 0, 179.9995, 0, -1e-5, 60.0005), (0.558, 1.11412, 1.9966)),
        ("EPSG:32760", centred("EPSG:32760", 180, 0, Affine.rotation(30) @ Affine.scale(0.5, -1)), (0.5, 1, 2)),
        # A shear of 45 degrees: [[1, 1], [0, 1]] magnifies by the golden ratio, 1.618, and by its inverse, 0.618.
        ("EPSG:32648", Affine(1, 1, 5e5, 0, -1, 0), (1, math.sqrt(2), 2.618)),
        ('LOCAL_CS["site",UNIT["metre",1]]', Affine(2, 0, 0, 0, 3, 0), (2, 3, 1.5)),
    ],
)
def test_shape_of_a_pixel(crs: str, transform: Affine, shape: tuple[float, float, float]) -> None:
    found = pixel_shape(RasterInfo(Path("s.tif"), 100, 100, 3, "uint8", crs, transform, 1.0, None))
    assert found is not None
    np.testing.assert_allclose([found.width_m, found.height_m, found.stretch], shape, rtol=2e-3)


def test_shape_without_a_crs_is_that_of_the_transform() -> None:
    # Sides of 1 : 4 and an area of 9 m2: 1.5 and 6 m.
    found = pixel_shape(RasterInfo(Path("s.tif"), 9, 9, 3, "uint8", "", Affine(1, 0, 0, 0, -4, 0), 3.0, None))
    assert found is not None and (found.width_m, found.height_m, found.stretch) == pytest.approx((1.5, 6, 4))
    assert pixel_shape(RasterInfo(Path("s.tif"), 9, 9, 3, "uint8", "", None, 3.0, None)) is None


@pytest.mark.parametrize(
    ("crs", "turn"),
    [
        ("EPSG:4326", 360),
        ("EPSG:4807", 400),  # gon
        ("EPSG:3857", 2 * math.pi * 6378137),
        ("EPSG:3832", 2 * math.pi * 6378137),  # Mercator of the Pacific, with its edge at 30 W
        ("EPSG:32760", None),
        ("EPSG:3031", None),
        ("EPSG:3035", None),
        ("+proj=sinu", None),
        ("EPSG:4978", None),
        ('LOCAL_CS["site",UNIT["metre",1]]', None),
    ],
)
def test_maps_that_repeat_themselves(crs: str, turn: float | None) -> None:
    assert full_turn(crs) == (turn and pytest.approx(turn))


def test_mean_area_of_the_pixels_of_a_tall_map() -> None:
    # From the equator to 60 N: the mean of cos(latitude) is sin 60 / (pi / 3) = 0.8270, at the middle it is 0.8660.
    tall = RasterInfo(Path("s.tif"), 10, 60, 3, "uint8", "EPSG:4326", Affine(1, 0, 20, 0, -1, 60), None, None)
    size = ground_sample_distance(CRS.from_epsg(4326), Affine(1, 0, 20, 0, -1, 60), 10, 60)
    area = mean_pixel_area(replace(tall, gsd_m=size))
    assert area == pytest.approx(111_195**2 * 0.8270, rel=0.01)  # sphere of 6,371 km
    small = RasterInfo(Path("s.tif"), 9, 9, 3, "uint8", "EPSG:32648", Affine(2, 0, 5e5, 0, -2, 3e6), 2.0, None)
    assert mean_pixel_area(small) == 4 and mean_pixel_area(tall) is None


def test_a_forged_transform_has_no_pixel_shape() -> None:
    transform = Affine(5e-44, 0, 0, 0, -9e269, 0)
    assert pixel_shape(RasterInfo(Path("s.tif"), 9, 9, 3, "uint8", "", transform, None, None)) is None
