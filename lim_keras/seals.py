"""Seals in JSON, PNG, HTML and Markdown files: digests that tell unchanged files of this package from others."""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lim_keras.errors import DataError, as_argument
from lim_keras.ownership import refusal

_KEY = "lim_keras_sha256"
"""Last key of a sealed JSON object, keyword of the text chunk of a sealed PNG file, and name in the comment at the end
of a sealed HTML or Markdown file."""

_SIGNATURE = b"\x89PNG\r\n\x1a\n"

_LARGEST = 256 * 2**20  # bytes of a file that may be sealed; larger files are not read


def sealed_json(values: Mapping[str, Any]) -> str:
    """Format values as JSON with a seal as the last key. Values must not be NaN or infinite."""
    text = json.dumps(values, indent=2, allow_nan=False)
    return json.dumps({**values, _KEY: hashlib.sha256(text.encode()).hexdigest()}, indent=2, allow_nan=False) + "\n"


def seal_png(path: Path) -> None:
    """Add a seal to a PNG file, as its last text chunk.

    Raises:
        OSError: the file cannot be read or written, or is no whole PNG file.
    """
    content = path.read_bytes()
    start = _end_chunk(content)
    chunk = _text_chunk(hashlib.sha256(content).hexdigest())
    path.write_bytes(content[:start] + chunk + content[start:])


def sealed_html(text: str) -> str:
    """Add a seal to an HTML page or a Markdown file, as a comment in its last line."""
    return f"{text}<!-- {_KEY} {hashlib.sha256(text.encode()).hexdigest()} -->\n"


def has_seal(values: Mapping[str, Any]) -> bool:
    """Tell whether a JSON object has a seal, also if it changed since."""
    return _KEY in values


def is_sealed(path: Path) -> bool:
    """Tell whether a file has a seal and is as it was when it was sealed."""
    try:
        if path.is_symlink() or not path.is_file() or path.stat().st_size > _LARGEST:
            return False
        content = path.read_bytes()
        if content.startswith(_SIGNATURE):
            return _is_sealed_png(content)
        text = content.decode()
        return _is_sealed_html(text) if text.endswith("-->\n") else _is_sealed_json(text)
    except (OSError, ValueError, RecursionError):
        return False


def check_sealed(folder: Path, names: Iterable[str], argument: str = "") -> None:
    """Refuse to replace files that have no seal or changed since they were sealed. Call this before any work.

    Args:
        folder: folder of the files.
        names: files that will be written, relative to `folder`.
        argument: argument that gives the folder or file, for the error.

    Raises:
        DataError: such files are there; the error names all of them.
    """
    there = [folder / name for name in names if (folder / name).is_symlink() or (folder / name).exists()]
    foreign = {path: "not written by lim-keras, or changed since" for path in there if not is_sealed(path)}
    if foreign:
        raise DataError(refusal(folder, foreign, argument))


def check_sealed_file(path: Path, argument: str) -> None:
    """Refuse to replace one file, which `argument` gives, as `check_sealed` does."""
    if (path.is_symlink() or path.exists()) and not is_sealed(path):
        raise DataError(
            f"{path}: the report would replace {path.name} (not written by lim-keras, or changed since). Nothing was "
            f"replaced. Move or rename it, or give another file{as_argument(argument)}."
        )


def _is_sealed_json(text: str) -> bool:
    values = json.loads(text)
    if not isinstance(values, dict) or _KEY not in values:
        return False
    return sealed_json({name: value for name, value in values.items() if name != _KEY}) == text


def _is_sealed_html(text: str) -> bool:
    return sealed_html(text[: text.rfind(f"<!-- {_KEY} ")]) == text


def _is_sealed_png(content: bytes) -> bool:
    end = _end_chunk(content)
    start = end - len(_text_chunk("0" * 64))
    unsealed = content[:start] + content[end:]
    return content[start:end] == _text_chunk(hashlib.sha256(unsealed).hexdigest())


def _end_chunk(content: bytes) -> int:
    start = len(content) - 12
    if start < len(_SIGNATURE) or content[start + 4 : start + 8] != b"IEND":
        raise OSError("the picture is not a whole PNG file")
    return start


def _text_chunk(text: str) -> bytes:
    body = b"tEXt" + _KEY.encode() + b"\0" + text.encode()
    return struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
