"""An environment without TensorFlow: made once in .edge-env/, or an interpreter that LIM_KERAS_EDGE_PYTHON names."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".edge-env"
INSTALL_SECONDS = 900
NO_REGISTRY = ("(from versions: none)", "No matching distribution found for setuptools")
"""Messages of pip without a registry. For a bound that no release meets, pip lists the existing releases."""

Run = Callable[..., subprocess.CompletedProcess]


def run(*command: object, seconds: int = 300, folder: Path | None = None) -> subprocess.CompletedProcess:
    """Run without this project's import path; standard output and error apart."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    words = [str(word) for word in command]
    return subprocess.run(
        words, env=environment, cwd=folder, capture_output=True, text=True, timeout=seconds, check=False
    )


def source(folder: Path) -> Path:
    """Copy the sources of a wheel: a build in the repository would include old files of build/."""
    skipped = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "lim_keras", folder / "lim_keras", ignore=skipped)
    for name in ("setup.cfg", "setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / name)
    return folder


def digest(folder: Path) -> str:
    """Digest of the path and content of every file."""
    whole = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        whole.update(f"{path.relative_to(folder)}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return whole.hexdigest()


def install(package: Path, folder: Path) -> None:
    """Make the environment, or bring a changed package into it; skip where no registry can be reached."""
    inside = folder / "bin" / "python"
    commands = [] if inside.exists() else [(sys.executable, "-m", "venv", folder)]
    quick = ("--quiet", "--disable-pip-version-check", "--retries", "2", "--timeout", "20")
    pip = (inside, "-m", "pip", "install", *quick)
    for command in (*commands, (*pip, f"{package}[edge]")):
        done = run(*command, seconds=INSTALL_SECONDS)
        if done.returncode:
            last = "".join(done.stderr.strip().splitlines()[-1:])
            if any(words in done.stderr for words in NO_REGISTRY):
                pytest.skip(f"the environment without TensorFlow could not be installed: {last}")
            pytest.fail(f"pip install '.[edge]' failed: {done.stderr[-2000:]}")


@pytest.fixture(scope="session")
def edge_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of `pip install 'lim-keras[edge]'`, with the package as it is now, not as a link to it."""
    named = os.environ.get("LIM_KERAS_EDGE_PYTHON")
    if named:
        return Path(named)
    fcntl = pytest.importorskip("fcntl", reason="the environment without TensorFlow is made on Linux and macOS only")
    package = source(tmp_path_factory.mktemp("source"))
    # another environment where the requirements change: what is no longer required would stay in this one
    folder = CACHE / hashlib.sha256((package / "setup.cfg").read_bytes()).hexdigest()[:12]
    CACHE.mkdir(exist_ok=True)
    (CACHE / ".gitignore").write_text("*\n")
    # Test processes that run side by side must not install into one folder.
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        installed, now = folder / "installed", digest(package)
        if not installed.exists() or installed.read_text() != now:
            installed.unlink(missing_ok=True)
            install(package, folder)
            installed.write_text(now)
    return folder / "bin" / "python"


@pytest.fixture
def edge(edge_python: Path, tmp_path: Path) -> Run:
    """edge(*arguments): the command line of that environment, in an empty folder."""
    return lambda *arguments: run(edge_python, "-m", "lim_keras", *arguments, folder=tmp_path)


@pytest.fixture
def here(tmp_path: Path) -> Run:
    """here(*arguments): the same command in the environment of the tests."""
    return lambda *arguments: run(sys.executable, "-m", "lim_keras", *arguments, folder=tmp_path)
