"""Fingerprints change with all that the pixels of a raster depend on, and with nothing else."""

import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio import Affine
from rasterio.enums import Resampling
from rasterio.io import MemoryFile
from rasterio.vrt import WarpedVRT

from lim_keras.raster.reader import RasterReader
from lim_keras.raster.writer import write_raster

PIXELS = np.random.default_rng(0).integers(1, 250, (64, 96, 3)).astype(np.uint8)
STATISTICS = '<Metadata>\n<MDI key="STATISTICS_MEAN">92.1</MDI> <MDI key="STATISTICS_STDDEV">9</MDI></Metadata>'
PLACE = {"crs": "EPSG:32648", "transform": Affine(2, 0, 500_000, 0, -2, 3_000_000)}


def fingerprint(source: Any) -> list[Any]:
    with RasterReader(source) as reader:
        return reader.fingerprint


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return write_raster(tmp_path / "scene.tif", PIXELS, **PLACE)


def vrt(path: Path, source: str, relative: int = 1) -> Path:
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{band}"><SimpleSource>'
        f'<SourceFilename relativeToVRT="{relative}">{source}</SourceFilename>'
        f"<SourceBand>{band}</SourceBand></SimpleSource></VRTRasterBand>"
        for band in (1, 2, 3)
    )
    path.write_text(f'<VRTDataset rasterXSize="96" rasterYSize="64">{bands}</VRTDataset>')
    return path


def add_mask(scene: Path) -> None:
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(scene, "r+") as file:
        file.write_mask(np.arange(64 * 96).reshape(64, 96) % 7 > 0)


def add_overviews(scene: Path) -> None:
    with rasterio.Env(TIFF_USE_OVR=True), rasterio.open(scene, "r+") as file:
        file.build_overviews([2], Resampling.average)


def add_metadata(scene: Path) -> None:
    band = '<PAMRasterBand band="1"><NoDataValue>7</NoDataValue></PAMRasterBand>'
    scene.with_name("scene.tif.aux.xml").write_text(f"<PAMDataset>{band}</PAMDataset>")


def replace_unnoticed(scene: Path) -> None:
    """Another content of the same size and the same modification time."""
    before = scene.stat()
    content = bytearray(scene.read_bytes())
    content[-1] ^= 1
    scene.write_bytes(content)
    os.utime(scene, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("change", [add_mask, add_overviews, add_metadata, replace_unnoticed])
def test_a_scene_and_its_sidecars(scene: Path, change: Callable[[Path], None]) -> None:
    before = fingerprint(scene)
    assert before == fingerprint(scene)
    change(scene)
    assert fingerprint(scene) != before


def test_a_world_file_that_is_added_later(tmp_path: Path) -> None:
    scene = write_raster(tmp_path / "scene.tif", PIXELS)
    before = fingerprint(scene)
    scene.with_suffix(".tfw").write_text("2\n0\n0\n-2\n500000\n3000000\n")
    assert fingerprint(scene) != before


@pytest.mark.parametrize("change", [add_mask, add_metadata, replace_unnoticed])
@pytest.mark.parametrize("relative", [0, 1])
def test_sources_of_virtual_rasters(scene: Path, tmp_path: Path, change: Callable[[Path], None], relative: int) -> None:
    inner = vrt(tmp_path / "inner.vrt", "scene.tif" if relative else str(scene), relative)
    outer = vrt(tmp_path / "outer.vrt", "inner.vrt")
    before = fingerprint(inner), fingerprint(outer)
    assert before == (fingerprint(inner), fingerprint(outer))
    change(scene)
    assert fingerprint(inner) != before[0] and fingerprint(outer) != before[1]
    inner.write_text(inner.read_text() + " ")
    assert fingerprint(outer) != before[1]


def test_a_virtual_raster_that_names_itself_ends(tmp_path: Path, scene: Path) -> None:
    path = vrt(tmp_path / "inner.vrt", "outer.vrt")
    vrt(tmp_path / "outer.vrt", "inner.vrt")
    assert [entry[0] for entry in fingerprint(path)[3:]] == ["inner.vrt", "outer.vrt"]


def test_statistics_of_other_programs_do_not_count(scene: Path) -> None:
    """QGIS writes them when it shows a scene."""
    before, path = fingerprint(scene), scene.with_name("scene.tif.aux.xml")
    path.write_text(f"<PAMDataset>\n<PAMRasterBand band='1'>{STATISTICS}</PAMRasterBand>\n</PAMDataset>\n")
    assert fingerprint(scene) == before
    add_metadata(scene)
    before = fingerprint(scene)
    path.write_text(path.read_text().replace("</PAMRasterBand>", f"{STATISTICS}</PAMRasterBand>"))
    assert fingerprint(scene) == before


def test_a_folder_that_is_moved(scene: Path, tmp_path: Path) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    shutil.move(scene, folder / "scene.tif")
    vrt(folder / "mosaic.vrt", "scene.tif")
    before = fingerprint(folder / "mosaic.vrt")
    folder.rename(tmp_path / "b")
    assert fingerprint(tmp_path / "b" / "mosaic.vrt") == before


def test_archives_memory_and_warped_datasets(scene: Path, tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    names = f"/vsizip/{archive}/scene.tif", f"zip://{archive}!scene.tif"
    with zipfile.ZipFile(archive, "w") as file:
        file.write(scene, "scene.tif")
    zipped = [fingerprint(name) for name in names]
    replace_unnoticed(archive)
    assert all(fingerprint(name) != one for name, one in zip(names, zipped, strict=True))
    with MemoryFile(scene.read_bytes()) as one, MemoryFile(scene.read_bytes()) as same:
        in_memory = fingerprint(one.name)
        assert fingerprint(same.name) == in_memory
    with rasterio.open(scene, "r+") as file:
        file.write(np.full((1, 1), 255, np.uint8), 1, window=((40, 41), (50, 51)))  # one pixel
    with MemoryFile(scene.read_bytes()) as other:
        assert fingerprint(other.name) != in_memory
    with rasterio.open(scene) as file:
        with WarpedVRT(file, crs="EPSG:4326") as warped:
            before = fingerprint(warped)
        replace_unnoticed(scene)
        with WarpedVRT(file, crs="EPSG:4326") as warped:
            assert fingerprint(warped) != before
        with WarpedVRT(file, crs="EPSG:3857") as warped:
            assert fingerprint(warped) != fingerprint(file)
