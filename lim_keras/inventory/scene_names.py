"""Check of the names and paths of a scene's results."""

from __future__ import annotations

import os
import re

from lim_keras.errors import DataError
from lim_keras.inventory.result_files import ResultFiles
from lim_keras.raster.reader import RasterReader

# File systems allow names of 255 bytes, of which endings and drafts take up to 35; SQLite allows paths of 512.
_NAME_BYTES, _PATH_BYTES = 220, 512
_ODD = re.compile(r"[;!\x00-\x1f\x7f]")  # pyogrio reads ; and ! as parts of a URL
_DRAFT_BYTES = 32  # length of what `atomic_file` adds to the name of a draft


def check_names(reader: RasterReader, files: ResultFiles) -> None:
    """Refuse a scene whose name or folder gives paths that result files cannot have."""
    scene = reader.name
    if odd := _ODD.search(str(files.draft("inventory.gpkg"))):
        raise DataError(
            f"{scene!r}: expected a name and a folder without `;`, `!` and control characters, which GeoPackages "
            f"do not allow in their paths. Received: {odd[0]!r}. Rename the scene, or give another folder."
        )
    if (length := len(os.fsencode(reader.stem))) > _NAME_BYTES:
        raise DataError(
            f"{scene}: expected a name of at most {_NAME_BYTES} bytes without its suffix, because files are named "
            f"after it. Received: {length} bytes. Rename it."
        )
    longest = os.path.realpath(files.draft("inventory.gpkg-journal"))
    if (length := len(os.fsencode(longest)) + _DRAFT_BYTES) > _PATH_BYTES:
        raise DataError(
            f"{scene}: its results have paths of {length} bytes. Expected at most {_PATH_BYTES} bytes, the limit "
            "of GeoPackages. Rename the scene, or give a folder with a shorter path."
        )
