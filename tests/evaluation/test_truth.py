"""A scene's mapped landslides, from polygons and from label rasters."""

from pathlib import Path

import geopandas
import numpy as np
import pyproj
import pytest
import rasterio
import shapely
from rasterio import Affine
from shapely import MultiPolygon, Polygon, box
from shapely.affinity import translate

from lim_keras.errors import DataError, LimKerasWarning
from lim_keras.evaluation.scene import score_detections
from lim_keras.evaluation.truth import rasterise_block, read_truth, unlabelled
from lim_keras.inventory.attributes import polygon_areas_m2
from lim_keras.raster.georeference import RasterInfo
from lim_keras.raster.images import read_info
from lim_keras.raster.windows import Box
from lim_keras.raster.writer import write_raster
from tests.evaluation.conftest import EAST, NORTH, UTM, frame, square


def scene(tmp_path: Path, array: np.ndarray | None = None, **place: object) -> RasterInfo:
    place = place or {"crs": UTM, "transform": Affine(2.0, 0, EAST, 0, -2.0, NORTH)}
    pixels = np.zeros((20, 30, 3), np.uint8) if array is None else array
    return read_info(write_raster(tmp_path / "scene.tif", pixels, **place))


@pytest.mark.parametrize("name", ["truth.geojson", "truth.gpkg", "truth.shp"])
def test_polygons_come_in_the_scenes_crs(name: str, tmp_path: Path) -> None:
    like = scene(tmp_path)  # 60 x 40 m, its upper left corner at EAST, NORTH
    inside, across, outside = square(4, -14, 10), square(50, -20, 20, 10), square(500, 0, 10)
    written = frame(inside, across, outside)
    (written if name.endswith("shp") else written.to_crs("EPSG:4326")).to_file(tmp_path / name)
    truth = read_truth(tmp_path / name, like)
    assert truth.crs == pyproj.CRS(UTM)
    # of the one across the right edge, 10 of 20 m remain
    assert truth.area.tolist() == pytest.approx([100, 100], rel=1e-4)
    assert truth.geometry.iloc[0].symmetric_difference(inside).area < 0.1


def test_heights_are_left_out_and_crossings_repaired(tmp_path: Path) -> None:
    points = [(EAST, NORTH, 9), (EAST + 10, NORTH, 9), (EAST, NORTH - 10, 9), (EAST + 10, NORTH - 10, 9)]
    frame(Polygon(points)).to_file(tmp_path / "truth.gpkg")
    with pytest.warns(LimKerasWarning, match=r"truth.gpkg: 1 of 1 polygons are invalid"):
        truth = read_truth(tmp_path / "truth.gpkg", scene(tmp_path))
    assert truth.area.tolist() == [25, 25]
    assert not truth.has_z.any() and truth.is_valid.all()


def test_a_style_table_is_no_layer_of_landslides(tmp_path: Path) -> None:
    path = tmp_path / "truth.gpkg"
    frame(square(4, -14, 10)).to_file(path, layer="landslides")
    styles = geopandas.GeoDataFrame({"name": ["red"]}, geometry=[None]).drop(columns="geometry")
    geopandas.io.file.pyogrio.write_dataframe(styles, path, layer="layer_styles")
    assert len(read_truth(path, scene(tmp_path))) == 1
    frame(square(4, -14, 10)).to_file(path, layer="roads")
    with pytest.raises(DataError, match=r"expected one layer with geometries\. Received: landslides, roads"):
        read_truth(path, scene(tmp_path))


def test_polygons_of_a_scene_without_crs(tmp_path: Path) -> None:
    like = scene(tmp_path, crs="", transform=None)
    # a picture hangs down from the origin: row 2 to 6 is y -2 to -6
    (tmp_path / "truth.geojson").write_text(frame(box(3, -6, 8, -2), crs=None).to_json())
    truth = read_truth(tmp_path / "truth.geojson", like)
    assert truth.crs is None
    mask = rasterise_block(truth, like, Box(0, 0, 20, 30))
    assert mask.sum() == 20 and mask[2:6, 3:8].all()
    frame(square(0, 0, 10)).to_file(tmp_path / "truth.gpkg")
    with pytest.raises(DataError, match=r"has a CRS \(WGS 84 / UTM zone 48N\), but the scene .* has none"):
        read_truth(tmp_path / "truth.gpkg", like)


def test_polygons_that_cannot_be_used(tmp_path: Path) -> None:
    like = scene(tmp_path)
    frame(square(0, 0, 10)).to_file(tmp_path / "truth.shp")
    (tmp_path / "truth.prj").unlink()
    with pytest.raises(DataError, match=r"truth.shp: has no CRS, but the scene .*scene.tif is in EPSG:32648"):
        read_truth(tmp_path / "truth.shp", like)
    frame(shapely.Point(EAST, NORTH)).to_file(tmp_path / "points.geojson")
    with pytest.raises(DataError, match=r"points.geojson: holds no polygon"):
        read_truth(tmp_path / "points.geojson", like)
    with pytest.raises(DataError, match=r"none.gpkg: cannot be read as polygons"):
        read_truth(tmp_path / "none.gpkg", like)
    (tmp_path / "broken.geojson").write_text('{"type": "FeatureColl')
    with pytest.raises(DataError, match=r"broken.geojson: cannot be read as polygons"):
        read_truth(tmp_path / "broken.geojson", like)


def test_polygons_beside_the_scene(tmp_path: Path) -> None:
    frame(square(5000, 0, 10)).to_file(tmp_path / "truth.gpkg")
    with pytest.warns(LimKerasWarning, match="none of its 1 polygons lies on the scene"):
        truth = read_truth(tmp_path / "truth.gpkg", scene(tmp_path))
    assert truth.empty and truth.crs == UTM


def labels() -> np.ndarray:
    """Two landslides that share a corner only, one of them with a hole, and a strip without label."""
    mask = np.zeros((20, 30), np.uint8)
    mask[2:7, 3:8] = 1
    mask[4, 5] = 0
    mask[7:9, 8:12] = 1
    mask[:, 28:] = 255
    return mask


@pytest.mark.parametrize("place", [{}, {"crs": "", "transform": None}])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint32, np.int64, np.uint64, np.float64])
def test_label_rasters(place: dict[str, object], dtype: type, tmp_path: Path) -> None:
    like = scene(tmp_path, **place)
    path = write_raster(
        tmp_path / "labels.tif", labels().astype(dtype), crs=like.crs, transform=like.transform, nodata=255
    )
    truth = read_truth(path, like)
    unit = 1 if place else 4  # m2 a pixel
    assert sorted(truth.area) == [8 * unit, 24 * unit]
    np.testing.assert_array_equal(rasterise_block(truth, like, Box(0, 0, 20, 30)), labels() == 1)


@pytest.mark.parametrize(
    ("dtype", "nodata"),
    [(np.float32, np.nan), (np.float64, np.nan), (np.float32, -9999.1), (np.int64, -9999), (np.uint8, 2)],
)
def test_the_nodata_value_of_a_file_is_no_label(dtype: type, nodata: float, tmp_path: Path) -> None:
    like = scene(tmp_path)
    values = labels().astype(np.float64)
    values[values == 255] = nodata
    place = {"crs": like.crs, "transform": like.transform}
    path = write_raster(tmp_path / "labels.tif", values.astype(dtype), nodata=nodata, **place)
    assert sorted(read_truth(path, like).area) == [32, 96]
    path = write_raster(tmp_path / "labels.tif", values.astype(dtype), **place)
    with pytest.raises(DataError, match=r"labels.tif: expected the labels 1 landslide.* Received: "):
        read_truth(path, like)


def test_what_is_no_label() -> None:
    assert unlabelled(np.array([0, 1, 255, 2], np.uint8), 2).tolist() == [False, False, True, True]
    assert unlabelled(np.array([0, 1, 255, np.nan], np.float32), np.nan).tolist() == [False, False, True, True]
    assert unlabelled(np.array([0, 1, -1], np.int8), None).tolist() == [False, False, False]
    # a background or landslides named nodata are labels all the same
    for nodata in (0, 1):
        assert not unlabelled(np.array([0, 1], np.uint8), nodata).any()


def test_a_label_raster_without_a_place_lies_on_the_scene(tmp_path: Path) -> None:
    like = scene(tmp_path)
    truth = read_truth(write_raster(tmp_path / "labels.tif", labels()), like)
    assert truth.crs == UTM
    # the first landslide begins at column 3, row 2, of 2 m each
    assert truth.total_bounds.tolist() == [EAST + 6, NORTH - 18, EAST + 24, NORTH - 4]


def test_a_label_raster_of_background_only(tmp_path: Path) -> None:
    with pytest.warns(LimKerasWarning, match=r"labels.tif: holds no landslide.* counts as a false alarm"):
        truth = read_truth(write_raster(tmp_path / "labels.tif", np.zeros((20, 30), np.uint8)), scene(tmp_path))
    assert truth.empty and truth.crs == UTM
    assert rasterise_block(truth, scene(tmp_path), Box(0, 0, 4, 5)).shape == (4, 5)


@pytest.mark.parametrize(
    ("array", "place", "message"),
    [
        (labels()[:10], {}, r"Expected 30 x 20 px.* Received: 30 x 10 px"),
        (labels(), {"transform": Affine(2.0, 0, EAST + 1, 0, -2.0, NORTH)}, "lies on another grid than the scene"),
        (labels(), {"crs": "EPSG:32647"}, r"CRS EPSG:32648.* Received: 30 x 20 px, CRS EPSG:32647"),
        (labels() * 2, {}, r"expected the labels 1 landslide.* Received: 0, 2, 254"),
        (np.where(labels() == 1, 255, 0), {}, r"Received: 0, 255. 255 means no label; where it means landslide"),
        (np.full((20, 30), 255), {}, r"expected pixels of 1 landslide or 0 background. Received: 255"),
        (np.zeros((20, 30, 3)), {}, "expected a label raster of one band. Received: 3 bands"),
    ],
)
def test_label_rasters_that_cannot_be_used(
    array: np.ndarray, place: dict[str, object], message: str, tmp_path: Path
) -> None:
    place = {"crs": UTM, "transform": Affine(2.0, 0, EAST, 0, -2.0, NORTH)} | place
    path = write_raster(tmp_path / "labels.tif", array.astype(np.uint8), **place)
    with pytest.raises(DataError, match=message):
        read_truth(path, scene(tmp_path))


def test_a_file_that_is_neither(tmp_path: Path) -> None:
    (tmp_path / "truth.txt").write_text("landslides")
    with pytest.raises(DataError, match=r"truth.txt: cannot be read as polygons or as a label raster"):
        read_truth(tmp_path / "truth.txt", scene(tmp_path))


def test_blocks_are_the_whole_cut_up(tmp_path: Path) -> None:
    like = scene(tmp_path, crs=UTM, transform=Affine(1.9, 0.4, EAST, 0.3, -2.1, NORTH))  # turned
    rng = np.random.default_rng(0)
    circles = [
        translate(shapely.Point(EAST, NORTH).buffer(rng.uniform(2, 9)), rng.uniform(0, 60), -rng.uniform(0, 40))
        for _ in range(12)
    ]
    truth = frame(*circles)
    whole = rasterise_block(truth, like, Box(0, 0, 20, 30))
    assert 0 < whole.mean() < 1
    for top in range(0, 20, 7):
        for left in range(0, 30, 11):
            block = Box(top, left, min(top + 7, 20), min(left + 11, 30))
            np.testing.assert_array_equal(rasterise_block(truth, like, block), whole[block.slices])
    # by hand: the pixels whose centres lie in a circle
    matrix = like.transform
    for row, column in ((0, 0), (5, 9), (12, 20), (19, 29)):
        x, y = column + 0.5, row + 0.5
        centre = shapely.Point(matrix.a * x + matrix.b * y + matrix.c, matrix.d * x + matrix.e * y + matrix.f)
        assert whole[row, column] == any(circle.contains(centre) for circle in circles)


def counts(predicted: geopandas.GeoDataFrame, truth: geopandas.GeoDataFrame) -> tuple[int, int, int, int]:
    score = score_detections(predicted, truth).iou_50["all"]
    return score.truth, score.found, score.predicted, score.right


def test_multi_polygons_count_part_by_part() -> None:
    both = MultiPolygon([square(0, 0, 10), square(100, 0, 10)])
    assert counts(frame(square(0, 0, 10)), frame(both)) == (2, 1, 1, 1)
    collection = shapely.GeometryCollection([both, shapely.Point(EAST, NORTH)])
    assert counts(frame(both), frame(collection, None)) == (2, 2, 2, 2)


def test_invalid_truth_is_repaired() -> None:
    # a bow tie of two triangles, 10 m wide and 5 m high each
    tie = Polygon([(EAST, NORTH), (EAST + 10, NORTH), (EAST, NORTH + 10), (EAST + 10, NORTH + 10)])
    with pytest.warns(LimKerasWarning, match="truth: 1 of 2 polygons are invalid"):
        # the lower triangle is half of the rectangle: IoU 25 / 50
        assert counts(frame(square(0, 0, 10, 5)), frame(tie, square(100, 0, 10))) == (3, 1, 1, 1)


def test_truth_in_another_crs() -> None:
    truth = frame(square(0, 0, 200), square(1000, 0, 30))
    assert counts(truth, truth.to_crs("EPSG:4326")) == (2, 2, 2, 2)
    with pytest.raises(DataError, match=r"both with a CRS, or both without\. Received: WGS 84 / UTM zone 48N and None"):
        score_detections(truth, frame(box(0, 0, 1, 1), crs=None))


def test_area_classes_need_a_crs_or_a_pixel_size() -> None:
    shapes = frame(box(0, 0, 10, 1), crs=None)  # 10 pixels
    assert list(score_detections(shapes, shapes).iou_50) == ["all"]
    assert score_detections(shapes, shapes, gsd_m=10.0).iou_50["medium"].truth == 1
    empty = geopandas.GeoDataFrame({"id": []}, geometry=[])
    assert counts(empty, frame(square(0, 0, 10))) == (1, 0, 0, 0)


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["bijie_test_composite", "bijie_test_mosaic"])
def test_real_scenes(name: str, real_data: Path) -> None:
    like = read_info(real_data / f"scenes/{name}.tif")
    polygons = read_truth(real_data / f"scenes/{name}_landslides.geojson", like)
    from_labels = read_truth(real_data / f"scenes/{name}_labels.tif", like)
    assert len(polygons) == len(from_labels) == 70
    scores = score_detections(from_labels, polygons)
    for criterion in (scores.iou_50, scores.any_overlap):
        assert (criterion["all"].truth, criterion["all"].predicted) == (70, 70)
        assert sum(criterion[name].truth for name in ("small", "medium", "large")) == 70
        assert all(score.f1 == 1 for score in criterion.values())
    block = Box(1000, 2000, 1700, 3100)
    with rasterio.open(real_data / f"scenes/{name}_labels.tif") as source:
        stored = source.read(1)[block.slices]
    np.testing.assert_array_equal(rasterise_block(polygons, like, block), stored == 1)


@pytest.mark.real_data
def test_real_inventory(real_data: Path, tmp_path: Path) -> None:
    # 98 landslides of Nepal, one outline of which crosses itself, beside themselves moved by 10 m
    path = real_data / "vectors/nepal_landslides_2015.shp"
    mapped = geopandas.read_file(path)
    left, _, _, top = mapped.total_bounds
    place = {"crs": "EPSG:32645", "transform": Affine(1000.0, 0, left - 1000, 0, -1000.0, top + 1000)}
    like = scene(tmp_path, np.zeros((100, 100), np.uint8), **place)
    with pytest.warns(LimKerasWarning, match="1 of 98 polygons are invalid"):
        truth = read_truth(path, like)
    assert len(truth) >= 98
    moved = geopandas.GeoDataFrame(geometry=truth.translate(10, 0), crs=truth.crs)
    scores = score_detections(moved, truth)
    assert scores.any_overlap["all"].recall == 1
    assert scores.iou_50["small"].recall <= scores.iou_50["large"].recall
    assert polygon_areas_m2(truth.geometry) == pytest.approx(truth.area.to_numpy(), rel=2e-3)


def test_a_label_raster_that_may_be_inverted(tmp_path: Path) -> None:
    like, path = scene(tmp_path), tmp_path / "labels.tif"
    values = np.ones((20, 30), np.uint8)
    values[:4] = 0  # 120 of 600 pixels, so that 80 % are landslide
    place = {"crs": like.crs, "transform": like.transform}
    read_truth(write_raster(path, values, **place), like)
    values[0, 0] = 255  # 480 of 599
    with pytest.warns(LimKerasWarning, match=r"labels.tif: 80% of its labelled pixels are landslide"):
        read_truth(write_raster(path, values, **place), like)
