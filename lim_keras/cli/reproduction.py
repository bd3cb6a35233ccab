"""Command `reproduce`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import click

from lim_keras import api
from lim_keras.cli.options import FILE, NEW_FOLDER, SCENE, TILES, Command, Parsed, wait_option
from lim_keras.cli.output import show
from lim_keras.config import EncoderName
from lim_keras.reproduction.settings import PARTS


def _parts(text: str) -> tuple[str, ...]:
    names = tuple(part.strip() for part in text.split(","))
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        raise ValueError(f"{unknown[0]!r}: expected names with commas between them, of {', '.join(PARTS)}")
    return names


@click.command(cls=Command)
@click.option(
    "--data", type=TILES, metavar="PATH", help="Tiles: a folder or a tiles.csv; --budget smoke makes its own."
)
@click.option(
    "--test",
    "test_ids",
    type=FILE,
    help="File with the ids of the test tiles, one a line [default: a tenth of the tiles, drawn by group].",
)
@click.option("--scene", type=SCENE, help="Scene that no tile was cut from; it is mapped and scored.")
@click.option("--truth", type=SCENE, help="Mapped landslides of the scene: polygons or a raster of labels.")
@click.option("--transfer", type=TILES, metavar="PATH", help="Tiles of another region: the models are scored on them.")
@click.option("--coarse", type=TILES, metavar="PATH", help="Tiles of about 10 m: one more model is trained on them.")
@click.option(
    "--coarse-test", type=FILE, help="File with the ids of the test tiles of --coarse [default: a tenth of them]."
)
@click.option("--coarse-scene", type=SCENE, help="Scene of about 10 m, which both models map.")
@click.option("--out", required=True, type=NEW_FOLDER, help="Folder of all results.")
@click.option(
    "--budget",
    type=click.Choice(["smoke", "evening", "cpu", "gpu"]),
    default="cpu",
    show_default=True,
    help="Length of the trainings. smoke: minutes, without meaningful scores; evening, cpu: an evening, a night on two "
    "cores; gpu: the full configurations.",
)
@click.option(
    "--encoder",
    type=click.Choice(get_args(EncoderName)),
    help="Encoder of the models on whole tiles [default: vgg16; smoke: small].",
)
@click.option(
    "--encoder-weights", metavar="FILE", help="Weights of --encoder: a file, `imagenet` or `none` [default: imagenet]."
)
@click.option(
    "--edge-weights",
    metavar="FILE",
    help="Weights of MobileNetV2, the encoder of all other models: a file, `imagenet` or `none` [default: imagenet].",
)
@click.option(
    "--only",
    type=Parsed("PART,PART,...", _parts),
    default=(),
    help=f"Make only these parts, and train only what they need: {', '.join(PARTS)} [default: all].",
)
@click.option(
    "--jobs", type=click.IntRange(min=1), help="Models trained at a time [default: 1; smoke: 2].", show_default=False
)
@click.option(
    "--no-train", "train", flag_value=False, default=True, help="Train nothing; report what is trained so far."
)
@wait_option
def reproduce(out: Path, **options: Any) -> None:
    """Reproduce Chen et al. 2022 on tiles: train its models, and compare tables, figures and claims in one report.

    The same command continues after an interruption; finished models are not trained again. If a model or a part fails,
    the report is made without it, and the exit code is 1.
    """
    result = api.reproduce(out, **options)
    failed = [f"failed: {name}: {reason}" for name, reason in result.failures.items()]
    if result.untrained:
        failed.append(f"not trained: {', '.join(result.untrained)}")
    show([*failed, f"parts: {', '.join(result.parts)}", f"report: {out / 'report.html'}"])
    if result.failures:
        click.get_current_context().exit(1)
