"""Fixtures of all tests. Each writer takes a path below pytest's `tmp_path`.

write_picture(path, array)          PNG or JPEG (by suffix) from uint8/uint16 (h, w[, bands]) in RGB(A) order
write_png(path, rows, colour, ...)  PNG chunk by chunk: palettes, 1 bit per pixel, transparency
bijie_folder(root, ...)             landslide/{image,mask} and non-landslide/image, tiles of different sizes
pairs_folder(root, ...)             images/ and masks/
real_data                           folder LIM_KERAS_DATA; skips without it
ended                               number of a process that has ended
models, bundle_path, copied         three small networks (tests/export/conftest.py), their bundle, and a copy of it

To be imported: model_facts(**changes) and bundle_info(**changes), the contents of the model.json of a small model
before and after export; fitted_rule(balanced=(threshold, peak, area)), an object rule; largest_file(size), in which
writes beyond a size fail.
"""

import os
import resource
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from lim_keras.bundle.info import BandStatistics, BundleInfo, ModelFacts
from lim_keras.bundle.object_rule import CurvePoint, FittedRule, WorkingPoint
from lim_keras.metrics.binary import Estimate
from lim_keras.pyogrio_import import load_pyogrio

load_pyogrio()  # test modules may import TensorFlow, and pyogrio after it


def _facts(changes: dict[str, Any]) -> dict[str, Any]:
    bands = changes.get("bands", 3)
    return {
        "name": "tiny",
        "model": {},
        "sampling": {"mode": "windows", "size": 64},
        "bands": bands,
        "dtype": "uint8",
        "gsd_m": 0.8,
        "stride": 1,
        "statistics": (BandStatistics(mean=120.0, std=60.0, min=0.0, max=255.0),) * bands,
        "threshold": 0.5,
        "temperature": 1.0,
        "metrics": {},
        "config_hash": "0" * 64,
    } | changes


def model_facts(**changes: Any) -> ModelFacts:
    """Make the facts that training records of a small 8-bit model."""
    return ModelFacts.model_validate(_facts(changes))


def bundle_info(**changes: Any) -> BundleInfo:
    """Make the model.json of a bundle of one such model."""
    exported = {
        "lim_keras_version": "0",
        "created": datetime(2026, 1, 1, tzinfo=UTC),
        "versions": {},
        "folds": 1,
        "halo": 4,
        "bytes_per_pixel": 40.0,
        "files": {},
    }
    return BundleInfo.model_validate(_facts(exported | changes))


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let the system refuse to write beyond a size, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def _write_picture(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if array.ndim == 3 and array.shape[2] >= 3:
        array = cv2.cvtColor(array, cv2.COLOR_RGB2BGR if array.shape[2] == 3 else cv2.COLOR_RGBA2BGRA)
    done, data = cv2.imencode(path.suffix, array)
    assert done
    path.write_bytes(data.tobytes())
    return path


def _write_png(
    path: Path, rows: np.ndarray, colour: int, *, depth: int = 8, chunks: dict[bytes, bytes] | None = None
) -> Path:
    """rows: (h, bytes per row) uint8; colour: PNG colour type; chunks: written before the pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    width = rows.shape[1] * 8 // (depth * channels)
    lines = b"".join(b"\0" + row.tobytes() for row in rows)  # filter type 0 before each row
    header = struct.pack(">IIBBBBB", width, len(rows), depth, colour, 0, 0, 0)
    parts = {b"IHDR": header, **(chunks or {}), b"IDAT": zlib.compress(lines), b"IEND": b""}
    body = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts.items()
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


LONGEST = (
    "tests/workers/test_ray_workers.py",
    "tests/demo/test_demo.py",
    "tests/cli/test_predict.py",
    "tests/test_api.py",
    "tests/cli/test_cv.py",
    "tests/training/test_resume.py",
    "tests/training/test_fit.py",
    "tests/training/test_cross_validation.py",
    "tests/edge/test_edge.py",
    "tests/inference/test_predict_maps.py",
    "tests/export/test_saved_model.py",
)
"""Files that take longest. Begun first, none of them is left to one process while the other is done."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    _leave_out_faults(config, items)
    ranks = {Path(__file__).parents[1] / name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path, len(ranks)))


def _leave_out_faults(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the fault harness except for its sample, unless `-m` names it."""
    if "faults" in config.option.markexpr:
        return
    left_out = [
        item for item in items if item.get_closest_marker("faults") and not item.get_closest_marker("faults_sample")
    ]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session")
def ended() -> int:
    process = subprocess.Popen([sys.executable, "-S", "-c", ""])
    process.wait()
    return process.pid


@pytest.fixture(scope="session")
def write_picture() -> Callable[..., Path]:
    return _write_picture


@pytest.fixture(scope="session")
def write_png() -> Callable[..., Path]:
    return _write_png


def _scene(rng: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Make noise with a brighter rectangle, and the rectangle as mask {0, 1}."""
    image = rng.integers(0, 100, (height, width, 3), np.uint8)
    mask = np.zeros((height, width), np.uint8)
    mask[height // 4 : height // 2, width // 4 : width // 2] = 1
    image[mask == 1] += 120
    return image, mask


@pytest.fixture(scope="session")
def bijie_folder() -> Callable[..., Path]:
    """bijie_folder(root, landslide=4, non_landslide=6, ending=".png"): 20 x 24 px and up; ids ls_0, nls_0, ..."""

    def make(root: Path, landslide: int = 4, non_landslide: int = 6, ending: str = ".png") -> Path:
        rng = np.random.default_rng(0)
        for number in range(landslide):
            image, mask = _scene(rng, 20 + 3 * number, 24 + number)
            _write_picture(root / "landslide" / "image" / f"ls_{number}{ending}", image)
            _write_picture(root / "landslide" / "mask" / f"ls_{number}.png", mask * 255)
        for number in range(non_landslide):
            image, _ = _scene(rng, 22 + 2 * number, 30 - number)
            _write_picture(root / "non-landslide" / "image" / f"nls_{number}{ending}", image)
        return root

    return make


@pytest.fixture(scope="session")
def pairs_folder() -> Callable[..., Path]:
    """pairs_folder(root, count=3): images/t_0.png and masks/t_0.png of 0 and 1, and so on; the last mask is empty."""

    def make(root: Path, count: int = 3) -> Path:
        rng = np.random.default_rng(1)
        for number in range(count):
            image, mask = _scene(rng, 16 + number, 18)
            _write_picture(root / "images" / f"t_{number}.png", image)
            _write_picture(root / "masks" / f"t_{number}.png", mask * (number < count - 1))
        return root

    return make


@pytest.fixture(scope="session")
def real_data() -> Path:
    folder = os.environ.get("LIM_KERAS_DATA")
    if not folder:
        pytest.skip("LIM_KERAS_DATA is not set to the folder of the real tiles")
    return Path(folder)


@pytest.fixture(scope="session")
def models() -> list[Any]:
    from tests.export.conftest import FOLDS, network

    return [network(seed) for seed in range(FOLDS)]


@pytest.fixture(scope="session")
def bundle_path(models: list[Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read only: tests that change files copy it."""
    from lim_keras.export.bundle import write_bundle
    from lim_keras.metrics.calibration import ImageBlindMask
    from tests.export.conftest import facts

    path = tmp_path_factory.mktemp("exported_models") / "tiny"
    write_bundle(path, facts(), models, ImageBlindMask(np.full((4, 6), 0.25, np.float32), 0.2))
    return path


@pytest.fixture
def copied(bundle_path: Path, tmp_path: Path) -> Path:
    """A bundle that a test may damage."""
    return Path(shutil.copytree(bundle_path, tmp_path / "tiny"))


def fitted_rule(**points: tuple[float, float, float]) -> FittedRule:
    """A rule with the given working points (threshold, peak, area); the others are as the balanced one."""
    values = {name: points.get(name, points["balanced"]) for name in ("sensitive", "balanced", "strict")}
    scores = {"f1_any_overlap": Estimate(0.9, 0.8, float("nan"))}

    def point(threshold: float, peak: float, area: float) -> WorkingPoint:
        return WorkingPoint(threshold=threshold, peak=peak, min_area_m2=area, scores=scores)

    return FittedRule(
        source="held_out",
        tiles=4,
        landslides=3,
        area_km2=1.5,
        without=point(0.5, 0, 0),
        working_points={name: point(*one) for name, one in values.items()},
        curve=(
            CurvePoint(
                threshold=0.3,
                peak=0.7,
                min_area_m2=0,
                recall=0.9,
                false_alarms_km2=None,
                f1_iou_50=0.5,
                f1_any_overlap=1,
            ),
        ),
    )
