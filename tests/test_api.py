"""The Python API: lazy import, arguments, and every function that the commands call."""

import inspect
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import geopandas
import keras
import numpy as np
import pytest
import rasterio
import shapely
from rasterio import Affine

import lim_keras as lk
from lim_keras import api
from lim_keras.bundle.litert import LiteRtModel
from lim_keras.bundle.saved_model import Bundle
from lim_keras.cli import COMMANDS, main
from lim_keras.config import EvaluationSection
from lim_keras.export.bundle import write_bundle
from lim_keras.serving import ServerModel
from tests.conftest import model_facts
from tests.serving.model_server import ModelServer

HEAVY = {"numpy", "tensorflow", "keras", "rasterio", "pydantic", "rich", "click"}


def python(program: str) -> str:
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_loads_nothing_heavy():
    program = "import sys; import lim_keras as lk; lk.fit, lk.DataError, lk.data, lk.errors; print(*sys.modules)"
    loaded = set(python(program).split())
    assert not HEAVY & loaded
    assert "lim_keras.api" in loaded  # the attributes are the real ones


def test_import_is_quick():
    program = "import time; start = time.perf_counter(); import lim_keras; print(time.perf_counter() - start)"
    assert min(float(python(program)) for _ in range(3)) < 0.05


@pytest.mark.parametrize("name", sorted(lk.__all__))
def test_every_public_name_is_there(name):
    assert getattr(lk, name) is not None and name in dir(lk)


def test_every_function_of_the_api_is_public_and_documented():
    assert set(api.__all__) <= set(lk.__all__)
    for name in api.__all__:
        function = getattr(api, name)
        words = inspect.getdoc(function)
        for argument in inspect.signature(function).parameters:
            assert f"{argument}:" in words or "this argument and all others" in words, (name, argument)
        assert "Raises:" in words and "Args:" in words, name


def test_networks_losses_and_metrics():
    model = lk.build_model("fcn", "small", encoder_weights="none", decoder_channels=4)
    model.compile(loss=lk.BinaryFocalLoss(gamma=2), metrics=[lk.metrics.F1()])
    scores = model.evaluate(np.zeros((1, 32, 32, 3)), np.ones((1, 32, 32, 1)), verbose=0, return_dict=True)
    assert {"loss", "f1"} <= set(scores)


def test_an_unknown_name():
    with pytest.raises(AttributeError, match="has no attribute 'predict_sene'"):
        _ = lk.predict_sene
    with pytest.raises(AttributeError, match="has no attribute 'folds_of'"):
        _ = lk.data.folds_of


@pytest.mark.parametrize(
    ("keywords", "said"),
    [
        ({"min_area": 100}, r"predict_scene\(\): unknown argument `min_area`. Did you mean `min_area_m2`\?"),
        ({"treshold": 0.5}, "Did you mean `threshold`"),
        ({"xyzzy": 1}, "unknown argument `xyzzy`. Expected some of: bundle, scene, out, working_point, threshold"),
        ({"min_slope_deg": 15}, "`min_slope_deg` needs an elevation model. Give `dem`"),
        ({"drop_flat": True}, "`drop_flat` needs `min_slope_deg`"),
        ({"threshold": "high"}, "`threshold`. Expected a number. Received: 'high'"),
        ({"threshold": 2}, "`threshold`. Expected 0..1"),
        ({"gsd_m": True}, "`gsd_m`. Expected a number"),
        ({"memory": "lots"}, "`memory`. Expected a size such as 2G"),
        ({"bands": "3,2,1"}, "`bands`. Expected a sequence"),
        ({"scale": (0, 1, 2)}, r"`scale`. Expected \(lowest, highest\)"),
        ({"scale": ("dark", "bright")}, "`scale`. Expected a number. Received: 'dark'"),
        ({"nodata": "zero"}, "`nodata`. Expected a number"),
        ({"nodata": None}, "`nodata`. Expected a number. Received: None"),
        ({"fill_holes_m2": None}, "`fill_holes_m2`. Expected a number. Received: None"),
        ({"peak": "high"}, "`peak`. Expected a number. Received: 'high'"),
        ({"working_point": "best"}, "`working_point`. Expected sensitive, balanced, strict. Received: 'best'"),
        ({"all_regions": True, "working_point": "strict"}, "`all_regions` and `working_point` exclude each other"),
        ({"bands": ()}, "`bands`. Expected a sequence"),
        ({"bands": (1.0, 2, 3)}, "`bands`. Expected a whole number >= 1. Received: 1.0"),
        ({"memory": -5}, "`memory`. Expected a whole number >= 1. Received: -5"),
        ({"tile": 1500.5}, "`tile`. Expected a whole number >= 1. Received: 1500.5"),
        ({"probability": "int8"}, "`probability`. Expected percent or float32"),
        ({"progress": print}, "`progress`. Expected an object with the methods `begin` and `advance`"),
    ],
)
def test_wrong_keywords(keywords, said):
    with pytest.raises(lk.ConfigError, match=said):
        lk.predict_scene("bundle", "scene.tif", "out", **keywords)


def test_missing_and_wrong_arguments():
    with pytest.raises(lk.ConfigError, match="missing a required argument: 'out'"):
        lk.predict_scene("bundle", "scene.tif")
    with pytest.raises(lk.ConfigError, match=r"`bundle`. Expected a path. Received: 3"):
        lk.bundle_info(3)
    with pytest.raises(lk.ConfigError, match=r"`bundle`. Expected a path. Received: 3"):
        lk.predict_scene(3, "scene.tif", "out")
    for wrong in (3, None):
        with pytest.raises(lk.ConfigError, match=f"`scenes`. Expected a path. Received: {wrong}"):
            lk.predict_scenes("bundle", wrong, "out")
    with pytest.raises(lk.ConfigError, match=r"`scenes`. Expected at least one raster or folder. Received: none"):
        lk.predict_scenes("bundle", [], "out")
    with pytest.raises(lk.ConfigError, match=r"`bundle`. Expected a path without null characters"):
        lk.bundle_info("a\0b")
    with pytest.raises(lk.ConfigError, match=r"`tile_ids`. Expected a file or ids of tiles. Received: 3"):
        lk.evaluate("bundle", "tiles", tile_ids=3)
    with pytest.raises(lk.ConfigError, match="`scene` and `truth` belong together"):
        lk.evaluate("bundle", scene="scene.tif")
    with pytest.raises(lk.ConfigError, match=r"Invalid value for `negatives`. Expected a path. Received: 3"):
        lk.evaluate("bundle", negatives=3)
    with pytest.raises(lk.ConfigError, match=r"Nothing to evaluate on. Give `tiles`"):
        lk.evaluate("bundle")
    with pytest.raises(lk.ConfigError, match="`jobs`"):
        lk.cross_validate("c.yaml", "tiles", jobs=0)
    with pytest.raises(lk.ConfigError, match="Give `tiles`"):
        lk.export_litert("bundle", "int8")
    with pytest.raises(lk.ConfigError, match=r"`variants`. Expected some of float32"):
        lk.export_litert("bundle", ["float64"])


@pytest.mark.parametrize(
    ("bundle", "keywords", "error", "said"),
    [
        ("grpc://host/m", {}, lk.ConfigError, "expected `info`"),
        ("http://host/v1/models/m", {"info": "b", "timeout_s": "5"}, lk.ConfigError, "`timeout_s`. Expected a number"),
        ("http://host/v1/models/m", {"info": "b", "in_flight": 1.5}, lk.ConfigError, "`in_flight`. Expected a whole"),
        ("http://host/v1/models/m", {"fold": 0}, lk.ConfigError, "`fold`: not for the address of a server"),
        ("exported", {"retries": 3, "info": "b"}, lk.ConfigError, "`info`, `retries`: not for a bundle on the disk"),
        (Path(__file__), {}, lk.BundleError, "expected the folder of a bundle, or a .tflite file"),
        ("absent.tflite", {}, lk.BundleError, "tflite.json: not found"),
        ("absent", {}, lk.BundleError, "absent"),
        ("absent", {"fold": "a"}, lk.ConfigError, "`fold`. Expected a whole number >= 0. Received: 'a'"),
        ("absent.tflite", {"threads": 0}, lk.ConfigError, "`threads`. Expected a whole number >= 1. Received: 0"),
    ],
)
def test_load_bundle_says_what_it_takes(bundle, keywords, error, said):
    with pytest.raises(error, match=said):
        lk.load_bundle(bundle, **keywords)


def commands() -> Iterator[tuple[str, click.Command]]:
    for name in COMMANDS:
        command = main.get_command(click.Context(main), name)
        yield from command.commands.items() if isinstance(command, click.Group) else [(name, command)]


OF_COMMANDS = {
    "convert": ["convert_tiles"],
    "cv": ["cross_validate", "load_config"],
    "distill": ["distill", "load_config"],
    "export": [
        "add_familiarity",
        "export_litert",
        "export_onnx",
        "export_review",
        "export_serving",
        "fit_object_rule",
        "measure_halo",
    ],
    "fit": ["fit", "load_config"],
    "info": ["bundle_info"],
    "overlaps": ["find_overlaps"],
    "predict": ["predict_scenes", "load_bundle"],
    "stats": ["dataset_report"],
    "verify": ["verify_bundle"],
    "audit": ["audit_tiles"],
    "page": ["review_maps"],
    "demo": ["run_demo"],
    "tile": ["tile_scenes"],
    "report": ["report_runs"],
}


IN_PYTHON_OTHERWISE = {
    ("predict", "server"),  # an argument of `load_bundle`
    ("overlaps", "out"),  # a method of the result
    ("export", "onnx"),  # a function
    ("export", "measure"),  # a function
    ("export", "rule_tiles"),  # a function
    ("export", "familiarity"),  # a function
}


@pytest.mark.parametrize(("name", "command"), list(commands()))
def test_parameters_of_commands_are_arguments_of_the_api(name, command):
    functions = [getattr(api, one) for one in OF_COMMANDS.get(name, [name])]
    arguments = {}
    for function in reversed(functions):
        arguments |= inspect.signature(function).parameters
    values = command.make_context(name, [], resilient_parsing=True).params
    for one in command.params:
        if (name, one.name) in IN_PYTHON_OTHERWISE:
            continue
        assert one.name in arguments
        default = arguments[one.name].default
        if not one.required and default is not inspect.Parameter.empty:
            assert str(values[one.name] or None) == str(default or None), one.name


def test_defaults_of_the_evaluation():
    parameters = inspect.signature(lk.evaluate).parameters
    defaults = EvaluationSection()
    assert (parameters["windows"].default, parameters["bootstrap"].default) == (defaults.windows, defaults.bootstrap)


class Progress:
    """Counts what it is told."""

    def __init__(self) -> None:
        self.steps: dict[str, list[int]] = {}

    @contextmanager
    def begin(self, label: str, total: int, done: int = 0, *, unit: str = "") -> Iterator[None]:
        self.steps[label] = [done, total]
        self._label = label
        yield

    def advance(self, count: int = 1, note: str = "") -> None:
        self.steps[self._label][0] += count


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Logit (mean of the bands - 150) / 10."""
    path = tmp_path_factory.mktemp("exported_models") / "bright"
    image = keras.Input((None, None, 3))
    kernel, bias = (keras.initializers.Constant(value) for value in (0.1 / 3, -15.0))
    model = keras.Model(image, keras.layers.Conv2D(1, 1, kernel_initializer=kernel, bias_initializer=bias)(image))
    write_bundle(path, model_facts(name="bright", stride=1), [model])
    return path


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """60 x 100 bright pixels of .8 m, and 4 x 5 more."""
    image = np.full((3, 200, 300), 90, np.uint8)
    image[:, 40:100, 50:150] = 220
    image[:, 150:154, 200:205] = 220
    profile = {"driver": "GTiff", "width": 300, "height": 200, "count": 3, "dtype": "uint8"}
    path = tmp_path / "scenes" / "scene.tif"
    path.parent.mkdir()
    with rasterio.open(path, "w", **profile, crs="EPSG:32648", transform=Affine(0.8, 0, 5e5, 0, -0.8, 3e6)) as file:
        file.write(image)
    return path


def test_predict_scene(bundle, scene, tmp_path):
    progress, options = Progress(), {"min_area_m2": 100, "geojson": True}
    result = lk.predict_scene(str(bundle), scene, str(tmp_path / "out"), **options, progress=progress)
    assert isinstance(result.inventory, geopandas.GeoDataFrame)
    assert result.inventory.area.tolist() == pytest.approx([60 * 100 * 0.8**2])
    assert {"scene_inventory.geojson", "scene_preview.png", "scene_summary.json"} <= {one.name for one in result.files}
    assert result.summary["landslides"] == 1 and result.summary["left_out"]["below_min_area"] == 1
    assert progress.steps == {"scene.tif": [60_000, 60_000]}
    loaded = lk.load_bundle(bundle, runtime="auto")
    again = lk.predict_scene(loaded, str(scene), tmp_path / "out", **options)
    assert again.was_there and len(again.inventory) == 1
    with rasterio.open(scene) as opened:
        assert len(lk.predict_scene(loaded, opened, tmp_path / "other", bands=[3, 2, 1], nodata=0).inventory) == 2
    # numbers of NumPy are the same arguments
    given = {"min_area_m2": np.float32(100), "geojson": np.True_, "tta": np.False_}
    assert lk.predict_scene(loaded, scene, tmp_path / "out", **given).was_there
    given = {"bands": np.array([3, 2, 1]), "nodata": np.uint8(0), "tile": np.int64(256), "scale": np.array([0, 255])}
    assert len(lk.predict_scene(loaded, scene, tmp_path / "other", **given, threshold=np.float32(0.5)).inventory) == 2
    with pytest.raises(lk.ConfigError, match=r"`scene`. Expected a path, URL or open rasterio dataset. Received: int"):
        lk.predict_scene(loaded, 3, tmp_path / "out")


def test_predict_scenes(bundle, scene, tmp_path, capsys):
    said = []
    missing = tmp_path / "missing.tif"
    result = lk.predict_scenes(bundle, [str(scene.parent), missing], tmp_path / "out", memory="6G", say=said.append)
    assert [one.scene for one in result.predictions] == [scene] and list(result.failures) == [missing]
    assert len(said) == 2 and json.loads(result.summary.read_text())["scenes"] == 2
    assert len(lk.predict_scenes(bundle, scene, str(tmp_path / "out")).predictions) == 1
    assert capsys.readouterr() == ("", "")


def test_evaluate(bundle, scene, tmp_path, bijie_folder):
    tiles = bijie_folder(tmp_path / "tiles", 3, 3)
    truth = tmp_path / "truth.gpkg"
    left, top = 5e5 + 50 * 0.8, 3e6 - 40 * 0.8
    outline = shapely.box(left, top - 60 * 0.8, left + 100 * 0.8, top)
    geopandas.GeoDataFrame(geometry=[outline], crs="EPSG:32648").to_file(truth)
    progress = Progress()
    report = lk.evaluate(
        str(bundle),
        str(tiles),
        tile_ids=["ls_0", "nls_0"],
        scene=str(scene),
        truth=str(truth),
        windows=2,
        bootstrap=5,
        json_file=str(tmp_path / "json" / "figures.json"),
        figures=tmp_path / "figures",
        progress=progress,
    )
    written = json.loads((tmp_path / "json" / "figures.json").read_text())
    assert len(written.pop("lim_keras_sha256")) == 64
    assert written == report.to_dict() and set(written["protocols"]) == {"tiles", "windows", "scene"}
    assert report.pictures and all(one.exists() for one in report.pictures)
    assert progress.steps and all(done == total for done, total in progress.steps.values())
    alone = lk.evaluate_scene(lk.load_bundle(bundle), scene, truth, bootstrap=5)
    assert alone.detections.to_dict() == written["detections"]
    listed = tmp_path / "ids.txt"
    listed.write_text("ls_0\nnls_0\n")
    again = lk.evaluate(lk.load_bundle(bundle), lk.read_tiles(tiles), tile_ids=listed, windows=2, bootstrap=5)
    assert again.to_dict()["protocols"]["tiles"] == written["protocols"]["tiles"]


def test_load_bundle_by_runtime(bundle, tmp_path):
    images = np.random.default_rng(0).integers(0, 255, (1, 32, 32, 3), np.uint8)
    made = lk.export_litert(bundle, "float32", out=str(tmp_path / "tflite"))
    with ModelServer({"bright": {1: bundle / "fold_0/1"}}, {}) as server:
        models = [
            lk.load_bundle(str(bundle)),
            lk.load_bundle(bundle, fold=0),
            lk.load_bundle(made.folder / "fold_0_float32.tflite", threads=1),
            lk.load_bundle(server.rest("bright"), info=bundle, retries=0),
            lk.load_bundle(server.grpc("bright"), info=str(bundle / "model.json"), timeout_s=60, in_flight=1),
        ]
        answers = [model.predict(images) for model in models]
        for model in models[3:]:
            model.__exit__(None, None, None)
    assert [type(model) for model in models] == [Bundle, Bundle, LiteRtModel, ServerModel, ServerModel]
    assert models[4].in_flight == 1
    for answer in answers:
        np.testing.assert_allclose(answer, answers[0], atol=1e-5)


def test_bundles(bundle):
    assert lk.bundle_info(str(bundle)).name == "bright"
    assert lk.verify_bundle(str(bundle)) == []


def test_tiles(tmp_path, bijie_folder):
    folder, progress = bijie_folder(tmp_path / "tiles"), Progress()
    tiles = lk.read_tiles(str(folder), progress=progress)
    assert list(progress.steps.values()) == [[10, 10]]
    report = lk.dataset_report(tiles, size=32, json_file=str(tmp_path / "report.json"))
    written = json.loads((tmp_path / "report.json").read_text())
    assert len(written.pop("lim_keras_sha256")) == 64 and written == report.to_dict()
    assert lk.dataset_report(str(folder), size=32).to_dict() == report.to_dict()
    overlaps = lk.find_overlaps(tiles, progress=Progress())
    assert lk.find_overlaps(folder) == overlaps and all(one.first in tiles for one in overlaps)
    folds = lk.data.assign_folds(tiles, 2, 0)
    assert set(folds) == set(tiles.ids) and lk.assign_folds is lk.data.assign_folds


TINY = """
name: tiny
model: {name: fcn, encoder: small, encoder_weights: none, decoder_channels: 4}
sampling: {size: 32}
training: {epochs: 1, steps_per_epoch: 2, batch_size: 2, tensorboard: false, validation_fraction: 0.5}
folds: 2
evaluation: {windows: 4, bootstrap: 20}
"""


@pytest.fixture
def training(tmp_path, bijie_folder, monkeypatch):
    """A configuration's file and tiles' folder; runs are written beside them."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(TINY)
    return tmp_path / "tiny.yaml", bijie_folder(tmp_path / "data", 5, 5)


@pytest.mark.slow
def test_fit_with_objects(training, tmp_path):
    config, tiles = lk.load_config(str(training[0]), "name=mine"), lk.read_tiles(training[1])
    results, progress = [], Progress()
    ids = {"test_ids": ["ls_4", "nls_4"], "validation_ids": ["ls_3", "nls_3"]}
    bundle = lk.fit(config, tiles, **ids, run=str(tmp_path / "run"), on_result=results.append, progress=progress)
    assert bundle.path.resolve() == tmp_path / "exported_models" / "mine" and bundle.info.name == "mine"
    assert sorted(bundle.info.test_tiles) == ids["test_ids"] and len(bundle.info.training_tiles) == 6
    assert (tmp_path / "run" / "fold_0" / "model.keras").exists() and len(results) == 1
    assert progress.steps and all(done == total for done, total in progress.steps.values())
    assert bundle.predict(np.zeros((1, 5, 7, 3), np.uint8)).shape == (1, 5, 7)
    with pytest.raises(lk.TrainingError, match=r"holds a run of another configuration.*`run`"):
        lk.fit(str(training[0]), tiles, **ids, run=tmp_path / "run")


@pytest.mark.slow
def test_cross_validate_and_distill(training, tmp_path):
    progress = Progress()
    ensemble = lk.cross_validate(*map(str, training), test_ids=["ls_4", "nls_4"], jobs=2, progress=progress)
    assert ensemble.info.folds == 2 and progress.steps["folds"] == [2, 2]
    config = lk.load_config(training[0], ["name=student"])
    student = lk.distill(ensemble.path, config, training[1], test_ids=["ls_4", "nls_4"], export=tmp_path / "small")
    assert student.path == tmp_path / "small" and student.info.folds == 1
