"""A window of the review page without a browser: what its keys do to the review."""

from contextlib import closing

import pytest
import shapely

from lim_keras.raster.reader import RasterReader
from lim_keras.review.geopackage import connect, to_blob
from lim_keras.review.page.plane import Plane
from lim_keras.review.page.session import Session
from lim_keras.review.page.window import Window
from tests.review.conftest import square


class Said:
    """Widgets that keep what they are told."""

    def __init__(self):
        self.texts = []

    def say(self, text, kind="info"):
        self.texts.append(text)

    def __getattr__(self, name):
        return lambda *arguments: None


@pytest.fixture
def opened(scene):
    """Return a function that opens a window on the review of `scene`."""
    stores = []

    def window():
        stores.append(scene.open_review("Anna"))
        with RasterReader(scene.probability) as reader:
            plane = Plane.of(reader.info)
        return Window(Session(stores[-1], plane, 0.33), Said(), stores[-1].classes)

    yield window
    for store in stores:
        store.close()


def test_drawn_landslides_do_not_count_in_the_share_accepted_by_probability(opened):
    session = opened().session
    session.act(lambda: session.store.judge([1], "accepted"))
    session.act(lambda: session.store.draw(square(80, 10, 10, 10)))
    assert [(accepted, judged) for _, accepted, judged in session.accepted_shares()] == [(1, 1)]


def test_an_outline_of_several_pieces_is_split_before_it_is_edited(opened, scene):
    opened()
    apart = shapely.MultiPolygon([square(0, 60, 5, 5), square(20, 60, 10, 5)])
    with closing(connect(scene.review)) as database:
        add = "INSERT INTO landslides (geometry) VALUES (?)"
        database.executemany(add, [(to_blob(apart, 32648),), (None,)])
    window = opened()
    for key, text in ((4, "2 pieces. Split them first"), (5, "has no outline")):
        window.walk.go(key)
        window.key("e", key)
        assert (window.mode, text in window._shown.texts[-1]) == ("", True)
    window.walk.go(4)
    window.key("s", 4)
    window.shape([[[12, 50], [12, 80]]])
    assert [row["geometry"].geom_type for row in window.session.store.landslides([4, 6])] == ["Polygon", "Polygon"]
    window.key("e", 4)
    assert window.mode == "edit"


def test_few_corners_of_a_large_outline_and_all_of_a_small_one_are_edited(opened):
    window, sent = opened(), []
    window._shown.send = sent.append
    session = window.session
    small = [(0, 0), (4, 0), (4, 1), (6, 1), (6, 4), (0, 4)]
    stairs = [(k + one, k) for k in range(60) for one in (0, 1)] + [(60, 60), (0, 60)]
    for corners, least, most in ((small, 6, 6), (stairs, 3, 10)):
        outline = session.plane.to_ground(shapely.Polygon(corners))
        entry = session.act(lambda outline=outline: session.store.draw(outline))
        window.walk.go(entry.change.keys[0])
        window.key("e", None)
        assert least <= len(next(one["rings"] for one in reversed(sent) if "rings" in one)[0]) <= most
        window.key("escape", None)


def test_ground_outside_the_scene_is_cut_off_what_is_drawn(opened):
    window = opened()
    session, said = window.session, window._shown.texts
    scene = shapely.box(0, 0, session.plane.width, session.plane.height)
    width = session.plane.width

    def outline(key):
        return session.plane.to_pixels(session.store.landslides([key])[0]["geometry"])

    window.mode = "draw"
    window.shape([[[width - 10, -5], [width + 30, -5], [width + 30, 12], [width - 10, 12]]])
    drawn = window.walk.current
    assert outline(drawn).equals(shapely.box(width - 10, 0, width, 12))
    window.mode = "add"
    window.shape([[[width - 10, 10], [width + 50, 10], [width + 50, 20], [width - 10, 20]]])
    assert outline(drawn).equals(shapely.box(width - 10, 0, width, 20))
    window.key("e", drawn)
    window.shape([[[width - 10, 0], [width + 40, 0], [width + 40, 20], [width - 10, 30]]])
    assert scene.covers(outline(drawn))
    assert outline(drawn).area > 200
    before = len(session.rows), outline(drawn)
    for mode in ("draw", "add", "cut", "edit"):
        said.clear()
        window.key({"draw": "d", "add": "i", "cut": "x", "edit": "e"}[mode], drawn)
        window.shape([[[width + 5, 5], [width + 9, 5], [width + 9, 9]]])
        assert "outside" in said[-1]
    assert (len(session.rows), outline(drawn)) == before
