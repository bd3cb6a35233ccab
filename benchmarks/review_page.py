"""Measure the review page in a browser: first paint, time from a key to the screen, memory of the server.

    python benchmarks/review_page.py [MAPS] [--side 10000] [--landslides 20000] [--verdicts 100]

Without MAPS, maps of a random scene are made in a temporary folder. MAPS is copied, so that its review is not touched.
"""

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import geopandas
import numpy as np
import psutil
import shapely
from affine import Affine
from playwright.sync_api import Page, sync_playwright

from lim_keras.raster.writer import write_raster

_CRS, _ORIGIN = "EPSG:32648", Affine(1.0, 0.0, 440_000.0, 0.0, -1.0, 2_600_000.0)
_PAUSE_S = 0.4
_PAINTED = "() => document.body.dataset.drawn && document.body.dataset.drawn !== 'null'"
_PRESS = """async (key) => {
  const before = document.body.dataset.drawn, start = performance.now();
  document.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true}));
  while (document.body.dataset.drawn === before) await new Promise(requestAnimationFrame);
  return performance.now() - start;
}"""


def main() -> None:
    """Make or copy the maps, serve them, and print what was measured as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("maps", nargs="?", type=Path)
    parser.add_argument("--side", type=int, default=10_000)
    parser.add_argument("--landslides", type=int, default=20_000)
    parser.add_argument("--verdicts", type=int, default=100)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        maps = Path(folder) / "maps"
        if asked.maps is not None:
            shutil.copytree(asked.maps, maps, ignore=shutil.ignore_patterns("*_review*"))
        else:
            _make_maps(maps, asked.side, asked.landslides)
        print(json.dumps(_measure(maps, asked.verdicts), indent=2))


def _make_maps(maps: Path, side: int, count: int) -> None:
    """Write a scene without overviews, a probability map and an inventory of `count` polygons."""
    maps.mkdir()
    random = np.random.default_rng(1)
    small = random.integers(60, 190, (side // 20, side // 20, 3), np.uint8)
    scene = cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC)
    write_raster(maps / "large.tif", scene, crs=_CRS, transform=_ORIGIN)
    write_raster(maps / "large_probability.tif", scene[..., 0] // 3, crs=_CRS, transform=_ORIGIN, nodata=255)
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    radii = random.uniform(0.6, 1.0, (count, 40)) * random.uniform(4, 30, (count, 1))
    centres = random.uniform(40, side - 40, (count, 2))
    columns, rows = centres[:, :1] + radii * np.cos(angles), centres[:, 1:] + radii * np.sin(angles)
    shapes = shapely.polygons(np.stack([_ORIGIN.c + columns, _ORIGIN.f - rows], axis=-1))
    columns_of = {
        "id": np.arange(1, count + 1),
        "area_m2": shapely.area(shapes),
        "probability_mean": random.uniform(0.4, 1, count),
        "fold_agreement": random.integers(1, 6, count) / 5,
        "slope_mean_deg": random.uniform(5, 45, count),
    }
    frame = geopandas.GeoDataFrame(columns_of, geometry=shapes, crs=_CRS)
    frame.to_file(maps / "large_inventory.gpkg", layer="landslides", driver="GPKG")
    summary = {"scene": str(maps / "large.tif"), "files": [], "gsd_m": 1.0, "settings": {"threshold": 0.4}}
    (maps / "large_summary.json").write_text(json.dumps(summary))


def _measure(maps: Path, verdicts: int) -> dict[str, Any]:
    started = time.perf_counter()
    command = ["lim-keras", "review", str(maps), "--port", "0", "--reviewer", "benchmark"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        link = re.search(r"http://\S+", server.stdout.readline())[0]  # type: ignore[union-attr,index]
        ready = time.perf_counter() - started
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=os.environ.get("CHROMIUM") or shutil.which("chromium"), args=["--no-sandbox"]
            )
            page = browser.new_page(viewport={"width": 1600, "height": 900})
            found = {"ready_s": round(ready, 2), **_in_browser(page, link, verdicts)}
            browser.close()
        memory = psutil.Process(server.pid).memory_info()
        return found | {"server_rss_mib": round(memory.rss / 2**20)}
    finally:
        server.terminate()
        server.wait()


def _in_browser(page: Page, link: str, verdicts: int) -> dict[str, Any]:
    paints = []
    for _ in range(3):
        started = time.perf_counter()
        page.goto(link)
        page.wait_for_function(_PAINTED)
        paints.append(time.perf_counter() - started)
    time.sleep(1)
    keys = [_paced(page, "aru"[number % 3]) for number in range(verdicts)]
    page.keyboard.press("f")
    time.sleep(3)
    wide = [_paced(page, "n") for _ in range(min(verdicts, 20))]
    return {
        "first_paint_s": [round(one, 2) for one in paints],
        "key_to_screen_ms": _spread(keys),
        "next_ms": _spread(wide),
    }


def _paced(page: Page, key: str) -> float:
    """Press a key at the pace of a quick person, and return the time until the screen shows its result, ms."""
    time.sleep(_PAUSE_S)
    return float(page.evaluate(_PRESS, key))


def _spread(times: list[float]) -> dict[str, float]:
    return {"median": round(statistics.median(times)), "worst": round(max(times))}


if __name__ == "__main__":
    main()
