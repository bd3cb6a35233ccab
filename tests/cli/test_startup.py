"""Imports of the commands; TensorFlow is loaded without a greeting."""

import subprocess
import sys
from pathlib import Path

import numpy as np

from lim_keras.raster.writer import write_raster

LITERT = Path(__file__).parents[2] / "exported_models" / "bijie_edge" / "tflite" / "fold_0_int8.tflite"


def load(body: str) -> subprocess.CompletedProcess:
    program = f"import sys\nfrom lim_keras.tensorflow_import import load_tensorflow\n{body}"
    command = [sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_nothing_on_standard_error():
    done = load("load_tensorflow(); print('tensorflow' in sys.modules)")
    assert done.stdout == "True\n"
    assert done.stderr == ""


def test_other_lines_and_errors_are_passed_on(tmp_path, monkeypatch):
    # a stand-in for TensorFlow that writes to the C++ stream as TensorFlow does, and then fails to load
    lines = "I0000 00:00:1.5 1 port.cc:153] hello\\nE0000 00:00:1.5 1 broken.cc:7] no such library\\n"
    (tmp_path / "tensorflow.py").write_text(
        f"import os\nos.write(2, b'{lines}')\nraise ImportError('half installed')\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    done = load("load_tensorflow()")
    assert done.returncode == 1
    assert done.stderr.startswith("E0000 00:00:1.5 1 broken.cc:7] no such library\n")
    assert done.stderr.endswith("ImportError: half installed\n")


def test_tensorflow_keeps_the_memory_of_a_window_for_the_next_one():
    body = """
import os, psutil
from lim_keras.tensorflow_import import load_tensorflow_for_scenes
{0}()
import tensorflow as tf
held = psutil.Process().memory_info().rss
tf.ones([50 * 2**20], tf.float32)
print((psutil.Process().memory_info().rss - held) // 2**20, *(name for name in os.environ if "BFC" in name))
"""
    assert 190 < int(load(body.format("load_tensorflow_for_scenes")).stdout) < 250  # MiB; other processes decide anew
    assert int(load(body.format("load_tensorflow")).stdout) < 50


def test_litert_starts_without_a_message():
    body = (
        "import numpy as np; from lim_keras.bundle.litert import load_litert; "
        f"print(load_litert({str(LITERT)!r}).predict(np.zeros((1, 64, 64, 3), np.uint8)).shape)"
    )
    done = load(body)
    assert (done.stdout, done.stderr) == ("(1, 64, 64)\n", "")


AT_THE_FIRST_WINDOW = """
import sys, time
from lim_keras.bundle.litert import LiteRtModel
from lim_keras.cli import main
from lim_keras.inventory import scene_task

scene_task._LATER = "json"  # what a thread imports during the prediction would be seen, too
first = LiteRtModel.predict_all

def watched(model, images):
    LiteRtModel.predict_all = first
    print(f"seconds={time.process_time():.2f}", *(name for name in sys.argv.pop().split(",") if name in sys.modules))
    return first(model, images)

LiteRtModel.predict_all = watched
main(sys.argv[1:-1])
"""

LATER = (
    *("geopandas", "pandas", "pyarrow", "pyogrio", "shapely"),  # inventories
    *("matplotlib", "scipy", "pystac", "jinja2", "sklearn"),  # previews, polygons, STAC items, pages, folds
    *("tensorflow", "keras", "httpx"),
)


def test_the_first_window_is_reached_without_what_comes_later(tmp_path):
    scene = write_raster(tmp_path / "scene.tif", np.full((96, 128, 3), 90, np.uint8), crs="EPSG:32648")
    command = ["predict", str(LITERT), str(scene), "--out", str(tmp_path / "maps"), ",".join(LATER)]
    done = subprocess.run(
        [sys.executable, "-c", AT_THE_FIRST_WINDOW, *command], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    seconds, *imported = done.stdout.splitlines()[0].split()
    assert imported == [], "imported before the first window"
    assert float(seconds.removeprefix("seconds=")) < 2.5, "about 1 s of processor time is usual"
