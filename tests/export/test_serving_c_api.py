"""Exports run by TensorFlow's C library in a program of ours that holds no Python (serve_c_api.c)."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from lim_keras.bundle.saved_model import load_bundle

pytestmark = pytest.mark.slow  # the C library is a gigabyte to link and to load

PIXELS = np.random.default_rng(3).integers(0, 256, (1, 19, 33, 3), np.uint8)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler (gcc, cc) is installed")
    libraries = Path(tf.sysconfig.get_lib())
    path = tmp_path_factory.mktemp("program") / "serve_c_api"
    command = [compiler, "-std=c11", "-Wall", "-Wextra", "-Werror", str(Path(__file__).with_name("serve_c_api.c"))]
    command += ["-isystem", tf.sysconfig.get_include(), "-o", str(path), "-Wl,--allow-shlib-undefined"]
    command += [str(libraries / name) for name in ("libtensorflow_cc.so.2", "libtensorflow_framework.so.2")]
    built = subprocess.run([*command, f"-Wl,-rpath,{libraries}"], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return path


def tensor_names(model: Path, signature: str) -> tuple[str, str]:
    """Names of the input and of the probability, as the server reads them from the signature."""
    saved = saved_model_pb2.SavedModel.FromString((model / "saved_model.pb").read_bytes())
    known = saved.meta_graphs[0].signature_def[signature]
    (given,) = known.inputs.values()
    return given.name, known.outputs["probability"].name


def run(program: Path, model: Path, signature: str, kind: str, file: Path, *shape: int) -> subprocess.CompletedProcess:
    command = [program, model, *tensor_names(model, signature), kind, file, *shape]
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=300, check=False)


def pixels_file(folder: Path, pixels: np.ndarray) -> Path:
    file = folder / "pixels.bin"
    file.write_bytes(pixels.astype("<f4").tobytes())
    return file


def answer(done: subprocess.CompletedProcess) -> np.ndarray:
    assert done.returncode == 0, done.stderr
    shape, values = done.stdout.splitlines()
    return np.array(values.split(), np.float32).reshape([int(size) for size in shape.split()])


@pytest.mark.parametrize("name", ["ensemble", "fold_1"])
def test_every_export_answers_as_in_python(program: Path, bundle_path: Path, tmp_path: Path, name: str) -> None:
    fold = None if name == "ensemble" else int(name.removeprefix("fold_"))
    expected = load_bundle(bundle_path, fold).predict(PIXELS)
    assert expected.std() > 0.003
    file = pixels_file(tmp_path, PIXELS)
    got = answer(run(program, bundle_path / name / "1", "serving_default", "float32", file, *PIXELS.shape))
    assert got.shape == (1, 19, 33, 1)
    np.testing.assert_allclose(got[..., 0], expected, rtol=0, atol=1e-6)


def test_a_png_answers_as_in_python(program: Path, bundle_path: Path, tmp_path: Path) -> None:
    (tmp_path / "image.png").write_bytes(tf.io.encode_png(PIXELS[0]).numpy())
    got = answer(run(program, bundle_path / "ensemble" / "1", "encoded", "string", tmp_path / "image.png"))
    np.testing.assert_allclose(got[..., 0], load_bundle(bundle_path).predict(PIXELS), rtol=0, atol=1e-6)


def test_pixels_of_twice_the_bands_are_refused(program: Path, bundle_path: Path, tmp_path: Path) -> None:
    """A session takes any shape; without a check in the graph, a convolution would take six bands as two groups."""
    file = pixels_file(tmp_path, np.zeros((1, 8, 8, 6)))
    done = run(program, bundle_path / "fold_0" / "1", "serving_default", "float32", file, 1, 8, 8, 6)
    assert done.returncode == 1 and not done.stdout
    assert "[1,8,8,6] is not compatible with expected shape [?,?,?,3]" in done.stderr


def test_what_is_no_picture_is_refused(program: Path, bundle_path: Path, tmp_path: Path) -> None:
    (tmp_path / "image.png").write_bytes(b"no picture")
    done = run(program, bundle_path / "fold_0" / "1", "encoded", "string", tmp_path / "image.png")
    assert done.returncode == 1 and not done.stdout
    assert "image_bytes: expected the content of a PNG or JPEG file" in done.stderr
