"""Check that a folder may be replaced by a new bundle, and that results lie outside of bundles."""

from __future__ import annotations

import os
from pathlib import Path

from lim_keras.bundle.info import INFO_BYTES, INFO_FILE, BundleInfo, is_bundle_name, read_json
from lim_keras.errors import BundleError, DataError, as_argument
from lim_keras.ownership import file_hash, refusal, users_files

_SYSTEM = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})
"""Files that file managers create."""


def check_bundle_folder(path: Path, argument: str = "") -> None:
    """Check that a folder may be replaced as a whole: a bundle without files of the user, an empty folder or none.

    A file of a bundle is the user's if model.json does not list it, or if its content is not what was exported.

    Args:
        path: folder of the bundle that will be written.
        argument: argument that gives the folder, for the error.

    Raises:
        BundleError: the folder's name is no valid bundle name, or the folder holds files of the user.
    """
    if not is_bundle_name(path.name):
        raise BundleError(
            f"{path}: expected a folder's name of letters, digits, `.`, `_` and `-`, which becomes the bundle's name. "
            f"Received: {path.name!r}"
        )
    if not path.is_dir() or not any(path.iterdir()):
        return
    if not (path / INFO_FILE).exists():
        raise BundleError(
            f"{path}: expected a folder with {INFO_FILE}, an empty one or none, because it is replaced as a whole. "
            f"Received: a folder of other files, which would be lost. Give another folder{as_argument(argument)}."
        )
    names = [file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_symlink() or not file.is_dir()]
    found = users_files(path, sorted(name for name in names if not _is_left_over(name)), *_records(path))
    if found:
        raise BundleError(refusal(path, found, argument))


def check_outside_bundles(folder: Path, argument: str = "") -> None:
    """Refuse to write results into a bundle, because it holds only what its model.json lists.

    Args:
        folder: folder of the results, which need not exist.
        argument: argument that gives the folder, for the error.

    Raises:
        DataError: `folder` or a folder above it is a bundle.
    """
    real = Path(os.path.realpath(folder))
    bundle = next((one for one in (real, *real.parents) if _is_bundle(one)), None)
    if bundle is not None:
        raise DataError(
            f"{folder}: expected a place outside of bundles. Received: a place in the bundle {bundle}, whose check "
            f"(`lim-keras verify`) would fail with added files. Nothing was written. Give another place"
            f"{as_argument(argument)}."
        )


def _is_bundle(folder: Path) -> bool:
    """Tell whether a folder holds a model.json and one of its files; for a server, model.json may lie alone."""
    try:
        values = read_json(folder / INFO_FILE, INFO_BYTES)[1]
        files = values["files"] if isinstance(values, dict) and "lim_keras_version" in values else None
        return isinstance(files, dict) and any((folder / name).is_file() for name in files)
    except (BundleError, OSError, KeyError, ValueError):
        return False


def bundle_record(info: BundleInfo) -> dict[str, str]:
    """Return the SHA-256 of every file of a bundle except model.json, by its path inside the bundle."""
    return {name: record.sha256 for name, record in info.files.items()}


def _records(path: Path) -> list[dict[str, str]]:
    """Return what an unchanged model.json lists, and its own hash; nothing if it was changed."""
    own = own_info(path)
    try:
        return [bundle_record(BundleInfo.read(path)), own]
    except BundleError:
        return []


def own_info(folder: Path) -> dict[str, str]:
    """Return the name and SHA-256 of the model.json of a folder, if it is as an export wrote it; else nothing."""
    try:
        info = BundleInfo.read(folder)
        return {INFO_FILE: file_hash(folder / INFO_FILE)} if info.sha256 == info.digest() else {}
    except (BundleError, OSError):
        return {}


def _is_left_over(name: str) -> bool:
    """Tell whether a file is a draft of a killed call, or made by a file manager."""
    return any(part.startswith(".") and ".partial" in part for part in name.split("/")) or name in _SYSTEM
