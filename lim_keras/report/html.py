"""HTML pages of one file: sections with text, tables, and figures whose pictures lie in the page."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from matplotlib.figure import Figure as Chart
from numpy.typing import NDArray

from lim_keras.report import style

_JPEG_QUALITY = 88


@dataclass(frozen=True, slots=True)
class Picture:
    """Picture in a page.

    Attributes:
        source: data URI.
        width, height: pixels.
        text: description for readers who do not see it.
    """

    source: str
    width: int
    height: int
    text: str


@dataclass(frozen=True, slots=True)
class Figure:
    """Pictures side by side, with a caption."""

    pictures: Sequence[Picture]
    caption: str
    is_wide: bool = False


@dataclass(frozen=True, slots=True)
class Cell:
    """Cell of a table: text, CSS class, and the anchor that it links to ("" for none)."""

    text: str
    style: str = ""
    anchor: str = ""


@dataclass(frozen=True, slots=True)
class Rows:
    """Table: names of the columns, rows of cells, a caption, and lines below it."""

    columns: Sequence[str | Cell]
    rows: Sequence[Sequence[str | Cell]]
    caption: str = ""
    notes: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Block:
    """Part of a section: a title with a mark, such as "leak", lines of text, tables and figures."""

    title: str = ""
    anchor: str = ""
    mark: str = ""
    style: str = ""
    lines: Sequence[str] = ()
    tables: Sequence[Rows] = ()
    figures: Sequence[Figure] = ()


@dataclass(frozen=True, slots=True)
class Section:
    """Section of a page."""

    title: str
    anchor: str
    blocks: Sequence[Block]


@dataclass(frozen=True, slots=True)
class Page:
    """Page: title, lines of a summary, and sections, which a table of contents may list.

    `is_sheet`: the page is printed on one sheet of A4.
    """

    title: str
    summary: Sequence[str] = ()
    sections: Sequence[Section] = field(default_factory=tuple)
    has_contents: bool = False
    is_sheet: bool = False


def render_page(page: Page) -> str:
    """Return the page as HTML of one file: no scripts, nothing loaded, all text escaped."""
    text = _template().render(page=page)
    # A name of a file may hold bytes that are no UTF-8.
    return text.encode("utf-8", "replace").decode("utf-8").rstrip() + "\n"


@cache
def _template() -> Template:
    loader = PackageLoader("lim_keras.report")
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined).get_template("page.html")


def picture(pixels: NDArray[np.uint8], text: str) -> Picture:
    """Encode a picture, RGB (height, width, 3), as JPEG in a data URI."""
    bgr = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    # Full colour resolution, because outlines are two pixels wide.
    settings = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
    settings += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    done, data = cv2.imencode(".jpg", bgr, settings)
    if not done:
        raise ValueError(f"a picture of shape {pixels.shape} cannot be encoded")
    return Picture(_data_uri("jpeg", data.tobytes()), pixels.shape[1], pixels.shape[0], text)


def chart(drawn: Chart, text: str, written: Path | None = None) -> Picture:
    """Encode a chart of matplotlib as PNG in a data URI; `written` is a file that `style.save` has written of it."""
    content = written.read_bytes() if written else _drawn(drawn)
    width, height = (round(inches * style.DPI) for inches in drawn.get_size_inches())
    return Picture(_data_uri("png", content), width, height, text)


def photograph(drawn: Chart, text: str) -> Picture:
    """Encode a chart over a photograph as JPEG, which takes a tenth of the bytes of a PNG."""
    pixels = cv2.imdecode(np.frombuffer(_drawn(drawn), np.uint8), cv2.IMREAD_COLOR_RGB)
    return picture(np.asarray(pixels, np.uint8), text)


def _drawn(chart: Chart) -> bytes:
    from io import BytesIO

    stream = BytesIO()
    with style.without_missing_glyphs():
        chart.savefig(stream, format="png", dpi=style.DPI, facecolor="white")
    return stream.getvalue()


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
