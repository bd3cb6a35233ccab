"""Parts of the report: the function that makes each one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lim_keras.report.parts import Part
from lim_keras.reproduction import (
    ablation,
    claims,
    curves,
    differences,
    figures,
    sentinel2,
    table2,
    table3,
    table4,
)
from lim_keras.reproduction.context import ReproductionContext


@dataclass(frozen=True, slots=True)
class Maker:
    """Title of a part, and the function that makes it."""

    title: str
    make: Callable[[ReproductionContext], Part]


# One line for each part, in the order of `settings.PARTS`.
MAKERS: Mapping[str, Maker] = {
    "table2": Maker(table2.TITLE, table2.make_table2),
    "table3": Maker(table3.TITLE, table3.make_table3),
    "table4": Maker(table4.TITLE, table4.make_table4),
    "ablation": Maker(ablation.TITLE, ablation.make_ablation),
    "claims": Maker(claims.TITLE, claims.make_claims),
    "figure6": Maker(figures.FIGURE_6, figures.make_figure6),
    "figure7": Maker(figures.FIGURE_7, figures.make_figure7),
    "figure9": Maker(figures.FIGURE_9, figures.make_figure9),
    "figure10": Maker(figures.FIGURE_10, figures.make_figure10),
    "curves": Maker(curves.TITLE, curves.make_curves),
    "sentinel2": Maker(sentinel2.TITLE, sentinel2.make_sentinel2),
    "differences": Maker(differences.TITLE, differences.make_differences),
}
