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
