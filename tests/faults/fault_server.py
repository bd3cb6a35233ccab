"""Run calls of the package in forked processes that are watched: time, memory, signals.

A program that imports the package once and then reads one JSON object a line:
{"arguments": [...], "folder": ..., "seconds": ..., "memory": bytes}; "function" and "values" may replace "arguments".
It answers with {"code", "signal", "hang", "stdout", "stderr", "seconds", "memory"}; "code" is None after a signal.
"""

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_STEP_S = 0.005


@dataclass(frozen=True)
class Outcome:
    """End of a call: exit code or signal, its output, its time in seconds and its peak memory in bytes."""

    code: int | None
    signal: int | None
    hang: bool
    stdout: str
    stderr: str
    seconds: float
    memory: int


class FaultServer:
    """Client of this program. `close` ends it."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def call(self, folder: Path, *arguments: str, seconds: float = 60, memory: int = 3 * 2**30) -> Outcome:
        """Run `lim-keras ARGUMENTS` in a folder, with a limit of its time and of the memory that it may add."""
        return self._send({"arguments": arguments}, folder, seconds, memory)

    def function(self, folder: Path, name: str, *values: Any, seconds: float = 60, memory: int = 3 * 2**30) -> Outcome:
        """Call `lim_keras.NAME(*values)` in a folder; an error of the package is printed as the command line does."""
        return self._send({"function": name, "values": values}, folder, seconds, memory)

    def _send(self, what: dict[str, Any], folder: Path, seconds: float, memory: int) -> Outcome:
        assert self._process.stdin is not None and self._process.stdout is not None
        request = what | {"folder": str(folder), "seconds": seconds, "memory": memory}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return Outcome(**json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        """End the program."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)
        self._process.stdout.close()


def serve() -> None:
    """Answer requests until standard input ends."""
    _import_package()
    for line in sys.stdin:
        print(json.dumps(_answer(json.loads(line))), flush=True)


def _import_package() -> None:
    import importlib

    for name in ("evaluation.scene", "inventory.batch", "report.preview", "report.tables", "data.layouts", "config"):
        importlib.import_module(f"lim_keras.{name}")
    for name in ("cli.prediction", "cli.models", "cli.exports", "cli.data", "cli.training", "bundle.litert"):
        importlib.import_module(f"lim_keras.{name}")
    from ai_edge_litert import interpreter

    assert interpreter.Interpreter
    from lim_keras.tensorflow_import import load_tensorflow

    load_tensorflow()  # no operation runs here, so that TensorFlow has no threads when this process forks
    importlib.import_module("lim_keras.bundle.saved_model")


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        started = time.monotonic()
        child = os.fork()
        if child == 0:
            _run(request, out.fileno(), err.fileno())
        status, used, hang = _wait(child, started + request["seconds"])
        signalled = os.WIFSIGNALED(status)
        return {
            "code": None if signalled else os.WEXITSTATUS(status),
            "signal": os.WTERMSIG(status) if signalled else None,
            "hang": hang,
            "stdout": _text(out),
            "stderr": _text(err),
            "seconds": time.monotonic() - started,
            "memory": used.ru_maxrss * 1024,
        }


def _wait(child: int, deadline: float) -> tuple[int, resource.struct_rusage, bool]:
    while time.monotonic() < deadline:
        pid, status, used = os.wait4(child, os.WNOHANG)
        if pid:
            return status, used, False
        time.sleep(_STEP_S)
    os.kill(child, signal.SIGKILL)
    _, status, used = os.wait4(child, 0)
    return status, used, True


def _text(stream: Any) -> str:
    stream.seek(0)
    return str(stream.read().decode("utf-8", "replace"))


def _run(request: dict[str, Any], out: int, err: int) -> None:
    """Run a request in this process, and end it."""
    code = 70
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out, 1)
        os.dup2(err, 2)
        os.chdir(request["folder"])
        _limit_memory(request["memory"])
        code = _call(request)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _limit_memory(added: int) -> None:
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + added, in_use + added))


def _call(request: dict[str, Any]) -> int:
    import lim_keras
    from lim_keras.cli import main
    from lim_keras.errors import LimKerasError

    if "arguments" in request:
        main(args=request["arguments"], prog_name="lim-keras")
        return 0
    warnings.showwarning = _show_line
    try:
        print(repr(getattr(lim_keras, request["function"])(*request["values"]))[:1000])
    except LimKerasError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


def _show_line(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
    from lim_keras.errors import LimKerasWarning

    known = issubclass(category, LimKerasWarning)
    print(f"Warning: {message}" if known else f"{where}: {category}: {message}", file=sys.stderr)


if __name__ == "__main__":
    serve()
