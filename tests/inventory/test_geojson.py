"""GeoJSON that is formatted in arrays has the bytes that GDAL writes."""

import geopandas
import numpy as np
import pandas
import pyogrio
import pytest
import shapely
from shapely import Polygon, box
from shapely.affinity import scale, translate

from lim_keras.inventory.geojson import COLLECTION_END, collection_start, feature_lines
from lim_keras.inventory.vector_files import write_frames

SQUARE = Polygon(
    box(0, 0, 30, 30).exterior.coords, [box(3, 3, 6, 6).exterior.coords, box(9, 9, 12, 12).exterior.coords]
)


def by_gdal(frame, path):
    options = {"RFC7946": "YES", "SIGNIFICANT_FIGURES": "10", "geometry_type": "Polygon", "driver": "GeoJSON"}
    pyogrio.write_dataframe(frame, path, layer="l", **options)
    return path.read_text()


def formatted(frame):
    lines = feature_lines(frame)
    return None if lines is None else collection_start("l") + lines + COLLECTION_END


def noise(crs, x, y, step):
    """Triangles, squares and squares with holes, of both directions, with numbers of every size."""
    rng = np.random.default_rng(5)
    shapes = [SQUARE, shapely.reverse(SQUARE), Polygon([(0, 0), (30, 0), (7, 21)]), box(0, 0, 10, 10)] * 25
    placed = [scale(translate(one, *rng.integers(0, 99, 2)), step, step, origin=(0, 0)) for one in shapes]
    exponents = rng.integers(-14, 16, len(shapes))
    columns = {
        "id": np.arange(len(shapes)),
        "number": rng.standard_normal(len(shapes)) * 10.0**exponents,
        "share": rng.integers(0, 5, len(shapes)) / 4,
        "half": np.round(rng.random(len(shapes)), 3) + 5e-11,
        "unknown": np.where(rng.random(len(shapes)) < 0.3, np.nan, rng.random(len(shapes))),
        "flag": rng.random(len(shapes)) < 0.5,
    }
    return geopandas.GeoDataFrame(columns, geometry=[translate(one, x, y) for one in placed], crs=crs)


@pytest.mark.parametrize(
    ("crs", "x", "y", "step"),
    [
        ("EPSG:32648", 500_000, 3_000_000, 0.8),
        ("EPSG:4326", 105, 27, 1e-5),
        ("EPSG:4326", -1e-4, -1e-4, 1e-6),  # numbers near 0, of both signs
        ("EPSG:3857", 1e6, 8.4e6, 2.0),
        ("EPSG:2229", 6_500_000, 1_850_000, 10),
    ],
)
def test_text_is_that_of_gdal(tmp_path, crs, x, y, step):
    frame = noise(crs, x, y, step)
    assert formatted(frame) == by_gdal(frame, tmp_path / "a.geojson")


@pytest.mark.parametrize(
    "value", [0.0, -0.0, 1.0, 1e9, 12345678901.5, 1e300, 1e-5, 0.00099999999999, 123456.78905, 2.5]
)
def test_numbers_are_those_of_gdal(tmp_path, value):
    frame = geopandas.GeoDataFrame({"number": [value]}, geometry=[box(105, 27, 105.1, 27.1)], crs="EPSG:4326")
    assert formatted(frame) == by_gdal(frame, tmp_path / "a.geojson")


@pytest.mark.parametrize(
    ("crs", "shape"),
    [
        (None, box(0, 0, 1, 1)),
        ('LOCAL_CS["site",UNIT["metre",1]]', box(0, 0, 1, 1)),
        ("EPSG:4326", box(179.5, 0, 179.9, 1)),
        ("EPSG:4326", Polygon([(170, 0), (-170, 0), (-170, 1)])),
        ("EPSG:4326", box(0, 88, 1, 89)),
        # The second vertex lies a hundredth of a rounding step from the opposite side.
        ("EPSG:4326", Polygon([(0, 0), (1, 1.0000000001e-7), (2, 2e-7), (1, 1e-7)])),
    ],
)
def test_gdal_formats_polygons_that_may_have_to_be_cut_or_repaired(crs, shape):
    assert feature_lines(geopandas.GeoDataFrame(geometry=[shape], crs=crs)) is None


@pytest.mark.parametrize("suffixes", [(".gpkg", ".geojson", ".parquet"), (".geojson",)])
@pytest.mark.parametrize("crossing", [False, True])
def test_batches_of_any_size_give_the_same_landslides(tmp_path, monkeypatch, suffixes, crossing):
    frame = noise("EPSG:32648", 500_000, 3_000_000, 0.8)
    if crossing:  # the last landslide: those before are formatted already
        frame = frame.to_crs("EPSG:4326")
        frame.loc[len(frame) - 1, "geometry"] = box(179.5, 27, 180.5, 28)
    written = {}
    for rows in (10**6, 7, 1):
        monkeypatch.setattr("lim_keras.inventory.vector_files._ROWS", rows)
        paths = [tmp_path / f"{rows}{suffix}" for suffix in suffixes]
        parts = (frame.iloc[start : start + 3] for start in range(0, len(frame), 3))
        assert write_frames(parts, paths, layer="l") == len(frame)
        written[rows] = next(path for path in paths if path.suffix == ".geojson").read_bytes()
        for path in paths:
            back = geopandas.read_parquet(path) if path.suffix == ".parquet" else geopandas.read_file(path)
            assert len(back) == len(frame) and back.id.tolist() == frame.id.tolist()
            if path.suffix != ".geojson":
                assert shapely.equals_exact(back.geometry.to_numpy(), frame.geometry.to_numpy(), 0).all()
                pandas.testing.assert_frame_equal(back[["number", "unknown"]], frame[["number", "unknown"]])
                assert back.crs == frame.crs
    assert written[7] == written[1] == written[10**6]
    assert not list(tmp_path.glob(".*"))


def test_an_error_while_landslides_are_made_is_raised_unchanged(tmp_path):
    def broken():
        yield noise("EPSG:32648", 500_000, 3_000_000, 0.8)
        raise KeyError("slope")

    with pytest.raises(KeyError, match="slope"):
        write_frames(broken(), [tmp_path / "a.gpkg", tmp_path / "a.geojson"], layer="l")
    assert not list(tmp_path.iterdir())
