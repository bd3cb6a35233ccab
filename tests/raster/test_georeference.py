import numpy as np
import pytest
from affine import Affine

from lim_keras.raster.georeference import Georeference, apply, border, inverse, metres_per_degree, same_crs, shifted
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
