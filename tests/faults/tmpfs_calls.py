"""Run a command on a file system that is too small, then again after room was made. Started inside `unshare -Urm`.

Arguments: mount point, KiB, folder to copy the results into, then the command. Prints one JSON object: code, stdout and
stderr of both calls, and the files that the first one left unreadable. A folder `before` beside the mount point is
copied into it first.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

from tests.faults.completeness import final_files, unreadable

ROOM = "size=400m"


def main(place: Path, kib: str, results: Path, command: list[str]) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", place], check=True)
    first = run(command, place)
    problems, kept = unreadable(place), sorted(map(str, final_files(place)))
    subprocess.run(["mount", "-o", f"remount,{ROOM}", place], check=True)
    second = run(command, place)
    shutil.copytree(place, results)
    print(json.dumps({"first": first, "unreadable": problems, "kept": kept, "second": second}))


def run(command: list[str], place: Path) -> dict[str, object]:
    ended = subprocess.run(command, cwd=place.parent, capture_output=True, text=True, timeout=500, check=False)
    return {"code": ended.returncode, "stdout": ended.stdout, "stderr": ended.stderr}


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), sys.argv[4:])
