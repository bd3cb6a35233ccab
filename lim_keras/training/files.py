"""Files of a run that are never half there."""

from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Write beside `path`, then rename: a kill at any moment leaves the old file or the new one."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
