"""Mark the folder of a demo, and refuse folders of the user."""

from __future__ import annotations

from pathlib import Path

from lim_keras.errors import DataError
from lim_keras.files import make_folder, write_text
from lim_keras.seals import check_sealed, is_sealed, sealed_json

_MARKER = "demo.json"

IMBALANCE, FIGURES, REPORT = "imbalance.png", "figures", "evaluation.json"
"""Files and folder of the demo that it writes again in each call."""

_PROTOCOLS = ("tiles", "windows", "scene")


def begin_demo_folder(folder: Path) -> None:
    """Check that a folder is new, empty, or of an earlier demo with unchanged results; mark a new one.

    Raises:
        DataError: the folder holds files of the user that would be replaced.
    """
    make_folder(folder, "out")
    if not any(folder.iterdir()):
        write_text(folder / _MARKER, sealed_json({"folder": "results of `lim-keras demo`"}))
    if not is_sealed(folder / _MARKER):
        raise DataError(f"{folder} is not empty and holds no demo. Expected a new folder; give one as `out`.")
    names = ["scene", "reliability", *(f"{protocol}_{which}" for protocol in _PROTOCOLS for which in ("best", "worst"))]
    check_sealed(folder, [IMBALANCE, REPORT, *(f"{FIGURES}/{name}.png" for name in names)], "out")
