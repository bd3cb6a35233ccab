"""What a bundle knows of its .tflite files, as the rows of one table for `lim-keras info` and the model card."""

from __future__ import annotations

from lim_keras.export.bundle_info import BundleInfo, LiteRtFigures

COLUMNS = (
    "file",
    "size",
    "windows",
    "milliseconds",
    "landslide F1",
    "IoU",
    "SavedModel F1",
    "IoU",
    "largest difference",
    "mean",
    "limit",
    "",
)

VERDICTS = {True: "met", False: "not met", None: "not measured"}


def litert_rows(info: BundleInfo) -> list[tuple[str, ...]]:
    """One row of `COLUMNS` a file; scores that were not measured are empty."""
    return [_row(name, figures) for name, figures in sorted(info.litert.items())]


def litert_markdown(info: BundleInfo) -> str:
    """The table in a model card; "" where nothing was measured."""
    if not info.litert:
        return ""
    lines = [COLUMNS, ("---",) * len(COLUMNS), *litert_rows(info)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _row(name: str, figures: LiteRtFigures) -> tuple[str, ...]:
    return (
        name,
        f"{figures.bytes / 1e6:.2f} MB",
        "any" if figures.tile is None else f"{figures.tile} px",
        f"{figures.milliseconds_per_tile:.1f} ({figures.side} px)",
        _score(figures.landslide_f1),
        _score(figures.landslide_iou),
        _score(figures.saved_model_f1),
        _score(figures.saved_model_iou),
        f"{figures.max_difference:.1e}",
        f"{figures.mean_difference:.1e}",
        figures.limit,
        VERDICTS[figures.within],
    )


def _score(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
