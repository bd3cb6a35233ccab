"""The error on a raster that cannot be read names the true cause and a cure."""

import gzip
import http.server
import os
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import rasterio
from rasterio import Affine

from lim_keras.errors import DataError
from lim_keras.raster.images import read_image
from lim_keras.raster.reader import RasterReader
from lim_keras.raster.writer import write_raster

PIXELS = np.random.default_rng(0).integers(1, 250, (64, 96, 3)).astype(np.uint8)
DAMAGED = "truncated or damaged"


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    transform = Affine(2, 0, 500_000, 0, -2, 3_000_000)
    return write_raster(tmp_path / "scene.tif", PIXELS, crs="EPSG:32648", transform=transform)


def message(source: object) -> str:
    with pytest.raises(DataError) as caught, RasterReader(source) as reader:
        reader.image()
    text = str(caught.value)
    assert "\n" not in text and str(source).removeprefix("/vsicurl/") in text
    return text


@pytest.mark.parametrize(
    ("name", "content", "cause"),
    [
        ("a.tif", b"", r"is empty: the file has no bytes.*Replace it"),
        ("a.tif", b"\0" * 9000, "starts with zeros, as after an interrupted copy"),
        ("a.tif", b"<!DOCTYPE html><html><body>Log in</body></html>", r"is a web page \(HTML\)"),
        ("a.tif", b"\xef\xbb\xbf\n<HTML></HTML>", r"is a web page \(HTML\)"),
        ("a.tif", b"<?xml version='1.0'?><Error>AccessDenied</Error>", "is an XML file, not a raster"),
        ("a.tif", b'{"error": "denied"}', "is a JSON file, not a raster"),
        ("a.tif", b"x,y,z\n1,2,3\n", "is a text file, not a raster"),
        ("a.tif", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", r"pointer of Git LFS.*git lfs pull"),
        ("a.ecw", b"\0ecw" * 100, r"is a \.ecw file, which this GDAL \([\d.]+\) has no driver for"),
        ("a.hdf", b"\x0e\x03\x13\x01" + bytes(90), "is an HDF4 file, which this GDAL"),
        ("a.sid", b"msid\x01\0" + bytes(90), "is a MrSID image, which this GDAL"),
        ("a.jxl", b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(90), "is a JPEG XL image, which this GDAL"),
        ("a.bin", bytes(range(200, 250)) + b"\0", "has a format that this GDAL"),
        ("a.vrt", b"<VRTDataset rasterXSize='9'", r"virtual raster \(VRT\) that GDAL cannot use"),
    ],
    ids=range(14),
)
def test_files_that_are_no_rasters(tmp_path: Path, name: str, content: bytes, cause: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=cause) as caught:
        RasterReader(path)
    assert DAMAGED not in str(caught.value)


def test_truncated_files(scene: Path) -> None:
    content = scene.read_bytes()
    for length in (4, 8, len(content) // 2):
        scene.write_bytes(content[:length])
        assert DAMAGED in message(scene) and "Replace it" in message(scene)


def test_archives_name_the_raster_in_them(scene: Path, tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.write(scene, "inside/scene.tif")
    inside = f"/vsizip/{archive}/inside/scene.tif"
    assert f"or give `{inside}`" in message(archive)
    (tmp_path / "scene.tif.gz").write_bytes(gzip.compress(scene.read_bytes()))
    zipped = f"/vsigzip/{tmp_path}/scene.tif.gz"
    assert f"or give `{zipped}`" in message(tmp_path / "scene.tif.gz")
    for name in (inside, zipped):  # the cures work, also where a `Path` merged the slashes
        for source in (name, Path(name), Path(f"zip://{archive}!inside/scene.tif")):
            with RasterReader(source) as reader:
                np.testing.assert_array_equal(reader.pixels(), PIXELS)
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as file:
        file.add(scene, "scene.tif")
    assert "is an archive (tar)" in message(tmp_path / "a.tar.gz")
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("readme.txt", "")
    assert "ZIP archive without a raster" in message(archive)


def test_a_relative_archive(scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.write(scene, "scene.tif")
    monkeypatch.chdir(tmp_path)
    for source in ("/vsizip/a.zip/scene.tif", Path("/vsizip/a.zip/scene.tif")):
        with RasterReader(source) as reader:
            assert reader.pixels().shape == PIXELS.shape


@pytest.mark.parametrize(("code", "name"), [(52546, "JXL"), (34661, "JBIG"), (1234, "1234")])
def test_a_missing_codec(tmp_path: Path, code: int, name: str) -> None:
    path = write_raster(tmp_path / "a.tif", PIXELS)
    content = bytearray(path.read_bytes())
    start = struct.unpack("<I", content[4:8])[0]
    for entry in range(start + 2, start + 2 + 12 * struct.unpack("<H", content[start : start + 2])[0], 12):
        if struct.unpack("<H", content[entry : entry + 2])[0] == 259:  # compression
            content[entry + 8 : entry + 10] = struct.pack("<H", code)
    path.write_bytes(content)
    text = message(path)
    assert f"is compressed with {name}, which this GDAL ({rasterio.__gdal_version__}) cannot decode" in text
    assert DAMAGED not in text


def vrt(path: Path, source: str) -> Path:
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{band}"><SimpleSource><SourceFilename relativeToVRT="1">{source}'
        f"</SourceFilename><SourceBand>{band}</SourceBand></SimpleSource></VRTRasterBand>"
        for band in (1, 2, 3)
    )
    path.write_text(f'<VRTDataset rasterXSize="96" rasterYSize="64">{bands}</VRTDataset>')
    return path


def test_virtual_rasters_name_their_sources(scene: Path, tmp_path: Path) -> None:
    inner = vrt(tmp_path / "inner.vrt", "scene.tif")
    outer = vrt(tmp_path / "outer.vrt", "inner.vrt")
    content = scene.read_bytes()
    scene.write_bytes(content[: len(content) // 2])
    for path in (inner, outer):
        assert "one of its sources is truncated or damaged" in message(path)
    scene.unlink()
    for path in (inner, outer):  # before any pixel is read
        with pytest.raises(DataError, match=rf"its source {scene} is missing\. Put that file there"):
            RasterReader(path)
    assert "names itself among its sources" in message(vrt(tmp_path / "self.vrt", "self.vrt"))


def test_links_folders_pipes_and_permissions(scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link, pipe = tmp_path / "link.tif", tmp_path / "pipe.tif"
    link.symlink_to(tmp_path / "gone.tif")
    assert f"is a link to {tmp_path / 'gone.tif'}, which cannot be followed" in message(link)
    os.mkfifo(pipe)
    assert "is a pipe, a socket or a device" in message(pipe)
    assert "is a folder" in message(tmp_path)
    monkeypatch.setattr("os.access", lambda path, mode: False)
    assert "you have no permission to read it" in message(scene)


class _Handler(http.server.BaseHTTPRequestHandler):
    """Answer /code404 with 404 and the like, and everything else with a web page, without parts of files."""

    def do_GET(self) -> None:
        code = int(self.path[5:8]) if self.path.startswith("/code") else 200
        body = b"<html>log in</html>" * (50_000 if self.path == "/large.tif" else 9)
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815  http.server finds it by this name


if __name__ == "__main__":
    with http.server.HTTPServer(("127.0.0.1", 0), _Handler) as _server:
        print(_server.server_port, flush=True)
        _server.serve_forever()


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with subprocess.Popen(
        [sys.executable, __file__], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        assert server.stdout is not None
        yield f"http://127.0.0.1:{server.stdout.readline().strip()}"
        server.terminate()


@pytest.mark.parametrize(
    ("path", "cause"),
    [
        ("code404.tif", "is not there: the server answers 404"),
        ("code403.tif", "the server refuses access"),
        ("code401.tif", "the server refuses access"),
        ("code500.tif", "cannot be reached over the network"),
        ("page.tif", "The server may answer with a web page"),
        ("large.tif", "its server sends no parts of files"),
    ],
)
def test_servers(address: str, path: str, cause: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GDAL_HTTP_RETRY_DELAY", "0.05")  # seconds before the first repetition
    for name in (f"{address}/{path}", f"/vsicurl/{address}/{path}"):
        text = message(name)
        assert cause in text and DAMAGED not in text
    assert cause in message_of_path(f"/vsicurl/{address}/{path}")


def message_of_path(name: str) -> str:
    with pytest.raises(DataError) as caught:
        RasterReader(Path(name))  # it merges the slashes of the address
    return str(caught.value)


def test_a_server_that_is_not_there() -> None:
    assert "cannot be reached over the network" in message("http://127.0.0.1:9/scene.tif")


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_header_that_lies_about_its_size(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    content = bytearray(cv2.imencode(suffix, PIXELS)[1].tobytes())
    if suffix == ".jpg":
        at = content.find(b"\xff\xc0") + 5
        content[at : at + 4] = struct.pack(">HH", 65_000, 65_000)
    else:
        content[16:24] = struct.pack(">II", 2**17, 2**17)
        content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"a{suffix}: its header says \d+ x \d+ px, more than a file of"):
        read_image(path)


def test_a_truncated_jpeg_scene(tmp_path: Path) -> None:
    """GDAL would show grey for the rest."""
    path = tmp_path / "a.jpg"
    content = cv2.imencode(".jpg", PIXELS)[1].tobytes()
    path.write_bytes(content)
    with RasterReader(path) as reader:
        assert reader.pixels().shape == PIXELS.shape
    for length in (len(content) - 2, len(content) // 2):
        path.write_bytes(content[:length])
        assert "truncated or damaged (its scan ends before its last pixel)" in message(path)


def test_unknown_tags_do_not_stop_the_reading(tmp_path: Path) -> None:
    """Cameras and scanners write private tags; GDAL warns of them once."""
    path = write_raster(tmp_path / "a.tif", PIXELS)
    content = bytearray(path.read_bytes())
    start = struct.unpack("<I", content[4:8])[0]
    number = struct.unpack("<H", content[start : start + 2])[0]
    last = start + 2 + 12 * (number - 1)
    content[last : last + 2] = struct.pack("<H", 65_410)
    path.write_bytes(content)
    with rasterio.Env(), RasterReader(path) as reader:
        assert not reader.has_palette
    np.testing.assert_array_equal(read_image(path), PIXELS)
