"""The item of an inventory: where it lies, what it links, and what STAC demands of it."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pystac
import pytest
from pystac.extensions.projection import ProjectionExtension
from rasterio import Affine
from shapely.geometry import shape

from lim_keras.inventory.outputs import describe_inventory
from lim_keras.raster.georeference import RasterInfo
from tests.export.stac_judges import core_problems

SUMMARY = {
    "landslides": 2,
    "landslide_area_m2": 3200.0,
    "valid_area_m2": 76800.0,
    "bundle": {"name": "tiny", "config_hash": "0" * 64, "folds": 3},
    "versions": {"lim_keras": "0.1", "tensorflow": "2.21.0"},
    "created": "2026-01-02T03:04:05+00:00",
}
FILES = ["valley_probability.tif", "valley_landslides.tif", "valley_inventory.gpkg", "valley_preview.png"]


def scene(crs: str = "EPSG:32648", transform: Affine | None = None, **changes: Any) -> RasterInfo:
    transform = transform or Affine(0.8, 0, 5e5, 0, -0.8, 3e6)
    values = {"path": Path("scenes/valley.tif"), "width": 400, "height": 300, "bands": 3, "dtype": "uint8"}
    place = {"crs": crs, "transform": transform, "gsd_m": 0.8, "nodata": None}
    return RasterInfo(**(values | place | changes))


def valid(item: dict[str, Any]) -> dict[str, Any]:
    assert core_problems(item) == []
    json.dumps(item, allow_nan=False)
    return item


def test_footprint() -> None:
    item = valid(describe_inventory(scene(), SUMMARY, files=FILES))
    west, south, east, north = item["bbox"]
    # UTM 48N has its central meridian, easting 500,000 m, at 105 E; 320 m are 0.00323 degrees at 27 N
    assert west == pytest.approx(105, abs=1e-9)
    assert east - west == pytest.approx(320 / (111_320 * 0.891), rel=0.01)
    assert north - south == pytest.approx(240 / 110_790, rel=0.01)
    outline = shape(item["geometry"])
    assert outline.is_valid and outline.exterior.is_ccw and outline.bounds == tuple(item["bbox"])
    properties = item["properties"]
    assert properties["proj:code"] == "EPSG:32648"
    assert properties["proj:shape"] == [300, 400]
    assert properties["proj:transform"] == [0.8, 0, 5e5, 0, -0.8, 3e6]
    assert properties["gsd"] == 0.8


def test_a_stac_reader_understands_it() -> None:
    item = pystac.Item.from_dict(valid(describe_inventory(scene(), SUMMARY, files=FILES)))
    place = ProjectionExtension.ext(item)
    assert (place.code, place.shape, place.transform) == ("EPSG:32648", [300, 400], [0.8, 0, 5e5, 0, -0.8, 3e6])
    assert item.datetime == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert item.assets["preview"].has_role("overview")


@pytest.mark.parametrize(
    "change",
    [
        lambda item: item.pop("bbox"),
        lambda item: item["geometry"].update(type="Square"),
        lambda item: item["properties"].update(datetime="2026-01-02T03:04:05"),
        lambda item: item["properties"].update(gsd="0.8 m"),
        lambda item: item["links"].append({"rel": "derived_from"}),
        lambda item: item["assets"]["scene"].pop("href"),
    ],
)
def test_broken_items(change: Callable[[dict[str, Any]], object]) -> None:
    item = describe_inventory(scene(), SUMMARY, files=FILES, folder=Path())
    change(item)
    assert core_problems(item)


def test_links_and_assets(tmp_path: Path) -> None:
    out, bundle = tmp_path / "out", tmp_path / "exported_models" / "tiny"
    info = scene(path=tmp_path / "scenes" / "valley.tif")
    item = valid(describe_inventory(info, SUMMARY, files=[out / name for name in FILES], folder=out, bundle=bundle))
    assert item["id"] == "valley_landslides"
    hrefs = {key: asset["href"] for key, asset in item["assets"].items()}
    assert hrefs == {
        "scene": "../scenes/valley.tif",
        "probability": "./valley_probability.tif",
        "landslides": "./valley_landslides.tif",
        "inventory": "./valley_inventory.gpkg",
        "preview": "./valley_preview.png",
    }
    (link,) = item["links"]
    assert (link["rel"], link["href"]) == ("derived_from", "../exported_models/tiny/stac-item.json")
    assert item["properties"]["lim_keras:landslides"] == 2
    assert item["properties"]["processing:software"] == SUMMARY["versions"]


@pytest.mark.parametrize("path", [Path("scenes/valley.tif"), "s3://maps/valley.tif"])
def test_an_item_without_a_folder_links_no_files_of_this_machine(tmp_path: Path, path: Path | str) -> None:
    info = scene(path=path)
    item = valid(describe_inventory(info, SUMMARY, files=FILES, bundle=tmp_path / "exported_models" / "tiny"))
    assert item["links"] == []
    hrefs = [asset["href"] for asset in item["assets"].values()]
    assert hrefs == [*([path] if isinstance(path, str) else []), *(f"./{name}" for name in FILES)]


def test_time() -> None:
    properties = valid(describe_inventory(scene(), SUMMARY, files=FILES))["properties"]
    assert properties["datetime"] == properties["created"] == "2026-01-02T03:04:05Z"
    assert "not known" in properties["description"]


@pytest.mark.parametrize("changes", [{"crs": ""}, {"transform": None}])
def test_no_place(changes: dict[str, Any]) -> None:
    info = scene(**{"crs": ""} | {"gsd_m": None})
    if "transform" in changes:
        info = RasterInfo(**{**vars(scene()), "transform": None})
    item = valid(describe_inventory(info, SUMMARY | {"landslide_area_m2": None}, files=FILES))
    assert item["geometry"] is None and "bbox" not in item
    assert "proj:code" not in item["properties"]


def test_crs_without_a_code() -> None:
    item = valid(describe_inventory(scene("+proj=tmerc +lat_0=0 +lon_0=104.5 +ellps=GRS80"), SUMMARY, files=FILES))
    assert item["properties"]["proj:code"] is None
    assert item["properties"]["proj:wkt2"].startswith("PROJCRS[")


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ("EPSG:4326", Affine(0.01, 0, 178, 0, -0.01, -17)),  # 178 E to 182 E
        ("EPSG:32701", Affine(1000, 0, 100_000, 0, -1000, 8_100_000)),  # UTM 1S: 180.2 E at its western edge
    ],
)
def test_antimeridian(crs: str, transform: Affine) -> None:
    item = valid(describe_inventory(scene(crs, transform), SUMMARY, files=FILES))
    west, _, east, _ = item["bbox"]
    assert item["geometry"]["type"] == "MultiPolygon"
    assert -180 < east < 0 < west < 180
    assert all(-180 <= x <= 180 for part in shape(item["geometry"]).geoms for x, _ in part.exterior.coords)


def test_nowhere_on_earth() -> None:
    item = valid(describe_inventory(scene("EPSG:32648", Affine(1e9, 0, 1e12, 0, -1e9, 1e12)), SUMMARY, files=FILES))
    assert item["geometry"] is None


def test_results_named_after_an_item_of_a_catalogue_have_its_name() -> None:
    files = [f"S2A_item1_{ending}" for ending in ("probability.tif", "inventory.gpkg")]
    item = valid(describe_inventory(scene(path=Path("visual.tif")), SUMMARY, files=files, stem="S2A_item1"))
    assert item["id"] == "S2A_item1_landslides"
    assert set(item["assets"]) == {"probability", "inventory"}
