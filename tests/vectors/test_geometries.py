"""Landslides from anywhere, made single, valid and flat."""

import geopandas
import pytest
from shapely import GeometryCollection, MultiPolygon, Point, Polygon, box

from lim_keras.errors import LimKerasWarning
from lim_keras.vectors.geometries import clean_polygons, cut_polygons


def series(*shapes: object) -> geopandas.GeoSeries:
    return geopandas.GeoSeries(list(shapes), crs="EPSG:32648")


def test_multi_polygons_and_collections_come_apart() -> None:
    pair = MultiPolygon([box(0, 0, 1, 1), box(5, 0, 7, 1)])
    tidy = clean_polygons(series(pair, None, Polygon(), Point(0, 0), GeometryCollection([pair, Point(9, 9)])), "some")
    assert tidy.area.tolist() == [1, 2, 1, 2]
    assert set(tidy.geom_type) == {"Polygon"} and tidy.crs == "EPSG:32648"


def test_heights_are_left_out() -> None:
    (flat,) = clean_polygons(series(Polygon([(0, 0, 5), (1, 0, 5), (1, 1, 5)])), "some")
    assert not flat.has_z and flat.area == 0.5


def test_what_crosses_itself_is_repaired() -> None:
    # a bow tie 2 wide and 2 high: two triangles of 2 x 1 / 2 each
    tie = Polygon([(0, 0), (2, 0), (0, 2), (2, 2)])
    with pytest.warns(LimKerasWarning, match="some: 1 of 2 polygons are invalid"):
        tidy = clean_polygons(series(box(0, 0, 1, 1), tie), "some")
    assert tidy.area.tolist() == [1, 1, 1] and tidy.is_valid.all()


def test_cut_at_an_area() -> None:
    # inside; a U whose two legs of 1 x 1 reach in; touching from outside; outside
    legs = Polygon([(1, 3), (2, 3), (2, 5), (3, 5), (3, 3), (4, 3), (4, 6), (1, 6)])
    polygons = series(box(0, 0, 1, 1), legs, box(4, 0, 5, 1), box(8, 8, 9, 9))
    inside = cut_polygons(polygons, box(0, 0, 4, 4))
    assert inside.area.tolist() == [1, 1, 1]
    assert inside.total_bounds.tolist() == [0, 0, 4, 4]
    assert polygons.area.tolist() == [1, 7, 1, 1]  # legs: 3 x 3 less 1 x 2
