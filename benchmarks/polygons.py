"""Measure speed and peak memory of inventories of 10,000 to 400,000 polygons, each in its own process.

    python benchmarks/polygons.py --side 6000 --polygons 10000 100000 400000 --formats gpkg geojson parquet --preview

For each number: polygons per second of wall and of processor time from the mask to the finished files, and the memory
that the process takes above that of its imports. Masks hold blobs of noise, of 14 vertices on average, evenly spread.
With --shape, they hold the worst cases instead: one landslide with a hole at every second pixel ("lace"), single pixels
("chessboard"), columns that cross every block ("stripes"), or rings in rings ("nested").
"""

import argparse
import json
import multiprocessing
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from rasterio import Affine
from scipy import ndimage

_SHAPES = ("blobs", "lace", "chessboard", "stripes", "nested")


def main() -> None:
    """Measure, print JSON, and write it to the file of --json."""
    options = _options()
    figures = []
    for count in options.polygons:
        for _ in range(options.repeat):
            with (
                tempfile.TemporaryDirectory(dir=options.scratch) as scratch,
                multiprocessing.get_context("spawn").Pool(1) as maker,
                multiprocessing.get_context("spawn").Pool(1) as pool,
            ):
                maker.apply(write_mask, (Path(scratch), options.side, count, options.shape))
                figures.append(pool.apply(measure, (options, Path(scratch))))
            print(json.dumps(figures[-1]), file=sys.stderr, flush=True)
    text = json.dumps(figures, indent=2)
    print(text)
    if options.json:
        options.json.write_text(text + "\n", encoding="utf-8")


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Make the inventory of `mask.tif` in a folder, and write it there."""
    from lim_keras.inventory.landslides import InventoryTotals, MaskSource, stream_inventory
    from lim_keras.inventory.options import InventoryOptions
    from lim_keras.inventory.vector_files import write_frames
    from lim_keras.report.preview import draw_preview

    source = MaskSource(mask=folder / "mask.tif", maps=folder / "maps.tif", folds=5, folder=folder)
    paths = [folder / f"inventory.{kind}" for kind in options.formats]
    chosen = InventoryOptions(
        min_area_m2=options.min_area, fill_holes_m2=options.fill_holes, simplify_m=options.simplify
    )
    before, totals = _peak_mib(), InventoryTotals()
    started, busy = time.perf_counter(), time.process_time()
    count = write_frames(stream_inventory(source, chosen, totals), paths, layer="landslides")
    seconds, busy = time.perf_counter() - started, time.process_time() - busy
    peak, drawn = _peak_mib(), 0.0
    if options.preview:
        started = time.perf_counter()
        draw_preview(folder / "mask.tif", paths[0], folder / "preview.png", bands=(1,))
        drawn = time.perf_counter() - started
    return {
        "shape": options.shape,
        "polygons": count,
        "seconds": round(seconds, 2),
        "processor_seconds": round(busy, 2),
        "polygons_per_second": round(count / seconds),
        "polygons_per_processor_second": round(count / busy),
        "imports_mib": round(before),
        "peak_mib": round(peak),
        "preview_seconds": round(drawn, 2),
        "peak_with_preview_mib": round(_peak_mib()),
    }


def write_mask(folder: Path, side: int, count: int, shape: str) -> None:
    """Write `mask.tif` and `maps.tif` of side x side pixels; blobs are about `count`."""
    from lim_keras.raster.writer import write_raster

    rng = np.random.default_rng(0)
    strength = ndimage.gaussian_filter(rng.standard_normal((side, side), np.float32), 1.6)
    strength /= strength.std()
    mask = strength > 1.2
    if shape == "blobs":
        # Whole blobs are left out, evenly, until `count` remain.
        numbers, found = ndimage.label(mask)
        mask &= np.insert(rng.permutation(found) < count, 0, False)[numbers]
    rows, columns = np.indices((side, side), sparse=True)
    if shape == "lace":
        mask = (rows % 2 == 0) | (columns % 2 == 0)
    elif shape == "chessboard":
        mask = (rows + columns) % 2 == 0
    elif shape == "stripes":
        mask = np.broadcast_to(columns % 2 == 0, mask.shape)
    elif shape == "nested":
        depth = np.minimum(np.minimum(rows, columns), side - 1 - np.maximum(rows, columns))
        mask = depth % 2 == 0
    place = {"crs": "EPSG:32648", "transform": Affine(0.8, 0, 5e5, 0, -0.8, 3e6)}
    write_raster(folder / "mask.tif", mask.astype(np.uint8), nodata=255, **place)
    probability = 1 / (1 + np.exp(-strength))
    bands = np.stack([probability, np.rint(probability * 5)], axis=-1).astype(np.float32)
    write_raster(folder / "maps.tif", bands, nodata=-1, **place)


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=7400, help="rows and columns of the mask")
    parser.add_argument("--polygons", nargs="+", type=int, default=[10_000, 50_000, 100_000, 200_000, 400_000])
    parser.add_argument("--shape", choices=_SHAPES, default="blobs")
    parser.add_argument("--formats", nargs="+", default=["gpkg"], help="gpkg, geojson, parquet")
    parser.add_argument("--min-area", type=float, default=0.0, help="m2")
    parser.add_argument("--fill-holes", type=float, default=0.0, help="m2")
    parser.add_argument("--simplify", type=float, default=0.0, help="m")
    parser.add_argument("--preview", action="store_true", help="draw the preview, too")
    parser.add_argument("--repeat", type=int, default=1, help="number of measurements of each number")
    parser.add_argument("--scratch", type=Path, help="folder of temporary files")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
