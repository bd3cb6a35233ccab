"""Files that are never half there."""

from pathlib import Path


def write_text(path: Path, text: str) -> Path:
    """Write beside `path`, then rename: a kill at any moment leaves the old file or the new one. Returns `path`."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    return partial.replace(path)
