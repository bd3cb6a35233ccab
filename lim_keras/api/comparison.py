"""Public function that compares training runs."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from lim_keras.api.arguments import as_path, public
from lim_keras.api.places import sealed_place
from lim_keras.errors import ConfigError
from lim_keras.files import StrPath, write_text

if TYPE_CHECKING:
    from lim_keras.comparison.comparison import RunComparison
    from lim_keras.progress import ProgressCallback

Runs: TypeAlias = StrPath | Iterable[StrPath]
"""Run folder, or several."""


@public
def report_runs(
    runs: Runs,
    *,
    out: StrPath | None = "report.html",
    json_file: StrPath | None = None,
    wait: bool = False,
    progress: ProgressCallback | None = None,
) -> RunComparison:
    """Report on a training run, or compare several: scores, folds, curves, calibration, tiles and settings.

    Runs that are not finished are shown as far as they are. Where runs predicted the same tiles, their scores are
    compared with those of the first run, with paired intervals. TensorFlow is not needed.

    Args:
        runs: folders that `fit`, `cross_validate` or `distill` wrote; one or several. A folder that is given twice
            counts once.
        out: HTML page to write, one file with all pictures; None: no page.
        json_file: JSON file to write all figures to; None: no file. Files that exist are replaced only if an earlier
            call wrote them and nothing changed them since.
        wait: wait for the end of another call that writes the same files; False: raise an error.
        progress: receives the progress; None: bars on a terminal.

    Returns:
        The runs and their paired differences.

    Raises:
        ConfigError: no run is given, or both files are one.
        DataError: a folder is no run, a file of it cannot be read, or files of the user would be replaced.

    Examples:
        >>> comparison = lk.report_runs(["runs/plain", "runs/focal"], out="comparison.html")
        >>> [(one.run, one.protocol, one.scores["f1"]) for one in comparison.differences]
    """
    folders = _folders(runs)
    given = (("out", out), ("json_file", json_file))
    files = {name: as_path(name, value) for name, value in given if value is not None}
    if len({os.path.realpath(path) for path in files.values()}) < len(files):
        raise ConfigError("`out` and `json_file` name one file. Give two.")
    from lim_keras.comparison.comparison import RunComparison
    from lim_keras.report.progress import ProgressBar

    shown = progress or ProgressBar()
    with ExitStack() as places:
        for name, path in files.items():
            places.enter_context(sealed_place(path, name, wait=wait))
        comparison = RunComparison.read(folders, shown)
        _write(comparison, files, shown)
    return comparison


def _folders(runs: Runs) -> list[Path]:
    several = [runs] if isinstance(runs, (str, os.PathLike)) else runs
    try:
        folders = [as_path("runs", one) for one in several]
    except TypeError:
        raise ConfigError(f"Invalid value for `runs`. Expected run folders. Received: {runs!r}.") from None
    if not folders:
        raise ConfigError("Invalid value for `runs`. Expected at least one run folder. Received: none.")
    return folders


def _write(comparison: RunComparison, files: dict[str, Path], progress: ProgressCallback) -> None:
    from lim_keras.seals import check_sealed_file, sealed_html, sealed_json

    if "out" in files:
        from lim_keras.comparison.parts import comparison_parts, summary_lines
        from lim_keras.report.documents import report_page
        from lim_keras.report.html import render_page

        labels = [run.label for run in comparison.runs]
        title = f"Run {labels[0]}" if len(labels) == 1 else f"Comparison of {len(labels)} runs"
        page = report_page(comparison_parts(comparison, progress), title, summary_lines(comparison))
        text = sealed_html(render_page(page))
        check_sealed_file(files["out"], "out")
        write_text(files["out"], text)
    if "json_file" in files:
        check_sealed_file(files["json_file"], "json_file")
        write_text(files["json_file"], sealed_json(comparison.to_dict()))
