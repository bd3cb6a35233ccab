"""Vector files of mapped landslides: formats, geometries that are not polygons, and wrong coordinates."""

import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas
import pytest
import shapely
from PIL import Image
from rasterio import Affine
from shapely import LineString, MultiPolygon, Point, Polygon, box

from lim_keras.errors import DataError, LimKerasWarning
from lim_keras.evaluation.truth import open_labels, read_truth
from lim_keras.raster.georeference import RasterInfo
from lim_keras.raster.images import read_info
from lim_keras.raster.windows import Box
from lim_keras.raster.writer import write_raster
from tests.evaluation.conftest import EAST, NORTH, UTM, frame, square

INSIDE = square(4, -14, 10)  # 100 m2 on a scene of 60 x 40 m


@pytest.fixture
def like(tmp_path: Path) -> RasterInfo:
    place = {"crs": UTM, "transform": Affine(2.0, 0, EAST, 0, -2.0, NORTH)}
    return read_info(write_raster(tmp_path / "scene.tif", np.zeros((20, 30, 3), np.uint8), **place))


def geojson(path: Path, shapes: geopandas.GeoDataFrame) -> Path:
    """Write a GeoJSON that names no CRS, as a script may do."""
    content = json.loads(shapes.to_json())
    content.pop("crs", None)
    path.write_text(json.dumps(content))
    return path


# Formats.


@pytest.mark.parametrize(
    ("name", "driver"),
    [("a.kml", "KML"), ("a.gml", "GML"), ("a.fgb", "FlatGeobuf"), ("a.tab", "MapInfo File"), ("a.sqlite", "SQLite")],
)
def test_formats(name: str, driver: str, like: RasterInfo, tmp_path: Path) -> None:
    written = frame(INSIDE).assign(id=1)
    (written.to_crs("EPSG:4326") if driver == "KML" else written).to_file(tmp_path / name, driver=driver)
    (tmp_path / "a.xsd").unlink(missing_ok=True)  # without it, GDAL would write a .gfs file beside the .gml
    before = sorted(tmp_path.iterdir())
    truth = read_truth(tmp_path / name, like)
    assert truth.crs == UTM and truth.area.tolist() == pytest.approx([100], rel=1e-4)
    with open_labels(tmp_path / name, truth, like) as labels:
        assert labels(Box(0, 0, 20, 30)).sum() == 25  # pixels of 4 m2
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("crs", [UTM, "EPSG:4326"])
def test_geoparquet(crs: str, like: RasterInfo, tmp_path: Path) -> None:
    frame(INSIDE).to_crs(crs).to_parquet(tmp_path / "a.parquet")
    truth = read_truth(tmp_path / "a.parquet", like)
    assert truth.crs == UTM and truth.area.tolist() == pytest.approx([100], rel=1e-4)


def test_parquet_that_cannot_be_used(like: RasterInfo, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pandas.DataFrame({"a": [1]}).to_parquet(path)
    with pytest.raises(DataError, match=r"a.parquet: cannot be read as polygons \(Missing geo metadata") as said:
        read_truth(path, like)
    assert "\n" not in str(said.value)
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(DataError, match=r"a.parquet: cannot be read as polygons \(.*corrupted"):
        read_truth(path, like)
    frame(INSIDE, crs=None).to_parquet(path)
    with pytest.raises(DataError, match=r"a.parquet: has no CRS") as said:
        read_truth(path, like)
    # The command of the message makes a file that can be read.
    exec(re.search(r"`(geopandas.+)`", str(said.value))[1], {"geopandas": geopandas})  # type: ignore[index]
    assert read_truth(tmp_path / "a_mended.gpkg", like).area.tolist() == [100]


def test_polygons_of_a_study_area(like: RasterInfo, tmp_path: Path) -> None:
    # The scene has 60 x 40 m: 1,920 m2 are 80 %; overlaps count once.
    path = tmp_path / "a.gpkg"
    frame(square(0, -40, 48, 40), square(0, -40, 40, 40)).to_file(path)
    read_truth(path, like)
    frame(square(-5, -45, 55, 50)).to_file(path)
    with pytest.warns(LimKerasWarning, match=r"a.gpkg: its polygons cover 83% of the scene .*study area"):
        read_truth(path, like)


def archive(path: Path, *files: Path, folder: str = "") -> Path:
    with zipfile.ZipFile(path, "w") as target:
        for file in files:
            target.write(file, f"{folder}{file.name}")
    return path


@pytest.mark.parametrize("folder", ["", "inventory/2013/"])
def test_an_archive_of_one_file(folder: str, like: RasterInfo, tmp_path: Path) -> None:
    frame(INSIDE).to_file(tmp_path / "a.shp")
    (tmp_path / "._a.shp").write_bytes(b"left by a Mac")
    archive(tmp_path / "a.zip", *tmp_path.glob("a.*"), tmp_path / "._a.shp", folder=folder)
    assert read_truth(tmp_path / "a.zip", like).area.tolist() == pytest.approx([100])
    labels = np.zeros((20, 30), np.uint8)
    labels[2:7, 2:7] = 1
    write_raster(tmp_path / "labels.tif", labels, crs=UTM, transform=like.transform)
    path = archive(tmp_path / "labels.zip", tmp_path / "labels.tif", folder=folder)
    truth = read_truth(path, like)
    with open_labels(path, truth, like) as read:
        assert (read(Box(0, 0, 20, 30)) == labels).all()


def test_archives_that_cannot_be_used(like: RasterInfo, tmp_path: Path) -> None:
    for name in ("a.gpkg", "b.gpkg"):
        frame(INSIDE).to_file(tmp_path / name)
    path = archive(tmp_path / "two.zip", tmp_path / "a.gpkg", tmp_path / "b.gpkg")
    with pytest.raises(DataError, match=r"two.zip: expected one file .* Received: a.gpkg, b.gpkg\. Unpack it"):
        read_truth(path, like)
    with pytest.raises(DataError, match=r"none.zip: expected one file .* Received: scene.tif.txt\."):
        (tmp_path / "scene.tif.txt").write_text("text")
        read_truth(archive(tmp_path / "none.zip", tmp_path / "scene.tif.txt"), like)
    (tmp_path / "cut.zip").write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match=r"cut.zip: cannot be read as a .zip archive"):
        read_truth(tmp_path / "cut.zip", like)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "text", r"a.txt: cannot be read as polygons or as a label raster. Expected polygons as GeoPackage"),
        ("a.json", '{"shapes": []}', r"a.json: cannot be read as polygons .* Expected polygons as GeoPackage"),
        ("a.csv", "x,y\n1,2\n", r"a.csv: expected one layer with geometries. Received: none, only tables \(a\)"),
        ("a.csv", 'id,WKT\n1,"POLYGON((0 0,1 0,1 1,0 0))"\n', r"a.csv: has no CRS.*`ogr2ogr -a_srs EPSG:32648"),
        (
            "a.csv",
            'id,WKT\n1,"TIN(((0 0,1 0,1 1,0 0)))"\n',
            r"a.csv: cannot be read as polygons .*`ogr2ogr -nlt MULTIPOLYGON .*a_mended.gpkg .*a.csv`",
        ),
        ("a.tif", "text", r"a.tif: is a text file, not a raster"),
        ("a.gpkg", "text", r"a.gpkg: damaged, expected a GeoPackage \(file is not a database\)"),
        *(
            ("a.csv", f'id,WKT\n1,"POLYGON((0 0,{x} 0,1 1,0 0))"\n', r"-1e\+15 and 1e\+15\. Received: NaN.* in 1 of 1")
            for x in ("nan", "1e300")
        ),
    ],
)
def test_files_that_are_no_truth(name: str, content: str, message: str, like: RasterInfo, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        read_truth(tmp_path / name, like)


def test_a_shapefile_without_its_index(like: RasterInfo, tmp_path: Path) -> None:
    frame(INSIDE).to_file(tmp_path / "a.shp")
    (tmp_path / "a.shx").unlink()
    with pytest.raises(DataError, match=r"a.shp: .*a.shx.* A Shapefile needs its .shx and .prj beside it"):
        read_truth(tmp_path / "a.shp", like)


def test_empty_layers_beside_the_landslides(like: RasterInfo, tmp_path: Path) -> None:
    frame(INSIDE).to_file(tmp_path / "a.gpkg", layer="landslides")
    frame().to_file(tmp_path / "a.gpkg", layer="older")
    assert len(read_truth(tmp_path / "a.gpkg", like)) == 1


def test_several_layers(like: RasterInfo, tmp_path: Path) -> None:
    frame(Point(EAST, NORTH)).to_file(tmp_path / "a b.gpkg", layer="springs")
    frame(INSIDE).to_file(tmp_path / "a b.gpkg", layer="slides 2013")
    with pytest.raises(DataError, match=r"springs, slides 2013\. .*/a b_mended.gpkg' '.*/a b.gpkg' 'slides 2013'`"):
        read_truth(tmp_path / "a b.gpkg", like)


# Geometries.


def test_geometries_that_do_not_count_are_reported(like: RasterInfo, tmp_path: Path) -> None:
    corner = Point(EAST + 1, NORTH - 1)
    line = LineString([(EAST, NORTH), (EAST + 9, NORTH)])
    flat = Polygon([(EAST, NORTH), (EAST + 20, NORTH), (EAST + 10, NORTH), (EAST, NORTH)])
    both = shapely.GeometryCollection([square(30, -30, 10), line, MultiPolygon([square(45, -30, 5)])])
    frame(INSIDE, corner, corner, line, None, Polygon(), flat, both).to_file(tmp_path / "a.gpkg")
    listed = r"\(2 Point, 2 LineString, 2 without geometry, 1 without area\)"
    with pytest.warns(LimKerasWarning, match=rf"a.gpkg: lines, points and empty geometries .* do not count {listed}"):
        truth = read_truth(tmp_path / "a.gpkg", like)
    assert sorted(truth.area) == pytest.approx([25, 100, 100])


def test_curves_become_polygons(like: RasterInfo, tmp_path: Path) -> None:
    x, y = EAST + 20, NORTH - 20
    circle = f"CURVEPOLYGON(CIRCULARSTRING({x - 10} {y},{x} {y + 10},{x + 10} {y},{x} {y - 10},{x - 10} {y}))"
    (tmp_path / "a.csv").write_text(f'id,WKT\n1,"{circle}"\n')
    curves = geopandas.read_file(tmp_path / "a.csv").set_crs(UTM)
    curves.to_file(tmp_path / "a.gpkg")
    assert read_truth(tmp_path / "a.gpkg", like).area.tolist() == pytest.approx([314.16], rel=2e-3)  # pi * 10 ** 2


def test_repeated_polygons_count_once(like: RasterInfo, tmp_path: Path) -> None:
    points = list(INSIDE.exterior.coords)
    frame(INSIDE, INSIDE, Polygon(points[2:-1] + points[:2]), square(30, -30, 10)).to_file(tmp_path / "a.gpkg")
    with pytest.warns(LimKerasWarning, match=r"a.gpkg: 2 of 4 polygons repeat another one; each counts once"):
        truth = read_truth(tmp_path / "a.gpkg", like)
    assert truth.area.tolist() == [100, 100] and truth.index.tolist() == [0, 1]


@pytest.mark.parametrize("name", ["a.gpkg", "a.geojson", "a.shp", "a.tif"])
def test_a_scene_may_have_no_landslide_in_any_format(name: str, like: RasterInfo, tmp_path: Path) -> None:
    if name == "a.tif":
        write_raster(tmp_path / name, np.zeros((20, 30), np.uint8), crs=UTM, transform=like.transform)
    else:
        geopandas.GeoDataFrame({"id": np.zeros(0)}, geometry=[], crs=UTM).to_file(tmp_path / name)
    with pytest.warns(LimKerasWarning, match=r"holds no .* Every landslide that is predicted counts as a false alarm"):
        truth = read_truth(tmp_path / name, like)
    assert truth.empty and truth.crs == UTM
    with open_labels(tmp_path / name, truth, like) as labels:
        assert not labels(Box(0, 0, 20, 30)).any()


# Coordinates.


def swapped(shapes: geopandas.GeoDataFrame) -> geopandas.GeoDataFrame:
    return shapes.set_geometry(shapely.transform(shapes.geometry.to_numpy(), lambda points: points[:, ::-1]))


def labelled(shapes: geopandas.GeoDataFrame, crs: str) -> geopandas.GeoDataFrame:
    return shapes.set_crs(crs, allow_override=True)


METRES, DEGREES = frame(INSIDE), frame(INSIDE).to_crs("EPSG:4326")


@pytest.mark.parametrize(
    ("name", "shapes", "message"),
    [
        ("a.geojson", METRES, r"WGS 84 \(the default of GeoJSON\), but its coordinates lie on the scene in EPSG:32648"),
        ("a.geojson", swapped(DEGREES), r"lie on the scene in its CRS with x and y swapped, such as latitude before"),
        ("a.geojson", swapped(METRES), r"in EPSG:32648 with x and y swapped.*set_crs\(\"EPSG:32648\""),
        ("a.geojson", METRES.to_crs(3857), r"but its coordinates are not degrees \(x 1.16886e\+07 .*-a_srs EPSG:CODE"),
        ("a.gpkg", labelled(METRES, "EPSG:4326"), r"its CRS is WGS 84, but its coordinates lie .* in EPSG:32648"),
        ("a.shp", labelled(DEGREES, UTM), r"its CRS is WGS.84.*48N, but its coordinates lie .* in EPSG:4326"),
        ("a.gpkg", labelled(METRES, "EPSG:32647"), r"its CRS is .*47N, but its coordinates lie .* in EPSG:32648"),
    ],
)
def test_coordinates_that_do_not_fit_their_crs(
    name: str, shapes: geopandas.GeoDataFrame, message: str, like: RasterInfo, tmp_path: Path
) -> None:
    if name == "a.geojson":
        geojson(tmp_path / name, shapes)
    else:
        shapes.to_file(tmp_path / name)
    with pytest.raises(DataError, match=rf"{name}: .*{message}"):
        read_truth(tmp_path / name, like)


def test_rows_that_grow_downwards(tmp_path: Path) -> None:
    like = read_info(write_raster(tmp_path / "scene.tif", np.zeros((20, 30, 3), np.uint8)))
    path = geojson(tmp_path / "a.geojson", frame(box(3, 2, 8, 6), crs=None))
    with pytest.raises(DataError, match=r"a.geojson: expected coordinates \(column, -row\). Received: \(column, row\)"):
        read_truth(path, like)


def test_geojson_of_a_scene_in_a_local_crs(tmp_path: Path) -> None:
    place = {"crs": 'LOCAL_CS["site",UNIT["metre",1]]', "transform": Affine(2.0, 0, 100, 0, -2.0, 200)}
    like = read_info(write_raster(tmp_path / "scene.tif", np.zeros((20, 30, 3), np.uint8), **place))
    truth = read_truth(geojson(tmp_path / "a.geojson", frame(box(110, 180, 120, 190), crs=None)), like)
    assert truth.area.tolist() == [100]


def moved(by: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda points: points + (by, 0)  # noqa: RUF005


@pytest.mark.parametrize("origin", [179.5, -180.5, 359.5, 10.0])
@pytest.mark.parametrize("turn", [-360, 0, 360])
def test_longitudes_may_differ_by_whole_turns(origin: float, turn: int, tmp_path: Path) -> None:
    place = {"crs": "EPSG:4326", "transform": Affine(0.1, 0, origin, 0, -0.1, 1)}
    like = read_info(write_raster(tmp_path / "scene.tif", np.zeros((10, 10, 3), np.uint8), **place))
    west, east = box(origin + 0.1, 0.2, origin + 0.3, 0.4), box(origin + 0.7, 0.2, origin + 0.9, 0.4)
    frame(*(shapely.transform(one, moved(turn)) for one in (west, east)), crs="EPSG:4326").to_file(tmp_path / "a.gpkg")
    truth = read_truth(tmp_path / "a.gpkg", like)
    assert np.allclose(truth.bounds["minx"], [origin + 0.1, origin + 0.7])


def test_a_polygon_across_180_degrees(tmp_path: Path) -> None:
    place = {"crs": "EPSG:4326", "transform": Affine(0.1, 0, 179.5, 0, -0.1, 1)}
    like = read_info(write_raster(tmp_path / "scene.tif", np.zeros((10, 10, 3), np.uint8), **place))
    across = Polygon([(179.9, 0.2), (-179.9, 0.2), (-179.9, 0.4), (179.9, 0.4)])
    frame(across, crs="EPSG:4326").to_file(tmp_path / "a.gpkg")
    truth = read_truth(tmp_path / "a.gpkg", like)
    assert truth.total_bounds.tolist() == pytest.approx([179.9, 0.2, 180.1, 0.4])


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ("EPSG:4326", Affine(0.1, 0, -180.5, 0, -0.1, 1)),
        ("EPSG:32660", Affine(11e3, 0, 8e5, 0, -11e3, 1.1e5)),
        ("EPSG:3857", Affine(11e3, 0, 19_982_508, 0, -11e3, 1.1e5)),
    ],
)
def test_a_polygon_that_was_cut_at_180_degrees_is_one_landslide(crs: str, transform: Affine, tmp_path: Path) -> None:
    place = {"crs": crs, "transform": transform}
    like = read_info(write_raster(tmp_path / "scene.tif", np.zeros((10, 10, 3), np.uint8), **place))
    halves = MultiPolygon([box(179.9, 0.2, 180, 0.4), box(-180, 0.2, -179.9, 0.4)])
    frame(halves, crs="EPSG:4326").to_file(tmp_path / "a.gpkg")
    truth = read_truth(tmp_path / "a.gpkg", like)
    assert len(truth) == 1
    if crs == "EPSG:4326":
        assert truth.total_bounds.tolist() == pytest.approx([-180.1, 0.2, -179.9, 0.4])
    if crs == "EPSG:3857":  # 20,037,508 m are 180 degrees
        assert truth.total_bounds[[0, 2]].tolist() == pytest.approx([20_026_376, 20_048_640], abs=1)


def test_a_palette_that_shows_0_as_white_is_refused(like: RasterInfo, tmp_path: Path) -> None:
    Image.fromarray(np.eye(20, 30) > 0).save(tmp_path / "fax.tif", tiffinfo={262: 0})
    with pytest.raises(DataError, match=r"fax.tif: its palette shows 0 as white and 1 as black"):
        read_truth(tmp_path / "fax.tif", like)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("a.tif", {"tiffinfo": {0x0112: 3}}, "has the EXIF orientation 3"),
        ("a.tif", {"save_all": True, "append_images": [Image.new("L", (30, 20))]}, "a TIFF of 2 pages"),
        ("a.jpg", {"quality": 100}, "is compressed as JPEG, which changes labels"),
    ],
)
def test_ambiguous_label_rasters(
    name: str, options: dict[str, Any], message: str, like: RasterInfo, tmp_path: Path
) -> None:
    Image.fromarray(np.eye(20, 30, dtype=np.uint8)).save(tmp_path / name, **options)
    with pytest.raises(DataError, match=rf"{name}: .*{message}"):
        read_truth(tmp_path / name, like)


def test_a_label_raster_with_a_mask_is_refused(like: RasterInfo, tmp_path: Path) -> None:
    place = {"crs": UTM, "transform": like.transform}
    labels = np.eye(20, 30, dtype=np.uint8)
    write_raster(tmp_path / "a.tif", labels, valid=labels > 0, **place)
    with pytest.raises(DataError, match=r"a.tif: has a mask. Expected 255 where there is no label"):
        read_truth(tmp_path / "a.tif", like)


def test_archives_of_another_version_are_refused(like: RasterInfo, tmp_path: Path) -> None:
    frame(INSIDE).to_file(tmp_path / "a.gpkg")
    path = archive(tmp_path / "a.zip", tmp_path / "a.gpkg")
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 6] = 99  # version needed to extract, 9.9
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match=r"a.zip: cannot be read as a .zip archive \(zip file version 9.9\)"):
        read_truth(path, like)


def test_another_file_is_not_read_in_place_of_an_odd_name(like: RasterInfo, tmp_path: Path) -> None:
    """pyogrio would read b.gpkg of the working folder, and a."""
    for name in ("a!b.gpkg", "a;b.gpkg"):
        frame(INSIDE).to_file(tmp_path / "plain.gpkg")
        (tmp_path / "plain.gpkg").rename(tmp_path / name)
        with pytest.raises(DataError, match="expected a path without `;` and `!`"):
            read_truth(tmp_path / name, like)
