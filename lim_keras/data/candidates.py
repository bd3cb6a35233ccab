"""What a folder or a manifest claims of its tiles, before a file is opened; and the one error for all that is wrong."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lim_keras.data.tile import Ignore, Kind
from lim_keras.errors import DataError

_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Candidate:
    """A tile as claimed: fields are those of `Tile`, None where nothing is claimed."""

    tile_id: str
    image: Path
    mask: Path | None
    kind: Kind | None = None
    group: str = ""
    scene: str = ""
    x: float | None = None
    y: float | None = None
    width: int | None = None
    height: int | None = None
    gsd_m: float | None = None
    crs: str = ""
    landslide_px: int | None = None
    valid_px: int | None = None
    ignore: Ignore = ""


def raise_problems(where: Path, problems: Sequence[str]) -> None:
    """Raise one DataError that lists the first 20 problems, one a line, and counts the rest; none: do nothing."""
    if not problems:
        return
    lines = [f"{where}: {len(problems)} problem{'s' if len(problems) > 1 else ''} with the tiles:", *problems[:_SHOWN]]
    if len(problems) > _SHOWN:
        lines.append(f"... and {len(problems) - _SHOWN} more.")
    raise DataError("\n  ".join(lines))
