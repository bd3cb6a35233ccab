"""Labels of scenes from polygons: selection, placement, and burning."""

import math
import pickle
from collections.abc import Callable
from pathlib import Path

import geopandas
import numpy as np
import pytest
import shapely
from pyproj import Transformer
from rasterio import Affine
from shapely import LineString, MultiPolygon, Point, Polygon, box
from shapely.affinity import translate

from lim_keras.errors import ConfigError, DataError, LimKerasWarning
from lim_keras.raster.georeference import RasterInfo
from lim_keras.raster.windows import Box, blocks
from lim_keras.tiling.labels import LabelOptions, LabelSource, SceneLabels

UTM = "EPSG:32648"
EAST, NORTH = 500_000, 3_000_000
WIDTH, HEIGHT = 300, 200


def scene(crs: str = UTM, transform: Affine | None = None, size: tuple[int, int] = (WIDTH, HEIGHT)) -> RasterInfo:
    """Header of a scene, by default of 300 x 200 pixels of 2 m."""
    place = transform or Affine(2.0, 0, EAST, 0, -2.0, NORTH)
    return RasterInfo(Path("scene.tif"), *size, 3, "uint8", crs, place, 2.0, None)


def square(column: float, row: float, width: float, height: float | None = None) -> Polygon:
    """A rectangle given in the pixels of `scene`."""
    left, top = EAST + 2 * column, NORTH - 2 * row
    return box(left, top - 2 * (height or width), left + 2 * width, top)


def frame(*shapes: object, crs: str | None = UTM, **columns: object) -> geopandas.GeoDataFrame:
    return geopandas.GeoDataFrame(columns, geometry=list(shapes), crs=crs)


def read(path: Path, **options: object) -> LabelSource:
    return LabelSource.read(LabelOptions(path, **options))  # type: ignore[arg-type]


def whole(labels: SceneLabels, info: RasterInfo) -> np.ndarray:
    return labels.mask(info.box)


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Path]:
    """Writes polygons as a GeoPackage."""

    def save(*shapes: object, name: str = "a.gpkg", **columns: object) -> Path:
        frame(*shapes, **columns).to_file(tmp_path / name)  # type: ignore[arg-type]
        return tmp_path / name

    return save


def centres(info: RasterInfo) -> np.ndarray:
    """Coordinates (height, width, 2) of the pixel centres of a scene."""
    rows, columns = np.mgrid[: info.height, : info.width] + 0.5
    place = info.transform
    assert place is not None
    x, y = place.a * columns + place.b * rows + place.c, place.d * columns + place.e * rows + place.f
    return np.stack([x, y], axis=-1)


# Burning.


def test_polygons_become_landslide_pixels(saved: Callable[..., Path]) -> None:
    path = saved(square(10, 20, 30, 40), square(290, 0, 20, 10), id=[7, 8])
    labels = read(path).on_scene(scene())
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[20:60, 10:40] = 1
    expected[:10, 290:] = 1  # of 20 columns, 10 lie on the scene
    np.testing.assert_array_equal(whole(labels, scene()), expected)
    assert labels.landslides.crs == UTM and labels.landslides["source"].tolist() == [1, 2]
    assert labels.landslides.area.tolist() == [4800, 400]
    again = pickle.loads(pickle.dumps(labels))
    np.testing.assert_array_equal(again.mask(Box(15, 5, 65, 45)), expected[15:65, 5:45])


def random_shapes(count: int, seed: int) -> list[Polygon]:
    """Stars with holes, some of which overlap or reach over the edge of a scene of 400 x 330 px."""
    rng = np.random.default_rng(seed)
    shapes = []
    for _ in range(count):
        angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        reach = rng.uniform(5, 160) * rng.uniform(0.4, 1, 24)
        star = Polygon(np.stack([reach * np.cos(angle), reach * np.sin(angle)], axis=-1))
        shapes.append(translate(star - star.buffer(-20), EAST + rng.uniform(0, 800), NORTH - rng.uniform(0, 660)))
    return shapes


TURNED = Affine(1.9, 0.4, EAST, 0.3, -2.1, NORTH)


@pytest.mark.parametrize("transform", [Affine(2.0, 0, EAST, 0, -2.0, NORTH), TURNED])
@pytest.mark.parametrize("touched", [False, True])
def test_every_box_gives_the_same_pixels(transform: Affine, touched: bool, saved: Callable[..., Path]) -> None:
    info, shapes = scene(transform=transform, size=(400, 330)), random_shapes(15, 1)
    labels = read(saved(*shapes), touched=touched).on_scene(info)
    burnt = whole(labels, info)
    assert 0.05 < burnt.mean() < 0.9
    for size in (64, (37, 401), 256):
        for part in blocks(info.height, info.width, size):
            np.testing.assert_array_equal(labels.mask(part), burnt[part.slices])
    union = shapely.union_all(shapes)
    points = centres(info)
    if not touched:
        np.testing.assert_array_equal(burnt == 1, shapely.contains_xy(union, *np.moveaxis(points, -1, 0)))
        return
    steps = np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)])
    matrix = np.array([[transform.a, transform.d], [transform.b, transform.e]])
    pixels = shapely.polygons(points[:, :, np.newaxis] + steps @ matrix)
    shapely.prepare(union)
    np.testing.assert_array_equal(burnt == 1, shapely.intersects(union, pixels))


@pytest.mark.parametrize("touched", [False, True])
def test_edges_through_pixel_centres_do_not_depend_on_the_box(touched: bool, saved: Callable[..., Path]) -> None:
    """Corners on centres, as in polygons that were traced on another grid; GDAL alone burns each box differently."""
    info = scene(size=(600, 600))
    corners = [(89.5, 307.5), (539.5, 557.5), (160.5, 39.5)], [(33.5, 347.5), (158.5, 118.5), (440.5, 484.5)]
    shapes = [Polygon([(EAST + 2 * column, NORTH - 2 * row) for column, row in ring]) for ring in corners]
    for shape in shapes:
        labels = read(saved(shape), touched=touched).on_scene(info)
        burnt = whole(labels, info)
        for part in (Box(187, 20, 487, 320), Box(156, 296, 456, 596), Box(180, 300, 300, 420), Box(230, 370, 231, 371)):
            np.testing.assert_array_equal(labels.mask(part), burnt[part.slices])


def test_a_landslide_of_many_vertices_is_cut_for_burning(saved: Callable[..., Path]) -> None:
    info = scene(size=(1500, 1400))
    angle = np.linspace(0, 2 * np.pi, 40_000, endpoint=False)
    reach = 1000 + 250 * np.sin(9 * angle) + 2 * np.sin(4001 * angle)
    ring = np.stack([EAST + 1500 + reach * np.cos(angle), NORTH - 1400 + reach * np.sin(angle)], axis=-1)
    star = Polygon(ring, [square(700, 640, 90).exterior.coords])
    labels = read(saved(star)).on_scene(info)
    assert len(labels.landslides) == 1
    burnt = whole(labels, info)
    np.testing.assert_array_equal(burnt == 1, shapely.contains_xy(star, *np.moveaxis(centres(info), -1, 0)))
    part = Box(300, 400, 700, 800)
    np.testing.assert_array_equal(labels.mask(part), burnt[part.slices])
    pieces = labels._certain._pieces  # type: ignore[union-attr]
    assert shapely.get_num_coordinates(pieces).max() < 6000


# Selection.


def test_uncertain_polygons_and_the_mapped_area(saved: Callable[..., Path]) -> None:
    slide, other, unsure, road = square(10, 10, 40), square(250, 10, 20), square(30, 30, 40), square(100, 100, 50)
    kinds, sure = ["slide", "slide", "slide", "road"], ["yes", "yes", "no", "yes"]
    path = saved(slide, other, unsure, road, kind=kinds, sure=sure)
    aoi = saved(square(0, 0, 60), square(120, 0, 20, 200), name="aoi.gpkg")
    source = read(path, where="kind = 'slide'", ignore_where="sure = 'no'", aoi=aoi)
    labels = source.on_scene(scene())
    expected = np.full((HEIGHT, WIDTH), 255, np.uint8)
    expected[:60, :60] = expected[:, 120:140] = 0
    expected[30:60, 30:60] = 255
    expected[10:50, 10:50] = 1  # the certain landslide wins
    np.testing.assert_array_equal(whole(labels, scene()), expected)
    assert labels.landslides["source"].tolist() == [1]
    report = source.report()
    assert (report.features, report.landslides, report.uncertain, report.not_selected) == (4, 2, 1, 1)
    assert [(one.source, one.reason) for one in report.lost] == [(2, "outside the mapped area")]


def test_uncertain_polygons_need_not_be_selected(saved: Callable[..., Path]) -> None:
    path = saved(square(10, 10, 20), square(50, 10, 20), kind=["slide", "possible"])
    labels = read(path, where="kind = 'slide'", ignore_where="kind = 'possible'").on_scene(scene())
    mask = whole(labels, scene())
    assert (mask[10:30, 10:30] == 1).all() and (mask[10:30, 50:70] == 255).all() and (mask != 0).sum() == 800


def test_a_condition_that_selects_nothing_is_warned_of(saved: Callable[..., Path]) -> None:
    path = saved(square(10, 10, 20), kind=["slide"])
    with pytest.warns(LimKerasWarning, match=r"a.gpkg: `where` selects none of its features \(kind = 'rockfall'\)"):
        source = read(path, where="kind = 'rockfall'")
    assert not whole(source.on_scene(scene()), scene()).any()
    source.check_placement()
    assert source.report().not_selected == 1


def test_names_of_columns_in_quotes(saved: Callable[..., Path]) -> None:
    path = saved(square(10, 10, 20), square(50, 10, 20), **{"land's; größe m²": [1.5, math.nan], 'a"b': ["x;'", "y"]})
    for where in ('"land\'s; größe m²" > 1', "\"a\"\"b\" = 'x;'''"):
        source = read(path, where=where)
        assert whole(source.on_scene(scene()), scene()).sum() == 400 and source.report().not_selected == 1


def test_layers(saved: Callable[..., Path]) -> None:
    path = saved(Point(EAST, NORTH), layer_name=["springs"])
    frame(square(10, 10, 20)).to_file(path, layer="slides 2013")
    assert whole(read(path).on_scene(scene()), scene()).sum() == 400  # the only layer of polygons
    frame(square(10, 10, 10)).to_file(path, layer="slides 2015")
    with pytest.raises(DataError, match=r"Received: slides 2013, slides 2015\. Name the layer .* as `layer`"):
        read(path)
    assert whole(read(path, layer="slides 2015").on_scene(scene()), scene()).sum() == 100
    with pytest.raises(ConfigError, match=r"has no layer 'slides'\. Expected one of these as `layer`: a, slides 2013"):
        read(path, layer="slides")


# Geometries.


def test_odd_geometries_are_counted(saved: Callable[..., Path]) -> None:
    corner = Point(EAST + 1, NORTH - 1)
    line = LineString([(EAST, NORTH), (EAST + 9, NORTH)])
    heights = shapely.force_3d(square(100, 10, 10), 5)
    tie = Polygon(
        [(EAST + 400, NORTH - 20), (EAST + 420, NORTH - 20), (EAST + 400, NORTH - 40), (EAST + 420, NORTH - 40)]
    )
    both = shapely.GeometryCollection([square(10, 100, 10), line, MultiPolygon([square(30, 100, 5)])])
    again = shapely.normalize(square(10, 10, 10))
    shapes = [square(10, 10, 10), again, corner, line, None, Polygon(), heights, tie, both]
    path = saved(*shapes)
    with pytest.warns(LimKerasWarning) as said:
        source = read(path)
    texts = " ".join(str(one.message) for one in said)
    assert "2 LineString" in texts and "1 of 5 polygons are invalid" in texts and "1 polygons repeat another" in texts
    labels = source.on_scene(scene())
    report = source.report()
    assert (report.features, report.landslides, report.repaired, report.repeated) == (9, 4, 1, 1)
    assert (report.empty, report.lines, report.points, report.lost) == (2, 2, 1, ())
    # 100 + 100 + 100 + 25 px, and 5 x 10 px of two triangles whose edges run between pixel centres
    assert whole(labels, scene()).sum() == pytest.approx(375, abs=5)
    assert labels.landslides["source"].value_counts().to_dict() == {1: 1, 7: 1, 8: 2, 9: 2}


def test_lost_polygons_are_named(saved: Callable[..., Path]) -> None:
    speck = square(20.6, 20.6, 0.3)
    path = saved(square(10, 10, 5), speck, square(-500, 0, 10), Name=["Élan", "speck", "far"])
    source = read(path)
    source.on_scene(scene())
    # Lines of less than a pixel in width, along pixel edges and across pixel centres.
    along, across = square(50.9, 100, 0.2, 40), square(60.4, 100, 0.2, 40)
    labels = read(saved(along, across, name="b.gpkg"))
    assert whole(labels.on_scene(scene()), scene()).sum() == 40
    assert [(one.source, one.name) for one in labels.report().lost] == [(1, "")]
    lost = [(one.source, one.name, one.reason) for one in source.report().lost]
    assert lost == [(2, "speck", "holds no pixel centre"), (3, "far", "outside every scene")]
    source.on_scene(scene(transform=Affine(2.0, 0, EAST - 1200, 0, -2.0, NORTH)))
    assert [one.name for one in source.report().lost] == ["speck"]
    touched = read(path, touched=True)
    labels = touched.on_scene(scene())
    assert whole(labels, scene()).sum() == 25 + 1  # edges along pixels touch no other pixel
    assert [one.name for one in touched.report().lost] == ["far"]


# Placement.


def burnt_m2(labels: SceneLabels, info: RasterInfo) -> float:
    """Area of the landslide pixels in UTM zone 48."""
    rows, columns = np.nonzero(whole(labels, info) == 1)
    to_utm = Transformer.from_crs(info.crs, UTM, always_xy=True)
    place = info.transform
    assert place is not None
    corners = [(columns, rows), (columns + 1, rows), (columns, rows + 1)]
    one, right, below = (
        np.stack(to_utm.transform(place.a * x + place.b * y + place.c, place.d * x + place.e * y + place.f))
        for x, y in corners
    )
    (a, b), (c, d) = right - one, below - one
    return float(np.abs(a * d - b * c).sum())


def around(shapes: geopandas.GeoDataFrame, crs: str, pixel: float, angle: float = 0.0) -> RasterInfo:
    """Header of a scene that holds all shapes, turned by an angle in degrees."""
    west, south, east, north = shapes.to_crs(crs).total_bounds.tolist()
    cosine, sine = pixel * math.cos(math.radians(angle)), pixel * math.sin(math.radians(angle))
    extra = math.hypot(east - west, north - south) * math.sin(math.radians(angle))
    place = Affine(cosine, sine, west - extra, sine, -cosine, north + 0.01 * pixel)
    height = math.ceil((north - south + (east - west + extra) * math.tan(math.radians(angle))) / cosine) + 1
    width = math.ceil((east - west + 2 * extra) / cosine) + 1
    return scene(crs, place, (width, height))


GRIDS = [(UTM, 2.0, 0), ("EPSG:4326", 2e-5, 0), ("EPSG:3857", 2.0, 0), (UTM, 2.0, 20), ("EPSG:32647", 2.0, 0)]


@pytest.mark.parametrize(("crs", "pixel", "angle"), GRIDS)
@pytest.mark.parametrize("stored", [UTM, "EPSG:4326"])
def test_areas_survive_reprojection(
    crs: str, pixel: float, angle: float, stored: str, saved: Callable[..., Path], tmp_path: Path
) -> None:
    shapes = frame(*(Point(EAST + 90 * k, NORTH - 40 * k).buffer(20 + 8 * k) for k in range(8)))
    shapes.to_crs(stored).to_file(tmp_path / "a.gpkg")
    info = around(shapes, crs, pixel, angle)
    source = read(tmp_path / "a.gpkg")
    labels = source.on_scene(info)
    assert burnt_m2(labels, info) == pytest.approx(shapes.union_all().area, rel=5e-3)
    assert source.report().lost == ()


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("crs", "pixel", "angle"), [("EPSG:32645", 4.0, 0), ("EPSG:4326", 4e-5, 0), ("EPSG:3857", 4.0, 20)]
)
def test_real_landslides_keep_their_area(crs: str, pixel: float, angle: float, real_data: Path) -> None:
    path = real_data / "vectors/nepal_landslides_2015.shp"
    shapes = geopandas.read_file(path)
    area = shapely.union_all(shapely.make_valid(shapes.geometry.to_numpy())).area
    info = around(shapes, crs, pixel, angle)
    with pytest.warns(LimKerasWarning, match="1 of 98 polygons are invalid"):
        source = read(path)
    labels = source.on_scene(info)
    measured = 0.0
    to_utm = Transformer.from_crs(crs, "EPSG:32645", always_xy=True)
    place = info.transform
    assert place is not None
    for part in blocks(info.height, info.width, 512):
        rows, columns = (found.astype(float) for found in np.nonzero(labels.mask(part) == 1))
        rows, columns = rows + part.top, columns + part.left
        one, right, below = (
            np.stack(to_utm.transform(place.a * x + place.b * y + place.c, place.d * x + place.e * y + place.f))
            for x, y in ((columns, rows), (columns + 1, rows), (columns, rows + 1))
        )
        (a, b), (c, d) = right - one, below - one
        measured += float(np.abs(a * d - b * c).sum())
    assert measured == pytest.approx(area, rel=5e-3)
    assert source.report().landslides == 98 and source.report().lost == ()


def test_long_edges_bend_with_the_projection(tmp_path: Path) -> None:
    """The parallel of 27 degrees bends by 240 m on a scene of one degree: 24 pixels of 10 m."""
    frame(box(104, 26.5, 106, 27), crs="EPSG:4326").to_file(tmp_path / "aoi.gpkg")
    frame(square(0, 0, 9)).to_file(tmp_path / "a.gpkg")
    corners = Transformer.from_crs("EPSG:4326", UTM, always_xy=True)
    left, top = corners.transform(104.5, 27.1)
    info = scene(transform=Affine(100.0, 0, left, 0, -100.0, top), size=(980, 400))
    labels = read(tmp_path / "a.gpkg", aoi=tmp_path / "aoi.gpkg").on_scene(info)
    points = centres(info).reshape(-1, 2)
    longitude, latitude = corners.transform(*points.T, direction="INVERSE")
    inside = (latitude > 26.5) & (latitude < 27) & (longitude > 104) & (longitude < 106)
    differ = (whole(labels, info) != 255).ravel() != inside
    assert 0 < inside.mean() < 1 and differ.sum() < 20  # pixel centres right on the parallel


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:32601", "EPSG:3857"])
@pytest.mark.parametrize("drawn", ["jump", "beyond", "cut"])
def test_across_the_antimeridian(crs: str, drawn: str, tmp_path: Path) -> None:
    shape = {
        "jump": Polygon([(179.99, 10.0), (-179.99, 10.0), (-179.99, 10.01), (179.99, 10.01)]),
        "beyond": box(179.99, 10.0, 180.01, 10.01),
        "cut": MultiPolygon([box(179.99, 10.0, 180, 10.01), box(-180, 10.0, -179.99, 10.01)]),
    }[drawn]
    frame(shape, crs="EPSG:4326").to_file(tmp_path / "a.gpkg")
    frame(box(-180, -90, 180, 90), crs="EPSG:4326").to_file(tmp_path / "world.gpkg")
    x, y = Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(179.98, 10.02)
    pixel = 1e-4 if crs == "EPSG:4326" else 11.0
    info = scene(crs, Affine(pixel, 0, x, 0, -pixel, y), (420, 320))
    labels = read(tmp_path / "a.gpkg", aoi=tmp_path / "world.gpkg").on_scene(info)
    mask = whole(labels, info)
    assert len(labels.landslides) == 1 and not (mask == 255).any()
    if crs == "EPSG:4326":
        assert (mask == 1).sum() == 200 * 100 and mask[100:200, 100:300].all()
    else:
        assert (mask == 1).sum() == pytest.approx(200 * 100, rel=0.06)


def test_many_scenes(saved: Callable[..., Path]) -> None:
    source = read(saved(square(10, 10, 20), square(-400, 10, 20)))
    zone = scene("EPSG:32647")  # the same numbers, six degrees away
    assert not whole(source.on_scene(zone), zone).any()
    assert whole(source.on_scene(scene()), scene()).sum() == 400
    source.check_placement()
    assert [one.source for one in source.report().lost] == [2]


def test_polygons_in_another_crs_than_they_say(saved: Callable[..., Path], tmp_path: Path) -> None:
    source = read(saved(square(10, 10, 20)))
    zone = scene("EPSG:32647")
    source.on_scene(zone)
    with pytest.raises(
        DataError, match=r"a.gpkg: its CRS is .*48N, but its coordinates lie on the scene in EPSG:32647"
    ):
        source.check_placement()
    swapped = frame(square(10, 10, 20)).to_crs("EPSG:4326")
    swapped.geometry = shapely.transform(swapped.geometry.to_numpy(), lambda points: points[:, ::-1])
    swapped.to_file(tmp_path / "b.geojson")
    source = read(tmp_path / "b.geojson")
    source.on_scene(scene())
    with pytest.raises(DataError, match=r"b.geojson: .* with x and y swapped"):
        source.check_placement()
    path = tmp_path / "c.gpkg"
    with pytest.warns(UserWarning, match="'crs' was not provided"):
        frame(square(10, 10, 20), crs=None).to_file(path)
    with pytest.raises(DataError, match=r"c.gpkg: has no CRS, but the scene scene.tif is in EPSG:32648"):
        read(path).on_scene(scene())


def test_labels_that_lie_nowhere(saved: Callable[..., Path]) -> None:
    source = read(saved(square(5000, 10, 20)))
    source.on_scene(scene())
    with pytest.warns(LimKerasWarning, match="none of its 1 polygons lies on a scene. Is it the right file?"):
        source.check_placement()
    path, far = saved(square(10, 10, 20)), saved(square(5000, 10, 20), name="far.gpkg")
    source = read(path, aoi=far)
    assert (whole(source.on_scene(scene()), scene()) == 255).all()
    with pytest.raises(DataError, match=r"far.gpkg: none of its polygons lies on a scene. Is it the right file?"):
        source.check_placement()


def test_a_polygon_that_touches_the_edge_of_the_scene_lies_on_none(saved: Callable[..., Path]) -> None:
    source = read(saved(square(WIDTH, 20, 40)))
    source.on_scene(scene())
    with pytest.warns(LimKerasWarning, match="none of its 1 polygons lies on a scene. Is it the right file?"):
        source.check_placement()


@pytest.mark.filterwarnings("ignore:.*its polygons cover:lim_keras.errors.LimKerasWarning")
def test_degrees_around_a_pole(tmp_path: Path) -> None:
    # The pole lies in the centre of the scene, and longitudes 0 to 180 in its right half.
    for crs, south, north in (("EPSG:3031", -90, -60), ("EPSG:3995", 60, 90)):
        polar = scene(crs, Affine(50, 0, -5000, 0, -50, 5000), (200, 200))
        for west, east in ((-180, 180), (0, 360), (0, 180)):
            path = tmp_path / f"a{abs(south)}{abs(west)}{east}.gpkg"
            frame(box(west, south, east, north), crs="EPSG:4326").to_file(path)
            mask = whole(read(path).on_scene(polar), polar)
            expected = np.ones((200, 200), np.uint8)
            if east - west == 180:
                expected[:, :100] = 0
            assert np.array_equal(mask, expected), (crs, west, east)
        frame(box(-180, -90, 180, 90), crs="EPSG:4326").to_file(tmp_path / "world.gpkg")
        source = read(path, aoi=tmp_path / "world.gpkg")
        assert not (whole(source.on_scene(polar), polar) == 255).any()


def test_an_outline_of_the_study_area_is_warned_of(saved: Callable[..., Path]) -> None:
    source = read(saved(square(10, 10, 20), square(-5, -5, 290, 220)))  # 285 of 300 columns
    with pytest.warns(LimKerasWarning, match=r"a.gpkg: its polygons cover 95% of the scene scene.tif.*study area"):
        source.on_scene(scene())


def test_areas_that_cannot_be_used(saved: Callable[..., Path], tmp_path: Path) -> None:
    path = saved(square(10, 10, 20))
    with pytest.raises(DataError, match=r"points.gpkg: holds no polygon"):
        read(path, aoi=saved(Point(EAST, NORTH), name="points.gpkg"))
    (tmp_path / "aoi.tif").write_bytes(b"II*\0")
    with pytest.raises(DataError, match=r"aoi.tif: expected polygons of the area that was mapped. Received: a raster"):
        read(path, aoi=tmp_path / "aoi.tif")
    frame().to_file(tmp_path / "none.gpkg")
    with pytest.raises(DataError, match=r"none.gpkg: expected polygons of the area .* Received: no feature"):
        read(path, aoi=tmp_path / "none.gpkg")
