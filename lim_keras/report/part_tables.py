"""Tables of a report for the terminal."""

from __future__ import annotations

from rich import table as rich_table

from lim_keras.metrics.binary import Estimate
from lim_keras.report.documents import format_value
from lim_keras.report.parts import Table
from lim_keras.report.tables import add_row, new_table


def terminal_table(table: Table) -> rich_table.Table:
    """Return a table for the terminal, without its notes."""
    drawn = new_table(table.title, *table.columns, title_justify="left")
    for number, column in enumerate(drawn.columns):
        column.no_wrap = any(isinstance(row[number], Estimate) for row in table.rows)
        column.overflow = "fold"  # a cut name could stand for two runs
    for row in table.rows:
        add_row(drawn, *map(format_value, row))
    return drawn
