"""Damaged and forged raster files: TIFF, PNG and JPEG with wrong headers, VRT that GDAL should not trust, odd names."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import rasterio
from PIL import Image

from tests.faults.cases import LITERT, Assets, Call, Case
from tests.faults.conftest import write_scene

_EXTREMES = (0, 1, 2, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1)

PREDICT = ("predict", str(LITERT))


def fuzzed_tiff(data: bytes, rng: np.random.Generator) -> bytes:
    """Change entries of the first directory, bytes near the start, or the length."""
    content = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        kind = rng.integers(5)
        if kind < 3 and content[2] == 42:
            _change_entry(content, rng)
        elif kind == 3:
            for at in rng.integers(0, min(512, len(content)), rng.integers(1, 6)):
                content[at] = rng.integers(256)
        else:
            del content[int(rng.integers(1, len(content))) :]
            break
    return bytes(content)


def _change_entry(content: bytearray, rng: np.random.Generator) -> None:
    """Change type, count or value of a random entry of the first directory of a classic TIFF."""
    start = struct.unpack_from("<I", content, 4)[0]
    if start + 2 > len(content):
        return
    entries = struct.unpack_from("<H", content, start)[0]
    at = start + 2 + 12 * int(rng.integers(max(1, entries)))
    if at + 12 > len(content):
        return
    value = int(rng.choice(_EXTREMES)) if rng.random() < 0.7 else int(rng.integers(2**32))
    offset, layout = ((2, "<H"), (4, "<I"), (8, "<I"))[rng.choice(3, p=[0.2, 0.2, 0.6])]
    struct.pack_into(layout, content, at + offset, value % 2 ** (16 if layout == "<H" else 32))


def fuzzed_png(data: bytes, rng: np.random.Generator) -> bytes:
    """Change a chunk and write its checksum anew, drop or repeat a chunk, or cut the file."""
    chunks, at = [], 8
    while at < len(data):
        length = struct.unpack_from(">I", data, at)[0]
        chunks.append((data[at + 4 : at + 8], bytearray(data[at + 8 : at + 8 + length])))
        at += 12 + length
    kind, number = rng.integers(6), int(rng.integers(len(chunks)))
    if kind <= 1:  # the header: size, depth, colour, method
        header = chunks[0][1]
        if kind == 0:
            struct.pack_into(">I", header, 4 * int(rng.integers(2)), int(rng.choice(_EXTREMES)))
        else:
            header[int(rng.integers(8, 13))] = rng.integers(256)
    elif kind == 2 and chunks[number][1]:
        chunks[number][1][int(rng.integers(len(chunks[number][1])))] ^= 1 << int(rng.integers(8))
    elif kind == 3:
        del chunks[number]
    elif kind == 4:
        chunks.insert(number, chunks[int(rng.integers(len(chunks)))])
    made = data[:8] + b"".join(_chunk(name, bytes(body)) for name, body in chunks)
    return made[: int(rng.integers(1, len(made)))] if kind == 5 else made


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def fuzzed_jpeg(data: bytes, rng: np.random.Generator) -> bytes:
    """Change the frame header, the length of a segment, bytes of the header, or the length of the file."""
    content = bytearray(data)
    frame = content.find(b"\xff\xc0")
    scan = content.find(b"\xff\xda")
    kind = rng.integers(4)
    if kind == 0 and frame >= 0:
        struct.pack_into(">H", content, frame + 5 + 2 * int(rng.integers(2)), int(rng.choice((0, 1, 7, 2**15, 65535))))
    elif kind == 1 and frame >= 0:
        content[frame + int(rng.integers(4, 19))] = rng.integers(256)
    elif kind == 2:
        for at in rng.integers(2, scan, 4):
            content[at] = rng.integers(256)
    else:
        del content[int(rng.integers(4, len(content))) :]
    return bytes(content)


FUZZ = {".tif": fuzzed_tiff, ".png": fuzzed_png, ".jpg": fuzzed_jpeg}

_PROFILES = (
    {},
    {"tiled": False, "compress": None},
    {"compress": "jpeg", "photometric": "ycbcr"},
    {"compress": "lzw", "predictor": 2},
    {"interleave": "band", "compress": "packbits", "tiled": False},
    {"nodata": 0},
)


def _pixels(seed: int, height: int = 160, width: int = 200) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)


def _scene(suffix: str, number: int) -> Callable[[Path, np.random.Generator, Assets], Call]:
    def make(folder: Path, rng: np.random.Generator, assets: Assets) -> Call:
        scene = folder / f"area{suffix}"
        if suffix == ".tif":
            options = _PROFILES[number % len(_PROFILES)]
            write_scene(scene, **{"driver": "GTiff", **options})
        else:
            Image.fromarray(_pixels(0)).save(scene)
        scene.write_bytes(FUZZ[suffix](scene.read_bytes(), rng))
        return (*PREDICT, scene.name, "--out", "out", "--gsd", "0.8", "--memory", "2G")

    return make


def _dem(folder: Path, rng: np.random.Generator, assets: Assets) -> Call:
    write_scene(folder / "area.tif")
    heights = np.add.outer(np.arange(90.0), np.arange(110.0)).astype(np.float32)
    profile = {"driver": "GTiff", "dtype": "float32", "count": 1, "height": 90, "width": 110, "crs": "EPSG:32648"}
    with rasterio.open(
        folder / "dem.tif", "w", transform=rasterio.Affine(2, 0, 529980, 0, -2, 3020020), **profile
    ) as raster:
        raster.write(heights, 1)
    (folder / "dem.tif").write_bytes(fuzzed_tiff((folder / "dem.tif").read_bytes(), rng))
    return (*PREDICT, "area.tif", "--out", "out", "--dem", "dem.tif", "--min-slope", "5", "--memory", "2G")


def _tile(part: str, suffix: str) -> Callable[[Path, np.random.Generator, Assets], Call]:
    """Damage one image or mask of a small set of tiles."""

    def make(folder: Path, rng: np.random.Generator, assets: Assets) -> Call:
        data = assets.copy_tiles(folder)
        (folder / "out").mkdir()
        old = data / "landslide" / part / "ls_1.png"
        with Image.open(old) as image:
            pixels = np.asarray(image)
        old.unlink()
        file = old.with_suffix(suffix)
        if suffix == ".tif":
            bands = np.atleast_3d(pixels).transpose(2, 0, 1)
            count, height, width = bands.shape
            profile = {"driver": "GTiff", "dtype": "uint8", "count": count, "height": height, "width": width}
            with rasterio.open(file, "w", **profile) as raster:
                raster.write(bands)
        else:
            Image.fromarray(pixels).save(file)
        file.write_bytes(FUZZ[suffix](file.read_bytes(), rng))
        return ("data", "stats", "data", "--json", "out/stats.json", "--size", "32")

    return make


_VRT = (
    '<VRTDataset rasterXSize="{width}" rasterYSize="{height}">'
    "<GeoTransform>530000, 0.8, 0, 3020000, 0, -0.8</GeoTransform>{bands}</VRTDataset>"
)

_SOURCE = '<SimpleSource><SourceFilename relativeToVRT="1">{}</SourceFilename><SourceBand>1</SourceBand></SimpleSource>'

_PYTHON = (
    "<PixelFunctionType>harm</PixelFunctionType><PixelFunctionLanguage>Python</PixelFunctionLanguage>"
    "<PixelFunctionCode><![CDATA[def harm(*a):\n  open('planted', 'w')\n]]></PixelFunctionCode>"
)


def _vrt(source: str, width: int = 200, height: int = 160, kind: str = "") -> str:
    band = f'<VRTRasterBand dataType="Byte" band="{{}}"{kind}>{source}</VRTRasterBand>'
    return _VRT.format(width=width, height=height, bands="".join(band.format(number) for number in (1, 2, 3)))


_WMS = (
    "<GDAL_WMS><Service name='TMS'><ServerUrl>http://127.0.0.1:9/${z}/${x}/${y}.png</ServerUrl></Service>"
    "<DataWindow><UpperLeftX>0</UpperLeftX><UpperLeftY>100</UpperLeftY><LowerRightX>100</LowerRightX>"
    "<LowerRightY>0</LowerRightY><TileLevel>1</TileLevel><TileCountX>1</TileCountX><TileCountY>1</TileCountY>"
    "</DataWindow><BandsCount>3</BandsCount></GDAL_WMS>"
)

SCENES: dict[str, str | bytes] = {
    "vrt of itself": _vrt(_SOURCE.format("area.tif")),
    "vrt of a missing file": _vrt(_SOURCE.format("absent.tif")),
    "vrt of a text file": _vrt(_SOURCE.format("/etc/hostname")),
    "vrt of a closed port": _vrt(_SOURCE.format("/vsicurl/http://127.0.0.1:9/scene.tif")),
    "vrt of 4 billion pixels a side": _vrt("", 2**31 - 1, 2**31 - 1),
    "vrt of no pixels": _vrt("", 0, 0),
    "vrt with python": _vrt(_PYTHON + _SOURCE.format("twin.tif"), kind=' subClass="VRTDerivedRasterBand"'),
    "xml that is cut": _vrt("")[:100],
    "tile server": _WMS,
    "xml entities": '<!DOCTYPE a [<!ENTITY b "bbbbbbbb">]><VRTDataset>&b;</VRTDataset>',
    "text": "not a raster at all\n",
    "nothing": "",
    "zeros": b"\0" * 4096,
    "tiff without a directory": b"II*\0\0\0\0\0",
    "tiff whose directory is itself": b"II*\0\x08\0\0\0\0\0\x08\0\0\0",
    "zip": b"PK\x03\x04" + b"\0" * 60,
    "png with a first chunk of 2 GiB": b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 2**31 - 1) + b"IHDR" + b"\0" * 40,
    "png of 60,000 px a side": b"\x89PNG\r\n\x1a\n"
    + _chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    + _chunk(b"IDAT", zlib.compress(b"\0" * 1000))
    + _chunk(b"IEND", b""),
}


def _made_scene(content: str | bytes) -> Callable[[Path, np.random.Generator, Assets], Call]:
    def make(folder: Path, rng: np.random.Generator, assets: Assets) -> Call:
        write_scene(folder / "twin.tif")
        (folder / "area.tif").write_bytes(content.encode() if isinstance(content, str) else content)
        return (*PREDICT, "area.tif", "--out", "out", "--memory", "2G")

    return make


NAMES = (
    "two words and  blanks.tif",
    "[bold red]area[blink].tif",
    "quotes \" ' `.tif",
    "percent %s %d {0} {name}.tif",
    "line\nbreak.tif",
    "\x1b[31mred.tif",
    "a..b.tif",
    "日本の崖 é.tif",
    "bytes \udcff\udcfe.tif",
    "semi;colon&amp<xml>.tif",
    "x" * 215 + ".tif",
    "x" * 250 + ".tif",
    "#1?a=b.tif",
    "loud!area.tif",
)


def _named(name: str) -> Callable[[Path, np.random.Generator, Assets], Call]:
    def make(folder: Path, rng: np.random.Generator, assets: Assets) -> Call:
        write_scene(folder / "area.tif").rename(folder / name)  # rasterio takes no names that are not UTF-8
        return (*PREDICT, name, "--out", "out", "--geojson", "--memory", "2G")

    return make


def _special(kind: str) -> Callable[[Path, np.random.Generator, Assets], Call]:
    """Name a pipe, a device or a folder where a raster belongs."""

    def make(folder: Path, rng: np.random.Generator, assets: Assets) -> Call:
        write_scene(folder / "area.tif")
        file = assets.special(folder, "odd.tif", kind)
        return (*PREDICT, file, "--out", "out", "--memory", "2G")

    return make


def cases() -> list[Case]:
    """List the cases."""
    made = [Case("scenes", "unchanged", _named("area.tif"), fails=False)]
    made += [Case("scenes", f"tiff {number}", _scene(".tif", number)) for number in range(30)]
    made += [Case("scenes", f"png {number}", _scene(".png", number)) for number in range(8)]
    made += [Case("scenes", f"jpeg {number}", _scene(".jpg", number)) for number in range(8)]
    made += [Case("scenes", name, _made_scene(content)) for name, content in SCENES.items()]
    made += [Case("scenes", kind, _special(kind), fails=True) for kind in ("pipe", "/dev/zero", "/dev/null", "folder")]
    made += [Case("names of scenes", f"name {number}", _named(name)) for number, name in enumerate(NAMES)]
    made += [Case("elevation models", f"tiff {number}", _dem) for number in range(6)]
    for part, kind in (("image", "tile images"), ("mask", "tile masks")):
        for suffix in (".png", ".jpg", ".tif") if part == "image" else (".png", ".tif"):
            made += [Case(kind, f"{suffix[1:]} {number}", _tile(part, suffix)) for number in range(5)]
    return made
