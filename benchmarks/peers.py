"""Compare lim-keras with its peers in one run: the same network in other libraries, and other packages' whole way.

    python benchmarks/peers.py exported_models/bijie_edge --scene scene.tif
    python benchmarks/peers.py exported_models/bijie_edge --scene scene.tif --windows 4 --size 512 --only torch

First table: the network of the bundle on the same windows of the scene, in memory. Each library predicts one window to
start with, then all of them --passes times; the fastest pass counts. Second table: from the scene to polygons, as a
user would call it, in a new process; peers take windows of --size px that overlap by --overlap px.

A peer whose packages are installed beside lim-keras runs in a process there. Each other one gets an environment in the
folder --scratch, which a later run takes again. A peer that cannot be installed or fails stands in the table with the
reason. Sizes are rows and columns, times are seconds.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_RUNS = Path(__file__).with_name("peer_runs.py")
_TORCH = ("torch", "onnx2torch")
_NETWORKS: dict[str, tuple[str, ...]] = {  # packages, without those of lim-keras itself
    "lim-keras, OpenVINO": (),
    "lim-keras, LiteRT": (),
    "lim-keras, TensorFlow": (),
    "OpenVINO": ("openvino",),
    "LiteRT": ("ai-edge-litert",),
    "TensorFlow": ("tensorflow",),
    "ONNX Runtime": ("onnxruntime",),
    "PyTorch": _TORCH,
}
_WHOLE: dict[str, tuple[str, ...]] = {
    "lim-keras": (),
    "geoai-py": ("geoai-py", *_TORCH),
    "TorchGeo": ("torchgeo", "requests", *_TORCH),  # it imports requests, but does not require it
}
_IMPORTED_AS = {"ai-edge-litert": "ai_edge_litert", "geoai-py": "geoai"}
_NETWORK_COLUMNS = (
    *("library", "mpx_per_second", "mpx_per_processor_second", "time_over_lim_keras", "processor_time_over_lim_keras"),
    "largest_difference",
)
_WHOLE_COLUMNS = (
    *("package", "seconds", "processor_seconds", "peak_mib", "time_over_lim_keras", "processor_time_over_lim_keras"),
    "polygons",
)


class PeerError(Exception):
    """A peer cannot be installed or does not run; the text is one line."""


def main() -> None:
    """Measure, print both tables and the load, and write JSON to the file of --json."""
    options = _options()
    options.scratch.mkdir(parents=True, exist_ok=True)
    load = [os.getloadavg()[0]]
    try:
        files = prepare(options)
    except PeerError as error:
        sys.exit(str(error))
    networks = [_row(name, options, _NETWORKS[name], files | {"engine": name}) for name in _chosen(options, _NETWORKS)]
    whole = [_row(name, options, _WHOLE[name], files | {"package": name}) for name in _chosen(options, _WHOLE)]
    load.append(os.getloadavg()[0])
    tables = {"networks": _compared(networks, "pass"), "whole": _compared(whole, "run")}
    for rows, columns in ((networks, _NETWORK_COLUMNS), (whole, _WHOLE_COLUMNS)):
        if rows:
            print(_table(rows, columns), end="\n\n")
    print(f"{os.cpu_count()} cores; load average {load[0]:.1f} at the start, {load[1]:.1f} at the end")
    if options.json:
        options.json.write_text(json.dumps(tables | {"load": load}, indent=2) + "\n", encoding="utf-8")


def prepare(options: argparse.Namespace) -> dict[str, Any]:
    """Copy the bundle, export its ONNX and LiteRT files, and cut the windows; return what the measurements need."""
    digest = hashlib.sha256((options.bundle / "model.json").read_bytes()).hexdigest()
    bundle = options.scratch / f"bundle_{digest[:12]}"
    if not bundle.exists():
        shutil.copytree(options.bundle, bundle)
    for kind, words in {"onnx": ("--onnx",), "tflite": ("--tflite", "float32")}.items():
        if not [*(bundle / kind).glob("*float32.tflite"), *(bundle / kind).glob("*.onnx")]:
            try:
                _called([sys.executable, "-m", "lim_keras", "export", bundle, *words], f"no {kind} file")
            except PeerError as error:
                print(error, file=sys.stderr)  # the peers that read the file say that they fail
    task = {"cut": str(options.scene), "bundle": str(bundle), "windows": options.windows, "size": options.size}
    task |= {"out": str(options.scratch / "windows.npy")}
    cut = _in_process(Path(sys.executable), task, options.scratch)[0]
    files = {"bundle": str(bundle), "scene": str(options.scene), "maps": str(options.scratch / "maps")}
    return cut | files | {name: getattr(options, name) for name in ("size", "passes", "overlap")}


def _row(name: str, options: argparse.Namespace, packages: tuple[str, ...], task: dict[str, Any]) -> dict[str, Any]:
    """Measure one peer; its row says why where it cannot be measured."""
    row: dict[str, Any] = {"library": name, "package": name}
    try:
        python = _environment(name, packages, options)
        if "onnx2torch" in packages:
            task |= {"torch_file": str(options.scratch / f"{name.lower()}.pt")}
            _in_process(python, task | {"convert": True}, options.scratch)
        answer, used = _in_process(python, task, options.scratch)
        row |= used | answer
    except PeerError as error:
        row |= {"error": str(error)}
    print(json.dumps(row), file=sys.stderr)
    return row


def _environment(name: str, packages: tuple[str, ...], options: argparse.Namespace) -> Path:
    """Return the interpreter that has these packages, and install them in an environment of their own if none has."""
    if all(find_spec(_IMPORTED_AS.get(one, one)) for one in packages):
        return Path(sys.executable)
    folder: Path = options.scratch / f"env_{name.lower()}"
    python, done = folder / "bin" / "python", folder / "installed"
    if not done.exists():
        wanted = [options.torch if one == "torch" else one for one in packages]
        _called([sys.executable, "-m", "venv", folder], "no environment", options.install_limit)
        _called([python, "-m", "pip", "install", "-q", *wanted], "not installed", options.install_limit)
        done.touch()
    return python


def _called(command: list[str | Path], problem: str, limit: float | None = None) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        raise PeerError(f"{problem} within {limit} s") from None
    if done.returncode:
        raise PeerError(f"{problem}: {_last_line(done.stderr)}")


def _in_process(python: Path, task: dict[str, Any], scratch: Path) -> tuple[dict[str, Any], dict[str, float]]:
    """Do a task in a new process; return its answer, and the seconds, processor seconds and peak memory it took."""
    shutil.rmtree(scratch / "maps", ignore_errors=True)
    with (scratch / "out.txt").open("w+") as out, (scratch / "log.txt").open("w+") as log:
        started = time.perf_counter()
        process = subprocess.Popen([python, _RUNS, json.dumps(task)], stdout=out, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        log.seek(0)
        if process.returncode:
            raise PeerError(f"fails: {_last_line(log.read()) or f'exit code {process.returncode}'}")
        answer: dict[str, Any] = json.loads(out.read().splitlines()[-1])
    used = {"run_seconds": seconds, "run_processor_seconds": usage.ru_utime + usage.ru_stime}
    return answer, used | {"peak_mib": round(usage.ru_maxrss / 1024)}


def _compared(rows: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """Add the times, as a multiple of those of lim-keras's fastest row. `kind`: "pass" or "run"."""
    for figure, column in (("seconds", "time_over_lim_keras"), ("processor_seconds", "processor_time_over_lim_keras")):
        key = f"{kind}_{figure}"
        own = [row[key] for row in rows if key in row and row["package"].startswith("lim-keras")]
        for row in rows:
            if key in row:
                row[figure] = round(row[key], 1)
                row[column] = round(row[key] / min(own), 2) if own else ""
    return rows


def _table(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> str:
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for row in rows:
        cells = [str(row.get(name, "")) for name in columns]
        lines.append(f"| {' | '.join(cells if 'error' not in row else [cells[0], row['error'], *cells[2:]])} |")
    return "\n".join(lines)


def _chosen(options: argparse.Namespace, table: dict[str, tuple[str, ...]]) -> Iterator[str]:
    wanted = [one.lower() for one in options.only or ("",)]
    if ("networks" if table is _NETWORKS else "whole") in options.tables:
        yield from (name for name in table if any(one in name.lower() for one in wanted))


def _last_line(text: str) -> str:
    """Return the last line that says something, without what would break the table."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and "WARNING" not in line]
    return lines[-1].replace("|", "/")[:200] if lines else ""


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--scene", type=Path, required=True, help="GeoTIFF")
    parser.add_argument("--windows", type=int, default=12, help="windows of the first table")
    parser.add_argument("--size", type=int, default=1024, help="side of a window of both tables, pixels")
    parser.add_argument("--overlap", type=int, default=256, help="overlap of the peers' windows in the second table")
    parser.add_argument("--passes", type=int, default=2)
    parser.add_argument("--tables", nargs="+", choices=("networks", "whole"), default=("networks", "whole"))
    parser.add_argument("--only", nargs="+", help="parts of names of peers [default: all]")
    parser.add_argument("--torch", default="torch", help="what pip installs for PyTorch, such as torch==2.9.0+cpu")
    parser.add_argument("--install-limit", type=int, default=900, help="seconds for each environment")
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()) / "lim-keras-peers")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
