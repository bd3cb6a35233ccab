"""A run that the real command line trains in seconds."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

TINY = """
name: tiny
model: {name: fcn, encoder: small, encoder_weights: none, decoder_channels: 4}
sampling: {size: 32}
training: {epochs: 2, steps_per_epoch: 2, batch_size: 2, tensorboard: false, validation_fraction: 0.5}
folds: 2
evaluation: {windows: 4, bootstrap: 20}
"""


@pytest.fixture
def workplace(tmp_path: Path, bijie_folder: Callable[..., Path]) -> Path:
    """A folder with tiny.yaml, data/ (five landslide and five other tiles) and test.txt (ls_4, nls_4)."""
    bijie_folder(tmp_path / "data", 5, 5)
    (tmp_path / "tiny.yaml").write_text(TINY)
    (tmp_path / "test.txt").write_text("# never trained on\nls_4\nnls_4\n")
    return tmp_path


@pytest.fixture
def lim_keras(workplace: Path) -> Callable[..., subprocess.CompletedProcess]:
    """lim_keras("fit", ...): run the real program in `workplace`, in a process of its own."""

    def run(*arguments: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "lim_keras", *arguments]
        package = str(Path(__file__).parents[2])
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([package, os.environ.get("PYTHONPATH", "")])}
        return subprocess.run(
            command, cwd=workplace, env=environment, capture_output=True, text=True, timeout=900, check=False
        )

    return run
