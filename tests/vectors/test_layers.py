"""Layers of vector files, ids of features, and conditions in SQL."""

import json
import sqlite3
import subprocess
import sys
import zipfile
from pathlib import Path

import geopandas
import pandas
import pytest
from shapely import Point, box

from lim_keras.errors import ConfigError, DataError, LimKerasWarning
from lim_keras.vectors import layers
from lim_keras.vectors.conditions import select_features
from lim_keras.vectors.formats import find_source
from lim_keras.vectors.layers import Layer, find_layer, read_features

UTM = "EPSG:32648"


def inventory() -> geopandas.GeoDataFrame:
    columns = {"Name": ["one", "two", "three"], "sure": ["yes", "no", None], "area": [1.5, 2.5, 3.5]}
    shapes = [box(5e5 + k, 3e6, 5e5 + k + 0.5, 3e6 + 1) for k in range(3)]
    return geopandas.GeoDataFrame(columns, geometry=shapes, crs=UTM)


DRIVERS = {
    "a.gpkg": "GPKG",
    "a.geojson": "GeoJSON",
    "a.shp": "ESRI Shapefile",
    "a.fgb": "FlatGeobuf",
    "a.kml": "KML",
    "a.gml": "GML",
    "a.tab": "MapInfo File",
    "a.sqlite": "SQLite",
    "a.csv": "",
    "a.parquet": "",
    "a.zip": "",
}


def write(path: Path, frame: geopandas.GeoDataFrame) -> Layer:
    """Write a frame in the format of its name, and find its layer."""
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    elif path.suffix == ".csv":
        frame.assign(WKT=frame.geometry.to_wkt()).drop(columns="geometry").to_csv(path, index=False)
    elif path.suffix == ".zip":
        frame.to_file(path.with_suffix(".shp"))
        with zipfile.ZipFile(path, "w") as archive:
            for part in path.parent.glob("a.*"):
                if part != path:
                    archive.write(part, part.name)
    else:
        frame = frame.to_crs("EPSG:4326") if path.suffix == ".kml" else frame
        frame.to_file(path, driver=DRIVERS[path.name])
        path.with_suffix(".xsd").unlink(missing_ok=True)
    return find_layer(find_source(path))


@pytest.mark.parametrize("name", DRIVERS)
def test_conditions_select_features_in_every_format(name: str, tmp_path: Path) -> None:
    layer = write(tmp_path / name, inventory())
    before = sorted(tmp_path.iterdir())
    column = next(one for one in layer.columns if one.lower() == "name")  # SQLite writes small letters
    frame = read_features(layer, (column,))

    def names(where: str) -> list[str]:
        return sorted(frame.loc[select_features(layer, where, argument="where"), column])

    assert len(set(frame.index)) == 3 and layer.naming_column in ("Name", "name", "id")
    assert names("sure = 'yes'") == ["one"] and names("area > 2") == ["three", "two"]
    assert names("Name IN ('one', 'two') AND area < 2") == ["one"]
    assert names("\"sure\" = 'no' OR NAME LIKE 'th%'") == ["three", "two"]
    with pytest.raises(ConfigError, match=rf"{name}: .*no .*column:? certain.*ame \(text\).*area \(number\)") as said:
        names("certain = 'yes'")
    assert "\n" not in str(said.value) and "SELECT" not in str(said.value)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("name", ["a.gpkg", "a.shp", "a.parquet"])
@pytest.mark.parametrize(
    ("where", "reason"),
    [
        ("  ", "not one condition"),
        ("area > 1; DELETE FROM a", "not one condition"),
        ("sure = 'yes", "a single quote is not closed"),
        ("\"certain\" = 'yes'", "no column certain"),  # SQLite reads it as text
        ('sure = "yes"', "no column yes"),
        ("sure = yes", "no .*column:? yes"),
        ("area >", "incomplete input|wrong SQL.*"),
    ],
)
def test_wrong_conditions(name: str, where: str, reason: str, tmp_path: Path) -> None:
    layer = write(tmp_path / name, inventory())
    columns = r"Its columns: Name \(text\), sure \(text\), area \(number\)\."
    with pytest.raises(ConfigError, match=rf"{name}: expected a condition in SQL .*`rule`.*\(({reason})\)\. {columns}"):
        select_features(layer, where, argument="rule")


def test_text_may_hold_what_is_special_in_sql(tmp_path: Path) -> None:
    frame = inventory().assign(sure=["a;b", 'say "no"', "it's"])
    layer = write(tmp_path / "a.gpkg", frame)
    for where, fid in (("sure = 'a;b'", 1), ("sure = 'say \"no\"'", 2), ("sure = 'it''s'", 3)):
        assert select_features(layer, where, argument="where").tolist() == [fid]


def test_a_condition_that_selects_nothing(tmp_path: Path) -> None:
    layer = write(tmp_path / "a.shp", inventory())
    with pytest.warns(LimKerasWarning, match=r"a.shp: `where` selects none of its features \(area > 9\)"):
        assert select_features(layer, "area > 9", argument="where").size == 0


def test_odd_columns_of_geoparquet(tmp_path: Path) -> None:
    columns = {"fid": [5, 6, 7], "geom": ["a", "b", "c"], "flag": [True, False, None], "list": [[1], [2], [3]]}
    days = pandas.to_datetime(["2020-01-01", "2021-01-01", None])
    frame = inventory().assign(**columns, day=days, kind=pandas.Categorical(["x", "y", "x"]))
    frame["point"] = frame.geometry.centroid
    layer = write(tmp_path / "a.parquet", frame)
    assert list(layer.columns) == ["Name", "sure", "area", "fid", "geom", "flag", "day", "kind"]
    expected = {"fid = 6": [2], "geom = 'c'": [3], "flag": [1], "day > '2020-06-01'": [2], "kind = 'x'": [1, 3]}
    for where, rows in expected.items():
        assert select_features(layer, where, argument="where").tolist() == rows


def test_ids_of_geojson_that_are_text_or_repeat(tmp_path: Path) -> None:
    content = json.loads(inventory().to_crs("EPSG:4326").to_json())
    for feature, identifier in zip(content["features"], ["abc", 7, 7], strict=True):
        feature["id"] = identifier
    (tmp_path / "a.geojson").write_text(json.dumps(content))
    layer = find_layer(find_source(tmp_path / "a.geojson"))
    frame = read_features(layer, ("Name",))
    assert len(set(frame.index)) == 3
    chosen = select_features(layer, "area > 3", argument="where")
    assert frame.loc[chosen, "Name"].tolist() == ["three"]


def test_layers_by_name(tmp_path: Path) -> None:
    path = tmp_path / "ä b.gpkg"
    geopandas.GeoDataFrame(geometry=[Point(0, 0)], crs=UTM).to_file(path, layer="springs")
    inventory().to_file(path, layer="Rutschungen 2013")
    source = find_source(path)
    with pytest.raises(DataError, match=r"Received: springs, Rutschungen 2013\. Save the layer"):
        find_layer(source)
    assert find_layer(source, argument="layer").name == "Rutschungen 2013"
    inventory()[:1].to_file(path, layer="2015")
    with pytest.raises(DataError, match=r"Received: Rutschungen 2013, 2015\. Name the layer of landslides as `layer`"):
        find_layer(source, argument="layer")
    assert len(read_features(find_layer(source, "2015", argument="layer"))) == 1
    with pytest.raises(ConfigError, match=r"has no layer 'x'\. Expected one of these as `layer`: springs, Rutschungen"):
        find_layer(source, "x", argument="layer")
    table = pandas.DataFrame({"a": [1]})
    geopandas.io.file.pyogrio.write_dataframe(table, path, layer="notes")
    with pytest.raises(ConfigError, match=r"its layer 'notes' is a table"):
        find_layer(source, "notes", argument="layer")
    inventory().to_parquet(tmp_path / "a.parquet")
    with pytest.raises(ConfigError, match=r"a.parquet: GeoParquet has no layers. Leave out `layer`"):
        find_layer(find_source(tmp_path / "a.parquet"), "a", argument="layer")


def test_a_folder_of_shapefiles_is_a_file_of_layers(tmp_path: Path) -> None:
    for name in ("one", "two"):
        inventory().to_file(tmp_path / f"{name}.shp")
    layer = find_layer(find_source(tmp_path), "two", argument="layer")
    assert len(read_features(layer)) == 3


def write_view(path: Path, query: str) -> None:
    """Write a GeoPackage whose layer `a` is a view of its table `stored`."""
    inventory().to_file(path, layer="a")
    database = sqlite3.connect(path)
    for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        database.execute(f'DROP TRIGGER "{name}"')  # they call functions that only GDAL knows
    database.execute("ALTER TABLE a RENAME TO stored")
    database.execute(f"CREATE VIEW a AS {query}")
    database.commit()
    database.close()


def test_a_view_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "_MOST_IN_VIEW", 1000)
    path = tmp_path / "a.gpkg"
    numbers = "WITH RECURSIVE n(fid) AS (SELECT 1 UNION ALL SELECT fid + 1 FROM n)"
    write_view(path, f"{numbers} SELECT fid, NULL AS geom FROM n")
    with pytest.raises(DataError, match=r"a\.gpkg: its layer a is a view of more than 1,000 features"):
        find_layer(find_source(path), "a")


@pytest.mark.parametrize("first", ["tensorflow", "lim_keras.vectors.layers"])
def test_a_view_is_read_beside_tensorflow(first: str, tmp_path: Path) -> None:
    write_view(tmp_path / "a.gpkg", "SELECT * FROM stored")
    program = (
        f"import {first}; from lim_keras.tensorflow_import import load_tensorflow; load_tensorflow()\n"
        "from pathlib import Path; from lim_keras.vectors.formats import find_source\n"
        "from lim_keras.vectors.layers import find_layer, read_features\n"
        "print(len(read_features(find_layer(find_source(Path('a.gpkg')), 'a'))))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "3\n"), done.stderr


def test_the_current_folder_as_file_of_landslides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.shp", "b.shp"):
        inventory().to_file(tmp_path / name)
    with pytest.raises(DataError, match=r"^\.: expected one layer with geometries\. Received: "):
        find_layer(find_source(Path()), argument="layer")
