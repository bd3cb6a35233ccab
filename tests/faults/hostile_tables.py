"""Damaged and forged manifests, configurations and vector files."""

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import geopandas
import numpy as np
import shapely

from tests.faults.cases import LITERT, Assets, Call, Case, Function
from tests.faults.conftest import write_scene

_LINE = "ls_0,landslide/image/ls_0.png,landslide/mask/ls_0.png"

_GOOD = f"tile_id,image,mask\n{_LINE}\nls_1,landslide/image/ls_1.png,landslide/mask/ls_1.png\n"

MANIFESTS: dict[str, str | bytes] = {
    "empty": "",
    "header only": "tile_id,image,mask\n",
    "wrong columns": f"id;picture;label\n{_LINE}\n",
    "column twice": f"tile_id,image,image\n{_LINE}\n",
    "too many cells": f"{_GOOD}ls_2,landslide/image/ls_2.png,landslide/mask/ls_2.png,1,2\n",
    "id that leaves its folder": _GOOD.replace("ls_1,", "../../ls_1,"),
    "absolute id": _GOOD.replace("ls_1,", "/tmp/ls_1,"),
    "id of a line break": _GOOD.replace("ls_1,", '"ls\n1",'),
    "id of markup": _GOOD.replace("ls_1,", "[bold]ls_1[/bold],"),
    "id of control characters": _GOOD.replace("ls_1,", "\x1b[2Jls_1,"),
    "id of 300 letters": _GOOD.replace("ls_1,", "x" * 300 + ","),
    "image above": _GOOD.replace("landslide/image/ls_1.png", "../../../../../../etc/passwd"),
    "image is a device": _GOOD.replace("landslide/image/ls_1.png", "/dev/zero"),
    "image is a pipe": _GOOD.replace("landslide/image/ls_1.png", "pipe"),
    "mask is a folder": _GOOD.replace("landslide/mask/ls_1.png", "landslide"),
    "open quote": _GOOD.replace("ls_1,", '"ls_1,'),
    "quote within": _GOOD.replace("ls_1,", 'ls"1,'),
    "nul": _GOOD.replace("ls_1,", "ls\0_1,"),
    "nul in a path": _GOOD.replace("landslide/image/ls_1.png", "landslide/image/ls\0_1.png"),
    "field of 200 kB": _GOOD.replace("ls_1,", "y" * 200_000 + ","),
    "path of 5,000 letters": _GOOD.replace("landslide/image/ls_1.png", "p/" * 2500),
    "byte order mark": b"\xef\xbb\xbf" + _GOOD.encode(),
    "utf-16": _GOOD.encode("utf-16"),
    "latin-1": _GOOD.replace("ls_1,", "é,").encode("latin-1"),
    "carriage returns": _GOOD.replace("\n", "\r"),
    "numbers that are none": f"tile_id,image,mask,x,gsd_m\n{_LINE},nan,inf\n",
    "negative and huge numbers": f"tile_id,image,mask,width,landslide_px\n{_LINE},-5,{'9' * 5000}\n",
    "kind and ignore of other words": f"tile_id,image,mask,kind,ignore\n{_LINE},maybe,256\n",
    "fold of words": f"tile_id,image,mask,fold\n{_LINE},test\n",
    "same tile 2,000 times": "tile_id,image,mask\n" + f"{_LINE}\n" * 2000,
    "binary": bytes(range(256)) * 40,
    "a formula": _GOOD.replace("ls_1,", "=cmd|' /C calc'!A0,"),
}


def _manifest(content: str | bytes) -> Callable[[Path, np.random.Generator, Assets], Call]:
    def make(folder: Path, rng: np.random.Generator, assets: Assets) -> Call:
        data = assets.copy_tiles(folder)
        (folder / "out").mkdir()
        assets.special(data, "pipe", "pipe")
        (data / "tiles.csv").write_bytes(content.encode() if isinstance(content, str) else content)
        return ("data", "stats", "data", "--json", "out/stats.json", "--size", "32")

    return make


def _fuzzed_manifest(folder: Path, rng: np.random.Generator, assets: Assets) -> Call:
    content = bytearray(_GOOD.encode())
    for at in rng.integers(0, len(content), 3):
        content[at] = rng.integers(256)
    return _manifest(bytes(content))(folder, rng, assets)


_BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)

CONFIGS: dict[str, str | bytes] = {
    "empty": "",
    "list": "- name\n- seed\n",
    "bomb of anchors": _BOMB + "name: *i\n",
    "bomb in a section": _BOMB + "name: tiny\nmodel: *i\n",
    "anchor of itself": "name: tiny\nmodel: &m {name: fcn, encoder: *m}\n",
    "merge of itself": "name: tiny\nmodel: &m\n  <<: *m\n  name: fcn\n",
    "python object": "name: !!python/object/apply:os.system ['touch planted']\n",
    "python module": "name: !!python/name:os.system\n",
    "unknown tag": "name: !secret tiny\n",
    "binary tag": "name: !!binary aGVsbG8=\n",
    "set and timestamp": "name: 2026-01-01\nmodel: !!set {fcn}\n",
    "nested 5,000 deep": "name: " + "[" * 5000 + "\n",
    "nested mappings": "name: " + "{a: " * 3000 + "1" + "}" * 3000 + "\n",
    "wrong types": "name: 5\nseed: many\nmodel: fcn\ntraining: {epochs: 2.5, batch_size: null}\n",
    "numbers out of range": f"name: t\nseed: {'9' * 5000}\ntraining: {{epochs: 1{'0' * 400}, learning_rate: .inf}}\n",
    "not numbers": "name: t\nloss: {gamma: .nan}\n",
    "huge sizes": "name: t\nsampling: {size: 1000000000000}\nmodel: {decoder_channels: 99999999999}\n",
    "name of a path": "name: ../../planted\n",
    "key of a list": "? [a, b]\n: 1\nname: t\n",
    "key twice": "name: a\nname: b\n",
    "two documents": "name: a\n---\nname: b\n",
    "control characters": b"name: \x00\x01\n",
    "utf-16": "name: tiny\n".encode("utf-16"),
    "latin-1": "name: \xe9\n".encode("latin-1"),
    "tabs": "name: t\nmodel:\n\tname: fcn\n",
    "one line of 5 MB": "name: " + "x" * 5_000_000 + "\n",
    "random bytes": bytes(np.random.default_rng(0).integers(0, 256, 4000).astype(np.uint8)),
    "base 60 and octal": "name: t\nseed: 190:20:30\nfolds: 0o17\n",
}


def _config(content: str | bytes) -> Callable[[Path, np.random.Generator, Assets], Call]:
    def make(folder: Path, rng: np.random.Generator, assets: Assets) -> Call:
        (folder / "run.yaml").write_bytes(content.encode() if isinstance(content, str) else content)
        (folder / "empty").mkdir()
        return ("fit", "run.yaml", "--data", "empty", "--run", "out/run", "--export", "out/run_bundle")

    return make


def _special_file(option: str, kind: str) -> Callable[[Path, np.random.Generator, Assets], Call]:
    """Name a pipe or a device where a text file belongs."""

    def make(folder: Path, rng: np.random.Generator, assets: Assets) -> Call:
        assets.copy_tiles(folder)
        (folder / "run.yaml").write_text("name: tiny\n")
        file = assets.special(folder, "odd", kind)
        config, ids = (file, ()) if option == "config" else ("run.yaml", (option, file))
        return ("fit", config, "--data", "data", *ids, "--run", "out/run", "--export", "out/run_bundle")

    return make


def _truth(write: Callable[[Path, np.random.Generator], str]) -> Callable[[Path, np.random.Generator, Assets], Call]:
    def make(folder: Path, rng: np.random.Generator, assets: Assets) -> Call:
        write_scene(folder / "area.tif")
        return Function("evaluate_scene", (str(LITERT), "area.tif", write(folder, rng)))

    return make


def _polygons(count: int = 3) -> geopandas.GeoDataFrame:
    shapes = [shapely.box(x, 3019900, x + 15, 3019930) for x in 530010 + 30 * np.arange(count)]
    return geopandas.GeoDataFrame({"name": [f"p{number}" for number in range(count)]}, geometry=shapes, crs=32648)


def _geopackage(change: str, *more: str) -> Callable[[Path, np.random.Generator], str]:
    """Run statements on a good GeoPackage."""

    def write(folder: Path, rng: np.random.Generator) -> str:
        _polygons().to_file(folder / "truth.gpkg", layer="truth")
        connection = sqlite3.connect(folder / "truth.gpkg")
        for name in [
            row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall()
        ]:
            connection.execute(f'DROP TRIGGER "{name}"')  # they call functions that only GDAL knows
        for statement in (change, *more):
            connection.execute(statement)
        connection.commit()
        connection.close()
        return "truth.gpkg"

    return write


def _fuzzed(suffix: str) -> Callable[[Path, np.random.Generator], str]:
    """Change bytes of a good vector file, or cut it."""

    def write(folder: Path, rng: np.random.Generator) -> str:
        path = folder / f"truth{suffix}"
        _polygons().to_file(path)
        content = bytearray(path.read_bytes())
        if rng.random() < 0.3:
            del content[int(rng.integers(1, len(content))) :]
        else:
            for at in rng.integers(0, len(content), 1 + len(content) // 300):
                content[at] = rng.integers(256)
        path.write_bytes(content)
        return path.name

    return write


def _shapefile(*parts: str, cut: str = "") -> Callable[[Path, np.random.Generator], str]:
    """Keep some parts of a Shapefile, and cut one of them to half its length."""

    def write(folder: Path, rng: np.random.Generator) -> str:
        whole = folder / "whole"
        whole.mkdir()
        _polygons().to_file(whole / "truth.shp")
        for part in parts:
            shutil.move(whole / f"truth{part}", folder)
        shutil.rmtree(whole)
        if cut:
            path = folder / f"truth{cut}"
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        return f"truth{parts[0]}"

    return write


def _text(name: str, content: str | bytes) -> Callable[[Path, np.random.Generator], str]:
    def write(folder: Path, rng: np.random.Generator) -> str:
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
        return name

    return write


def _geojson(geometry: object) -> str:
    feature = {"type": "Feature", "properties": {}, "geometry": geometry}
    return json.dumps({"type": "FeatureCollection", "features": [feature]})


def _ring(*points: tuple[float, float]) -> dict[str, object]:
    return {"type": "Polygon", "coordinates": [points]}


_NAN, _INF = float("nan"), float("inf")

TRUTHS: dict[str, tuple[str, Callable[[Path, np.random.Generator], str]]] = {
    "no contents": ("GeoPackages", _geopackage("DELETE FROM gpkg_contents")),
    "no table of layers": ("GeoPackages", _geopackage("DROP TABLE gpkg_contents")),
    "no table of geometries": ("GeoPackages", _geopackage("DROP TABLE gpkg_geometry_columns")),
    "no table of CRS": ("GeoPackages", _geopackage("DROP TABLE gpkg_spatial_ref_sys")),
    "no features": ("GeoPackages", _geopackage("DROP TABLE truth")),
    "a view": (
        "GeoPackages",
        _geopackage("ALTER TABLE truth RENAME TO hidden", "CREATE VIEW truth AS SELECT * FROM hidden"),
    ),
    "a view without end": (
        "GeoPackages",
        _geopackage(
            "DROP TABLE truth",
            "CREATE VIEW truth AS WITH RECURSIVE n(fid) AS (SELECT 1 UNION ALL SELECT fid + 1 FROM n) "
            "SELECT fid, NULL AS geom FROM n",
        ),
    ),
    "geometries of bytes": ("GeoPackages", _geopackage("UPDATE truth SET geom = x'4750000102'")),
    "geometries of text": ("GeoPackages", _geopackage("UPDATE truth SET geom = 'polygon'")),
    "geometries missing": ("GeoPackages", _geopackage("UPDATE truth SET geom = NULL")),
    "unknown CRS": ("GeoPackages", _geopackage("UPDATE gpkg_geometry_columns SET srs_id = 4242")),
    "CRS of nonsense": (
        "GeoPackages",
        _geopackage("UPDATE gpkg_spatial_ref_sys SET definition = 'GEOGCS[', organization = 'NONE'"),
    ),
    **{f"bytes {number}": ("GeoPackages", _fuzzed(".gpkg")) for number in range(5)},
    "text": ("GeoPackages", _text("truth.gpkg", "no database")),
    "nothing": ("GeoPackages", _text("truth.gpkg", "")),
    "shp alone": ("Shapefiles", _shapefile(".shp")),
    "shp and prj": ("Shapefiles", _shapefile(".shp", ".prj")),
    "no shx": ("Shapefiles", _shapefile(".shp", ".dbf", ".prj")),
    "no dbf": ("Shapefiles", _shapefile(".shp", ".shx", ".prj")),
    "no prj": ("Shapefiles", _shapefile(".shp", ".shx", ".dbf")),
    "shp cut": ("Shapefiles", _shapefile(".shp", ".shx", ".dbf", ".prj", cut=".shp")),
    "shx cut": ("Shapefiles", _shapefile(".shp", ".shx", ".dbf", ".prj", cut=".shx")),
    "dbf cut": ("Shapefiles", _shapefile(".shp", ".shx", ".dbf", ".prj", cut=".dbf")),
    "prj of nonsense": ("Shapefiles", _shapefile(".shp", ".shx", ".dbf", ".prj", cut=".prj")),
    "dbf alone": ("Shapefiles", _shapefile(".dbf")),
    "nested 50,000 deep": ("GeoJSON", _text("truth.geojson", "[" * 50_000)),
    "nested geometries": (
        "GeoJSON",
        _text("truth.geojson", '{"type": "GeometryCollection", "geometries": [' * 3000 + "]}" * 3000),
    ),
    "not numbers": ("GeoJSON", _text("truth.geojson", _geojson(_ring((0, 0), (_NAN, 0), (1, 1), (0, 0))))),
    "infinite": ("GeoJSON", _text("truth.geojson", _geojson(_ring((0, 0), (_INF, 0), (1, 1), (0, 0))))),
    "huge": ("GeoJSON", _text("truth.geojson", _geojson(_ring((0, 0), (1e300, 0), (1e300, 1e300), (0, 0))))),
    "beyond the pole": (
        "GeoJSON",
        _text("truth.geojson", _geojson(_ring((500, 900), (501, 900), (501, 901), (500, 900)))),
    ),
    "ring of two points": ("GeoJSON", _text("truth.geojson", _geojson(_ring((105.3, 27.3), (105.4, 27.3))))),
    "bow tie": (
        "GeoJSON",
        _text(
            "truth.geojson",
            _geojson(_ring((105.29, 27.2), (105.5, 27.4), (105.5, 27.2), (105.29, 27.4), (105.29, 27.2))),
        ),
    ),
    "no features in it": ("GeoJSON", _text("truth.geojson", '{"type": "FeatureCollection", "features": []}')),
    "other JSON": ("GeoJSON", _text("truth.geojson", '{"tiles": [1, 2]}')),
    "numbers for geometries": ("GeoJSON", _text("truth.geojson", _geojson(5))),
    "coordinates of text": (
        "GeoJSON",
        _text("truth.geojson", _geojson({"type": "Polygon", "coordinates": [[["a", "b"]] * 4]})),
    ),
    "cut": ("GeoJSON", _text("truth.geojson", _geojson(_ring((105.3, 27.3), (105.4, 27.3), (105.4, 27.4)))[:-20])),
    "utf-16": ("GeoJSON", _text("truth.geojson", _geojson(None).encode("utf-16"))),
    "CRS of a URL": (
        "GeoJSON",
        _text(
            "truth.geojson",
            '{"type": "FeatureCollection", "crs": {"type": "link", "properties": {"href": "http://127.0.0.1:9/"}}, '
            '"features": []}',
        ),
    ),
}


LABELS = (
    *("a view without end", "geometries of bytes", "unknown CRS", "bytes 0", "shp alone", "shp cut", "no prj"),
    *("nested geometries", "infinite", "huge", "beyond the pole", "bow tie", "no features in it", "utf-16"),
)
"""Files of `TRUTHS` that are also labels of tiles."""

CONDITIONS = {
    "several statements": "1 = 1; DROP TABLE truth",
    "function that loads code": "load_extension('planted')",
    "query in it": "name IN (SELECT name FROM truth, truth AS b, truth AS c)",
    "quote that stays open": "name = 'p0",
    "5,000 brackets": "(" * 5000 + "1" + ")" * 5000,
    "9,000 names": "name = '' OR " * 9000 + "1",
}


def _labels(
    write: Callable[[Path, np.random.Generator], str], *options: str
) -> Callable[[Path, np.random.Generator, Assets], Call]:
    def make(folder: Path, rng: np.random.Generator, assets: Assets) -> Call:
        write_scene(folder / "area.tif")
        labels = write(folder, rng)
        return ("data", "tile", "area.tif", "--labels", labels, "--out", "out", "--size", "64", *options)

    return make


def cases() -> list[Case]:
    """List the cases."""
    made = [Case("manifests", "unchanged", _manifest(_GOOD), fails=False)]
    made += [Case("GeoPackages", "unchanged", _truth(_geopackage("SELECT 1")), fails=False)]
    made += [Case("manifests", name, _manifest(content)) for name, content in MANIFESTS.items()]
    made += [Case("manifests", f"bytes {number}", _fuzzed_manifest) for number in range(6)]
    made += [Case("configurations", name, _config(content), fails=True) for name, content in CONFIGS.items()]
    for option in ("config", "--test", "--val"):
        made += [
            Case("configurations", f"{option} is {kind}", _special_file(option, kind), fails=True)
            for kind in ("pipe", "/dev/zero")
        ]
    made += [Case(kind, name, _truth(write)) for name, (kind, write) in TRUTHS.items()]
    made += [Case("labels of tiles", "unchanged", _labels(_geopackage("SELECT 1")), fails=False)]
    made += [Case("labels of tiles", name, _labels(TRUTHS[name][1])) for name in LABELS]
    good = _geopackage("SELECT 1")
    made += [
        Case("labels of tiles", f"condition of {name}", _labels(good, "--where", where))
        for name, where in CONDITIONS.items()
    ]
    return made
