"""A scene to an inventory: every file, what it says, and what is kept, refused or repeated."""

import json
import math
import shutil
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
from rasterio import Affine

from lim_keras.bundle.info import BandStatistics, BundleInfo
from lim_keras.bundle.protocol import EnsemblePrediction
from lim_keras.errors import ConfigError, DataError, DomainWarning
from lim_keras.inventory import batch
from lim_keras.inventory import predict_scene as module
from lim_keras.inventory.batch import find_scenes
from lim_keras.inventory.options import PredictOptions, settings
from lim_keras.inventory.scene_prediction import Execution
from lim_keras.ownership import file_hash
from lim_keras.report.preview import read_preview
from lim_keras.report.tables import scene_table
from lim_keras.seals import sealed_json
from tests.inference.conftest import Write, constant, describe

predict_scene = partial(module.predict_scene, execution=Execution(read_preview=read_preview))
predict_scenes = partial(batch.predict_scenes, execution=Execution(read_preview=read_preview))


class Bright:
    """Landslide is where the first band is above 150. Keeps the shapes that it was shown."""

    def __init__(self, **changes: Any) -> None:
        self.info: BundleInfo = describe([constant(0.5)], 1, **changes)
        self.shapes: list[tuple[int, ...]] = []

    def predict_all(self, images: np.ndarray) -> EnsemblePrediction:
        self.shapes.append(images.shape)
        probability = np.where(images[..., 0] > 150, np.float32(0.9), np.float32(0.1))
        return EnsemblePrediction(probability, 0 * probability, (probability >= 0.5).astype(np.int32))


def meadow(height: int = 300, width: int = 400) -> np.ndarray:
    """Grey, with two bright landslides: 60 x 80 and 10 x 20 px."""
    image = np.full((height, width, 3), 100, np.uint8)
    image[50:110, 50:130] = 200
    image[200:210, 300:320] = 200
    return image


FILES = ["probability.tif", "landslides.tif", "inventory.gpkg", "inventory.qml", "preview.png", "stac.json"]
FILES += ["summary.json"]


def test_every_file_and_what_it_says(write: Write, tmp_path: Path) -> None:
    scene = write("valley.tif", meadow())
    result = predict_scene(Bright(), scene, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(f"valley_{name}" for name in FILES)
    assert [path.name for path in result.files] == [f"valley_{name}" for name in FILES]
    summary = json.loads((tmp_path / "out" / "valley_summary.json").read_text())
    assert summary == result.summary
    assert result.inventory["area_m2"].sum() == pytest.approx(summary["landslide_area_m2"])
    assert (summary["landslides"], summary["landslide_pixels"], summary["valid_pixels"]) == (2, 5000, 120_000)
    # 5000 px of 0.64 m2 on the grid of UTM, of which the ground differs by less than 0.1 %
    assert summary["landslide_area_m2"] == pytest.approx(3200, rel=2e-3)
    assert summary["warnings"] == [] and summary["seconds"]["all"] > 0
    frame = geopandas.read_file(tmp_path / "out" / "valley_inventory.gpkg", layer="landslides")
    assert frame.crs.to_epsg() == 32648
    assert frame["area_m2"].tolist() == pytest.approx([3072, 128], rel=2e-3)
    assert frame["probability_mean"].tolist() == pytest.approx([0.9, 0.9])
    assert not frame["touches_edge"].any()
    with rasterio.open(tmp_path / "out" / "valley_probability.tif") as file:
        assert np.unique(file.read(1)).tolist() == [10, 90]


def test_without_a_preview(write: Write, tmp_path: Path) -> None:
    scene, model = write("s.tif", meadow()), Bright()
    plain = module.predict_scene(model, scene, tmp_path / "out")
    assert [path.name for path in plain.files] == [f"s_{name}" for name in FILES if name != "preview.png"]
    assert not predict_scene(model, scene, tmp_path / "out").was_there
    assert (
        module.predict_scene(model, scene, tmp_path / "out").was_there
        and predict_scene(model, scene, tmp_path / "out").was_there
    )


def test_an_open_raster_and_a_url(write: Write, tmp_path: Path) -> None:
    path = write("s.tif", meadow())
    with rasterio.open(path) as scene:
        opened = predict_scene(Bright(), scene, tmp_path / "out")
    assert opened.scene == path and opened.summary["landslides"] == 2
    url = path.as_uri()
    read = predict_scene(Bright(), url, tmp_path / "url")
    assert read.scene == read.summary["scene"] == url and [one.name for one in read.files] == [
        one.name for one in opened.files
    ]
    item = json.loads((tmp_path / "url" / "s_stac.json").read_text())
    assert item["assets"]["scene"]["href"] == url and item["id"] == "s_landslides"
    assert predict_scenes(Bright(), find_scenes([Path(url)]), tmp_path / "url").predictions[0].was_there


def test_options_reach_the_inventory(write: Write, tmp_path: Path) -> None:
    options = PredictOptions(
        threshold=0.95, formats=("gpkg", "geojson"), spread=True, probability="float32",
        min_area_m2=500,
    )  # fmt: skip
    result = predict_scene(Bright(), write("s.tif", meadow()), tmp_path / "out", options)
    assert result.summary["landslides"] == 0
    assert (tmp_path / "out" / "s_inventory.geojson").exists()
    with rasterio.open(tmp_path / "out" / "s_probability.tif") as file:
        assert (file.count, file.dtypes[0]) == (2, "float32")
    lower = PredictOptions(min_area_m2=500)
    assert predict_scene(Bright(), write("s.tif", meadow()), tmp_path / "out", lower).summary["landslides"] == 1


def test_a_finished_scene_is_not_predicted_again(write: Write, tmp_path: Path) -> None:
    scene = write("s.tif", meadow())
    predict_scene(Bright(), scene, tmp_path / "out")
    model = Bright()
    again = predict_scene(model, scene, tmp_path / "out")
    assert again.was_there and model.shapes == []
    assert again.summary["landslides"] == len(again.inventory) == 2
    for change in ("option", "file"):
        if change == "file":
            (tmp_path / "out" / "s_inventory.gpkg").unlink()
        options = PredictOptions(threshold=0.4) if change == "option" else None
        assert not predict_scene(model, scene, tmp_path / "out", options).was_there


def test_what_is_left_of_a_failed_call_is_the_work_alone(write: Write, tmp_path: Path) -> None:
    class Broken(Bright):
        def predict_all(self, images: np.ndarray) -> EnsemblePrediction:
            if len(self.shapes) == 3:
                raise RuntimeError("power cut")
            return super().predict_all(images)

    scene = write("s.tif", meadow())
    with pytest.raises(RuntimeError, match="power cut"):
        predict_scene(Broken(), scene, tmp_path / "out", PredictOptions(tile=128))
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".s.lim-keras.partial"]
    resumed = predict_scene(Bright(), scene, tmp_path / "out", PredictOptions(tile=128))
    assert resumed.summary["landslides"] == 2
    unbroken = predict_scene(Bright(), scene, tmp_path / "other", PredictOptions(tile=128))
    for first, second in zip(resumed.files, unbroken.files, strict=True):
        if first.suffix != ".json":
            assert first.read_bytes() == second.read_bytes(), first.name


def test_maps_are_kept_when_only_the_inventory_is_asked_otherwise(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise DataError("disk full")

    scene = write("s.tif", meadow())
    first = predict_scene(Bright(), scene, tmp_path / "out", PredictOptions(threshold=0.95))
    with monkeypatch.context() as patch:
        patch.setattr("lim_keras.inventory.scene_files.write_frames", full)
        with pytest.raises(DataError, match="disk full"):
            predict_scene(Bright(), scene, tmp_path / "out")
    # the results of the first call are still there, all of them
    assert all(path.exists() for path in first.files)
    model = Bright()
    options = PredictOptions(min_area_m2=500)
    assert predict_scene(model, scene, tmp_path / "out", options).summary["landslides"] == 1
    assert model.shapes == []


def test_nodata_is_never_landslide(write: Write, tmp_path: Path) -> None:
    image = meadow()
    image[:, 90:] = 255  # bright nodata, up to the landslide's middle
    scene = write("s.tif", image, nodata=255)
    predict_scene(Bright(), scene, tmp_path / "out")
    with rasterio.open(tmp_path / "out" / "s_landslides.tif") as file:
        mask = file.read(1)
    assert (mask[:, 90:] == 255).all() and (mask[:, :90] != 255).all()
    frame = geopandas.read_file(tmp_path / "out" / "s_inventory.gpkg", layer="landslides")
    assert frame["touches_nodata"].tolist() == [True]


def test_bands_and_scale(write: Write, tmp_path: Path) -> None:
    image = meadow().astype(np.uint16) * 10
    four = np.stack([image[..., 0] * 0, image[..., 0] * 0, image[..., 0], image[..., 0] * 0], axis=-1)
    scene = write("s.tif", four.astype(np.uint16))
    with pytest.raises(DataError, match="expected 3 bands"):
        predict_scene(Bright(), scene, tmp_path / "out")
    with pytest.raises(DataError, match=r"uint16.*`scale`"):
        predict_scene(Bright(), scene, tmp_path / "out", PredictOptions(bands=(3, 2, 1)))
    options = PredictOptions(bands=(3, 2, 1), scale=(0.0, 2550.0))
    assert predict_scene(Bright(), scene, tmp_path / "out", options).summary["landslides"] == 2


def test_another_distance_is_said_and_resampled(write: Write, tmp_path: Path) -> None:
    coarse = Affine(8, 0, 5e5, 0, -8, 3e6)
    scene = write("s.tif", meadow(), transform=coarse)
    with pytest.warns(DomainWarning, match="a pixel is 8 m"):
        result = predict_scene(Bright(), scene, tmp_path / "plain")
    assert "8 m" in result.summary["warnings"][0]
    small = meadow()[::5, ::5].copy()
    model = Bright(gsd_m=4.0)
    with pytest.warns(DomainWarning):
        result = predict_scene(
            model, write("c.tif", small, transform=coarse), tmp_path / "out", PredictOptions(resample=True)
        )
    assert model.shapes == [(1, 120, 160, 3)]  # twice as many pixels a side
    with rasterio.open(tmp_path / "out" / "c_landslides.tif") as file:
        assert (file.height, file.width, file.transform) == (60, 80, coarse)
        mask = file.read(1)
    assert (mask == (small[..., 0] > 150)).mean() > 0.99


@pytest.mark.parametrize("axes", [Affine.scale(8, 8), Affine.rotation(30) @ Affine.scale(8, -8)])
def test_a_scene_that_is_not_north_up_is_resampled_whole(write: Write, tmp_path: Path, axes: Affine) -> None:
    small = meadow()[::5, ::5].copy()
    scene = write("c.tif", small, transform=Affine.translation(5e5, 3e6) @ axes)
    with pytest.warns(DomainWarning):
        predict_scene(Bright(gsd_m=4.0), scene, tmp_path / "out", PredictOptions(resample=True))
    with rasterio.open(tmp_path / "out" / "c_landslides.tif") as file:
        mask = file.read(1)
    assert (mask != 255).mean() > 0.97  # bilinear sampling loses the outermost pixels of a rotated scene
    assert (mask == (small[..., 0] > 150)).mean() > 0.96


def test_a_scene_in_degrees(write: Write, tmp_path: Path) -> None:
    place = {"crs": "EPSG:4326", "transform": Affine(8e-6, 0, 105.0, 0, -7.2e-6, 27.0)}
    result = predict_scene(Bright(), write("s.tif", meadow(), **place), tmp_path / "out")
    frame = geopandas.read_file(tmp_path / "out" / "s_inventory.gpkg", layer="landslides")
    # a pixel is 0.794 m by 0.798 m there
    assert frame["area_m2"].iloc[0] == pytest.approx(4800 * 0.794 * 0.798, rel=0.01)
    assert result.summary["warnings"] == []


def test_slopes_from_an_elevation_model(write: Write, tmp_path: Path) -> None:
    columns = np.arange(60, dtype=np.float32)
    plane = np.broadcast_to(columns * 8 * np.tan(np.radians(30)), (60, 60))[..., np.newaxis]
    dem = write("dem.tif", np.ascontiguousarray(plane), transform=Affine(8, 0, 5e5 - 80, 0, -8, 3e6 + 80))
    options = PredictOptions(dem=dem, min_slope_deg=35)
    predict_scene(Bright(), write("s.tif", meadow()), tmp_path / "out", options)
    frame = geopandas.read_file(tmp_path / "out" / "s_inventory.gpkg", layer="landslides")
    assert frame["slope_mean_deg"].tolist() == pytest.approx([30, 30], abs=0.1)
    assert frame["below_min_slope"].astype(bool).all()


def test_many_scenes_and_one_that_is_bad(write: Write, tmp_path: Path) -> None:
    (tmp_path / "scenes").mkdir()
    write("scenes/b.tif", meadow())
    write("scenes/a.tif", meadow())
    (tmp_path / "scenes" / "c.tif").write_bytes(b"II*\0 no raster")
    (tmp_path / "scenes" / "notes.txt").write_text("not a scene")
    scenes = find_scenes([tmp_path / "scenes"])
    assert [path.name for path in scenes] == ["a.tif", "b.tif", "c.tif"]
    said: list[str] = []
    result = predict_scenes(
        Bright(), scenes, tmp_path / "out", execution=Execution(say=said.append, read_preview=read_preview)
    )
    assert [one.scene.name for one in result.predictions] == ["a.tif", "b.tif"]
    assert [path.name for path in result.failures] == ["c.tif"]
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["scenes"] == 3 and "c.tif" in next(iter(summary["failed"]))
    assert len(said) == 3 and "2 landslides" in said[0]


@pytest.mark.parametrize("error", [ZeroDivisionError("float\ndivision"), MemoryError(), OSError("full")])
def test_no_error_of_a_scene_stops_the_rest(
    error: Exception, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenes = [write(f"{name}.tif", meadow()) for name in "ab"]

    def fail(model: object, scene: Path, *args: Any, **options: Any) -> module.ScenePrediction:
        if scene.stem == "a":
            raise error
        return module.predict_scene(model, scene, *args, **options)

    monkeypatch.setattr(batch, "predict_scene", fail)
    result = predict_scenes(Bright(), scenes, tmp_path / "out", execution=Execution(read_preview=read_preview))
    assert [one.scene for one in result.predictions] == scenes[1:] and list(result.failures) == scenes[:1]
    reason = result.failures[scenes[0]]
    expected = {
        ZeroDivisionError: "ZeroDivisionError: float division",
        MemoryError: "not enough memory",
        OSError: "full",
    }
    assert expected[type(error)] in reason and "a.tif" in reason and "\n" not in reason
    assert list(json.loads(result.summary.read_text())["failed"].values()) == [reason]


def test_the_table_says_what_the_inventory_lacks(write: Write, tmp_path: Path) -> None:
    scenes = [write("a.tif", meadow()), tmp_path / "absent.tif"]
    options = PredictOptions(min_area_m2=1000)  # of 3072 and 128 m2
    table = scene_table(predict_scenes(Bright(), scenes, tmp_path / "out", options))
    cells = {str(column.header): [str(cell) for cell in column.cells] for column in table.columns}
    assert cells["scene"] == ["a.tif", "absent.tif"]
    assert cells["landslides"] == ["1", "failed"] and cells["left out"] == ["1", ""]


def test_a_missing_elevation_model_is_named_before_the_work(write: Write, tmp_path: Path) -> None:
    model = Bright()
    with pytest.raises(DataError, match=r"absent\.tif: not found"):
        predict_scene(model, write("a.tif", meadow()), tmp_path / "out", PredictOptions(dem=tmp_path / "absent.tif"))
    assert model.shapes == [] and not (tmp_path / "out").exists()


def test_a_scene_whose_results_cannot_be_written_does_not_stop_the_rest(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(model: Bright, scene: Path, *others: Any, **named: Any) -> Any:
        if scene.stem == "a":
            raise OSError(28, "No space left on device", "maps.raw")
        return predict_scene(model, scene, *others, **named)

    monkeypatch.setattr("lim_keras.inventory.batch.predict_scene", full)
    scenes = [write("a.tif", meadow()), write("c.tif", meadow())]
    said: list[str] = []
    result = predict_scenes(
        Bright(), scenes, tmp_path / "out", execution=Execution(say=said.append, read_preview=read_preview)
    )
    assert [one.scene.name for one in result.predictions] == ["c.tif"]
    assert [path.name for path in result.failures] == ["a.tif"]
    (first,) = result.failures.values()
    assert first.startswith(f"{scenes[0]}: cannot be mapped into {tmp_path}/out ([Errno 28] No space left on device")
    assert [line.startswith("failed ") for line in said] == [True, False]


def test_results_that_have_no_place(write: Write, tmp_path: Path) -> None:
    model, scenes = Bright(), [write("a.tif", meadow()), write("b.tif", meadow())]
    (tmp_path / "file").write_text("mine")
    said: list[str] = []
    with pytest.raises(DataError, match=r"file/out: cannot be made .*another folder"):
        predict_scenes(
            model, scenes, tmp_path / "file" / "out", execution=Execution(say=said.append, read_preview=read_preview)
        )
    assert said == [] and model.shapes == []
    (tmp_path / "out" / "summary.json").mkdir(parents=True)
    with pytest.raises(DataError, match=r"would replace .*: summary\.json \(a folder\)\. Nothing was replaced"):
        predict_scenes(model, scenes, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["summary.json"] and model.shapes == []


def test_scenes_that_would_write_the_same_files(write: Write, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    first, second = write("s.tif", meadow()), write("other/s.tif", meadow())
    with pytest.raises(DataError, match="different names"):
        find_scenes([first, second])
    with pytest.raises(DataError, match=r"absent\.tif: not found"):
        find_scenes([tmp_path / "absent.tif"])
    with pytest.raises(DataError, match="folder with rasters"):
        (tmp_path / "empty").mkdir()
        find_scenes([tmp_path / "empty"])
    with pytest.raises(DataError, match=r"xxx: cannot be read \(File name too long\)"):
        find_scenes([tmp_path / ("x" * 300)])


def test_a_scene_without_a_place_is_mapped_in_pixels(write: Write, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        scene = write("s.tif", meadow(), crs=None, transform=None)
    with pytest.warns(DomainWarning, match="`gsd_m`"):
        result = predict_scene(Bright(), scene, tmp_path / "out")
    assert result.summary["landslides"] == 2 and result.summary["landslide_area_m2"] is None
    known = predict_scene(Bright(), scene, tmp_path / "known", PredictOptions(gsd_m=0.8))
    assert known.summary["landslide_area_m2"] == pytest.approx(3200, rel=1e-6)


def test_statistics_of_the_bundle_are_of_its_bands(write: Write, tmp_path: Path) -> None:
    narrow = (BandStatistics(mean=20.0, std=3.0, min=0.0, max=255.0),) * 3
    with pytest.warns(DomainWarning, match="bands 1, 2, 3 have the means 105, 105, 105, but"):
        predict_scene(Bright(statistics=narrow), write("s.tif", meadow()), tmp_path / "out")


def test_nan_as_nodata(write: Write, tmp_path: Path) -> None:
    image = meadow().astype(np.float32) / 255
    image[:, 90:] = np.nan
    options = PredictOptions(nodata=math.nan, scale=(0.0, 1.0))
    result = predict_scene(Bright(), write("s.tif", image), tmp_path / "out", options)
    assert result.summary["valid_pixels"] == 300 * 90
    written = (tmp_path / "out" / "s_summary.json").read_text()
    assert json.loads(written)["settings"]["nodata"] == "nan"
    assert settings(PredictOptions(nodata=-math.inf))["nodata"] == "-inf"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(f"s_{name}" for name in FILES)


@pytest.mark.parametrize("wrong", [{"threshold": math.nan}, {"threshold": 1.5}, {"gsd_m": math.nan}, {"gsd_m": 0.0}])
def test_options_that_are_no_use(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"Invalid .* Expected .* Received: {next(iter(wrong.values()))}"):
        PredictOptions(**wrong)


def test_what_cannot_be_written_as_json_leaves_the_results_of_before(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = write("s.tif", meadow())
    first = predict_scene(Bright(), scene, tmp_path / "out", PredictOptions(threshold=0.95))
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr("lim_keras.inventory.scene_files.describe_inventory", lambda *_, **__: {"gsd": math.nan})
        with pytest.raises(ValueError, match="JSON"):
            predict_scene(Bright(), scene, tmp_path / "out")
    shutil.rmtree(tmp_path / "out" / ".s.lim-keras.partial")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    assert all(path.exists() for path in first.files)


def test_a_virtual_raster_is_mapped_to_the_end(write: Write, tmp_path: Path) -> None:
    scene = tmp_path / "mosaic.vrt"
    rasterio.shutil.copy(write("part.tif", meadow()), scene, driver="VRT")
    result = predict_scene(Bright(), scene, tmp_path / "out")
    assert result.summary["landslides"] == 2
    assert [path.name for path in result.files] == [f"mosaic_{name}" for name in FILES]
    assert all(path.exists() for path in result.files)


@pytest.mark.parametrize("blocked", ["inventory.gpkg", "stac.json", "summary.json"])
def test_a_folder_where_a_file_belongs(write: Write, tmp_path: Path, blocked: str) -> None:
    scene, model = write("s.tif", meadow()), Bright()
    (tmp_path / "out" / f"s_{blocked}" / "kept").mkdir(parents=True)
    with pytest.raises(DataError, match=rf": s_{blocked} \(a folder\)\. Nothing was replaced\. Move or rename them"):
        predict_scenes(model, [write("t.tif", meadow()), scene], tmp_path / "out")
    assert model.shapes == [] and [path.name for path in (tmp_path / "out").iterdir()] == [f"s_{blocked}"]
    (tmp_path / "out" / f"s_{blocked}").rename(tmp_path / "mine")
    assert predict_scene(model, scene, tmp_path / "out").summary["landslides"] == 2


def test_a_file_that_appears_during_the_prediction_is_kept(write: Write, tmp_path: Path) -> None:
    class Slow(Bright):
        def predict_all(self, images: np.ndarray) -> EnsemblePrediction:
            (tmp_path / "out" / "s_stac.json").write_text("mine")
            return super().predict_all(images)

    scene, model = write("s.tif", meadow()), Bright()
    with pytest.raises(DataError, match=r"s_stac\.json \(listed by no summary\)"):
        predict_scene(Slow(), scene, tmp_path / "out")
    assert (tmp_path / "out" / "s_stac.json").read_text() == "mine"
    (tmp_path / "out" / "s_stac.json").unlink()
    assert predict_scene(model, scene, tmp_path / "out").summary["landslides"] == 2
    assert model.shapes == []  # what was predicted was kept


def test_a_name_that_leaves_no_room_is_refused_before_any_work(write: Write, tmp_path: Path) -> None:
    model = Bright()
    long, longest = write(f"{'l' * 221}.tif", meadow()), write(f"{'m' * 150}.tif", meadow())
    result = predict_scenes(model, [long, longest], tmp_path / "out", PredictOptions(formats=("gpkg", "geojson")))
    assert "expected a name of at most 220 bytes" in result.failures[long] and "221" in result.failures[long]
    assert [one.scene for one in result.predictions] == [longest]
    assert len(model.shapes) == 1
    deep = tmp_path / ("d" * 200) / ("e" * 200)
    with pytest.raises(DataError, match=r"at most 512 bytes, the limit of GeoPackages.*shorter path"):
        predict_scene(model, longest, deep)
    assert len(model.shapes) == 1


@pytest.mark.parametrize("name", ["a;b.tif", "a!b.tif", "a\nb.tif"])
def test_names_that_no_geopackage_can_have(write: Write, tmp_path: Path, name: str) -> None:
    scene, model = write("area.tif", meadow()).rename(tmp_path / name), Bright()
    with pytest.raises(DataError, match=r"without `;`, `!` and control characters.*Rename the scene"):
        predict_scene(model, scene, tmp_path / "out")
    assert model.shapes == []


def test_copies_that_are_not_asked_for_any_more_go(write: Write, tmp_path: Path) -> None:
    scene = write("s.tif", meadow())
    predict_scene(Bright(), scene, tmp_path / "out", PredictOptions(formats=("gpkg", "geojson")))
    for name in ("s_inventory.shp", "notes.txt"):
        (tmp_path / "out" / name).write_text("the user's")
    summary = tmp_path / "out" / "s_summary.json"
    content = json.loads(summary.read_text())
    # what is no result of this scene stays, whatever the summary says
    for name in ("notes.txt", "../s.tif", "s_/../../s.tif"):
        content["files"].append(name)
        content["sha256"][name] = file_hash(tmp_path / "out" / name.replace("s_/../", ""))
    del content["lim_keras_sha256"]
    summary.write_text(sealed_json(content))
    result = predict_scene(Bright(), scene, tmp_path / "out", PredictOptions(threshold=0.6))
    there = {path.name for path in (tmp_path / "out").iterdir()}
    assert there == {path.name for path in result.files} | {"s_inventory.shp", "notes.txt"}
    assert scene.exists()


@pytest.mark.parametrize("text", ["[]", "3", '{"files": 3}', '{"files": [3]}', "{", "[" * 100_000])
def test_a_summary_of_the_user_is_kept(write: Write, tmp_path: Path, text: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "s_summary.json").write_text(text)
    model = Bright()
    with pytest.raises(DataError, match=r": s_summary\.json \(not written by lim-keras\)"):
        predict_scene(model, write("s.tif", meadow()), tmp_path / "out")
    assert (tmp_path / "out" / "s_summary.json").read_text() == text and model.shapes == []


def test_warnings_come_before_the_work_and_even_if_it_fails(write: Write, tmp_path: Path) -> None:
    class Late(Bright):
        def predict_all(self, images: np.ndarray) -> EnsemblePrediction:
            said.extend(str(one.message) for one in caught)
            raise DataError("power cut")

    said: list[str] = []
    scene = write("s.tif", meadow(), transform=Affine(8, 0, 5e5, 0, -8, 3e6))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(DataError, match="power cut"):
            predict_scene(Late(), scene, tmp_path / "out")
    assert len(said) == len(caught) == 1 and "a pixel is 8 m" in said[0]


def test_a_warning_is_said_once_and_written_down(write: Write, tmp_path: Path) -> None:
    scene = write("s.tif", meadow(), transform=Affine(8, 0, 5e5, 0, -8, 3e6))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = predict_scene(Bright(), scene, tmp_path / "out")
    assert [str(one.message) for one in caught] == result.summary["warnings"]
    assert len(caught) == 1


def test_results_beside_their_scenes_are_no_scenes(write: Write, tmp_path: Path) -> None:
    (tmp_path / "fold").mkdir()
    scene = write("fold/a.tif", meadow())
    (tmp_path / "fold" / "._a.tif").write_bytes(b"Mac OS X")
    (tmp_path / "fold" / "tiles.tif").mkdir()
    for _ in range(2):
        assert find_scenes([tmp_path / "fold"]) == [scene]
        predict_scenes(Bright(), find_scenes([tmp_path / "fold"]), tmp_path / "fold")
    (tmp_path / "fold" / "b_summary.json").write_text("[]")
    assert find_scenes([tmp_path / "fold"]) == [scene]
    scene.unlink()
    with pytest.raises(DataError, match="Received: only results of `predict`"):
        find_scenes([tmp_path / "fold"])


def test_a_scene_given_twice_is_one(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fold").mkdir()
    scene, other = write("fold/a.tif", meadow()), write("fold/b.tif", meadow())
    monkeypatch.chdir(tmp_path)
    assert find_scenes([other, tmp_path / "fold", Path("fold/a.tif")]) == [other, scene]
    linked = tmp_path / "c.tif"
    linked.symlink_to(scene)
    assert find_scenes([scene, linked]) == [scene, linked]
    assert find_scenes([]) == []


def test_a_missing_scene_does_not_stop_the_rest(write: Write, tmp_path: Path) -> None:
    scene, absent = write("s.tif", meadow()), tmp_path / "absent.tif"
    result = predict_scenes(Bright(), find_scenes([absent, scene]), tmp_path / "out")
    assert [one.scene for one in result.predictions] == [scene]
    assert "absent.tif: not found" in result.failures[absent]


def test_the_system_refuses_to_replace(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(path: Path, target: Path) -> Path:
        if target == tmp_path / "out" / "s_stac.json":
            raise OSError(30, "Read-only file system", str(path), None, str(target))
        return path.rename(target)

    scene = write("s.tif", meadow())
    monkeypatch.setattr(Path, "replace", read_only)
    with pytest.raises(DataError, match=r"s_stac\.json: cannot be replaced \(Read-only file system\)"):
        predict_scene(Bright(), scene, tmp_path / "out")
