"""Tables of bundles for the terminal and the model card."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from rich.table import Table

from lim_keras.bundle.info import BundleInfo, LiteRtFigures, MeasuredHalo
from lim_keras.report.tables import add_row, format_gsd, format_interval, new_table

_VERDICTS = {True: "met", False: "not met", None: "not measured"}


def info_tables(info: BundleInfo) -> list[Table]:
    """Show what a bundle records: facts, scores, sizes of its parts, and LiteRT files."""
    facts = new_table(info.name, title_justify="left", show_header=False)
    facts.add_column()
    facts.add_column(overflow="fold")
    for name, value in _facts(info):
        add_row(facts, name, value)
    scores = [_score_table(info)] if info.metrics else []
    litert = [litert_table(info.litert)] if info.litert else []
    return [facts, *scores, _size_table(info), *litert]


def _facts(info: BundleInfo) -> list[tuple[str, str]]:
    bands = "; ".join(
        f"{band.mean:.4g} +- {band.std:.4g} ({band.min:.4g} to {band.max:.4g})" for band in info.statistics
    )
    return [
        ("network", str(info.model.get("name", "unknown"))),
        ("encoder", str(info.model.get("encoder", "unknown"))),
        ("bands", f"{info.bands}, {info.dtype}; mean +- deviation (range): {bands}"),
        ("ground sample distance", format_gsd(info.gsd_m)),
        ("folds", str(info.folds)),
        ("threshold", f"{info.threshold:.4f}"),
        ("calibration", f"temperature {info.temperature:.4f}, bias {info.bias:.4f}"),
        ("sampling", f"{info.sampling.get('mode', 'unknown')}, {info.sampling.get('size', 'unknown')} px"),
        ("stride, halo", f"{info.stride} px, {info.halo} px"),
        *((f"halo within {one.tolerance:g}", format_halo(one)) for one in info.halos),
        ("training tiles", str(len(info.training_tiles))),
        ("test tiles", str(len(info.test_tiles))),
        ("data terms", info.data_terms or "not recorded"),
        ("data", info.data_link or "not recorded"),
        ("configuration", info.config_hash),
        ("exported", f"{info.created:%Y-%m-%d %H:%M %Z} by lim_keras {info.lim_keras_version}"),
        ("versions", ", ".join(f"{name} {version}" for name, version in info.versions.items())),
    ]


def format_halo(measured: MeasuredHalo) -> str:
    """Format a measured halo and its measurement."""
    return (
        f"{measured.halo} px; largest difference {measured.max_difference:.2g} on {measured.pixels / 1e6:.1f} million "
        "pixels of training imagery"
    )


def _score_table(info: BundleInfo) -> Table:
    table = Table("evaluated on", "score", "value", "95 % interval", title="Scores", title_justify="left")
    for name, scores in info.metrics.items():
        for score, estimate in scores.items():
            add_row(table, name, score, f"{estimate.value:.3f}", format_interval(estimate))
    return table


def _size_table(info: BundleInfo) -> Table:
    total = sum(file.bytes for file in info.files.values())
    title = f"{len(info.files)} files, {_megabytes(total)}"
    table = Table("part", "files", "size", title=title, title_justify="left")
    for part in sorted({name.split("/")[0] for name in info.files}):
        sizes = [file.bytes for name, file in info.files.items() if name.split("/")[0] == part]
        add_row(table, part, str(len(sizes)), _megabytes(sum(sizes)))
    return table


def litert_table(files: Mapping[str, LiteRtFigures], refused: Collection[str] = ()) -> Table:
    """Show a row for each LiteRT file beside the scores of its SavedModel; `refused` files were not kept."""
    first = next(iter(files.values()))
    title = f"LiteRT files, beside the SavedModel on {first.windows} windows of {first.side} px"
    table = Table(title=title, title_justify="left")
    rows = [_litert_row(name, files[name]) for name in sorted(files)]
    for name in rows[0]:
        table.add_column(name, overflow="fold", no_wrap=name == "file")
    for row in rows:
        verdict = "refused" if row["file"] in refused else row[""]
        add_row(table, *(row | {"": verdict}).values())
    return table


def litert_markdown(files: Mapping[str, LiteRtFigures]) -> str:
    """Return the LiteRT table of a model card, in Markdown; "" without files."""
    rows = [_litert_row(name, files[name]) for name in sorted(files)]
    if not rows:
        return ""
    lines = [rows[0].keys(), ["---"] * len(rows[0]), *(row.values() for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _litert_row(name: str, figures: LiteRtFigures) -> dict[str, str]:
    return {
        "file": name,
        "size": _megabytes(figures.bytes),
        "windows": "any" if figures.tile is None else f"{figures.tile} px",
        "milliseconds": f"{figures.milliseconds_per_tile:.1f} ({figures.side} px)",
        "landslide F1": _score(figures.landslide_f1),
        "IoU": _score(figures.landslide_iou),
        "SavedModel F1": _score(figures.saved_model_f1),
        "SavedModel IoU": _score(figures.saved_model_iou),
        "largest difference": f"{figures.max_difference:.1e}",
        "mean": f"{figures.mean_difference:.1e}",
        "limit": figures.limit,
        "": _VERDICTS[figures.within],
    }


def _score(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.2f} MB"


def serving_table(
    models_file: Path, models: Sequence[str], *, stable: int, canary: int, loaded: Sequence[int]
) -> Table:
    """Show the version numbers of the models in a repository for TensorFlow Serving."""
    table = new_table(str(models_file), "model", "stable", "canary", "loaded")
    for model in models:
        add_row(table, model, str(stable), str(canary), ", ".join(map(str, loaded)))
    return table
