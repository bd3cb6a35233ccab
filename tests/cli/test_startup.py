"""TensorFlow is loaded without a greeting; what is not a greeting is passed on."""

import subprocess
import sys


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
