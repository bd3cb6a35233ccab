"""STAC items as scenes: the asset, its address, and the name of the results."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import lim_keras as lk
from lim_keras.raster.stac_scene import StacScene
from tests.remote.conftest import Bright
from tests.remote.range_server import RangeServer

pytestmark = [
    pytest.mark.filterwarnings("ignore::lim_keras.errors.DomainWarning"),
    pytest.mark.usefixtures("without_preview"),
]

TIFF, COG = "image/tiff", "image/tiff; application=geotiff; profile=cloud-optimized"
RGB = [{"common_name": colour} for colour in ("red", "green", "blue")]


def item(assets: dict[str, Any], name: str = "S2A_31UFS") -> str:
    return json.dumps({"type": "Feature", "stac_version": "1.0.0", "id": name, "properties": {}, "assets": assets})


def asset(href: str, kind: str | None = TIFF, **more: Any) -> dict[str, Any]:
    return {"href": href, **({} if kind is None else {"type": kind}), **more}


@pytest.mark.parametrize(
    ("assets", "chosen"),
    [
        # Earth Search 1: true colour as GeoTIFF and as JPEG 2000
        (
            {
                "red": asset("B04.tif", eo__bands=RGB[:1]),
                "visual": asset("TCI.tif", COG, roles=["visual", "data"]),
                "visual-jp2": asset("TCI.jp2", "image/jp2", roles=["visual", "data"]),
                "thumbnail": asset("t.jpg", "image/jpeg", roles=["thumbnail"]),
            },
            "TCI.tif",
        ),
        # an older catalogue: by the name, the role says overview
        ({"visual": asset("a.tif", roles=["overview"], eo__bands=RGB), "B01": asset("b.tif")}, "a.tif"),
        # STAC 1.1, by common names; three bands rather than four
        (
            {
                "all": asset("four.tif", bands=[*({"eo:common_name": one["common_name"]} for one in RGB), {}]),
                "rgb": asset("three.tif", bands=[{"eo:common_name": one["common_name"]} for one in RGB]),
            },
            "three.tif",
        ),
        ({"image": asset("four.tif", eo__bands=[*RGB, {"common_name": "nir"}]), "dem": asset("d.tif")}, "four.tif"),
        ({"a": asset("a.tif", raster__bands=[{}, {}, {}]), "b": asset("b.tif", raster__bands=[{}])}, "a.tif"),
        ({"scene": asset("only.tif", None), "metadata": asset("m.xml", "application/xml")}, "only.tif"),
    ],
)
def test_the_asset_in_true_colour(tmp_path: Path, assets: dict[str, Any], chosen: str) -> None:
    named = {name: {key.replace("__", ":"): value for key, value in one.items()} for name, one in assets.items()}
    (tmp_path / "item.json").write_text(item(named))
    scene = StacScene(str(tmp_path / "item.json"))
    assert scene.address == str(tmp_path / chosen) and scene.stem == "S2A_31UFS"


@pytest.mark.parametrize(
    ("base", "href", "address"),
    [
        ("https://host/c/item.json?token=1", "./d/a.tif", "https://host/c/d/a.tif"),
        ("https://host/c/item.json", "../a.tif", "https://host/a.tif"),
        ("https://host/c/item.json", "/a.tif", "https://host/a.tif"),
        ("s3://bucket/c/item.json", "a b.tif", "s3://bucket/c/a b.tif"),
        ("s3://bucket/item.json", "gs://other/a.tif", "gs://other/a.tif"),
        ("https://host/c/item.json", "/vsis3/bucket/a.tif", "/vsis3/bucket/a.tif"),
    ],
)
def test_links_resolve_against_the_item(monkeypatch: pytest.MonkeyPatch, base: str, href: str, address: str) -> None:
    monkeypatch.setattr("lim_keras.raster.stac_scene._read", lambda name: item({"image": asset(href)}))
    assert StacScene(base).address == address


def test_an_item_on_a_server_and_on_the_disk(
    write: Callable[..., Path], served: Path, server: RangeServer, bright: Bright, tmp_path: Path
) -> None:
    scene = write("tiles/TCI.tif")
    (served / "items").mkdir()
    text = item({"visual": asset("../tiles/TCI.tif")})
    (served / "items/one.json").write_text(text)
    (served / "items/S2A_31UFS").write_text(text)  # as an API answers, without an ending
    for number, name in enumerate((f"{server.address}/items/one.json", f"{server.address}/items/S2A_31UFS")):
        result = lk.predict_scenes(bright, [name], tmp_path / str(number))
        assert not result.failures
        summary = json.loads((tmp_path / str(number) / "S2A_31UFS_summary.json").read_text())
        assert summary["scene"] == f"{server.address}/tiles/TCI.tif" and summary["landslides"] == 1
    (scene.parent / "item.json").write_text(item({"visual": asset("TCI.tif"), "other": asset("absent.tif")}))
    assert lk.predict_scene(bright, scene.parent / "item.json", tmp_path / "near").summary["landslides"] == 1
    with pytest.raises(lk.DataError, match=r"absent\.tif: not found"):
        lk.predict_scene(bright, scene.parent / "item.json", tmp_path / "near", asset="other")


def test_bad_items_do_not_stop_others(
    write: Callable[..., Path], server: RangeServer, bright: Bright, tmp_path: Path
) -> None:
    scene = write("good.tif")
    several = {"B02": asset("b.tif"), "B03": asset("c.tif"), "info": asset("i.json", "application/json")}
    contents = {
        "several": (item(several), "not clear which asset is the image. Its assets: B02, B03, info. Give its name"),
        "collection": ('{"type": "Collection"}', "expected a STAC item .* Received: a Collection"),
        "broken": ("{", "Received: a file that is not JSON"),
        "list": ("[]", "Received: another JSON file"),
    }
    paths = []
    for name, (text, _) in contents.items():
        paths.append(tmp_path / f"{name}.json")
        paths[-1].write_text(text)
    absent = f"{server.address}/absent.json"
    result = lk.predict_scenes(bright, [*paths, absent, scene], tmp_path / "out")
    assert len(result.predictions) == 1 and len(result.failures) == len(contents) + 1
    for path, (_, message) in zip(paths, contents.values(), strict=True):
        with pytest.raises(lk.DataError, match=message):
            lk.predict_scene(bright, path, tmp_path / "out")
    assert "absent.json: cannot be read: the server answers 404" in result.failures[absent]
    with pytest.raises(lk.DataError, match=r"has no asset 'B09'\. Its assets: B02"):
        lk.predict_scene(bright, paths[0], tmp_path / "out", asset="B09")
    with pytest.raises(lk.ConfigError, match="`asset` is for STAC items only"):
        lk.predict_scene(bright, scene, tmp_path / "out", asset="B09")
