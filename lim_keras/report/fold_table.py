"""Table of spatial folds, and a warning of leaks that were allowed."""

from __future__ import annotations

from rich.table import Table

from lim_keras.data.split_facts import SplitFacts
from lim_keras.report.tables import add_row, new_table


def split_tables(name: str, split: SplitFacts) -> list[Table | str]:
    """Show a row for each spatial fold, then a line on leaks; nothing for random folds without leaks."""
    parts: list[Table | str] = []
    if split.folds:
        columns = ("held-out tiles", "with landslides", "landslide share", "training tiles", "left out")
        distances = ("to other folds", "to training tiles")
        table = new_table(f"{name}: {split.headline}", "fold", *columns, *distances, title_justify="left")
        for fold, facts in split.folds.items():
            counts = f"{facts.tiles:,}", f"{facts.landslide_tiles:,}", f"{facts.landslide_share:.2%}"
            training = f"{facts.training_tiles:,}", f"{len(facts.left_out):,}"
            metres = (_metres(facts.nearest_m), _metres(facts.nearest_training_m))
            add_row(table, str(fold), *counts, *training, *metres)
        parts.append(table)
    if split.leaks:
        parts.append(
            f"The scores on the test tiles are flattered: {len(split.leaks)} times, test tiles share ground, groups or "
            "files with training tiles."
        )
    return parts


def _metres(distance: float | None) -> str:
    return "" if distance is None else f"{distance:,.0f} m"
