"""The oracle's own environment: made once in .parity-env/, or an interpreter that LIM_KERAS_PARITY_PYTHON names."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent
CACHE = HERE.parents[1] / ".parity-env"
INSTALL_SECONDS = 600


def run(*command, seconds=120):
    """Run without this project's import path and without accelerators; return exit status and the last words."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment |= {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    try:
        done = subprocess.run(list(map(str, command)), env=environment, timeout=seconds, check=False, **output)
    except subprocess.TimeoutExpired:
        return -1, f"not done after {seconds} s"
    except OSError as error:
        return -1, str(error)
    return done.returncode, done.stdout[-2000:]


def supported_python():
    """An interpreter for which TensorFlow 2.15 and TensorFlow Addons 0.23 have wheels; None if there is none."""
    if (3, 9) <= sys.version_info[:2] <= (3, 11):
        return sys.executable
    return next(filter(None, map(shutil.which, ("python3.11", "python3.10", "python3.9"))), None)


def install(requirements, folder):
    """Make the environment and return its interpreter; skip where it cannot be had, as without a network."""
    python = supported_python()
    if python is None:
        pytest.skip(
            "the parity environment needs Python 3.9, 3.10 or 3.11 (TensorFlow Addons has no wheels for others)"
        )
    shutil.rmtree(folder, ignore_errors=True)
    inside = folder / "bin" / "python"
    pip = (inside, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries", "2")
    for command in ((python, "-m", "venv", folder), (*pip, "--timeout", "20", "-r", requirements)):
        status, said = run(*command, seconds=INSTALL_SECONDS)
        if status:
            last = "".join(said.strip().splitlines()[-1:])
            pytest.skip(f"the parity environment could not be installed: {last}")
    (folder / "complete").touch()
    return inside


@pytest.fixture(scope="session")
def oracle_python():
    """The interpreter that has TensorFlow Addons."""
    named = os.environ.get("LIM_KERAS_PARITY_PYTHON")
    if named:
        return named
    fcntl = pytest.importorskip("fcntl", reason="the parity environment is made on Linux and macOS only")
    requirements = HERE / "requirements.txt"
    folder = CACHE / hashlib.sha256(requirements.read_bytes()).hexdigest()[:12]
    CACHE.mkdir(exist_ok=True)
    (CACHE / ".gitignore").write_text("*\n")
    # Test processes that run side by side must not install into one folder.
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return folder / "bin" / "python" if (folder / "complete").exists() else install(requirements, folder)


@pytest.fixture(scope="session")
def inputs():
    """Inputs of both sides: moderate and extreme logits, images of odd size."""
    rng = np.random.default_rng(2022)
    truth = (rng.random((2, 12, 9, 1)) < 0.3).astype(np.float32)
    logits = rng.normal(0, 3, truth.shape).astype(np.float32)
    logits[:, 0] = rng.choice(np.float32([-100, -30, 30, 100]), logits[:, 0].shape)
    image = rng.uniform(0, 255, (17, 23, 3))
    return {
        "truth": truth,
        "logits": logits,
        "probability": (1 / (1 + np.exp(-rng.normal(0, 3, truth.shape)))).astype(np.float32),
        # landslide weight alpha and background weight 1 - alpha; alpha 0 weighs neither class
        "alpha_gamma": np.array([[0.75, 1.75], [0.25, 1.75], [0.0, 1.75], [0.25, 2.0], [0.75, 0.0]]),
        "image_float": image.astype(np.float32),
        "image_uint8": image.astype(np.uint8),
    }


@pytest.fixture(scope="session")
def addons(oracle_python, inputs, tmp_path_factory):
    """Results of TensorFlow Addons on the inputs."""
    folder = tmp_path_factory.mktemp("parity")
    np.savez(folder / "inputs.npz", **inputs)
    status, said = run(oracle_python, HERE / "oracle.py", folder / "inputs.npz", folder / "outputs.npz")
    if status:
        pytest.fail(f"{oracle_python} could not run the oracle: {said}")
    with np.load(folder / "outputs.npz") as outputs:
        return dict(outputs)
