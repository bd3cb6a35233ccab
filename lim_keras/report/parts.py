"""Parts of a report: tables, drawings and text, before they are written as CSV, JSON, Markdown or HTML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from matplotlib.figure import Figure as Chart
from numpy.typing import NDArray

from lim_keras.metrics.binary import Estimate

Value = str | int | float | Estimate | None
"""Value of a table's cell. An estimate has an interval; None stands for an empty cell."""


@dataclass(frozen=True, slots=True)
class Table:
    """Table of a report.

    Attributes:
        name: stem of its files.
        title: its title.
        columns: names of the columns.
        rows: values, as many in each row as there are columns.
        notes: sentences below the table.
        sources: configuration hash of each experiment that its numbers come from.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]
    notes: tuple[str, ...] = ()
    sources: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"table {self.name}: expected {len(self.columns)} values. Received: {row}")


@dataclass(frozen=True, slots=True)
class Drawing:
    """Figure of a report.

    Attributes:
        name: stem of its file.
        caption: sentences below it.
        chart: a chart of matplotlib, or a picture, RGB (height, width, 3).
    """

    name: str
    caption: str
    chart: Chart | NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Part:
    """Part of a report: a title, paragraphs, tables and drawings.

    Attributes:
        name: its name, such as "table3"; it is also its anchor in a page.
        title: its title.
        text: paragraphs. Text between backticks is code.
        tables, drawings: in the order in which they appear.
    """

    name: str
    title: str
    text: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    drawings: tuple[Drawing, ...] = ()
