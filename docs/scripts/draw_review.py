"""Draw the pictures of the review page for the documentation, in Chromium, from the results of `lim-keras demo`.

    python docs/scripts/draw_review.py demo

Writes into docs/images/: a verdict (review_verdict.jpg), order and filter (review_filter.jpg), an outline that is
edited (review_edit.jpg), the image of another date (review_swipe.jpg) and searched ground (review_ground.jpg). Needs
the extra `dev`, and Chromium.
"""

import argparse
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import geopandas
import numpy as np
from playwright.sync_api import Page, sync_playwright

from lim_keras.demo.run import TEST_SEED
from lim_keras.demo.world import make_world
from lim_keras.raster.writer import write_raster

IMAGES = Path(__file__).parents[1] / "images"
WORLD_PX = 1536
VIEW = {"width": 1280, "height": 760}
VERDICTS = 28  # so that the page looks as in the middle of a review
PAUSE_S = 0.9
QUALITY = 88


def main() -> None:
    """Serve a copy of the demo's maps, and take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demo", type=Path, help="folder that lim-keras demo wrote")
    demo = parser.parse_args().demo
    with tempfile.TemporaryDirectory() as scratch:
        maps, before = Path(scratch) / "maps", Path(scratch) / "before.tif"
        shutil.copytree(demo / "inventory", maps)
        world = make_world(WORLD_PX, TEST_SEED, landslides=0)
        write_raster(before, world.scene, crs=world.crs, transform=world.transform)
        files = {"scene": demo / "world" / "unseen.tif", "dem": demo / "world" / "unseen_dem.tif", "before": before}
        with _page(maps, files) as page:
            _give_verdicts(page, _true_keys(maps, demo / "world" / "landslides.gpkg"))
            _take_pictures(page)


@contextmanager
def _page(maps: Path, files: dict[str, Path]) -> Iterator[Page]:
    options = [text for name, path in files.items() for text in (f"--{name}", str(path))]
    command = ["lim-keras", "review", str(maps), "--port", "0", "--reviewer", "Ann", *options]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        link = re.search(r"http://\S+", server.stdout.readline())[0]  # type: ignore[union-attr,index]
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            page: Any = browser.new_page(viewport=VIEW)
            page.goto(link)
            page.wait_for_function("document.body.dataset.drawn && document.body.dataset.drawn !== 'null'")
            yield page
            browser.close()
    finally:
        server.terminate()
        server.wait()


def _true_keys(maps: Path, truth: Path) -> set[int]:
    """Return the keys of the landslides that touch a true one."""
    found = geopandas.read_file(maps / "unseen_inventory.gpkg", fid_as_index=True)
    whole = geopandas.read_file(truth).union_all()
    return {int(key) for key, touches in found.intersects(whole).items() if touches}


def _give_verdicts(page: Page, true_keys: set[int]) -> None:
    for number in range(VERDICTS):
        key = int(page.evaluate("document.body.dataset.drawn"))
        _press(page, "u" if number % 12 == 5 else "a" if key in true_keys else "r", 0.4)


def _take_pictures(page: Page) -> None:
    _press(page, "-")
    _picture(page, "verdict")
    page.get_by_text("Order and filter").click()
    page.get_by_text("most doubtful first").click()
    page.get_by_text("largest first").click()
    page.get_by_label("Smallest area, m²").fill("4000")
    time.sleep(PAUSE_S)
    _picture(page, "filter")
    page.get_by_text("Order and filter").click()
    _press(page, "e")
    _picture(page, "edit")
    _press(page, "Escape")
    _press(page, "b")
    _picture(page, "swipe")
    for key in "bggg":
        _press(page, key)
    _picture(page, "ground")


def _press(page: Page, key: str, pause_s: float = PAUSE_S) -> None:
    page.keyboard.press(key)
    time.sleep(pause_s)


def _picture(page: Page, name: str) -> None:
    shown = cv2.imdecode(np.frombuffer(page.screenshot(), np.uint8), cv2.IMREAD_COLOR)
    cv2.imwrite(str(IMAGES / f"review_{name}.jpg"), shown, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])


if __name__ == "__main__":
    main()
