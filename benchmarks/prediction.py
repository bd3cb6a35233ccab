"""Measure speed and peak memory of prediction on scenes of several sizes, each in its own process.

    python benchmarks/prediction.py exported_models/demo --sizes 2000x2000 2000x32000 16000x16000 --memory 2G

For each size: megapixels per second from file to finished maps, and of the same model on the same windows in memory
(with halo, in the same process); their ratio, which should be at least 0.9; and the peak memory of the process. With
--repeat both take turns and their sums are compared. The scenes are tiled, compressed GeoTIFFs of repeated noise; a
share --valid of them holds data, in square patches.
"""

import argparse
import json
import math
import multiprocessing
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.windows import Window as RasterWindow

_PATCH = 704


def main() -> None:
    """Measure, print JSON, and write it to the file of --json."""
    options = _options()
    figures = []
    for size in options.sizes:
        height, width = (int(side) for side in size.split("x"))
        with (
            tempfile.TemporaryDirectory(dir=options.scratch) as scratch,
            multiprocessing.get_context("spawn").Pool(1) as pool,
        ):
            figures.append({"size": size, **pool.apply(measure, (options, Path(scratch), height, width))})
        print(json.dumps(figures[-1]), file=sys.stderr)
    text = json.dumps(figures, indent=2)
    print(text)
    if options.json:
        options.json.write_text(text + "\n", encoding="utf-8")


def measure(options: argparse.Namespace, folder: Path, height: int, width: int) -> dict[str, Any]:
    """Predict a synthetic scene of height x width pixels into maps in `folder`, then the same windows from memory."""
    from lim_keras.bundle.saved_model import load_bundle
    from lim_keras.bundle.window_size import parse_memory
    from lim_keras.inference.predict_maps import MapOptions, find_valid_regions, predict_maps
    from lim_keras.raster.opening import gdal_settings
    from lim_keras.raster.reader import RasterReader

    model = load_bundle(options.bundle)
    bands = model.info.bands
    scene = write_scene(folder / "scene.tif", height, width, bands, options.valid, model.info.dtype)
    map_options = MapOptions(memory=parse_memory(options.memory) if options.memory else None, tile=options.tile)
    cell = math.lcm(64, model.info.stride)
    with gdal_settings(), RasterReader(scene) as reader:
        regions = find_valid_regions(reader, cell)
        _, facts = predict_maps(model, reader, folder / "maps_first", options=map_options)
    tile, halo = (facts["tile"][0], facts["tile"][1]), facts["halo"]
    windows = [one for region in regions for row in region.rows(tile, halo) for one in row]
    shapes = [(1, one.read.height, one.read.width, bands) for one in windows]
    # The first call on a window size is slow: leave it out of both measurements.
    for shape in set(shapes):
        model.predict_all(np.zeros(shape, model.info.dtype))
    seconds = busy = peak = 0.0
    for turn in range(options.repeat):
        # A new reader, because GDAL caches the scene of an open one.
        with gdal_settings(), RasterReader(scene) as reader:
            started = time.perf_counter()
            _, facts = predict_maps(model, reader, folder / f"maps_{turn}", options=map_options)
            seconds += time.perf_counter() - started
            peak = peak or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        noise = np.random.default_rng(0)
        image = {shape: noise.integers(0, 255, shape).astype(model.info.dtype) for shape in set(shapes)}
        started = time.perf_counter()
        for shape in shapes:
            model.predict_all(image[shape])
        busy += time.perf_counter() - started
    return {
        "bundle": options.bundle.name,
        "tile": facts["tile"],
        "windows": len(windows),
        "valid_regions": len(regions),
        "seconds": round(seconds / options.repeat, 2),
        "megapixels_per_second": round(options.repeat * height * width / 1e6 / seconds, 3),
        "of_windows_in_memory": round(options.repeat * height * width / 1e6 / busy, 3),
        "ratio": round(busy / seconds, 3),
        "computed_over_kept": round(sum(math.prod(shape[1:3]) for shape in shapes) / (height * width), 2),
        "peak_mib": round(peak),
    }


def write_scene(path: Path, height: int, width: int, bands: int, valid: float, dtype: str) -> Path:
    """Write blocks of noise; below a share `valid` of 1, square patches on a grid with nodata 0 between them."""
    rng = np.random.default_rng(0)
    block = rng.integers(1, 255, (bands, 512, 512)).astype(dtype)
    profile = {"driver": "GTiff", "width": width, "height": height, "count": bands, "dtype": dtype, "tiled": True}
    profile |= {"crs": "EPSG:32648", "transform": rasterio.Affine(0.8, 0, 5e5, 0, -0.8, 3e6), "compress": "lzw"}
    side = round(_PATCH * math.sqrt(valid))
    with rasterio.open(path, "w", blockxsize=512, blockysize=512, nodata=None if valid == 1 else 0, **profile) as file:
        for top in range(0, height, 512):
            for left in range(0, width, 512):
                high, wide = min(512, height - top), min(512, width - left)
                rows, columns = np.arange(top, top + high), np.arange(left, left + wide)
                valid_px = (rows % _PATCH < side)[:, None] & (columns % _PATCH < side)[None, :]
                file.write(block[:, :high, :wide] * valid_px, window=RasterWindow(left, top, wide, high))
    return path


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--sizes", nargs="+", default=["2000x2000", "2000x32000", "16000x16000"], help="rows x columns")
    parser.add_argument("--valid", type=float, default=1.0, help="share of the scene that holds data")
    parser.add_argument("--memory", help="memory of a process, such as 2G")
    parser.add_argument("--tile", type=int, help="side of a window, pixels")
    parser.add_argument("--repeat", type=int, default=1, help="number of predictions of each scene")
    parser.add_argument("--scratch", type=Path, help="folder of temporary scenes and maps")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
