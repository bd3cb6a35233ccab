"""Files that are never half there."""

from contextlib import suppress
from pathlib import Path

from lim_keras.errors import DataError


def make_folder(folder: Path) -> None:
    """Make a folder that an option --out names, and those above it.

    Raises:
        DataError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder}: cannot be made ({error.strerror}). Give another folder with --out.") from error


def write_text(path: Path, text: str) -> Path:
    """Write beside `path`, then rename: a kill at any moment leaves the old file or the new one. Returns `path`.

    Raises:
        DataError: the file cannot be written.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        return partial.replace(path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        raise DataError(
            f"{path}: cannot be written ({error.strerror or error}). Make room, mend the folder or choose another one."
        ) from error
