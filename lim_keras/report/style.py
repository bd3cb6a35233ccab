"""The one look of all figures: colours, fonts, axes, and how a figure reaches the disk."""

from __future__ import annotations

import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.patches import Patch
from matplotlib.text import Text

from lim_keras.errors import DataError

DPI = 120
INK, MUTED, GRID = "#22272e", "#6b7280", "#e3e6ea"
ACCENT = "#0072b2"
# Hues of Okabe and Ito, told apart with any colour vision; folds beyond the seventh begin again.
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a7a7a")
# Apart in lightness too: the eye must not need hue, and forest and soil lie underneath.
TRUE_POSITIVE, FALSE_POSITIVE, FALSE_NEGATIVE = "#38a3f5", "#ffe14d", "#d5285a"
OUTCOMES = {
    "true positive": TRUE_POSITIVE,
    "false positive": FALSE_POSITIVE,
    "false negative": FALSE_NEGATIVE,
}
# White to dark red through yellow: lightness falls evenly, so that it reads in grey.
PROBABILITY = "YlOrRd"
TITLE_PT, LABEL_PT, SMALL_PT = 11, 9.5, 8.5
FORMATS = (".png", ".svg", ".pdf")
# With Chinese, Japanese and Korean characters, which matplotlib's own font lacks; on Linux, macOS and Windows.
_CJK_FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Noto Sans SC",
    "Source Han Sans SC",
    "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei",
    "Droid Sans Fallback",
    "PingFang SC",
    "Hiragino Sans GB",
    "Microsoft YaHei",
    "SimHei",
    "Malgun Gothic",
    "Arial Unicode MS",
)


def new_figure(width_in: float, height_in: float) -> Figure:
    """An empty white figure; sizes in inches at `DPI`. It belongs to no window and no global state."""
    figure = Figure(figsize=(width_in, height_in), dpi=DPI, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def as_written() -> dict[str, Any]:
    """Options of a text that a user wrote, such as a file's name: no formula between $ signs, and CJK characters."""
    installed = {font.name for font in fontManager.ttflist}
    return {"parse_math": False, "fontfamily": ["sans-serif", *(name for name in _CJK_FONTS if name in installed)]}


def dress(axes: Axes, title: str = "", x_label: str = "", y_label: str = "") -> None:
    """Light grid, two spines, titles to the left."""
    axes.set_title(title, fontsize=TITLE_PT, color=INK, loc="left", pad=8)
    axes.set_xlabel(x_label, fontsize=LABEL_PT, color=MUTED)
    axes.set_ylabel(y_label, fontsize=LABEL_PT, color=MUTED)
    axes.tick_params(labelsize=SMALL_PT, colors=MUTED, length=0)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(GRID)


def dress_picture(axes: Axes, title: str = "") -> None:
    """A picture: no axes, a small title above its left corner."""
    axes.set_axis_off()
    axes.set_title(title, fontsize=LABEL_PT, color=INK, loc="left", pad=4, **as_written())


def outcome_legend(figure: Figure) -> None:
    """The three outcomes, in one line below everything."""
    patches = [Patch(facecolor=colour, edgecolor=INK, linewidth=0.4, label=name) for name, colour in OUTCOMES.items()]
    figure.legend(
        handles=patches,
        loc="outside lower center",
        ncols=len(patches),
        frameon=False,
        fontsize=LABEL_PT,
        labelcolor=INK,
        handlelength=1.2,
        handleheight=1.0,
    )


def headline(figure: Figure, text: str) -> Text:
    """A title over the whole figure."""
    return figure.suptitle(text, fontsize=TITLE_PT + 1, color=INK, x=0.01, ha="left", **as_written())


def save(figure: Figure, path: str | Path) -> Path:
    """Write the figure beside its place and rename it: a reader never sees half a picture.

    Raises:
        DataError: the name does not end in .png, .svg or .pdf, or the place cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise DataError(f"Figure {path}: expected a name that ends in one of {', '.join(FORMATS)}.")
    beside = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings():
            # A character that no font holds is drawn as a box; the picture is whole all the same.
            warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
            figure.savefig(beside, dpi=DPI, facecolor="white")
        return beside.replace(path)
    except OSError as error:
        with suppress(OSError):
            beside.unlink()
        raise DataError(f"Figure {path} cannot be written ({error}).") from error
