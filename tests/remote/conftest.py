"""A model that needs no TensorFlow, scenes, and a counting web server.

storage     S3 server with the empty bucket "maps"; a client of boto3
bright      model: probability 1 where the mean of the bands is above 150, else 0
server      web server of the folder `served`; counts what it sends
write       write(name, **options): a noisy scene in the folder `served`, with a landslide
"""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
import rasterio
from rasterio import Affine

from lim_keras.bundle.info import BundleInfo
from lim_keras.bundle.protocol import EnsemblePrediction
from tests.conftest import bundle_info
from tests.remote.range_server import RangeServer


class Bright:
    """Model that marks bright pixels; counts its windows."""

    info: BundleInfo = bundle_info(stride=1, halo=64)

    def __init__(self) -> None:
        self.windows = 0

    def predict_all(self, images: np.ndarray) -> EnsemblePrediction:
        self.windows += 1
        probability = (images.mean(axis=-1) > 150).astype(np.float32)
        return EnsemblePrediction(probability, np.zeros_like(probability), (probability > 0.5).astype(np.int32))


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """Address of an S3 server in a process of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-c", f"from moto.server import main; main(['-p', '{port}'])"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        address = f"http://127.0.0.1:{port}"
        for _ in range(300):
            with suppress(OSError), urllib.request.urlopen(f"{address}/moto-api/"):
                break
            time.sleep(0.1)
        yield address
        process.kill()


@pytest.fixture
def storage(s3: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    urllib.request.urlopen(urllib.request.Request(f"{s3}/moto-api/reset", method="POST")).close()
    for name in [name for name in os.environ if name.startswith(("AWS_", "AZURE_", "GOOGLE_", "GS_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "tester")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "tester")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    client = boto3.client("s3")
    client.create_bucket(Bucket="maps")
    return client


@pytest.fixture
def bright() -> Bright:
    return Bright()


@pytest.fixture
def without_preview(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw no previews, which take most of the time of a small scene."""
    monkeypatch.setattr("lim_keras.api.scenes._read_preview", None)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="module")
def server(served: Path) -> Iterator[RangeServer]:
    with RangeServer(served) as running, pytest.MonkeyPatch.context() as patch:
        # Small scenes would fit into the caches of GDAL.
        patch.setenv("CPL_VSIL_CURL_CACHE_SIZE", str(2**19))
        patch.setattr("lim_keras.raster.opening.CACHE_BYTES", 2**18)
        yield running


@pytest.fixture
def write(served: Path) -> Callable[..., Path]:
    def write_scene(name: str, height: int = 200, width: int = 300, **options: Any) -> Path:
        image = np.random.default_rng(0).integers(1, 120, (3, height, width)).astype(np.uint8)
        image[:, 40:100, 50:150] = 220
        place = {"crs": "EPSG:32648", "transform": Affine(0.8, 0, 5e5, 0, -0.8, 3e6)}
        tiles = {"tiled": True, "blockxsize": 128, "blockysize": 128, "compress": "deflate"}
        profile = {"driver": "GTiff", "width": width, "height": height, "count": 3, "dtype": "uint8"}
        path = served / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with rasterio.open(path, "w", **profile | place | tiles | options) as file:
            if options.get("nodata") is not None:
                image[:, -40:] = options["nodata"]
            file.write(image[: file.count])
        return path

    return write_scene
