"""The review page in a real browser: what a key does is in the file before the page shows it."""

import re
from urllib.parse import urlsplit

import geopandas
import pytest
import shapely

from lim_keras import api
from lim_keras.review.scenes import find_scenes
from lim_keras.review.store import ReviewStore
from tests.review.page.conftest import LANDSLIDES, ORIGIN, Window, read_rows, serving, write_away, write_maps


def pixels(review, key):
    """Return the outline of a landslide in pixels, read by another program."""
    frame = geopandas.read_file(review, layer="landslides", fid_as_index=True)
    return shapely.transform(frame.geometry[key], lambda at: (at - (ORIGIN.c, ORIGIN.f)) / (2, -2))


def test_one_key_gives_a_verdict_and_shows_the_next_landslide(open_window):
    window = open_window("verdicts")
    # Doubt, 1 - agreement + 1 - |probability - 0.4| / 0.6, is 1.32, 1.10, 0.87, 0.83, 0.33, 0.08 for 2, 6, 3, 5, 4, 1.
    window.wait(lambda: window.shown == 2)
    assert window.text("progress-text") == "0 of 6 reviewed"
    window.press("a")
    assert window.statuses()[2] == "accepted"
    window.wait(lambda: window.shown == 6)
    window.press("r")
    window.wait(lambda: window.shown == 3)  # a key counts for the landslide that the page shows
    window.press("u")
    window.wait(lambda: window.shown == 5)
    assert window.statuses() == {1: None, 2: "accepted", 3: "unsure", 4: None, 5: None, 6: "rejected"}
    window.wait(lambda: window.text("progress-text") == "3 of 6 reviewed")
    assert {row["reviewer"] for row in window.rows() if row["status"]} == {"Ann"}

    window.press("p")
    window.wait(lambda: window.shown == 3)
    assert window.text("status") == "unsure"
    window.press("z")
    assert window.statuses()[3] is None
    window.press("z")
    window.press("z")
    assert set(window.statuses().values()) == {None}
    window.wait(lambda: window.shown == 2)
    window.page.keyboard.press("z")
    window.wait(lambda: "nothing to undo" in window.page.inner_text("body"))

    window.press("n")
    window.wait(lambda: window.shown == 6)
    hosts = {urlsplit(address).netloc for address in window.addresses if address.startswith(("http", "ws"))}
    assert hosts == {urlsplit(window.page.url).netloc}


def test_outlines_are_edited_drawn_merged_and_split(open_window):
    window = open_window("outlines")
    original = pixels(window.review, 2)
    window.press("e")
    assert "Enter saves" in window.text("hint")
    corner, target = window.place(300, 120), window.place(290, 110)
    window.page.mouse.move(*corner)
    window.page.mouse.down()
    window.page.mouse.move(*target, steps=4)
    window.page.mouse.up()
    window.press("Enter")
    window.wait(lambda: window.rows()[1]["edited"] == 1)
    assert window.statuses()[2] == "accepted"
    edited = pixels(window.review, 2)
    # The box of 40 x 30 px gains two triangles: 10 x 30 / 2 at the left and 10 x 40 / 2 at the top.
    assert edited.area == pytest.approx(1200 + 150 + 200, rel=0.05)
    model = geopandas.read_file(window.review, layer="model", fid_as_index=True).geometry[2]
    assert model.area == pytest.approx(4 * original.area)

    window.press("i")
    for column, row in ((290, 140), (290, 170), (320, 170), (320, 140)):
        window.click(column, row)
    window.press("Enter")
    window.wait(lambda: pixels(window.review, 2).area > edited.area + 100)
    window.press("x")
    for column, row in ((280, 155), (280, 180), (330, 180), (330, 155)):
        window.click(column, row)
    window.press("Enter")
    window.wait(lambda: pixels(window.review, 2).bounds[3] == pytest.approx(155, abs=1))

    window.press("m")
    window.click(370, 140)
    window.wait(lambda: window.page.evaluate("document.querySelector('.map').dataset.mode") == "merge")
    window.page.wait_for_timeout(100)
    window.press("m")
    window.wait(lambda: 3 not in window.statuses())
    assert {row["fid"]: row["origin"] for row in window.rows()}[2] == "merged"

    window.press("s")
    window.click(350, 100)
    window.click(350, 190)
    window.press("Enter")
    window.wait(lambda: len(window.statuses()) == 6)
    assert [row["origin"] for row in window.rows()].count("split") == 2

    window.press("d")
    for column, row in ((220, 140), (260, 140), (260, 170)):
        window.click(column, row)
    window.click(220, 170, times=2)
    window.wait(lambda: len(window.statuses()) == 7)
    drawn = window.rows()[-1]
    assert (drawn["origin"], drawn["status"]) == ("drawn", "accepted")
    assert pixels(window.review, drawn["fid"]).area == pytest.approx(40 * 30, rel=0.05)
    window.press("Delete")
    window.wait(lambda: len(window.statuses()) == 6)
    for _ in range(7):  # delete, draw, split, merge, cut, add, edit
        window.press("z")
    assert pixels(window.review, 2).equals(original)
    assert len(window.statuses()) == len(LANDSLIDES)


def test_a_small_outline_is_enlarged_for_editing(open_window):
    window = open_window("notes")
    before = window.rows()
    window.page.keyboard.press("f")  # the whole scene
    window.click(803, 503)  # landslide 5 has 6 x 6 px
    window.wait(lambda: window.shown == 5)
    window.press("e")
    (left, top), (right, bottom) = window.place(800, 500), window.place(806, 506)
    assert min(right - left, bottom - top) >= 6 * 16 - 1  # sixteen pixels of the screen for one of the scene
    sizes = window.page.locator(".leaflet-editing-icon").evaluate_all("all => all.map(one => one.offsetWidth)")
    assert sizes
    assert max(sizes) <= 12
    window.press("Escape")
    assert window.rows() == before


def test_escape_ends_drawing_without_a_change(open_window):
    window = open_window("notes")
    before = window.rows()
    for key in "edsixm":
        window.press(key)
        assert window.text("hint")
        window.page.keyboard.press("a")  # keys are no verdicts while one draws
        window.press("Escape")
    assert window.rows() == before


def test_text_in_the_note_is_no_verdict(open_window):
    window = open_window("notes")
    window.page.keyboard.press("c")
    window.wait(lambda: window.page.evaluate("document.activeElement.tagName") == "INPUT")
    window.page.keyboard.type("a road, under <trees>")
    window.page.keyboard.press("Enter")
    window.wait(lambda: window.rows()[1]["note"] == "a road, under <trees>")
    assert set(window.statuses().values()) == {None}
    window.press("2")
    assert window.rows()[1]["class"] == "debris flow"
    window.press("a")
    assert window.statuses()[2] == "accepted"


def test_order_and_filter_choose_the_way(open_window):
    window = open_window("filter")
    page = window.page
    page.get_by_text("Order and filter").click()
    page.get_by_text("most doubtful first").click()
    page.get_by_text("largest first").click()
    window.wait(lambda: "6 landslides fit" in window.text("matching"))
    page.get_by_label("Smallest slope, °").fill("15")
    # Landslides 1, 4, 5 and 6 are steeper; by area 4, 1, 6, 5.
    window.wait(lambda: "4 landslides fit" in window.text("matching"))
    page.get_by_label("Smallest slope, °").blur()
    window.wait(lambda: window.shown == 4)
    window.press("r")
    window.wait(lambda: window.shown == 1)
    window.press("n")
    window.wait(lambda: window.shown == 6)
    window.press("n")
    window.wait(lambda: window.shown == 5)
    window.press("n")
    window.wait(lambda: window.shown == 1)
    page.get_by_text("without a verdict", exact=True).click()
    page.get_by_text("rejected", exact=True).last.click()
    window.wait(lambda: window.shown == 4)


def test_searched_cells_are_marked_one_after_the_other(open_window):
    window = open_window("ground")
    window.press("g")  # 2 x 3 cells of 512 px
    assert "Cell 1-1, not yet searched" in window.text("hint")
    window.press("g")
    assert "Cell 1-2" in window.text("hint")
    window.press("g", "g")
    assert "Cell 2-3" in window.text("hint")  # the second row runs back
    assert [row["cell"] for row in window.rows("searched")] == ["1-1", "1-2", "1-3"]
    frame = geopandas.read_file(window.review, layer="searched")
    assert frame.area.tolist() == [1024 * 1024, 1024 * 1024, 2 * (1100 - 1024) * 1024]
    window.page.keyboard.press("a")
    window.wait(lambda: "Press Esc to leave" in window.page.inner_text("body"))
    assert set(window.statuses().values()) == {None}
    window.press("z")
    assert len(window.rows("searched")) == 2
    window.press("Escape")
    assert not window.page.locator(".hint").is_visible()
    window.wait(lambda: "2 of 6 cells" in window.text("matching"))


def colours(window):
    """Count the pixels of each colour of a status on the map's canvas."""
    script = """() => {
      const canvas = document.querySelector('canvas.outlines');
      const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
      const count = ([red, green, blue]) => {
        let found = 0;
        for (let at = 0; at < data.length; at += 4)
          found += data[at] === red && data[at + 1] === green && data[at + 2] === blue && data[at + 3] === 255;
        return found;
      };
      return { accepted: count([47, 191, 91]), rejected: count([255, 75, 51]) };
    }"""
    return window.page.evaluate(script)


def test_windows_and_other_reviewers_see_each_other(open_window):
    one, two = open_window("windows"), open_window("windows")
    one.wait(lambda: "open in 2 windows" in one.text("people"))
    one.press("n")
    one.press("r")
    two.page.keyboard.press("f")
    two.wait(lambda: colours(two)["rejected"] > 0)
    assert colours(two)["accepted"] == 0
    two.wait(lambda: two.text("progress-text") == "1 of 6 reviewed")
    with ReviewStore(one.review, "Bea") as store:
        store.judge([1, 4], "accepted")
        one.wait(lambda: "Bea works on this review, too: 1 action just now" in one.page.inner_text("body"))
        two.wait(lambda: colours(two)["accepted"] > 0)
    assert one.statuses()[1] == "accepted"


def test_a_killed_server_loses_no_verdict(browser, maps):
    review = maps / "valley_review.gpkg"
    shown = []
    with serving(maps) as running:
        window = Window(browser.new_page(), review).open(running.link)
        for key in "aru":
            shown.append(window.shown)
            window.press(key)
        running.process.kill()
        running.process.wait()
        window.page.close()
    assert [read_rows(review)[key - 1]["status"] for key in shown] == ["accepted", "rejected", "unsure"]
    with serving(maps) as running:
        window = Window(browser.new_page(), review).open(running.link)
        assert window.text("progress-text") == "3 of 6 reviewed"
        assert window.shown not in shown  # the fourth
        window.press("z")
        assert read_rows(review)[shown[2] - 1]["status"] is None
        window.page.close()


def test_a_layer_that_does_not_fit_a_scene_is_named_in_its_window(browser, maps, tmp_path):
    away = write_away(tmp_path / "away.tif")
    write_maps(maps, "ridge", scene=maps.parent / "valley.tif")
    with serving(maps, "--before", str(away)) as running:
        window = Window(browser.new_page(), maps / "valley_review.gpkg").open(running.link, 1)
        window.page.get_by_text("lies elsewhere").wait_for()
        window.press("a")
        assert "accepted" in window.statuses().values()


def test_layers_are_switched_and_swiped(browser, maps, tmp_path):
    scene = maps.parent / "valley.tif"
    with serving(maps, "--before", str(scene)) as running:
        page = browser.new_page(viewport={"width": 1300, "height": 800})
        window = Window(page, maps / "valley_review.gpkg").open(running.link)
        assert not page.locator(".divider").is_visible()
        for key, name in (("b", "before"), ("v", "probability")):
            with page.expect_response(lambda answer, name=name: f"/tiles/{name}/" in answer.url) as answer:
                page.keyboard.press(key)
            assert answer.value.status == 200
            assert answer.value.headers["content-type"] in ("image/jpeg", "image/webp")
        assert page.locator(".divider").is_visible()
        window.click(650, 300)
        clip = page.evaluate("document.querySelector('.leaflet-before-pane').style.clip")
        bar = page.locator(".divider").bounding_box()
        page.mouse.move(bar["x"] + 6, 200)
        page.mouse.down()
        page.mouse.move(200, 200, steps=3)
        page.mouse.up()
        assert page.evaluate("document.querySelector('.leaflet-before-pane').style.clip") != clip
        page.keyboard.press("b")
        window.wait(lambda: not page.locator(".divider").is_visible())
        page.close()


def test_the_exported_page_prints_on_one_sheet(browser, maps, tmp_path):
    statuses = ("accepted", "accepted", "accepted", "accepted", "rejected", "unsure")
    store = find_scenes(maps)[0].open_review("Ann")
    for key, status in enumerate(statuses, 1):
        store.judge([key], status)
        store.classify([key], ("slide", "debris flow", "rockfall", "other", "", "")[key - 1])
    store.close()
    api.export_review(maps, tmp_path / "out")
    page = browser.new_page()
    page.goto((tmp_path / "out" / "valley_review.html").as_uri())
    assert len(re.findall(rb"/Type\s*/Page\b", page.pdf())) == 1
    page.close()
