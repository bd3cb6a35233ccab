"""Style of figures (colours, fonts, axes) and atomic saving of figures."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from matplotlib.text import Text
from numpy.typing import NDArray

from lim_keras.errors import DataError
from lim_keras.files import atomic_file, make_folder
from lim_keras.seals import is_sealed, seal_png

DPI = 120
INK, MUTED, GRID = "#22272e", "#6b7280", "#e3e6ea"
ACCENT = "#0072b2"
# Colours of Okabe and Ito, safe for colour-blind readers. The eighth fold has the colour of the first.
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a7a7a")
# Overlay colours: they differ from each other in lightness and hue, and from forest and soil.
TRUE_POSITIVE, FALSE_POSITIVE, FALSE_NEGATIVE = "#38a3f5", "#ffe14d", "#d5285a"
OUTCOMES = {"true positive": TRUE_POSITIVE, "false positive": FALSE_POSITIVE, "false negative": FALSE_NEGATIVE}
# A colour map whose lightness falls evenly, so that it can be printed in grey.
PROBABILITY = "YlOrRd"
TITLE_PT, LABEL_PT, SMALL_PT = 11, 9.5, 8.5
LEGEND: dict[str, Any] = {"frameon": False, "fontsize": LABEL_PT, "labelcolor": INK}
_PNG_LEVEL = 3  # photographs take 2 % more bytes than at the default of 6, and half the time
FORMATS = (".png", ".svg", ".pdf")
# Fonts with Chinese, Japanese and Korean characters, on Linux, macOS and Windows.
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
    """Return an empty white figure without pyplot; sizes in inches at `DPI`."""
    figure = Figure(figsize=(width_in, height_in), dpi=DPI, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def as_written() -> dict[str, Any]:
    """Return text options for text of the user, such as file names: no math between $ signs, and CJK fonts."""
    installed = {font.name for font in fontManager.ttflist}
    return {"parse_math": False, "fontfamily": ["sans-serif", *(name for name in _CJK_FONTS if name in installed)]}


def dress(axes: Axes, title: str = "", x_label: str = "", y_label: str = "") -> None:
    """Set title and labels, a light grid, and spines on the left and at the bottom only."""
    axes.set_title(title, fontsize=TITLE_PT, color=INK, loc="left", pad=8, **as_written())
    axes.set_xlabel(x_label, fontsize=LABEL_PT, color=MUTED)
    axes.set_ylabel(y_label, fontsize=LABEL_PT, color=MUTED)
    axes.tick_params(labelsize=SMALL_PT, colors=MUTED, length=0)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(GRID)


def dress_picture(axes: Axes, title: str = "") -> None:
    """Hide the axes of a picture and set a small title above its left corner."""
    axes.set_axis_off()
    axes.set_title(title, fontsize=LABEL_PT, color=INK, loc="left", pad=4, **as_written())


def outcome_legend(figure: Figure) -> None:
    """Add a legend of the three outcomes at the bottom."""
    patches = [Patch(facecolor=colour, edgecolor=INK, linewidth=0.4, label=name) for name, colour in OUTCOMES.items()]
    size = {"handlelength": 1.2, "handleheight": 1.0}
    figure.legend(handles=patches, loc="outside lower center", ncols=len(patches), **size, **LEGEND)


def casing(width: float = 4.0) -> list[Any]:
    """Return path effects that give light lines a dark edge, for bright and dark ground."""
    return [withStroke(linewidth=width, foreground=INK)]


def headline(figure: Figure, text: str) -> Text:
    """Set a title over the whole figure."""
    return figure.suptitle(text, fontsize=TITLE_PT + 1, color=INK, x=0.01, ha="left", **as_written())


def save(figure: Figure, path: str | PathLike[str]) -> Path:
    """Write a .png, .svg or .pdf file atomically, a .png file with a seal; raise DataError for another suffix."""
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise DataError(f"Figure {path}: expected a name that ends in one of {', '.join(FORMATS)}.")
    make_folder(path.parent)
    with atomic_file(path, _check_picture) as draft, without_missing_glyphs():
        if path.suffix.lower() == ".png":
            figure.savefig(draft, dpi=DPI, facecolor="white", pil_kwargs={"compress_level": _PNG_LEVEL})
            seal_png(draft)
        else:
            figure.savefig(draft, dpi=DPI, facecolor="white")
    return path


@contextmanager
def without_missing_glyphs() -> Iterator[None]:
    """Silence the warnings of characters that no font holds; they are drawn as boxes."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        yield


def pixels_of(figure: Figure) -> NDArray[np.uint8]:
    """Draw a figure as a picture, RGB (height, width, 3); figures of photographs are smaller so in a page."""
    stream = BytesIO()
    with without_missing_glyphs():
        figure.savefig(stream, format="png", dpi=DPI, facecolor="white")
    drawn = cv2.imdecode(np.frombuffer(stream.getvalue(), np.uint8), cv2.IMREAD_COLOR)
    return np.asarray(cv2.cvtColor(np.asarray(drawn), cv2.COLOR_BGR2RGB), np.uint8)


def save_picture(pixels: NDArray[np.uint8], path: Path) -> Path:
    """Write a picture, RGB (height, width, 3), as a .png file, atomically and with a seal."""
    make_folder(path.parent)
    with atomic_file(path, _check_picture) as draft:
        done, content = cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
        if not done:
            raise OSError(f"a picture of shape {pixels.shape} cannot be encoded")
        draft.write_bytes(content.tobytes())
        seal_png(draft)
    return path


def _check_picture(path: Path) -> None:
    if path.suffix.lower() == ".png" and not is_sealed(path):
        raise OSError("the picture does not hold what was written")


def round_length(longest: float) -> float:
    """Return the largest length <= `longest` that is 1, 2 or 5 times a power of ten."""
    return max(length for power in range(-3, 8) for step in (1, 2, 5) if (length := step * 10.0**power) <= longest)
