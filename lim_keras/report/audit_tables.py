"""Tables of an audit for the terminal."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from lim_keras.data.findings import AuditReport, Check
from lim_keras.report.tables import add_row, heading

_LISTED = 10
_STYLES = {"leak": "bold red", "found": "yellow", "clear": "green", "skipped": "dim"}
_VERDICTS = {"leak": "LEAK", "found": "found", "clear": "ok", "skipped": "not checked"}


def audit_tables(report: AuditReport) -> list[Table | Text | str]:
    """Show a row for each check, then each finding with its worst tiles."""
    table = Table(title=Text(f"{report.tiles.root}: audit of {len(report.tiles):,} tiles"), title_justify="left")
    for name, justify in (("check", "left"), ("result", "left"), ("number", "right"), ("figures", "left")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    part = ""
    for check in report.checks:
        if check.part != part and part:
            table.add_section()
        part = check.part
        verdict = Text(_VERDICTS[check.status], _STYLES[check.status])
        count = f"{check.count:,}" if check.count else ""
        table.add_row(Text(check.title), verdict, count, Text(check.note))
    parts: list[Table | Text | str] = [table]
    for check in report.findings:
        parts += _details(check)
    return [*parts, _conclusion(report)]


def _details(check: Check) -> list[Table | Text | str]:
    title = heading(f"{_VERDICTS[check.status]}: {check.title}", f" ({check.count:,})" if check.count else "")
    lines: list[Table | Text | str] = ["", title, f"{check.explanation} {check.advice}"]
    if not check.evidence:
        return [*lines, check.note]
    pairs = any(one.other for one in check.evidence)
    table = Table(show_header=True)
    for name in ("tile", *(("with",) if pairs else ()), "figures"):
        table.add_column(name, overflow="fold")
    for one in check.evidence[:_LISTED]:
        add_row(table, one.tile_id, *((one.other,) if pairs else ()), one.text)
    rest = check.count - _LISTED
    return [*lines, table, *([f"and {rest:,} more (--json lists all)"] if rest > 0 else [])]


def _conclusion(report: AuditReport) -> str:
    number = len(report.findings)
    if not number:
        return "No defect found."
    leaks = sum(check.status == "leak" for check in report.findings)
    text = f"{number} of {len(report.checks)} checks found something"
    return f"{text}, {leaks} of them a leak: scores on this split are too good." if leaks else f"{text}; no leak."
