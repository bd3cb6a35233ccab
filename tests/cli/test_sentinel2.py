"""Sentinel-2 products as scenes of `predict` and `evaluate`, as a user gives them."""

import json
import shutil
from pathlib import Path

import geopandas
import keras
import numpy as np
import pytest
import rasterio
from click.testing import CliRunner, Result
from shapely.geometry import box

from lim_keras.cli import main
from lim_keras.export.bundle import write_bundle
from tests.conftest import model_facts
from tests.safe_product import EAST, NORTH, UTM, write_safe, zipped

NAME = "S2A_MSIL2A_20220125T033021_N0400_R018_T48RXV_20220125T062254"
SHIPPED = Path(__file__).parents[2] / "exported_models" / "bijie_edge" / "tflite" / "fold_0_int8.tflite"
SLIDE_M2 = 20 * 30 * 100


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Logit (mean of the bands - 150) / 10."""
    image = keras.Input((None, None, 3))
    kernel, bias = (keras.initializers.Constant(value) for value in (0.1 / 3, -15.0))
    model = keras.Model(image, keras.layers.Conv2D(1, 1, kernel_initializer=kernel, bias_initializer=bias)(image))
    path = tmp_path_factory.mktemp("exported_models") / "bright"
    write_bundle(path, model_facts(name="bright", gsd_m=10.0), [model])
    return path


def slide(low: int, high: int, size: int = 96) -> np.ndarray:
    """20 x 30 bright pixels, on dark ground; the last two columns hold no data."""
    numbers = np.full((size, size), low)
    numbers[40:60, 30:60] = high
    numbers[:, -2:] = 0
    return numbers


def product(path: Path, *, level: str = "L2A", new: bool = True) -> Path:
    """The same reflectance with and without offsets: 0.06, and 0.18 (L2A: 229 of 255; L1C: 129, no landslide)."""
    offset = 1000 if new else 0
    numbers = slide(600 + offset, 1800 + offset)
    numbers[numbers == offset] = 0
    bands = dict.fromkeys(("B02", "B03", "B04", "B08"), numbers)
    bands["B11"] = numbers[::2, ::2]
    return write_safe(path, bands, level=level, baseline="05.10" if new else "02.14", offset=-1000 if new else None)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(one) for one in arguments])


def found(folder: Path, name: str = NAME) -> tuple[geopandas.GeoDataFrame, dict]:
    summary = json.loads((folder / f"{name}_summary.json").read_text())
    return geopandas.read_file(folder / f"{name}_inventory.gpkg"), summary


@pytest.mark.parametrize(("kind", "new"), [("folder", True), ("zip", False), ("metadata", True)])
def test_both_kinds_of_baseline_give_the_same_map(kind: str, new: bool, bundle: Path, tmp_path: Path) -> None:
    scene = product(tmp_path / f"{NAME}.SAFE", new=new)
    if kind == "zip":
        scene = zipped(scene, tmp_path / f"{NAME}.zip", inside="download/")
        shutil.rmtree(tmp_path / f"{NAME}.SAFE")
    elif kind == "metadata":
        scene = scene / "MTD_MSIL2A.xml"
    done = run("predict", bundle, scene, "--out", tmp_path / "maps")
    assert done.exit_code == 0, done.output
    inventory, summary = found(tmp_path / "maps")
    assert len(inventory) == 1 and inventory.crs == UTM
    assert inventory.geometry[0].equals(box(EAST + 300, NORTH - 600, EAST + 600, NORTH - 400))
    assert inventory["area_m2"][0] == pytest.approx(SLIDE_M2, rel=0.01)
    assert summary["valid_pixels"] == 96 * 94 and summary["gsd_m"] == 10
    assert summary["settings"]["scale"] == [0, 2000]
    assert summary["product"] == {
        "level": "L2A",
        "processing_baseline": "05.10" if new else "02.14",
        "bands": ["B04", "B03", "B02"],
        "quantification_value": 10_000,
        "offsets": dict.fromkeys(("B04", "B03", "B02"), -1000 if new else 0),
    }
    again = run("predict", bundle, scene, "--out", tmp_path / "maps")
    assert again.exit_code == 0 and "was there already" in again.output
    with rasterio.open(tmp_path / "maps" / f"{NAME}_probability.tif") as maps:
        assert maps.crs == UTM and maps.res == (10, 10)


def test_level_1c_has_a_scale_of_its_own(bundle: Path, tmp_path: Path) -> None:
    scene = product(tmp_path / "S2B.SAFE", level="L1C")
    assert run("predict", bundle, scene, "--out", tmp_path / "maps").exit_code == 0
    inventory, summary = found(tmp_path / "maps", "S2B")
    assert len(inventory) == 0 and summary["settings"]["scale"] == [0, 3558]
    done = run("predict", bundle, scene, "--out", tmp_path / "given", "--scale", "0,2000", "--bands", "b8,B11,4")
    assert done.exit_code == 0, done.output
    inventory, summary = found(tmp_path / "given", "S2B")
    assert len(inventory) == 1 and summary["settings"]["scale"] == [0, 2000]
    assert summary["product"]["bands"] == ["B08", "B11", "B04"]


def test_a_folder_of_scenes_holds_products(bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "szenen Ä"
    folder.mkdir()
    one = product(folder / "one.SAFE")
    zipped(one, folder / "one.zip")  # what was downloaded lies beside what was unpacked
    zipped(product(tmp_path / "zwei é.SAFE", new=False), folder / "zwei é.SAFE.zip")
    shutil.copytree(product(tmp_path / "broken.SAFE"), folder / "broken.SAFE")
    (folder / "broken.SAFE" / "MTD_MSIL2A.xml").unlink()
    (folder / "other.zip").write_bytes(b"PK\x05\x06" + bytes(18))
    done = run("predict", bundle, folder, "--out", tmp_path / "maps")
    assert done.exit_code == 1
    summary = json.loads((tmp_path / "maps" / "summary.json").read_text())
    assert [Path(name).name for name in summary["failed"]] == ["broken.SAFE"]
    assert "with MTD_MSIL1C.xml or MTD_MSIL2A.xml" in next(iter(summary["failed"].values()))
    assert [len(found(tmp_path / "maps", name)[0]) for name in ("one", "zwei é")] == [1, 1]


def test_a_product_is_evaluated(bundle: Path, tmp_path: Path) -> None:
    scene = product(tmp_path / f"{NAME}.SAFE")
    truth = geopandas.GeoDataFrame(geometry=[box(EAST + 300, NORTH - 600, EAST + 600, NORTH - 400)], crs=UTM)
    truth.to_file(tmp_path / "truth.gpkg")
    done = run(
        "evaluate", bundle, "--scene", scene, "--truth", tmp_path / "truth.gpkg", "--bootstrap", 10, "--json",
        tmp_path / "scores.json",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    scores = json.loads((tmp_path / "scores.json").read_text())["protocols"]["scene"]["subsets"]["all"]
    assert scores["model"]["f1"]["value"] == 1


def test_the_shipped_model_maps_a_product(tmp_path: Path) -> None:
    scene = product(tmp_path / f"{NAME}.SAFE")
    done = run("predict", SHIPPED, scene, "--out", tmp_path / "maps")
    assert done.exit_code == 0, done.output
    assert found(tmp_path / "maps")[1]["valid_pixels"] == 96 * 94
    assert "a pixel is 10 m, but the model was trained at 0.8 m" in " ".join(done.output.split())


def test_a_wrong_number_of_bands(bundle: Path, tmp_path: Path) -> None:
    scene = product(tmp_path / f"{NAME}.SAFE")
    done = run("predict", bundle, scene, "--out", tmp_path / "maps", "--bands", "4,3,2,8")
    text = " ".join(done.output.split())
    assert (
        done.exit_code == 1 and "Name them in its order with --bands; the product holds B02, B03, B04, B08, B11" in text
    )
    assert not list((tmp_path / "maps").glob("*.tif"))


def test_tiles_of_a_product_hold_reflectance(tmp_path: Path) -> None:
    scene = product(tmp_path / f"{NAME}.SAFE")
    truth = geopandas.GeoDataFrame(geometry=[box(EAST + 300, NORTH - 600, EAST + 600, NORTH - 400)], crs=UTM)
    truth.to_file(tmp_path / "truth.gpkg")
    options = ("--labels", tmp_path / "truth.gpkg", "--out", tmp_path / "tiles", "--size", 32, "--gsd", 20)
    done = run("data", "tile", scene, *options)
    assert done.exit_code == 0, done.output
    with rasterio.open(next((tmp_path / "tiles" / "images").glob("*.tif"))) as tile:
        pixels = tile.read()
        assert tile.count == 3 and tile.dtypes[0] == "uint16" and tile.res == (20, 20)
    assert set(np.unique(pixels).tolist()) - {0} == {600, 1800}
