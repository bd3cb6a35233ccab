"""Parts of a report as CSV, JSON, PNG, Markdown and HTML files."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import re
from collections.abc import Collection, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import quote

from matplotlib.figure import Figure as Chart

from lim_keras.errors import DataError
from lim_keras.files import make_folder, write_text
from lim_keras.metrics.binary import Estimate
from lim_keras.ownership import Record, file_hash, is_ours, refusal, users_files
from lim_keras.report import html, style
from lim_keras.report.parts import Drawing, Part, Table, Value
from lim_keras.report.tables import format_estimate, format_number
from lim_keras.seals import check_sealed, is_sealed, sealed_html, sealed_json

TABLES, FIGURES, MARKDOWN, PAGE = "tables", "figures", "report.md", "report.html"
"""Names in the folder of a report."""

_CSV_HASHES = "csv_sha256"
"""Key of a table's JSON file: SHA-256 of the CSV files that may lie beside it."""

_HASH_DIGITS = 8

_LISTED = 12
"""Largest number of configurations that are listed below a table."""

_SHORT = 22
"""Letters of a text in a table of a page that stays on one line."""

_SPECIAL = re.compile(r"([\\*_<>|$~]|(?<=\])\()")
"""Characters of Markdown that are no text; a link begins with `](`."""

_LINE_START = re.compile(r"^([#+=-]|\d+[.)])")


def check_report_files(folder: Path, parts: Collection[str], argument: str = "") -> None:
    """Refuse a folder with files of the user that a report of these parts would replace. Call this before any work.

    Args:
        folder: folder of the report.
        parts: names of the parts. Names of tables and drawings begin with the name of their part.
        argument: argument that gives the folder, for the error.

    Raises:
        DataError: such files are there; the error names all of them.
    """
    begin = tuple(parts)
    names = [
        f"{place}/{path.name}"
        for place, endings in ((TABLES, (".csv", ".json")), (FIGURES, (".png",)))
        if (folder / place).is_dir()
        for path in sorted((folder / place).iterdir())
        if path.suffix in endings and path.stem.startswith(begin)
    ]
    _check(folder, [PAGE, MARKDOWN, *names], argument)


def write_report(
    parts: Sequence[Part], folder: Path, *, title: str, summary: Sequence[str] = (), argument: str = ""
) -> list[Path]:
    """Write the parts to a folder, which the caller holds locked.

    The folder gets tables/<name>.csv and .json, figures/<name>.png, report.md and report.html. Each file is written
    atomically. JSON, PNG, Markdown and HTML files have a seal; the JSON file of a table holds the hash of its CSV file.

    Args:
        parts: parts in their order.
        folder: folder of the report, made if it is missing.
        title: title of the report.
        summary: lines below the title.
        argument: argument that gives the folder, for errors.

    Returns:
        The files.

    Raises:
        DataError: files of the user would be replaced, or a file cannot be written.
    """
    tables = [table for part in parts for table in part.tables]
    drawings = [drawing for part in parts for drawing in part.drawings]
    names = [f"{TABLES}/{table.name}{ending}" for table in tables for ending in (".csv", ".json")]
    names += [f"{FIGURES}/{drawing.name}.png" for drawing in drawings]
    if len(set(names)) < len(names):
        raise ValueError(f"two tables or two drawings have one name: {sorted(names)}")
    _check(folder, [PAGE, MARKDOWN, *names], argument)
    for name in (TABLES, FIGURES):
        make_folder(folder / name, argument)
    written = [path for table in tables for path in _write_table(table, folder / TABLES)]
    written += [_write_drawing(drawing, folder / FIGURES) for drawing in drawings]
    written.append(write_text(folder / MARKDOWN, sealed_html(report_markdown(parts, title, summary))))
    page = html.render_page(report_page(parts, title, summary, figures=folder / FIGURES))
    return [*written, write_text(folder / PAGE, sealed_html(page))]


def _check(folder: Path, names: Sequence[str], argument: str) -> None:
    tables = [name for name in names if name.endswith(".csv")]
    check_sealed(folder, [name for name in names if name not in tables], argument)
    found: dict[Path, str] = {}
    for name in tables:
        found |= users_files(folder, [name], *_records(folder / name, name))
    if found:
        raise DataError(refusal(folder, found, argument))


def _records(path: Path, name: str) -> list[Record]:
    """Return what the JSON file of a table says about its CSV file."""
    return [{name: digest} for digest in _csv_hashes(path.with_suffix(".json"))]


def _csv_hashes(path: Path) -> list[str]:
    return list(json.loads(path.read_text(encoding="utf-8")).get(_CSV_HASHES, ())) if is_sealed(path) else []


def _write_table(table: Table, folder: Path) -> list[Path]:
    text, paths = table_csv(table), [folder / f"{table.name}.csv", folder / f"{table.name}.json"]
    hashes = [hashlib.sha256(text.encode()).hexdigest()]
    if is_ours(paths[0], _csv_hashes(paths[1])):  # a kill between the two files leaves the CSV file as it is now
        hashes += [present] if (present := file_hash(paths[0])) not in hashes else []
    write_text(paths[1], sealed_json({**table_values(table), _CSV_HASHES: hashes}))
    write_text(paths[0], text)
    return paths


def _write_drawing(drawing: Drawing, folder: Path) -> Path:
    path = folder / f"{drawing.name}.png"
    if isinstance(drawing.chart, Chart):
        return style.save(drawing.chart, path)
    return style.save_picture(drawing.chart, path)


def table_csv(table: Table) -> str:
    """Return a table as CSV. A column with estimates gets two more, its name with `_low` and `_high`."""
    wide = [any(isinstance(row[k], Estimate) for row in table.rows) for k in range(len(table.columns))]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    names = ((name, f"{name}_low", f"{name}_high") if wide[k] else (name,) for k, name in enumerate(table.columns))
    writer.writerow([one for several in names for one in several])
    for row in table.rows:
        cells = (_csv_cells(value, 3 if wide[k] else 1) for k, value in enumerate(row))
        writer.writerow([cell for several in cells for cell in several])
    return stream.getvalue()


def _csv_cells(value: Value, number: int) -> list[str]:
    values = [value.value, value.low, value.high] if isinstance(value, Estimate) else [value]
    cells = ["" if one is None or (isinstance(one, float) and not math.isfinite(one)) else str(one) for one in values]
    return cells + [""] * (number - len(cells))


def table_values(table: Table) -> dict[str, Any]:
    """Return a table as JSON values: an estimate as `value`, `low` and `high`, NaN as null."""
    return {
        "name": table.name,
        "title": table.title,
        "columns": list(table.columns),
        "rows": [[_json_value(value) for value in row] for row in table.rows],
        "notes": list(table.notes),
        "sources": dict(table.sources),
    }


def _json_value(value: Value) -> Any:
    if isinstance(value, Estimate):
        return {name: _json_value(one) for name, one in asdict(value).items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def format_value(value: Value) -> str:
    """Format a value for readers: scores as .681, with an interval as .681 [.612 .743], and counts as 1,234."""
    if value is None:
        return ""
    if isinstance(value, Estimate):
        return format_estimate(value)
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return f"{value:,}"
    if not math.isfinite(value):
        return "-"
    size = abs(value)
    if size and (size < 0.001 or size >= 1e9):
        return f"{value:.3g}"
    if size <= 1:
        return format_number(value)
    digits = 2 if size < 100 else 1 if size < 1e4 else 0
    return f"{value:,.{digits}f}"


def _numbers(table: Table) -> list[bool]:
    """Tell which columns hold numbers, and no text."""
    columns = [[row[k] for row in table.rows if row[k] is not None] for k in range(len(table.columns))]
    return [bool(column) and not any(isinstance(value, str) for value in column) for column in columns]


def _notes(table: Table) -> list[str]:
    """Return the notes of a table, and one on the configurations of its numbers, unless they are many."""
    if len(table.sources) > _LISTED:
        place = f"`{TABLES}/{table.name}.json`"
        return [*table.notes, f"Configurations: of {len(table.sources)} experiments, listed in {place}."]
    hashes = [f"{name} {digest[:_HASH_DIGITS]}" for name, digest in table.sources.items()]
    return [*table.notes, *([f"Configurations: {', '.join(hashes)}."] if hashes else [])]


def report_page(
    parts: Sequence[Part], title: str, summary: Sequence[str] = (), *, figures: Path | None = None
) -> html.Page:
    """Return the parts as a page of one file; `figures` is a folder in which the charts are already written."""
    sections = [
        html.Section(
            part.title,
            part.name,
            [
                html.Block(
                    lines=part.text,
                    tables=[_rows(table) for table in part.tables],
                    figures=[_figure(drawing, figures) for drawing in part.drawings],
                )
            ],
        )
        for part in parts
    ]
    return html.Page(title, summary, sections, has_contents=len(sections) > 1)


def _rows(table: Table) -> html.Rows:
    styles = [_style(table, k, is_number) for k, is_number in enumerate(_numbers(table))]
    columns = [html.Cell(name, kind) for name, kind in zip(table.columns, styles, strict=True)]
    rows = [
        [html.Cell(format_value(value), kind) for value, kind in zip(row, styles, strict=True)] for row in table.rows
    ]
    return html.Rows(columns, rows, table.title, _notes(table))


def _style(table: Table, column: int, is_number: bool) -> str:
    """Return the CSS class of a column: numbers and short texts stay on one line, longer texts get room."""
    if is_number:
        return "number"
    longest = max((len(format_value(row[column])) for row in table.rows), default=0)
    return "text" if longest > _SHORT else "short"


def _figure(drawing: Drawing, figures: Path | None) -> html.Figure:
    chart, text = drawing.chart, drawing.caption
    written = figures and figures / f"{drawing.name}.png"
    picture = html.chart(chart, text, written) if isinstance(chart, Chart) else html.picture(chart, text)
    return html.Figure([picture], text, is_wide=True)


def report_markdown(parts: Sequence[Part], title: str, summary: Sequence[str] = ()) -> str:
    """Return the parts as Markdown of GitHub, with relative links to the figures."""
    blocks = [f"# {_prose(title)}", *map(_paragraph, summary)]
    for part in parts:
        blocks += [f"## {_prose(part.title)}", *map(_paragraph, part.text)]
        for table in part.tables:
            blocks += [f"**{_prose(table.title)}**", _table_markdown(table), *map(_paragraph, _notes(table))]
        for drawing in part.drawings:
            link = f"{FIGURES}/{quote(drawing.name)}.png"
            blocks += [f"![{_prose(drawing.name)}]({link})", _paragraph(drawing.caption)]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _table_markdown(table: Table) -> str:
    rules = ["---:" if is_number else "---" for is_number in _numbers(table)]
    rows = [[_prose(format_value(value)) for value in row] for row in table.rows]
    lines = [[_prose(name) for name in table.columns], rules, *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _paragraph(text: str) -> str:
    return _LINE_START.sub(r"\\\1", _prose(text))


def _prose(text: str) -> str:
    """Escape a line of text; what lies between backticks stays code, as long as they come in pairs."""
    pieces = re.sub(r"[ \t\r\n]+", " ", text.strip()).split("`")
    if len(pieces) % 2 == 0:
        pieces = ["\\`".join(pieces)]
    return "".join(
        f"`{piece}`".replace("|", "\\|") if number % 2 else _SPECIAL.sub(r"\\\1", piece)
        for number, piece in enumerate(pieces)
    )
