"""Maps to review, made without a model, and a browser that looks at them.

maps                 folder with the maps of one scene, for one test
scenes, server       folder with maps of several scenes, and the link of a server that shows them, for all tests
browser              Chromium of the system; skips without one
Window               what a user sees and does in one window, see `open_window`
"""

import json
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import shapely
from affine import Affine

from lim_keras.raster.writer import write_raster

CRS, ORIGIN = "EPSG:32648", Affine(2.0, 0.0, 440_000.0, 0.0, -2.0, 2_600_000.0)
HEIGHT, WIDTH = 600, 1100
THRESHOLD = 0.4
# left, top, right, bottom in pixels; mean probability; agreement of the folds; slope
LANDSLIDES = (
    ((100, 100, 160, 180), 0.95, 1.0, 30.0),
    ((300, 120, 340, 150), 0.45, 0.6, 5.0),
    ((340, 120, 400, 160), 0.60, 0.8, 12.0),
    ((600, 300, 700, 400), 0.80, 1.0, 25.0),
    ((800, 500, 806, 506), 0.50, 1.0, 40.0),
    ((1000, 50, 1060, 90), 0.70, 0.4, 18.0),
)


def write_maps(folder: Path, name: str, *, scene: Path | None = None) -> Path:
    """Write the maps of a scene as `predict` does, with a landslide per box of LANDSLIDES."""
    folder.mkdir(exist_ok=True)
    random = np.random.default_rng(3)
    scene = scene or folder.parent / f"{name}.tif"
    if not scene.exists():
        pixels = random.integers(60, 160, (HEIGHT, WIDTH, 3), np.uint8)
        write_raster(scene, pixels, crs=CRS, transform=ORIGIN)
    probability = np.zeros((HEIGHT, WIDTH), np.uint8)
    for (left, top, right, bottom), mean, *_ in LANDSLIDES:
        probability[top:bottom, left:right] = round(100 * mean)
    write_raster(folder / f"{name}_probability.tif", probability, crs=CRS, transform=ORIGIN, nodata=255)
    columns, rows = zip(*(((box[0], box[2]), (box[1], box[3])) for box, *_ in LANDSLIDES), strict=True)
    shapes = [
        shapely.box(ORIGIN.c + 2 * x[0], ORIGIN.f - 2 * y[1], ORIGIN.c + 2 * x[1], ORIGIN.f - 2 * y[0])
        for x, y in zip(columns, rows, strict=True)
    ]
    table = {
        "id": range(1, len(LANDSLIDES) + 1),
        "area_m2": [shape.area for shape in shapes],
        "probability_mean": [mean for _, mean, *_ in LANDSLIDES],
        "fold_agreement": [agreement for *_, agreement, _ in LANDSLIDES],
        "slope_mean_deg": [slope for *_, slope in LANDSLIDES],
    }
    frame = geopandas.GeoDataFrame(table, geometry=shapes, crs=CRS)
    frame.to_file(folder / f"{name}_inventory.gpkg", layer="landslides", driver="GPKG")
    summary = {"scene": str(scene), "files": [], "gsd_m": 2.0, "settings": {"threshold": THRESHOLD}}
    (folder / f"{name}_summary.json").write_text(json.dumps(summary))
    return folder


def write_away(path: Path) -> Path:
    """Write an image of ground far from that of the maps."""
    pixels = np.full((50, 50, 3), 90, np.uint8)
    return write_raster(path, pixels, crs=CRS, transform=Affine(2.0, 0.0, 900_000.0, 0.0, -2.0, 900_000.0))


@pytest.fixture
def maps(tmp_path: Path) -> Path:
    return write_maps(tmp_path / "maps", "valley")


SCENES = ("verdicts", "outlines", "filter", "ground", "windows", "notes")


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the maps of a scene for each test that changes its review."""
    folder = tmp_path_factory.mktemp("review") / "maps"
    for name in sorted(SCENES):
        write_maps(folder, name, scene=folder.parent / "scene.tif")
    return folder


@dataclass
class Server:
    """A running `lim-keras review`."""

    process: subprocess.Popen[str]
    link: str


@contextmanager
def serving(maps: Path, *options: str) -> Iterator[Server]:
    """Run `lim-keras review` on any free port."""
    command = [sys.executable, "-m", "lim_keras", "review", str(maps), "--port", "0", "--reviewer", "Ann", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+/\?token=\S+", line)
        assert found, line + process.stderr.read()
        yield Server(process, found[0])
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


@pytest.fixture(scope="session")
def server(scenes: Path) -> Iterator[Server]:
    with serving(scenes) as running:
        yield running


@pytest.fixture(scope="module")  # its event loop keeps others from running in this process
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no Chromium on this machine: the review page is not tested in a browser")
    with playwright.sync_playwright() as running:
        launched = running.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield launched
        launched.close()


class Window:
    """One window of the review page, and the review that it changes."""

    def __init__(self, page: Any, review: Path) -> None:
        self.page, self.review = page, review
        self.addresses: set[str] = set()
        page.on("request", lambda request: self.addresses.add(request.url))

    def open(self, link: str, scene: int = 0) -> "Window":
        """Open a scene, and wait until its first landslide is drawn."""
        self.page.goto(link)
        if scene:
            self.page.goto(f"{link.partition('?')[0]}?scene={scene}")
        self.wait(lambda: self.shown is not None)
        return self

    @property
    def shown(self) -> int | None:
        """Key of the landslide that the map shows as the present one; None before the first is drawn."""
        value = self.page.evaluate("document.body.dataset.drawn")
        return int(value) if value and value.isdecimal() else None

    def text(self, name: str) -> str:
        """Return the text of an element with a CSS class."""
        return str(self.page.locator(f".{name}").first.inner_text())

    def press(self, *keys: str) -> None:
        """Press keys, each after what the one before changed is drawn."""
        for key in keys:
            before = self.page.evaluate("document.body.dataset.updates")
            self.page.keyboard.press(key)
            self.wait(lambda before=before: self.page.evaluate("document.body.dataset.updates") != before)

    def click(self, column: float, row: float, *, times: int = 1) -> None:
        """Click a pixel of the scene."""
        self.page.mouse.click(*self.place(column, row), click_count=times)
        # leaflet-draw takes no second point for 50 ms; a timer of the page also waits where the page is late.
        self.page.evaluate("() => new Promise((done) => setTimeout(done, 100))")

    def place(self, column: float, row: float) -> list[float]:
        """Return the place of a pixel of the scene in the window."""
        script = """([x, y]) => {
          const box = document.querySelector('.map'), edge = box.getBoundingClientRect();
          const point = getElement(box).map.latLngToContainerPoint([-y, x]);
          return [edge.left + point.x, edge.top + point.y];
        }"""
        return list(self.page.evaluate(script, [column, row]))

    def rows(self, table: str = "landslides") -> list[dict[str, Any]]:
        """Read a table of the review file as another program does."""
        return read_rows(self.review, table)

    def statuses(self) -> dict[int, str | None]:
        """Return the status of each landslide in the file."""
        return {row["fid"]: row["status"] for row in self.rows()}

    def wait(self, condition: Callable[[], bool], seconds: float = 15) -> None:
        """Wait until a condition holds."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "the page does not get there"
            self.page.wait_for_timeout(20)


def read_rows(review: Path, table: str = "landslides") -> list[dict[str, Any]]:
    """Read a table of a review file with SQLite alone."""
    database = sqlite3.connect(f"{review.resolve().as_uri()}?mode=ro", uri=True)
    database.row_factory = sqlite3.Row
    try:
        return [dict(row) for row in database.execute(f'SELECT * FROM "{table}" ORDER BY fid')]
    finally:
        database.close()


@pytest.fixture
def open_window(browser: Any, server: Server, scenes: Path) -> Iterator[Callable[[str], Window]]:
    """Return a function that opens a window on a scene of the shared server."""
    contexts = []

    def opened(name: str) -> Window:
        contexts.append(browser.new_context(viewport={"width": 1300, "height": 800}))
        window = Window(contexts[-1].new_page(), scenes / f"{name}_review.gpkg")
        return window.open(server.link, sorted(SCENES).index(name))

    yield opened
    for context in contexts:
        context.close()
