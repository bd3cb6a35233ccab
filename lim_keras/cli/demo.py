"""`lim-keras demo`: the whole way on embedded data."""

from __future__ import annotations

from pathlib import Path

import click

from lim_keras.cli.runs import print_result
from lim_keras.cli.startup import load_tensorflow


@click.command()
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("demo"), show_default=True)
# On two cores three folds and then two leave no core idle; twice two and one would.
@click.option("--jobs", type=click.IntRange(min=1), default=3, show_default=True, help="Folds trained at a time.")
def demo(out: Path, jobs: int) -> None:
    """Make a world, train five small models on its tiles, and judge their ensemble on a world they have not seen."""
    load_tensorflow()
    from lim_keras.demo import run_demo

    result = run_demo(out, print_result, jobs)
    print_result([f"landslide F1 on held-out tiles {result.f1:.3f}; {result.seconds:.0f} s; everything is in {out}"])
