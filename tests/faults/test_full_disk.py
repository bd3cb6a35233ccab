"""Fill the disk at random sizes, make room, and repeat the call."""

import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.faults.completeness import differences, hashes, unreadable
from tests.faults.conftest import CALLS, ERROR, PROJECT, RIGHT, command_cases, command_line, environment, generator
from tests.faults.outcome import check_error

CASES = {"predict": 8, "export": 4, "fit": 4, "evaluate": 4, "tile": 2, "reproduce": 2}
"""Number of sizes of each command, 24 in all; the last one of each limits the size of single files instead."""

SAMPLE = ("predict", 0)


def namespaces() -> bool:
    """Tell whether this user may mount a tmpfs in a namespace of its own."""
    try:
        tried = subprocess.run(
            ["unshare", "-Urm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, check=False
        )
    except OSError:
        return False
    return tried.returncode == 0


@pytest.mark.parametrize(("command", "number"), command_cases(CASES, SAMPLE))
def test_full_disks_lose_nothing(command, number, workplace, tmp_path, twins, ended):
    rng = generator(f"disk {command} {number}")
    folders = twins(command).folders
    files = [path.stat().st_size for path in folders[0].rglob("*") if path.is_file()]
    out, bystanders = workplace / "out", hashes(workplace)
    out.mkdir()
    if number == CASES[command] - 1:
        found = small_files(workplace, command, int(rng.uniform(0.02, 0.98) * max(files)))
    else:
        found = small_disk(workplace, tmp_path / "results", command, int(rng.uniform(0.02, 1.0) * sum(files)))
        out.rmdir()
        shutil.copytree(tmp_path / "results", out)
    first, second = found["first"], found["second"]
    if first["code"] == 0:
        ended(f"full disk: {command}", RIGHT)
    else:
        check_error(first["code"], first["stdout"], first["stderr"])
        ended(f"full disk: {command}", ERROR)
    assert found["unreadable"] == []
    assert second["code"] == 0, second["stderr"]
    assert differences(out, folders) == []
    assert hashes(workplace, without=("out",)) == bystanders


def small_disk(folder: Path, results: Path, command: str, size: int) -> dict:
    """Run a command twice with `out` on a tmpfs: of `size` bytes, then of plenty."""
    if not namespaces():
        pytest.skip("this user cannot mount a tmpfs in a namespace (unshare -Urm)")
    call = [sys.executable, "-m", "lim_keras", *CALLS[command]]
    script = [sys.executable, "-m", "tests.faults.tmpfs_calls", str(folder / "out"), str(size // 1024 + 4)]
    done = subprocess.run(
        ["unshare", "-Urm", *script, str(results), *call],
        env=environment(),
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def small_files(folder: Path, command: str, size: int) -> dict:
    """Run a command twice: with a limit on the size of every file that it writes, then without."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    calls = []
    for prepare in (limit, None):
        done = command_line(folder, *CALLS[command], preexec_fn=prepare)
        calls.append({"code": done.returncode, "stdout": done.stdout, "stderr": done.stderr})
        if prepare:
            problems = unreadable(folder / "out")
    return {"first": calls[0], "second": calls[1], "unreadable": problems}


def test_generator_of_a_case_is_its_own():
    drawn = [generator(name).integers(2**62) for name in ("disk fit 0", "disk fit 1", "disk fit 0")]
    assert drawn[0] == drawn[2] != drawn[1]
    assert isinstance(drawn[0], np.int64)
