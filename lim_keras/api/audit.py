"""Public function that audits labelled tiles."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from lim_keras.api.arguments import TileIds, as_ids, as_number, as_path, public
from lim_keras.api.places import sealed_place
from lim_keras.api.tiles import as_tiles
from lim_keras.errors import ConfigError
from lim_keras.files import StrPath, write_text

if TYPE_CHECKING:
    from lim_keras.api.tiles import Tiles
    from lim_keras.audit.disagreement import FinishedRun
    from lim_keras.data.findings import AuditReport
    from lim_keras.progress import ProgressCallback


@public
def audit_tiles(
    tiles: Tiles,
    *,
    run: StrPath | None = None,
    test_ids: TileIds | None = None,
    min_distance_m: float | None = None,
    html_file: StrPath | None = None,
    json_file: StrPath | None = None,
    wait: bool = False,
    progress: ProgressCallback | None = None,
) -> AuditReport:
    """Audit labelled tiles: find leaks, label errors, defects of images, and shortcuts.

    The split comes from `run`; without a run, from the column `fold` of a tiles.csv; without both, from `test_ids`, and
    later folds may then separate any two groups of the other tiles.

    Args:
        tiles: tiles, or their path; see `read_tiles`.
        run: folder of a finished `cross_validate` or `fit`. Its out-of-fold predictions show candidates for label
            errors.
        test_ids: ids of test tiles, or a file of these ids; None: those of the run.
        min_distance_m: smallest distance allowed between georeferenced tiles of two sides of the split, metres; None:
            any, and the smallest distance is reported.
        html_file: HTML page to write, one file with all pictures; None: no page.
        json_file: JSON file to write all results to; None: no file. Files that exist are replaced only if an earlier
            call wrote them and nothing changed them since.
        wait: wait for the end of another call that writes the same files; False: raise an error.
        progress: receives the progress; None: bars on a terminal.

    Returns:
        All checks with the tiles that they found; `has_leak` tells whether the split leaks.

    Raises:
        ConfigError: `min_distance_m` is below 0 or above 50,000, or both files are one.
        DataError: tiles, ids or the run are invalid, or files of the user would be replaced.

    Examples:
        >>> report = lk.audit_tiles("bijie_tiles.csv", run="runs/bijie_edge", html_file="audit.html")
        >>> [check.title for check in report.findings]
    """
    from lim_keras.config import LARGEST_BUFFER_M

    limit = None if min_distance_m is None else as_number("min_distance_m", min_distance_m)
    if limit is not None and not 0 <= limit <= LARGEST_BUFFER_M:
        raise ConfigError(
            f"Invalid value for `min_distance_m`. Expected metres from 0 to {LARGEST_BUFFER_M:,}. Received: {limit}."
        )
    files = {
        name: as_path(name, value)
        for name, value in (("html_file", html_file), ("json_file", json_file))
        if value is not None
    }
    if len({os.path.realpath(path) for path in files.values()}) < len(files):
        raise ConfigError("`html_file` and `json_file` name one file. Give two.")
    with ExitStack() as places:
        for name, path in files.items():
            places.enter_context(sealed_place(path, name, wait=wait))
        finished = None if run is None else _finished(as_path("run", run))
        report = _audit(tiles, finished, tuple(as_ids("test_ids", test_ids) or ()), limit, progress)
        _write(report, finished, files, progress)
    return report


def _finished(folder: Path) -> FinishedRun:
    from lim_keras.audit.disagreement import FinishedRun

    return FinishedRun.read(folder)


def _audit(
    tiles: Tiles,
    finished: FinishedRun | None,
    test_ids: Sequence[str],
    min_distance_m: float | None,
    progress: ProgressCallback | None,
) -> AuditReport:
    from lim_keras.audit.audit import audit
    from lim_keras.report.progress import ProgressBar

    return audit(
        as_tiles(tiles, progress),
        finished=finished,
        folds=_folds(tiles),
        test_ids=test_ids,
        min_distance_m=min_distance_m,
        progress=progress or ProgressBar(),
    )


def _folds(tiles: Tiles) -> Mapping[str, int] | None:
    """Read the column `fold` of a manifest; None for other tiles."""
    from lim_keras.data.manifest import read_folds
    from lim_keras.data.tiles import TileSet

    if isinstance(tiles, TileSet):
        return None
    path = Path(tiles)
    path = path / "tiles.csv" if path.is_dir() else path
    if not path.is_file() or "fold" not in _header(path):
        return None
    return read_folds(path) or None


def _header(path: Path) -> list[str]:
    with path.open(encoding="utf-8-sig", errors="replace") as stream:
        return [name.strip().strip('"') for name in stream.readline().split(",")]


def _write(
    report: AuditReport,
    finished: FinishedRun | None,
    files: Mapping[str, Path],
    progress: ProgressCallback | None,
) -> None:
    from lim_keras.report.audit_page import audit_page
    from lim_keras.report.progress import ProgressBar
    from lim_keras.seals import check_sealed_file, sealed_html, sealed_json

    if "html_file" in files:
        predict = None if finished is None else finished.prediction
        page = sealed_html(audit_page(report, predict, progress=progress or ProgressBar()))
        check_sealed_file(files["html_file"], "html_file")
        write_text(files["html_file"], page)
    if "json_file" in files:
        check_sealed_file(files["json_file"], "json_file")
        write_text(files["json_file"], sealed_json(report.to_dict()))
