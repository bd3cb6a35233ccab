"""Kill commands at random moments, look at what they left, and repeat them until they end."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from tests.faults.completeness import differences, hashes, is_draft, unreadable
from tests.faults.conftest import IN_PARTS, RIGHT, command_cases, environment, generator, process_of

KILLS = 4
"""Kills of a chain; its last call ends undisturbed."""

CHAINS = {"predict": 11, IN_PARTS: 3, "export": 4, "fit": 4, "cv": 4, "distill": 3, "tile": 2, "reproduce": 2}
"""Number of chains of each command: 32 chains of 4 kills and the short one of the sample are 130 kills."""

SAMPLE = ("predict", 0)

_LIMIT_S = 600

_STEP_S = 0.002


class Call:
    """A running command in processes of its own."""

    def __init__(self, folder: Path, command: str) -> None:
        self.folder, self.began = folder, time.monotonic()
        self._errors = folder.parent / "errors.txt"
        with self._errors.open("w") as errors:
            self._process = subprocess.Popen(
                process_of(command),
                cwd=folder,
                start_new_session=True,
                env=environment(),
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def wait_until(self, happened: Callable[[], bool]) -> None:
        """Wait until something happened or the command ended."""
        while self.running and not happened():
            if time.monotonic() - self.began > _LIMIT_S:
                self.kill()
                pytest.fail("the command hangs")
            time.sleep(_STEP_S)

    def kill(self) -> bool:
        """Kill the command with all its processes; return False if it had ended before."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        return self._process.wait() == -signal.SIGKILL

    def end(self) -> tuple[int, str]:
        """Wait for the command; return its exit code and its errors."""
        return self._process.wait(timeout=_LIMIT_S), self._errors.read_text()


def moment(rng: np.random.Generator, call: Call, seconds: float, files: int) -> None:
    """Wait for a random moment: of the whole call, of its work, or when the n-th file has got its final name."""
    out, kind = call.folder / "out", rng.integers(4)
    if kind == 0:
        until = call.began + rng.uniform(0, 1.5 * seconds + 3)
    elif kind == 1:
        number = rng.integers(1, files + 1)
        call.wait_until(lambda: out.is_dir() and _final(out) >= number)
        until = time.monotonic() + rng.exponential(0.003)
    else:
        call.wait_until(out.exists)
        until = time.monotonic() + rng.uniform(0, seconds)
    call.wait_until(lambda: time.monotonic() >= until)


def _final(out: Path) -> int:
    count = 0
    for _, folders, files in os.walk(out):  # which skips what vanishes meanwhile
        folders[:] = [name for name in folders if not is_draft(Path(name))]
        count += sum(not is_draft(Path(name)) for name in files)
    return count


@pytest.mark.parametrize(("command", "number"), command_cases(CHAINS, SAMPLE))
def test_killed_calls_lose_nothing(command, number, workplace, twins, ended):
    rng = generator(f"kill {command} {number}")
    folders, seconds = twins(command).folders, twins(command).seconds
    files, kills = _final(folders[0]), 2 if (command, number) == SAMPLE else KILLS
    bystanders = hashes(workplace, without=("out",))
    killed = 0
    for _ in range(10 * kills):
        call = Call(workplace, command)
        moment(rng, call, seconds, files)
        if not call.kill():  # it was done before the moment came
            code, errors = call.end()
            assert code == 0, errors
            assert differences(workplace / "out", folders) == []
            shutil.rmtree(workplace / "out")
            continue
        killed += 1
        ended(f"kill: {command}", RIGHT)
        assert unreadable(workplace / "out") == []
        assert hashes(workplace, without=("out",)) == bystanders
        if killed == kills:
            break
    code, errors = Call(workplace, command).end()
    assert code == 0, errors
    assert differences(workplace / "out", folders) == []
    assert hashes(workplace, without=("out",)) == bystanders
    if command in ("predict", IN_PARTS, "tile"):  # the drafts of a killed training or export stay, under hidden names
        assert [path for path in (workplace / "out").rglob("*") if ".partial" in path.name] == []
