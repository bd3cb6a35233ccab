"""Draw docs/images/predict_options.png and predict_preview.jpg from what `lim-keras demo` left behind.

    python docs/draw_options.py demo

The first shows what each option of `lim-keras predict` does to a part of the demo's unseen world, the second is the
preview of that world.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import cv2
import geopandas
import rasterio
from matplotlib.axes import Axes
from rasterio.windows import Window

from lim_keras.export.bundle import load_bundle
from lim_keras.inference import PredictOptions, predict_scene
from lim_keras.inventory import InventoryOptions
from lim_keras.report.style import dress_picture, new_figure, save

IMAGES = Path(__file__).parent / "images"
PART = Window(560, 420, 620, 620)  # of the world, pixels
OUTLINE = "#d5285a"
COLUMNS = 4
PREVIEW_PX = 1100


def main() -> None:
    """Predict the unseen world once for every panel."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demo", type=Path, help="folder that lim-keras demo wrote")
    demo = parser.parse_args().demo
    scene, dem = demo / "world" / "unseen" / "scene.tif", demo / "world" / "unseen" / "dem.tif"
    bundle = load_bundle(next((demo / "exported_models").iterdir()))
    panels: dict[str, dict[str, Any]] = {
        "the scene": {},
        "as it is": {},
        "--threshold 0.5": {"threshold": 0.5},
        "--threshold 0.9": {"threshold": 0.9},
        "--min-area 1000": {"inventory": InventoryOptions(min_area_m2=1000)},
        "--fill-holes 500": {"inventory": InventoryOptions(fill_holes_m2=500)},
        "--simplify 8": {"inventory": InventoryOptions(simplify_m=8)},
        "--min-slope 15 --drop-flat": {"inventory": InventoryOptions(min_slope=15, drop_below_slope=True), "dem": dem},
    }
    rows = -(-len(panels) // COLUMNS)
    figure = new_figure(3.1 * COLUMNS, 3.4 * rows)
    axes = figure.subplots(rows, COLUMNS).ravel()
    with tempfile.TemporaryDirectory() as scratch:
        for place, (title, options) in zip(axes, panels.items(), strict=True):
            folder = Path(scratch) / title.replace(" ", "_")
            prediction = predict_scene(bundle, scene, folder, PredictOptions(**options))
            found = geopandas.read_file(prediction.files[2], layer="landslides")
            shown = title == "the scene"
            draw(place, scene, found.iloc[:0] if shown else found, title if shown else f"{title}: {len(found)}")
        save(figure, IMAGES / "predict_options.png")
    preview = cv2.imread(str(next(demo.glob("inventory/*_preview.png"))))
    size = PREVIEW_PX, round(PREVIEW_PX * preview.shape[0] / preview.shape[1])
    small = cv2.resize(preview, size, interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(IMAGES / "predict_preview.jpg"), small, [cv2.IMWRITE_JPEG_QUALITY, 88])


def draw(place: Axes, scene: Path, found: geopandas.GeoDataFrame, title: str) -> None:
    """One part of the scene with the outlines that an option leaves."""
    with rasterio.open(scene) as file:
        picture = file.read((1, 2, 3), window=PART).transpose(1, 2, 0)
        left, bottom, right, top = file.window_bounds(PART)
    place.imshow(picture, extent=(left, right, bottom, top))
    if len(found):
        found.boundary.plot(ax=place, color=OUTLINE, linewidth=1.2)
    place.set_xlim(left, right)
    place.set_ylim(bottom, top)
    dress_picture(place, title)


if __name__ == "__main__":
    main()
