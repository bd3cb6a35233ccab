"""The Python API: lazy import, arguments, and every function that the commands call."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import lim_keras as lk
from lim_keras import api

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
            assert f"{argument}:" in words or "so are all arguments" in words, (name, argument)
        assert "Raises:" in words and "Args:" in words, name


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
        ({"xyzzy": 1}, "unknown argument `xyzzy`. Expected some of: bundle, scene, out, threshold"),
        ({"min_slope_deg": 15}, "`min_slope_deg` needs an elevation model. Give `dem`"),
        ({"drop_flat": True}, "`drop_flat` needs `min_slope_deg`"),
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
    with pytest.raises(lk.ConfigError, match=r"`tile_ids`. Expected a file or ids of tiles. Received: 3"):
        lk.evaluate("bundle", "tiles", tile_ids=3)
    with pytest.raises(lk.ConfigError, match="`scene` and `truth` belong together"):
        lk.evaluate("bundle", scene="scene.tif")
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
        ("http://host/v1/models/m", {"fold": 0}, lk.ConfigError, "`fold`: not for the address of a server"),
        ("exported", {"retries": 3, "info": "b"}, lk.ConfigError, "`info`, `retries`: not for a bundle on the disk"),
        (Path(__file__), {}, lk.BundleError, "expected the folder of a bundle, or a .tflite file"),
        ("absent.tflite", {}, lk.BundleError, "tflite.json: not found"),
        ("absent", {}, lk.BundleError, "absent"),
    ],
)
def test_load_bundle_says_what_it_takes(bundle, keywords, error, said):
    with pytest.raises(error, match=said):
        lk.load_bundle(bundle, **keywords)
