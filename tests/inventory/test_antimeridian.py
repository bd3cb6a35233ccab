"""Scenes at the antimeridian, around a pole, and in CRS without longitude and latitude."""

import json
import math
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
from pyproj import Geod
from rasterio import Affine
from shapely.geometry import shape

from lim_keras.errors import DataError, DomainWarning
from lim_keras.inventory.landslides import make_inventory
from lim_keras.inventory.options import PredictOptions
from lim_keras.inventory.outputs import describe_inventory, write_inventory
from lim_keras.inventory.predict_scene import predict_scene
from lim_keras.raster.georeference import RasterInfo
from tests.export.stac_judges import core_problems
from tests.inference.conftest import Write, constant_model

from .test_stac import SUMMARY

LOCAL = 'LOCAL_CS["site grid",UNIT["metre",1],AXIS["x",EAST],AXIS["y",NORTH]]'
GEOD = Geod(ellps="WGS84")

# A landslide of 40 x 20 pixels in a scene of 100 x 60, so that its middle lies on that of the scene.
MASK = np.zeros((60, 100), np.uint8)
MASK[20:40, 30:70] = 1


def around(x: float, y: float, across: float, along: float) -> Affine:
    """Place the middle of the scene at a point of a CRS."""
    return Affine(across, 0, x - 50 * across, 0, -along, y + 30 * along)


def area(polygon: Any) -> float:
    """Measure the area of a polygon in degrees, or of its parts, on the ellipsoid."""
    return sum(abs(GEOD.geometry_area_perimeter(part)[0]) for part in getattr(polygon, "geoms", [polygon]))


ACROSS = [
    ("EPSG:32760", around(819_451.55, 8_117_998, 2, 2)),
    ("EPSG:32701", around(180_548.45, 8_117_998, 2, 2)),
    ("EPSG:4326", around(180, -17, 2e-5, 2e-5)),
    ("EPSG:4326", around(-180, -17, 2e-5, 2e-5)),
    ("EPSG:3857", around(20_037_508.34, -1_920_000, 2, 2)),
    ("EPSG:3413", around(-1_000_000, 1_000_000, 2, 2)),
    ("+proj=laea +lat_0=60 +lon_0=180 +datum=WGS84", around(0, 0, 2, 2)),
]


@pytest.mark.parametrize(("crs", "transform"), ACROSS)
def test_landslides_across_the_antimeridian(write_mask, tmp_path, crs, transform) -> None:
    found = make_inventory(write_mask(MASK, crs=crs, transform=transform))
    row = found.frame.iloc[0]
    assert abs(row.longitude) == pytest.approx(180, abs=1e-4)
    geometry = shape(json.loads(write_inventory(found, tmp_path / "a.geojson").read_text())["features"][0]["geometry"])
    assert geometry.geom_type == "MultiPolygon" and geometry.is_valid and len(geometry.geoms) == 2
    west, _, east, _ = geometry.bounds
    assert (west, east) == (-180, 180)
    # GeoJSON has 7 decimals, 1 cm, at a landslide of 80 x 40 m; a part on the wrong side would be as wide as the Earth.
    assert area(geometry) == pytest.approx(row.area_m2, rel=2e-3)
    assert row.elongation == pytest.approx(2, rel=0.05)


@pytest.mark.parametrize("longitude", [185.0, 200.0, 359.0, 360.0, -190.0, 545.0])
def test_landslides_beyond_180_degrees(write_mask, tmp_path, longitude) -> None:
    found = make_inventory(write_mask(MASK, crs="EPSG:4326", transform=around(longitude, -17, 2e-5, 2e-5)))
    expected = (longitude + 180) % 360 - 180
    assert found.frame.longitude[0] == pytest.approx(expected)
    geometry = shape(json.loads(write_inventory(found, tmp_path / "a.geojson").read_text())["features"][0]["geometry"])
    assert geometry.geom_type == "Polygon" and geometry.centroid.x == pytest.approx(expected, abs=1e-6)
    # A GeoPackage keeps the coordinates of the scene, so that both lie on each other.
    assert geopandas.read_file(write_inventory(found, tmp_path / "a.gpkg")).geometry[0].centroid.x == (
        pytest.approx(longitude)
    )


@pytest.mark.parametrize(("crs", "pole"), [("EPSG:3031", -90), ("EPSG:3413", 90), ("EPSG:3995", 90), ("EPSG:5041", 90)])
def test_a_landslide_around_a_pole(write_mask, tmp_path, crs, pole) -> None:
    x = 2e6 if crs == "EPSG:5041" else 0
    found = make_inventory(write_mask(MASK, crs=crs, transform=around(x, x, 2, 2)))
    row = found.frame.iloc[0]
    # The scale at the pole is .97 in EPSG:3031 and 3995, .97 in 3413 (true at 70 N) and .994 in UPS.
    scale = {"EPSG:3031": 0.97276, "EPSG:3413": 0.96985, "EPSG:3995": 0.97276, "EPSG:5041": 0.994}[crs]
    assert row.area_m2 == pytest.approx(80 * 40 / scale**2, rel=1e-3)
    assert row.elongation == pytest.approx(2, rel=1e-3)
    assert row.latitude == pytest.approx(pole, abs=1e-6)
    geometry = shape(json.loads(write_inventory(found, tmp_path / "a.geojson").read_text())["features"][0]["geometry"])
    assert geometry.is_valid and geometry.bounds[0::2] == (-180, 180)
    assert pole in (geometry.bounds[1], geometry.bounds[3])


def test_a_landslide_near_a_pole(write_mask) -> None:
    # 10 m x 5 m pixels of a map true at 71 S, 500 m from the pole on the meridian of 45 degrees east.
    found = make_inventory(write_mask(MASK, crs="EPSG:3031", transform=around(353.55, 353.55, 2, 2))).frame.iloc[0]
    assert found.elongation == pytest.approx(2, rel=1e-3)
    assert found.longitude == pytest.approx(45, abs=0.01)
    # 500 m of the map are 500 / 0.97276 = 514.0 m: 0.004602 degrees of 111,694 m.
    assert found.latitude == pytest.approx(-90 + 0.004602, abs=1e-5)


def info(crs: str, transform: Affine, width: int = 100, height: int = 60) -> RasterInfo:
    return RasterInfo(Path("valley.tif"), width, height, 3, "uint8", crs, transform, 0.8, None)


def item_of(scene: RasterInfo) -> dict[str, Any]:
    item = describe_inventory(scene, SUMMARY, files=[])
    assert core_problems(item) == []
    return item


@pytest.mark.parametrize(("crs", "transform"), ACROSS)
def test_bounding_box_across_the_antimeridian(crs, transform) -> None:
    item = item_of(info(crs, transform))
    west, south, east, north = item["bbox"]
    assert west > 179.9 and east < -179.9 and south < north
    assert item["geometry"]["type"] == "MultiPolygon" and shape(item["geometry"]).is_valid


@pytest.mark.parametrize(
    ("crs", "transform", "size", "bbox"),
    [
        ("EPSG:4326", around(185, -17, 1e-2, 1e-2), (100, 60), [-175.5, -17.3, -174.5, -16.7]),
        ("EPSG:4326", Affine(1, 0, 0, 0, -1, 90), (360, 180), [-180, -90, 180, 90]),
        ("EPSG:4326", Affine(1, 0, -180, 0, -1, 90), (360, 180), [-180, -90, 180, 90]),
        ("EPSG:4326", Affine(1, 0, 170, 0, -1, 10), (20, 20), [170, -10, -170, 10]),
    ],
)
def test_bounding_boxes_in_degrees(crs, transform, size, bbox) -> None:
    assert item_of(info(crs, transform, *size))["bbox"] == pytest.approx(bbox)


@pytest.mark.parametrize(("crs", "pole"), [("EPSG:3031", -90), ("EPSG:3413", 90), ("EPSG:3995", 90)])
def test_footprint_around_a_pole(crs, pole) -> None:
    item = item_of(info(crs, around(0, 0, 1000, 1000)))
    west, south, east, north = item["bbox"]
    assert (west, east) == (-180, 180) and pole in (south, north)
    # 100 km x 60 km of a map; at the pole 0.973 of the map's true scale, or 0.970.
    assert area(shape(item["geometry"])) == pytest.approx(1e5 * 6e4 / 0.972**2, rel=0.02)


def mapped(write: Write, tmp_path: Path, crs: str, transform: Affine) -> dict[str, Any]:
    scene = write("s.tif", np.full((60, 100, 3), 90, np.uint8), crs=crs, transform=transform)
    options = PredictOptions(formats=("gpkg", "geojson", "parquet"))
    return predict_scene(constant_model(), scene, tmp_path / "out", options).summary


@pytest.mark.parametrize(("unit", "metres"), [('UNIT["metre",1]', 1), ('UNIT["foot",0.3048]', 0.3048)])
def test_a_local_crs_is_measured_in_its_unit(write: Write, tmp_path, unit, metres) -> None:
    with pytest.warns(DomainWarning, match=r"s\.tif: its CRS \(site grid\) gives no longitude and latitude"):
        summary = mapped(
            write, tmp_path, LOCAL.replace('UNIT["metre",1]', unit), around(1000, 2000, 0.8 / metres, 0.8 / metres)
        )
    # All of 100 x 60 pixels of 0.64 m2.
    assert summary["landslide_area_m2"] == pytest.approx(3840)
    assert summary["gsd_m"] == pytest.approx(0.8) and summary["valid_area_m2"] == pytest.approx(3840)
    content = json.loads((tmp_path / "out" / "s_inventory.geojson").read_text())
    assert "crs" not in content
    assert shape(content["features"][0]["geometry"]).centroid.coords[0] == pytest.approx((1000, 2000))
    assert math.isnan(geopandas.read_file(tmp_path / "out" / "s_inventory.gpkg").longitude[0])


@pytest.mark.parametrize("crs", ["EPSG:4978", "ESRI:104905"])
@pytest.mark.filterwarnings("ignore::lim_keras.errors.DomainWarning")
def test_crs_off_the_surface_of_the_earth(write: Write, tmp_path, crs) -> None:
    # Geocentric, and on Mars: nothing is lost, and nothing is measured.
    summary = mapped(write, tmp_path, crs, around(5, 3, 1e-5, 1e-5))
    assert summary["landslides"] == 1 and summary["landslide_area_m2"] is None and len(summary["files"]) >= 6


def test_a_crs_that_no_geotiff_holds_is_refused_before_the_prediction(write: Write, tmp_path) -> None:
    rotated = "+proj=ob_tran +o_proj=longlat +o_lon_p=-162 +o_lat_p=39.25 +lon_0=180 +to_meter=0.0174532925199433"
    with pytest.raises(DataError, match=r"s\.tif: expected a CRS that a GeoTIFF can hold.*gdalwarp -t_srs EPSG:4326"):
        mapped(write, tmp_path, rotated, around(5, 3, 1e-5, 1e-5))
    assert not list((tmp_path / "out").glob("*.tif"))
