"""Tables of a conversion of another data set to tiles."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from lim_keras.report.tables import add_row, new_table

if TYPE_CHECKING:
    from lim_keras.data.convert.record import Conversion, Tally

_SHOWN = 3


def conversion_tables(result: Conversion) -> list[Table | str]:
    """Show the tiles of each kind and split, what was noticed, and what was left out."""
    title = f"{result.source}: {result.tiles:,} tiles, {result.bands} bands, {result.dtype} ({result.format})"
    tiles = new_table(title, "", "tiles", "landslide px", "not labelled px", "all px", title_justify="left")
    for name in ("landslide", "non-landslide"):
        if name in result.kinds:
            _add_tally(tiles, name, result.kinds[name])
    if len(result.splits) > 1:
        for name, tally in result.splits.items():
            _add_tally(tiles, f"split {name or 'none'}", tally)
    parts: list[Table | str] = [tiles]
    notes = dict(result.notes)
    if result.duplicates:
        notes["images of the same file as another (one group)"] = result.duplicates
    if notes:
        noticed = new_table("Noticed", "", "count", title_justify="left")
        for name, number in notes.items():
            add_row(noticed, name, f"{number:,}")
        parts.append(noticed)
    if result.left_out:
        parts.append(_left_out(result))
    return parts


def _add_tally(table: Table, name: str, tally: Tally) -> None:
    add_row(table, name, *(f"{one:,}" for one in (tally.tiles, tally.landslide_px, tally.ignored_px, tally.px)))


def _left_out(result: Conversion) -> Table:
    table = new_table("Left out", "reason", "count", title_justify="left")
    table.add_column("first", overflow="fold")
    for reason, some in result.reasons().items():
        shown = "; ".join(f"{one.name} ({one.detail})" if one.detail else one.name for one in some[:_SHOWN])
        add_row(table, reason, f"{len(some):,}", shown + ("; ..." if len(some) > _SHOWN else ""))
    return table
