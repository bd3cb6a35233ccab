import json
import re
import sqlite3
from contextlib import closing
from xml.etree import ElementTree

import geopandas
import numpy as np
import pyarrow as pa
import pyogrio
import pytest

from lim_keras.errors import DataError
from lim_keras.inventory.landslides import make_inventory
from lim_keras.inventory.outputs import write_inventory, write_style
from lim_keras.inventory.vector_files import write_frames
from lim_keras.inventory.verify import verify_vector
from tests.conftest import largest_file

PIXELS = np.array([[1, 1, 0, 0], [1, 0, 0, 255], [0, 0, 1, 1]], np.uint8)


@pytest.fixture
def inventory(write_mask):
    return make_inventory(write_mask(PIXELS))


@pytest.fixture
def nothing(write_mask):
    return make_inventory(write_mask(PIXELS * 0, name="empty.tif"))


def rows(path, query):
    with closing(sqlite3.connect(path)) as database:
        return database.execute(query).fetchall()


def test_geopackage(tmp_path, inventory):
    path = write_inventory(inventory, tmp_path / "a.gpkg")
    assert path == tmp_path / "a.gpkg" and [file.name for file in tmp_path.glob("*a.gpkg*")] == ["a.gpkg"]
    back = geopandas.read_file(path, layer="landslides")
    assert back.crs.to_string() == "EPSG:32648"
    assert back.columns.tolist() == inventory.frame.columns.tolist()
    assert back.geometry.geom_equals(inventory.frame.geometry).all()
    assert back.area_m2.tolist() == inventory.frame.area_m2.tolist()
    assert back.probability_mean.isna().all() and back.touches_nodata.tolist() == [False, True]
    assert back.touches_nodata.dtype == bool and back.id.dtype.kind == "i"
    assert rows(path, "PRAGMA user_version") == [(10200,)]  # GeoPackage 1.2: read without a warning by QGIS 3.22


def test_a_geopackage_has_one_layer_and_is_read_without_a_warning(tmp_path, inventory):
    path = write_inventory(inventory, tmp_path / "a.gpkg", layer="slides of 2015")
    assert dict(pyogrio.list_layers(path).tolist()) == {"slides of 2015": "Polygon"}
    assert len(geopandas.read_file(path)) == 2  # warnings are errors in these tests
    assert rows(path, "PRAGMA integrity_check") == [("ok",)] and rows(path, "PRAGMA foreign_key_check") == []


def test_style(tmp_path):
    root = ElementTree.fromstring(write_style(tmp_path / "a.qml").read_text())
    renderer = root.find("renderer-v2")
    assert root.tag == "qgis" and root.get("labelsEnabled") == "0" and renderer.get("type") == "RuleRenderer"
    rules = {one.get("filter"): one.get("symbol") for one in renderer.iter("rule")}
    assert [float(number) for rule in rules for number in re.findall(r"0\.\d", rule)] == [0.4, 0.4, 0.6, 0.6, 0.8, 0.8]
    assert list(rules)[-1] == "ELSE"  # landslides whose probability is unknown
    symbols = {one.get("name"): one for one in renderer.iter("symbol")}
    assert [*rules.values()] == [*symbols]
    for symbol in symbols.values():
        assert symbol.get("type") == "fill"
        options = {one.get("name"): one.get("value") for one in symbol.iter("Option")}
        assert 0 < int(options["color"].split(",")[3]) < 255  # translucent


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson"])
def test_same_inventory_same_bytes(tmp_path, inventory, suffix, monkeypatch):
    first = write_inventory(inventory, tmp_path / f"a{suffix}").read_bytes()
    with monkeypatch.context() as clock:
        clock.setattr("os.getpid", lambda: 1)
        second = write_inventory(inventory, tmp_path / f"b{suffix}")
    assert second.read_bytes() == first
    if suffix == ".gpkg":
        assert {row[0] for row in rows(second, "SELECT last_change FROM gpkg_contents")} == {"2000-01-01T00:00:00.000Z"}
    assert pyogrio.get_gdal_config_option("OGR_CURRENT_DATE") is None


def test_written_over_an_older_one(tmp_path, inventory, nothing):
    path = write_inventory(inventory, tmp_path / "a.gpkg")
    write_inventory(nothing, path)
    assert len(geopandas.read_file(path, layer="landslides")) == 0


def test_geojson_is_in_degrees(tmp_path, inventory):
    content = json.loads(write_inventory(inventory, tmp_path / "a.geojson").read_text())
    assert "crs" not in content and len(content["features"]) == 2
    first = content["features"][0]
    assert first["properties"]["id"] == 1 and first["properties"]["probability_mean"] is None
    assert first["geometry"]["type"] == "Polygon"
    longitude, latitude = np.array(first["geometry"]["coordinates"][0]).mean(axis=0)
    assert [longitude, latitude] == pytest.approx([105.0, 27.1225], abs=1e-3)


def test_scene_without_crs(tmp_path, write_mask):
    inventory = make_inventory(write_mask(PIXELS, crs="", transform=None))
    back = geopandas.read_file(write_inventory(inventory, tmp_path / "a.gpkg"), layer="landslides")
    assert back.total_bounds.tolist() == [0, -3, 4, 0] and back.area_m2.isna().all()
    content = json.loads(write_inventory(inventory, tmp_path / "a.geojson").read_text())
    assert content["features"][0]["geometry"]["coordinates"][0][0] in ([0, 0], [0, -2], [2, 0])


def test_empty(tmp_path, nothing):
    path = write_inventory(nothing, tmp_path / "a.gpkg")
    info = pyogrio.read_info(path, layer="landslides")
    assert (info["features"], info["geometry_type"], info["crs"]) == (0, "Polygon", "EPSG:32648")
    assert info["fields"].tolist() == nothing.frame.columns.drop("geometry").tolist()
    assert dict(zip(info["fields"], info["ogr_subtypes"], strict=True))["touches_edge"] == "OFSTBoolean"
    content = json.loads(write_inventory(nothing, tmp_path / "a.geojson").read_text())
    assert content["type"] == "FeatureCollection" and content["features"] == []


@pytest.mark.parametrize("which", ["inventory", "nothing"])
def test_parquet(tmp_path, which, request):
    inventory = request.getfixturevalue(which)
    back = geopandas.read_parquet(write_inventory(inventory, tmp_path / "a.parquet"))
    assert back.columns.tolist() == inventory.frame.columns.tolist()
    assert back.crs == inventory.frame.crs and len(back) == len(inventory.frame)


def test_other_endings_and_missing_folders(tmp_path, inventory):
    with pytest.raises(DataError, match=r"a.shp: expected a name that ends in .gpkg, .geojson, .parquet"):
        write_inventory(inventory, tmp_path / "a.shp")
    for name in ("a.gpkg", "a.geojson"):
        with pytest.raises(DataError, match="cannot be written"):
            write_inventory(inventory, tmp_path / "missing" / name)


@pytest.mark.parametrize("missing", [3, 1000])
@pytest.mark.parametrize("suffix", [".gpkg", ".geojson", ".parquet"])
def test_a_truncated_file_is_no_result(tmp_path, inventory, suffix, missing):
    whole = write_inventory(inventory, tmp_path / f"a{suffix}")
    refused = pytest.raises(DataError, match=rf"b\{suffix}: cannot be written \(.*\)\. Free disk space")
    with largest_file(whole.stat().st_size - missing), refused as error:
        write_inventory(inventory, tmp_path / f"b{suffix}")
    assert "\n" not in str(error.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == [whole.name, "mask.tif"]
    assert write_inventory(inventory, tmp_path / f"b{suffix}").read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson", ".parquet"])
def test_lost_polygons_are_noticed(tmp_path, inventory, nothing, suffix):
    verify_vector(write_inventory(inventory, tmp_path / f"a{suffix}"), 2)
    with pytest.raises(OSError, match="does not hold what was written"):
        verify_vector(write_inventory(nothing, tmp_path / f"b{suffix}"), 2)
    cut = tmp_path / f"c{suffix}"
    cut.write_bytes((tmp_path / f"a{suffix}").read_bytes()[:-40])
    with pytest.raises(OSError, match=r"cannot be read again|does not hold"):
        verify_vector(cut, 2)


def test_arrow_takes_its_memory_from_the_system_while_it_writes(tmp_path, inventory):
    before, seen = pa.default_memory_pool().backend_name, []

    def frames():
        seen.append(pa.default_memory_pool().backend_name)
        yield inventory.frame

    assert write_frames(frames(), [tmp_path / "a.gpkg", tmp_path / "a.parquet"], layer="landslides") == 2
    assert seen == ["system"] and pa.default_memory_pool().backend_name == before
