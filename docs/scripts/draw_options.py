"""Draw the pictures of the documentation from the results of `lim-keras demo`.

    python docs/scripts/draw_options.py demo

Writes into docs/images/, for a part of the demo's unseen world: the effect of each option of `lim-keras predict` on the
inventory (predict_options.png), on reading a scene (predict_reading.png) and on the maps (predict_maps.png); and the
preview of the whole world (predict_preview.jpg).
"""

import argparse
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import geopandas
import numpy as np
import rasterio
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from rasterio.windows import Window

import lim_keras as lk
from lim_keras.raster.images import read_image
from lim_keras.raster.windows import Box, plan_windows, smallest_side
from lim_keras.raster.writer import write_raster
from lim_keras.report.style import PROBABILITY, dress_picture, new_figure, save

IMAGES = Path(__file__).parents[1] / "images"
PART = Window(560, 420, 620, 620)  # of the world, pixels
OUTLINE = "#d5285a"
PREVIEW_PX = 1100
CELL = 64  # windows of `predict` start at multiples of it
Close = tuple[int, int, int]  # left, top and side of a square of the part, pixels
SLIDE, HOLES = (475, 65, 110), (0, 500, 110)
REFLECTANCE = 3000  # of the brightest value in the scene that is made to be read with --scale
CORNER = 0.55  # of a side: how much of a corner the scene that is made to be read with --nodata lacks


def main() -> None:
    """Predict the part once for each panel."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demo", type=Path, help="folder that lim-keras demo wrote")
    demo = parser.parse_args().demo
    unseen = demo / "world" / "unseen"
    bundle = lk.load_bundle(next((demo / "exported_models").iterdir()))
    with tempfile.TemporaryDirectory() as scratch:
        painter = Painter(bundle, unseen / "scene.tif", Path(scratch))
        save(painter.inventories(unseen / "dem.tif"), IMAGES / "predict_options.png")
        save(painter.readings(), IMAGES / "predict_reading.png")
        save(painter.maps(), IMAGES / "predict_maps.png")
    preview = read_image(next(demo.glob("inventory/*_preview.png")))[..., 2::-1]  # OpenCV wants blue first
    size = PREVIEW_PX, round(PREVIEW_PX * preview.shape[0] / preview.shape[1])
    small = cv2.resize(preview, size, interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(IMAGES / "predict_preview.jpg"), small, [cv2.IMWRITE_JPEG_QUALITY, 88])


class Painter:
    """Predict one part of a scene with several options, and draw the results.

    bundle: the model. scene: a georeferenced RGB raster that the part is cut from. folder: for temporary files.
    """

    def __init__(self, bundle: Any, scene: Path, folder: Path) -> None:
        self._bundle, self._folder = bundle, folder
        with rasterio.open(scene) as file:
            self._pixels = file.read((1, 2, 3), window=PART).transpose(1, 2, 0)
            self._place = {"crs": file.crs.to_string(), "transform": file.window_transform(PART)}
        self._part = self._write("part", self._pixels)

    def inventories(self, dem: Path) -> Figure:
        """Draw the inventory for each option that changes it."""
        steep = {"min_slope_deg": 15, "dem": dem}
        figure, places = _panels(2, 5)

        def show(title: str, close: Close | None = None, **options: Any) -> None:
            self._draw_found(next(places), self._part, self._pixels, title, close=close, **options)

        draw(next(places), self._pixels)
        show("no option")
        show("--threshold 0.9", threshold=0.9)
        show("--min-area 1000", min_area_m2=1000)
        show("--min-slope 15 (dotted: flagged)", **steep)
        show("--min-slope 15 --drop-flat", drop_flat=True, **steep)
        show("one landslide, no option", SLIDE)
        show("the same, --simplify 8", SLIDE, simplify_m=8)
        show("--threshold 0.01", HOLES, threshold=0.01)
        show("the same, --fill-holes 100", HOLES, threshold=0.01, fill_holes_m2=100)
        return figure

    def readings(self) -> Figure:
        """Draw the same ground in files that need an option to be read."""
        blue_first = self._write("blue_first", self._pixels[..., ::-1])
        reflectance = np.round(self._pixels / 255.0 * REFLECTANCE).astype(np.uint16)
        unplaced = write_raster(self._folder / "unplaced.tif", self._pixels)
        rows, columns = np.indices(self._pixels.shape[:2]) / len(self._pixels)
        valid = rows + columns > CORNER
        cornered = np.where(valid[..., None], self._pixels, 0)
        fine, fine_pixels = self._finer(4)
        figure, places = _panels(2, 4)
        self._draw_found(next(places), blue_first, self._pixels[..., ::-1], "first band is blue")
        self._draw_found(next(places), blue_first, self._pixels, "the same, --bands 3,2,1", bands=(3, 2, 1))
        black = self._write("black", cornered)
        self._draw_found(next(places), black, cornered, "undeclared black corner")
        white = np.where(valid[..., None], self._pixels, 255)
        self._draw_found(next(places), black, white, "the same, --nodata 0", nodata=0.0)
        gsd_m = self._bundle.info.gsd_m or 1.0
        self._draw_found(next(places), fine, fine_pixels, f"{gsd_m / 4:g} m a pixel")
        self._draw_found(next(places), fine, fine_pixels, "the same, --resample", resample=True)
        values, scale = self._write("reflectance", reflectance), (0.0, float(REFLECTANCE))
        self._draw_found(next(places), values, self._pixels, f"uint16, --scale 0,{REFLECTANCE}", scale=scale)
        self._draw_found(next(places), unplaced, self._pixels, f"no georeference, --gsd {gsd_m:g}", gsd_m=gsd_m)
        return figure

    def maps(self) -> Figure:
        """Draw the maps and the windows of a prediction."""
        figure, places = _panels(1, 4)
        plain = self._predict(self._part, "plain", probability="float32", spread=True)
        averaged = self._predict(self._part, "averaged", probability="float32", tta=True)
        for prediction, band, title in (
            (plain, 1, "probability"),
            (averaged, 1, "the same, --tta"),
            (plain, 2, "--spread: standard deviation of the folds"),
        ):
            with rasterio.open(prediction.files[0]) as file:
                values = file.read(band)
            place = next(places)
            place.imshow(values, cmap=PROBABILITY, vmin=0, vmax=1 if band == 1 else 0.5)
            dress_picture(place, title)
        self._draw_windows(next(places))
        return figure

    def _draw_windows(self, place: Axes) -> None:
        halo, cell = self._bundle.info.halo, math.lcm(CELL, self._bundle.info.stride)
        size, tile = len(self._pixels), smallest_side(halo, cell) + cell
        windows = plan_windows(size, size, size=tile, halo=halo, multiple=cell)
        place.imshow(self._pixels)
        for window in windows:
            place.add_patch(_rectangle(window.core, edgecolor="white", linewidth=0.8))
        shown = windows[len(windows) // 2]
        place.add_patch(_rectangle(shown.read, edgecolor=OUTLINE, linewidth=1.6, linestyle="--"))
        place.add_patch(_rectangle(shown.core, edgecolor=OUTLINE, linewidth=1.6))
        dress_picture(place, f"--tile {tile}: cores, one with its halo")

    def _draw_found(
        self, place: Axes, scene: Path, shown: np.ndarray, title: str, close: Close | None = None, **options: Any
    ) -> None:
        prediction = self._predict(scene, title, **options)
        found = geopandas.read_file(prediction.files[2], layer="landslides")
        with rasterio.open(scene) as file:
            # Without a georeference, y counts pixels upwards.
            to_pixels = ~file.transform if file.crs else rasterio.Affine.scale(1, -1)
        found.geometry = found.geometry.affine_transform(to_pixels.to_shapely())
        draw(place, shown, found, title if close else f"{title}: {len(found)}", close)

    def _predict(self, scene: Path, name: str, **options: Any) -> Any:
        return lk.predict_scene(self._bundle, scene, self._folder / name.replace(" ", "_"), **options)

    def _finer(self, times: int) -> tuple[Path, np.ndarray]:
        size = times * len(self._pixels)
        fine = cv2.resize(self._pixels, (size, size), interpolation=cv2.INTER_CUBIC)
        place = self._place | {"transform": self._place["transform"] * rasterio.Affine.scale(1 / times)}
        return write_raster(self._folder / "fine.tif", fine, **place), fine

    def _write(self, name: str, pixels: np.ndarray) -> Path:
        return write_raster(self._folder / f"{name}.tif", pixels, **self._place)


def draw(
    place: Axes,
    picture: np.ndarray,
    found: geopandas.GeoDataFrame | None = None,
    title: str = "the scene",
    close: Close | None = None,
) -> None:
    """Draw a picture, or a square of it, with outlines in its pixels; outlines of flagged landslides are dotted."""
    place.imshow(picture)
    if found is not None and len(found):
        flat = found["below_min_slope"].astype(bool) if "below_min_slope" in found else found["id"] < 0
        for those, style in ((~flat, "-"), (flat, ":")):
            if those.any():
                found[those].boundary.plot(ax=place, color=OUTLINE, linewidth=1.2, linestyle=style)
    left, top, side = close or (0, 0, len(picture))
    place.set_xlim(left, left + side)
    place.set_ylim(top + side, top)
    dress_picture(place, title)


def _panels(rows: int, columns: int) -> tuple[Figure, Iterator[Axes]]:
    figure = new_figure(3.1 * columns, 3.4 * rows)
    return figure, iter(figure.subplots(rows, columns).ravel())


def _rectangle(box: Box, **look: Any) -> Rectangle:
    return Rectangle((box.left, box.top), box.width, box.height, fill=False, **look)


if __name__ == "__main__":
    main()
