"""The preview: scene, landslides where they lie, and a correct legend."""

import math
import subprocess
import sys
from dataclasses import replace

import cv2
import geopandas
import numpy as np
import pytest
import rasterio
from matplotlib import colormaps
from matplotlib.colors import to_rgb
from rasterio import Affine
from shapely import MultiPolygon, Point, box

from lim_keras.errors import DataError
from lim_keras.raster.georeference import Georeference
from lim_keras.raster.images import read_info
from lim_keras.raster.reader import RasterReader
from lim_keras.raster.writer import write_raster
from lim_keras.report import preview, style
from lim_keras.report.marks import Marks
from lim_keras.report.preview import draw_preview

UTM = "EPSG:32648"
EAST, NORTH = 500_000, 3_000_000
GREY = np.round(255 * np.array(to_rgb(preview.NO_DATA)))


def scene(tmp_path, array=None, **place):
    """90 x 60 px of 2 m, all of one dark green."""
    place = {"crs": UTM, "transform": Affine(2.0, 0, EAST, 0, -2.0, NORTH)} | place
    if array is None:
        array = np.broadcast_to(np.array((40, 70, 40), np.uint8), (60, 90, 3))
    return write_raster(tmp_path / "in" / "scene.tif", np.ascontiguousarray(array), **place)


@pytest.fixture(autouse=True)
def folder(tmp_path):
    (tmp_path / "in").mkdir()


def landslides(*shapes, crs=UTM, **columns):
    return geopandas.GeoDataFrame(columns, geometry=list(shapes), crs=crs)


def square(column, row, width, height, size=2.0):
    """Pixels of the scene, as a polygon in its CRS."""
    left, top = EAST + size * column, NORTH - size * row
    return box(left, top - size * height, left + size * width, top)


def drawn(path):
    """RGB; the file is alone in its folder."""
    picture = cv2.imread(str(path))
    assert picture is not None
    assert [entry.name for entry in path.parent.iterdir() if entry.is_file()] == [path.name], (
        "nothing is left beside it"
    )
    assert (picture[[0, -1]] > 250).all(), "white margins above and below"
    return picture[..., ::-1].astype(int)


def near(picture, colour, reach=6):
    return np.abs(picture - 255 * np.array(to_rgb(colour))).max(axis=-1) <= reach


def in_picture(picture, info, gsd_m=None):
    """The part of the figure that shows the scene."""
    view = preview.view_of(info, Georeference.of(info, gsd_m))
    top, left = round(preview._TITLE_IN * preview.style.DPI), round(preview._MARGIN_IN * preview.style.DPI)
    height, width = round(view.height_in * preview.style.DPI), round(view.width_in * preview.style.DPI)
    return picture[top : top + height, left : left + width], width / info.width


def test_landslides_are_outlined_where_they_lie(tmp_path):
    inventory = landslides(square(10, 20, 30, 15), probability_mean=[0.75], area_m2=[1800.0])
    path = draw_preview(scene(tmp_path), inventory, tmp_path / "p.png")
    picture, zoom = in_picture(drawn(path), read_info(tmp_path / "in/scene.tif"))
    rows, columns = np.nonzero(near(picture, colormaps["YlOrRd"](0.75)))
    # columns 10 to 40 and rows 20 to 35 of the scene, within a pixel of the picture beside the line's own width
    found = np.array([columns.min(), columns.max(), rows.min(), rows.max()])
    np.testing.assert_allclose(found, zoom * np.array([10, 40, 20, 35]), atol=3)
    inside = picture[round(22 * zoom) : round(33 * zoom), round(12 * zoom) : round(38 * zoom)]
    assert (inside == (40, 70, 40)).all(), "the scene shows as it is"


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3857"])
def test_an_inventory_in_another_crs(crs, tmp_path):
    inventory = landslides(square(10, 20, 30, 15), probability_mean=[0.75])
    here, there = (tmp_path / name for name in ("here/p.png", "there/p.png"))
    draw_preview(scene(tmp_path), inventory, here)
    draw_preview(scene(tmp_path), inventory.to_crs(crs), there)
    assert np.abs(drawn(here) - drawn(there)).mean() < 1


def test_a_scene_without_a_place(tmp_path):
    # inventories of such scenes count rows downward from the upper edge: row 20 is y -20
    path = scene(tmp_path, crs="", transform=None)
    draw_preview(path, landslides(box(10, -35, 40, -20), crs=None), tmp_path / "p.png", gsd_m=0.5)
    picture, zoom = in_picture(drawn(tmp_path / "p.png"), read_info(path))
    rows, columns = np.nonzero(near(picture, preview._PLAIN))
    found = np.array([columns.min(), columns.max(), rows.min(), rows.max()])
    np.testing.assert_allclose(found, zoom * np.array([10, 40, 20, 35]), atol=3)


def test_small_landslides_are_ringed(tmp_path):
    # 1,440 of 2,880 px are shown: 4 px are 2 in the picture
    path = scene(tmp_path, np.full((1440, 2880), 60, np.uint8))
    inventory = landslides(square(1000, 800, 4, 4), square(100, 100, 300, 200), probability_mean=[0.9, math.nan])
    draw_preview(path, inventory, tmp_path / "p.png")
    picture, zoom = in_picture(drawn(tmp_path / "p.png"), read_info(path))
    assert zoom == 0.5
    rows, columns = np.nonzero(near(picture, colormaps["YlOrRd"](0.9), 12))
    assert 8 <= np.ptp(rows) <= 18 and 8 <= np.ptp(columns) <= 18, "a ring, larger than what it marks"
    assert (rows.mean(), columns.mean()) == pytest.approx((401, 501), abs=1)
    assert near(picture, preview._PLAIN).sum() > 500, "unknown probability: outlined in one colour"


def test_the_most_probable_is_drawn_last(tmp_path):
    inventory = landslides(square(30, 20, 20, 20), square(30, 20, 20, 20), probability_mean=[0.9, 0.3])
    marks = Marks.of(inventory, Georeference.of(read_info(scene(tmp_path))), (1, 1))
    lines, chances = marks.lines()
    assert chances.tolist() == [0.3, 0.9]
    assert (*lines[0].min(axis=0), *lines[0].max(axis=0)) == (30, 20, 50, 40), "in pixels"


@pytest.mark.parametrize("inventory", [landslides(), geopandas.GeoDataFrame({"id": []}, geometry=[])])
def test_no_landslides(inventory, tmp_path):
    picture = drawn(draw_preview(scene(tmp_path), inventory, tmp_path / "p.png"))
    assert not near(picture, preview._PLAIN).any()


def test_shapes_of_every_kind(tmp_path):
    ring = square(10, 10, 30, 30).difference(square(15, 15, 5, 5))
    both = MultiPolygon([square(50, 10, 10, 10), square(70, 10, 10, 10)])
    drawn(draw_preview(scene(tmp_path), landslides(ring, both, None, Point()), tmp_path / "p.png"))


def test_ground_without_data_is_grey_and_named(tmp_path):
    valid = np.ones((60, 90), bool)
    valid[:, :45] = False
    path = scene(tmp_path, valid=valid)
    picture, _ = in_picture(drawn(draw_preview(path, landslides(), tmp_path / "p.png")), read_info(path))
    assert (picture[20:-20, 20:340] == GREY).all() and (picture[20:-20, 380:-20] == (40, 70, 40)).all()


def test_nan_and_nodata_are_grey(tmp_path):
    image = np.linspace(0, 3000, 60 * 90).reshape(60, 90, 1).astype(np.float32) * np.ones(4, np.float32)
    image[:10] = np.nan
    image[50:] = -9999
    path = scene(tmp_path, image, nodata=-9999)
    with RasterReader(path) as reader:
        picture, valid = preview.read_picture(reader, (3, 2, 1))
    assert (picture[:10] == GREY).all() and (picture[50:] == GREY).all()
    assert valid.sum() == 40 * 90 and valid[10:50].all()
    # the 2nd and the 98th percentile of what is left are black and white
    assert (picture[10, 0], picture[49, -1]) == (pytest.approx([0, 0, 0]), pytest.approx([255, 255, 255]))
    assert picture[30, 0].tolist() == pytest.approx([127] * 3, abs=2)


@pytest.mark.parametrize(
    ("crs", "transform", "pixel_m"),
    [
        (UTM, Affine(2.0, 0, EAST, 0, -2.0, NORTH), (2.0, 2.0)),
        # a 10,000th of a degree at 60 degrees north: 1852 m * 60 / 10,000 = 11.1 m, and cos 60 of it across
        ("EPSG:4326", Affine(1e-4, 0, 12, 0, -1e-4, 60), (5.58, 11.14)),
        # Web Mercator stretches by 1 / cos(latitude): 10 m at 60 degrees north are 5 m on the ground
        ("EPSG:3857", Affine(10, 0, 1_335_834, 0, -10, 8_399_738), (5.0, 5.0)),
        ("EPSG:2263", Affine(3, 0, 980_000, 0, -3, 200_000), (0.9144, 0.9144)),  # feet
        ("", None, None),
    ],
)
def test_the_pixel_on_the_ground(crs, transform, pixel_m, tmp_path):
    info = read_info(scene(tmp_path, crs=crs, transform=transform))
    view = preview.view_of(info, Georeference.of(info))
    assert view.pixel_m == (pixel_m and pytest.approx(pixel_m, rel=5e-3))
    across, along = pixel_m or (1, 1)
    assert view.width_in / view.height_in == pytest.approx(90 * across / (60 * along), rel=1e-2), "not distorted"
    assert view.north_up == (pixel_m is not None)
    known = preview.view_of(info, Georeference.of(info, 0.5))
    assert known.pixel_m == ((0.5, 0.5) if not crs else view.pixel_m)


def test_a_site_grid_has_no_place_on_earth(tmp_path):
    info = replace(read_info(scene(tmp_path)), crs='LOCAL_CS["site grid",UNIT["metre",1]]', gsd_m=None)
    view = preview.view_of(info, Georeference.of(info))
    assert view.pixel_m is None and not view.north_up
    assert preview.view_of(info, Georeference.of(info, 2.0)).pixel_m == (2.0, 2.0)


def test_an_oblong_pixel_of_a_site_grid(tmp_path):
    place = {"crs": 'LOCAL_CS["site grid",UNIT["foot",0.3048]]', "transform": Affine(2.0, 0, 0, 0, -6.0, 0)}
    info = read_info(scene(tmp_path, **place))
    view = preview.view_of(info, Georeference.of(info))
    assert view.pixel_m == pytest.approx((0.6096, 1.8288))  # 2 and 6 feet
    assert view.width_in / view.height_in == pytest.approx(90 * 2 / (60 * 6), rel=1e-2)


@pytest.mark.parametrize(("longitude", "north_up"), [(0, True), (8, True), (45, False), (180, False)])
def test_north_is_not_upward_in_most_of_a_polar_map(longitude, north_up, tmp_path):
    # Meridians of EPSG:3031 run away from the pole, that of 0 degrees upward.
    x, y = 1e6 * math.sin(math.radians(longitude)), 1e6 * math.cos(math.radians(longitude))
    info = read_info(scene(tmp_path, crs="EPSG:3031", transform=Affine(2.0, 0, x, 0, -2.0, y)))
    assert preview.view_of(info, Georeference.of(info)).north_up == north_up


def test_a_turned_scene_has_no_north_arrow(tmp_path):
    info = read_info(scene(tmp_path, transform=Affine(2.0, 0.3, EAST, 0.3, -2.0, NORTH)))
    assert not preview.view_of(info, Georeference.of(info)).north_up


@pytest.mark.parametrize(
    ("width", "gsd_m", "label"),
    # 1,440 px or less are 12 inches, 1.8 of them at most the bar: 216 of 1,440 px
    [(1440, None, "200 px"), (1440, 1.0, "200 m"), (14_400, 1.0, "2 km"), (1440, 30.0, "5 km"), (1440, 0.01, "2 m")],
)
def test_the_scale_bar_has_a_round_length(width, gsd_m, label, tmp_path):
    info = read_info(scene(tmp_path, np.zeros((10, width), np.uint8), crs="", transform=None))
    view = preview.view_of(info, Georeference.of(info, gsd_m))
    _, _, strip = preview.lay_out(view)
    end = preview.draw_scale(strip, view, 0.5)
    assert [text.get_text() for text in strip.texts] == ["0", label]
    length = float(label.split()[0]) * (1000 if "km" in label else 1)
    drawn_in = sum(patch.get_width() for patch in strip.patches)
    assert drawn_in == pytest.approx(length / (gsd_m or 1) / width * 12)
    assert drawn_in <= 1.8 and end > drawn_in


@pytest.mark.parametrize(
    ("columns", "size", "expected"),
    [
        ({"area_m2": [90_000.4]}, 15, "1 landslide  ·  90,000 m² in total  ·  90 x 60 px of 2 m"),
        ({"area_m2": [1_234_567.0]}, 15, "1 landslide  ·  1.23 km² in total  ·  90 x 60 px of 2 m"),
        # without areas they are measured: 30 x 15 px of 2 m are 1,800 m2, and 0.08 % more on the ground
        ({}, 15, "1 landslide  ·  1,801 m² in total  ·  90 x 60 px of 2 m"),
        ({"area_m2": [math.nan]}, 15, "1 landslide  ·  1,801 m² in total  ·  90 x 60 px of 2 m"),
    ],
)
def test_the_summary(columns, size, expected, tmp_path):
    info = read_info(scene(tmp_path))
    view = preview.view_of(info, Georeference.of(info))
    assert (
        preview._summary(
            Marks.of(landslides(square(10, 20, 30, size), **columns), view.georeference, view.drawn_px), view
        )
        == expected
    )
    assert (
        preview._summary(Marks.of(landslides(), view.georeference, view.drawn_px), view)
        == "No landslides  ·  90 x 60 px of 2 m"
    )


def test_the_summary_without_a_place(tmp_path):
    info = read_info(scene(tmp_path, crs="", transform=None))
    two = landslides(box(0, -5, 4, 0), box(10, -30, 20, -20), crs=None, area_m2=[None, None])
    view = preview.view_of(info, Georeference.of(info))
    assert (
        preview._summary(Marks.of(two, view.georeference, view.drawn_px), view)
        == "2 landslides  ·  120 px in total  ·  90 x 60 px"
    )
    view = preview.view_of(info, Georeference.of(info, 0.5))
    assert (
        preview._summary(Marks.of(two, view.georeference, view.drawn_px), view)
        == "2 landslides  ·  30 m² in total  ·  90 x 60 px of 0.5 m"
    )


@pytest.mark.parametrize("bands", [1, 2, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_scenes_of_every_kind(bands, dtype, tmp_path):
    image = np.random.default_rng(0).uniform(0, 200, (60, 90, bands)).astype(dtype)
    picture, _ = in_picture(
        drawn(draw_preview(scene(tmp_path, image), landslides(), tmp_path / "p.png")),
        read_info(tmp_path / "in/scene.tif"),
    )
    assert picture.std() > 20
    assert (np.ptp(picture[5:-5, 5:-5], axis=-1) == 0).all() == (bands < 3), "grey where there are not three"


@pytest.mark.parametrize("name", ["scene.png", "scene.jpg"])
def test_pictures_are_scenes_too(name, write_picture, tmp_path):
    path = write_picture(tmp_path / "in" / name, np.full((60, 90, 3), (40, 70, 40), np.uint8))
    draw_preview(path, landslides(box(10, -35, 40, -20), crs=None), tmp_path / "p.png")
    picture, _ = in_picture(drawn(tmp_path / "p.png"), read_info(path))
    np.testing.assert_allclose(picture[10, 10], (40, 70, 40), atol=3)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 400), (400, 3)])
def test_scenes_of_every_shape(height, width, tmp_path):
    path = scene(tmp_path, np.zeros((height, width, 3), np.uint8))
    drawn(draw_preview(path, landslides(), tmp_path / "p.png", title="A title that is far too long " * 20))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bands": (1, 2)}, r"expected one or three `bands` of its 3, from 1 on. Received: \(1, 2\)"),
        ({"bands": (1, 2, 4)}, r"Received: \(1, 2, 4\)"),
        ({"bands": (0,)}, r"Received: \(0,\)"),
        ({"path": "p.bmp"}, "expected a name that ends in one of"),
    ],
)
def test_what_cannot_be_drawn(arguments, message, tmp_path):
    path = tmp_path / arguments.pop("path", "p.png")
    with pytest.raises(DataError, match=message):
        draw_preview(scene(tmp_path), landslides(), path, **arguments)
    assert not path.exists()


def test_files_that_cannot_be_drawn(tmp_path):
    path = scene(tmp_path)
    with pytest.raises(DataError, match=r"none\.tif"):
        draw_preview(tmp_path / "none.tif", landslides(), tmp_path / "p.png")
    noise = np.random.default_rng(0).integers(0, 255, (600, 900, 3), np.uint8)
    whole = scene(tmp_path, noise).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"scene\.tif: cannot be read"):
        draw_preview(path, landslides(), tmp_path / "p.png")


def test_previews_need_neither_pyplot_nor_tensorflow():
    code = "import sys, lim_keras.report.preview; print({'matplotlib.pyplot', 'tensorflow'} & set(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "set()"


@pytest.mark.real_data
def test_real_scene(real_data, tmp_path):
    path = real_data / "scenes/bijie_test_composite.tif"
    inventory = geopandas.read_file(real_data / "scenes/bijie_test_composite_landslides.geojson")
    inventory["probability_mean"] = np.linspace(0.4, 1, len(inventory))
    draw_preview(path, inventory, tmp_path / "p.png", title="A real scene")
    picture, zoom = in_picture(drawn(tmp_path / "p.png"), read_info(path))
    assert zoom == pytest.approx(1440 / 6247, rel=1e-2)
    # 13 % of the scene hold no data
    assert 0.08 < (picture == GREY).all(axis=-1).mean() < 0.16


@pytest.mark.parametrize("name", ["x_$1^^$", "$a$", "滑坡"])
def test_a_name_is_drawn_as_it_is_written(tmp_path, name):
    # neither a formula nor a warning, which would be an error here
    path = scene(tmp_path).rename(tmp_path / "in" / f"{name}.tif")
    drawn(draw_preview(path, landslides(), tmp_path / "p.png"))


def test_characters_that_are_missing_come_from_a_font_that_is_there(tmp_path, monkeypatch):
    # U+24B6 is in STIX and not in matplotlib's own font
    pictures = []
    for fonts in ((), ("A font that is nowhere", "STIXGeneral")):
        monkeypatch.setattr(style, "_CJK_FONTS", fonts)
        assert style.as_written()["fontfamily"] == ["sans-serif", *fonts[1:]]
        pictures.append(drawn(draw_preview(scene(tmp_path), landslides(), tmp_path / "p.png", title="\u24b6")))
    assert (pictures[0] != pictures[1]).any()


def test_a_scene_in_another_format_than_tiles_are(tmp_path):
    path = tmp_path / "in" / "scene.vrt"
    rasterio.shutil.copy(scene(tmp_path), path, driver="VRT")
    picture, _ = in_picture(drawn(draw_preview(path, landslides(), tmp_path / "p.png")), RasterReader(path).info)
    assert (picture[50:-50, 50:-50] == (40, 70, 40)).all()
