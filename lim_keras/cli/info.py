"""`lim-keras info`: what a bundle says of itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lim_keras.cli.runs import print_result

if TYPE_CHECKING:
    from lim_keras.export.bundle_info import BundleInfo


@click.command()
@click.argument("bundle", type=click.Path(file_okay=False, path_type=Path))
def info(bundle: Path) -> None:
    """Print what BUNDLE (exported_models/NAME) says of itself: model, data, scores, files. Nothing is loaded."""
    from lim_keras.export.bundle_info import BundleInfo

    known = BundleInfo.read(bundle)
    print_result([_facts(known), *([_scores(known)] if known.metrics else []), _files(known), *_litert(known)])


def _facts(info: BundleInfo) -> Any:
    from rich.markup import escape

    table = _table(info.name)
    table.show_header = False
    table.add_column()
    table.add_column(overflow="fold")
    for name, value in _rows(info):
        table.add_row(name, escape(value))
    return table


def _rows(info: BundleInfo) -> list[tuple[str, str]]:
    from lim_keras.export.model_card import ground

    bands = "; ".join(
        f"{band.mean:.4g} +- {band.std:.4g} ({band.min:.4g} to {band.max:.4g})" for band in info.statistics
    )
    return [
        ("network", str(info.model.get("name", "unknown"))),
        ("encoder", str(info.model.get("encoder", "unknown"))),
        ("bands", f"{info.bands}, {info.dtype}; mean +- deviation (range): {bands}"),
        ("ground sample distance", ground(info)),
        ("folds", str(info.folds)),
        ("threshold", f"{info.threshold:.4f}"),
        ("calibration", f"temperature {info.temperature:.4f}, bias {info.bias:.4f}"),
        ("sampling", f"{info.sampling.get('mode', 'unknown')}, {info.sampling.get('size', 'unknown')} px"),
        ("stride, halo", f"{info.stride} px, {info.halo} px"),
        ("training tiles", str(len(info.training_tiles))),
        ("test tiles", str(len(info.test_tiles))),
        ("data terms", info.data_terms or "not recorded"),
        ("data", info.data_link or "not recorded"),
        ("configuration", info.config_hash),
        ("exported", f"{info.created:%Y-%m-%d %H:%M %Z} by lim_keras {info.lim_keras_version}"),
        ("versions", ", ".join(f"{name} {version}" for name, version in info.versions.items())),
    ]


def _scores(info: BundleInfo) -> Any:
    from rich.markup import escape

    from lim_keras.export.model_card import interval

    table = _table("Scores")
    for column in ("judged on", "score", "value", "95 % interval"):
        table.add_column(column)
    for judged, scores in info.metrics.items():
        for name, figure in scores.items():
            table.add_row(escape(judged), escape(name), f"{figure.value:.3f}", interval(figure))
    return table


def _files(info: BundleInfo) -> Any:
    from rich.markup import escape

    table = _table(f"{len(info.files)} files, {_size(sum(file.bytes for file in info.files.values()))}")
    for column in ("part", "files", "size"):
        table.add_column(column)
    for part in sorted({name.split("/")[0] for name in info.files}):
        sizes = [file.bytes for name, file in info.files.items() if name.split("/")[0] == part]
        table.add_row(escape(part), str(len(sizes)), _size(sum(sizes)))
    return table


def _litert(info: BundleInfo) -> list[Any]:
    from rich.markup import escape

    from lim_keras.export.litert_table import COLUMNS, litert_rows

    if not info.litert:
        return []
    table = _table("LiteRT files, beside the SavedModel on the same windows")
    for column in COLUMNS:
        table.add_column(column, overflow="fold")
    for row in litert_rows(info):
        table.add_row(*map(escape, row))
    return [table]


def _size(count: int) -> str:
    return f"{count / 1e6:.2f} MB"


def _table(title: str) -> Any:
    from rich.markup import escape
    from rich.table import Table

    return Table(title=escape(title), title_justify="left")
