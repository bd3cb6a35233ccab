"""Measure `lim-keras predict` from its call to its end, beside the bare network on the same windows.

    python benchmarks/prediction.py exported_models/bijie_edge --scene scene.tif
    python benchmarks/prediction.py exported_models/bijie_edge --sizes 2000x2000 10000x10000 --runtimes openvino litert

For each scene and each installed runtime: seconds and processor seconds of the whole command in a process of its own,
its parts (start and loading, prediction, files), its peak memory, and the seconds of the same windows, in memory, in a
loaded network. Scenes of --sizes are tiled, compressed GeoTIFFs of repeated noise; a share --valid of them holds data,
in square patches.
"""

import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.windows import Window as RasterWindow

_PATCH = 704
_RUNTIMES = ("openvino", "litert", "tensorflow")
_COLUMNS = (
    *("scene", "runtime", "windows", "tile", "seconds", "processor_seconds", "start_and_load", "prediction", "files"),
    *("bare_network", "command_over_network", "peak_mib"),
)


def main() -> None:
    """Measure, print a table, and write JSON to the file of --json."""
    options = _options()
    if options.child:
        _child(options.child)
        return
    figures = []
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        for scene in _scenes(options, Path(scratch)):
            for runtime in options.runtimes:
                figures.append(measure(options, scene, runtime, Path(scratch) / f"maps_{len(figures)}"))
                print(json.dumps(figures[-1]), file=sys.stderr)
    print(_table(figures))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def measure(options: argparse.Namespace, scene: Path, runtime: str, out: Path) -> dict[str, Any]:
    """Run the command, and the bare network on its windows, in a process each."""
    command = [sys.executable, "-m", "lim_keras", "predict", options.bundle, scene, "--out", out, "--runtime", runtime]
    for name in ("memory", "tile"):
        if getattr(options, name) is not None:
            command += [f"--{name}", getattr(options, name)]
    ran = _in_child({"command": [str(one) for one in command]})
    figures: dict[str, Any] = {"scene": scene.stem, "runtime": runtime}
    if ran["code"]:
        return figures | {"error": ran["output"].strip().splitlines()[-1:]}
    summary = json.loads((out / f"{scene.stem}_summary.json").read_text(encoding="utf-8"))
    parts, windows = summary["seconds"], summary["windows"]
    bare = _in_child({"bundle": str(options.bundle), "runtime": runtime, "scene": str(scene), "windows": windows})
    return figures | {
        "windows": windows["count"],
        "tile": "x".join(map(str, windows["tile"])),
        "seconds": round(ran["seconds"], 2),
        "processor_seconds": round(ran["processor_seconds"], 2),
        "start_and_load": round(ran["seconds"] - parts["all"], 2),
        "prediction": round(parts["predict"], 2),
        "files": round(parts["inventory"], 2),
        "bare_network": round(bare["seconds"], 2),
        "command_over_network": round(ran["seconds"] / bare["seconds"], 2),
        "peak_mib": round(ran["peak_mib"]),
    }


def _in_child(task: dict[str, Any]) -> dict[str, Any]:
    """Do a task in a small process, because a process inherits the peak memory of the one that starts it."""
    done = subprocess.run(
        [sys.executable, __file__, "--child", json.dumps(task)], stdout=subprocess.PIPE, text=True, check=True
    )
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _child(text: str) -> None:
    task = json.loads(text)
    if "command" not in task:
        print(json.dumps({"seconds": _bare_seconds(**task)}))
        return
    started = time.perf_counter()
    done = subprocess.run(task["command"], capture_output=True, text=True, check=False)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    answer = {"seconds": time.perf_counter() - started, "processor_seconds": used.ru_utime + used.ru_stime}
    answer |= {"peak_mib": used.ru_maxrss / 1024, "code": done.returncode}
    print(json.dumps(answer | {"output": done.stdout + done.stderr}))


def _bare_seconds(bundle: str, runtime: str, scene: str, windows: dict[str, Any]) -> float:
    """Predict noise of the sizes of a scene's windows; each size is predicted once before."""
    from lim_keras.bundle.runtimes import load_model
    from lim_keras.bundle.window_size import window_grid
    from lim_keras.inference.predict_maps import find_valid_regions
    from lim_keras.raster.opening import gdal_settings
    from lim_keras.raster.reader import RasterReader

    model = load_model(Path(bundle), runtime)  # type: ignore[arg-type]  # one of the names of --runtimes
    rows, columns = windows["tile"]
    with gdal_settings(), RasterReader(scene) as reader:
        regions = find_valid_regions(reader, window_grid(model.info.stride))
    found = [one.read for region in regions for row in region.rows((rows, columns), windows["halo"]) for one in row]
    shapes = sorted((1, read.height, read.width, model.info.bands) for read in found)
    noise, seconds, shape = np.random.default_rng(0), 0.0, None
    for one in shapes:
        if one != shape:
            image, shape = noise.integers(0, 255, one).astype(model.info.dtype), one
            model.predict_all(image)
        started = time.perf_counter()
        model.predict_all(image)
        seconds += time.perf_counter() - started
    return seconds


def _scenes(options: argparse.Namespace, folder: Path) -> list[Path]:
    from lim_keras.bundle.info import BundleInfo

    if options.scene:
        return list(options.scene)
    info, scenes = BundleInfo.read(options.bundle), []
    for size in options.sizes:
        height, width = (int(side) for side in size.split("x"))
        scenes.append(write_scene(folder / f"{size}.tif", height, width, info.bands, options.valid, info.dtype))
    return scenes


def _table(figures: list[dict[str, Any]]) -> str:
    lines = [f"| {' | '.join(_COLUMNS)} |", "|---" * len(_COLUMNS) + "|"]
    lines += [f"| {' | '.join(str(one.get(name, '')) for name in _COLUMNS)} |" for one in figures]
    lines += [f"{one['scene']}, {one['runtime']}: {one['error']}" for one in figures if "error" in one]
    return "\n".join(lines)


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


def _installed() -> list[str]:
    packages = {"openvino": "openvino", "litert": "ai_edge_litert", "tensorflow": "tensorflow"}
    return [name for name in _RUNTIMES if find_spec(packages[name]) is not None]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, nargs="?")
    parser.add_argument("--scene", type=Path, nargs="+", help="GeoTIFFs, in place of --sizes")
    parser.add_argument("--sizes", nargs="+", default=["2000x2000", "10000x10000"], help="rows x columns")
    parser.add_argument("--valid", type=float, default=1.0, help="share of the scene that holds data")
    parser.add_argument("--runtimes", nargs="+", choices=_RUNTIMES, default=_installed())
    parser.add_argument("--memory", help="memory of a process, such as 2G")
    parser.add_argument("--tile", help="side of a window, pixels")
    parser.add_argument("--scratch", type=Path, help="folder of temporary scenes and maps")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.bundle is None and options.child is None:
        parser.error("expected a bundle")
    return options


if __name__ == "__main__":
    main()
