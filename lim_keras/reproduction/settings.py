"""Settings of a reproduction: data, budget, encoders and folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lim_keras.config import EncoderName

Budget = Literal["smoke", "evening", "cpu", "gpu"]
"""Length of the trainings: a check on tiny data, an evening or a night on two cores, or the full configurations."""

PARTS = (
    "table2",
    "table3",
    "table4",
    "ablation",
    "claims",
    "figure6",
    "figure7",
    "figure9",
    "figure10",
    "curves",
    "sentinel2",
    "differences",
)
"""Names of the parts of the report, in its order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReproductionSettings:
    """Settings of a reproduction.

    Attributes:
        out: folder of all results.
        data: tiles, a folder or a manifest.
        test_ids: file of the ids of the test tiles; None: they are drawn.
        scene, truth: scene that no tile was cut from, and its labels; None: no scene is mapped.
        transfer: tiles of another region, evaluated only; None: no transfer is evaluated.
        coarse: tiles of about 10 m for the Sentinel-2 part; None: no coarse model is trained.
        coarse_test: file of the ids of the test tiles of `coarse`; None: they are drawn.
        coarse_scene: scene of about 10 m to map; None: none is mapped.
        budget: length of the trainings.
        encoder: encoder of the models on whole tiles.
        encoder_weights: weights of `encoder`: "imagenet", "none" or a file; None: as configured.
        edge_weights: weights of `edge_encoder`, as `encoder_weights`.
        only: names of the parts to make; empty: all.
        jobs: number of models trained in parallel.
        train: train what is missing; False: make the parts of what is trained.
    """

    out: Path
    data: Path
    test_ids: Path | None = None
    scene: Path | None = None
    truth: Path | None = None
    transfer: Path | None = None
    coarse: Path | None = None
    coarse_test: Path | None = None
    coarse_scene: Path | None = None
    budget: Budget = "cpu"
    encoder: EncoderName = "vgg16"
    encoder_weights: str | None = None
    edge_weights: str | None = None
    only: frozenset[str] = field(default_factory=frozenset)
    jobs: int = 1
    train: bool = True

    @property
    def edge_encoder(self) -> EncoderName:
        """Encoder of the models on windows and of the ablation."""
        return "small" if self.budget == "smoke" else "mobilenetv2"

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the parts to make, in the order of the report."""
        return tuple(name for name in PARTS if not self.only or name in self.only)


NEEDS: Mapping[str, tuple[str, ...]] = {"figure10": ("scene",), "sentinel2": ("coarse",)}
"""Settings without which a part says only what it lacks."""

_ADDED_BY = {
    "scene": "This part needs a scene that no tile was cut from, and its labels: add `--scene` and `--truth`.",
    "coarse": "This part needs tiles of about 10 m: add `--coarse`.",
}


def lacking(part: str, settings: ReproductionSettings) -> str:
    """Return a sentence on the data that a part lacks, with the option that adds it; "" if it lacks none."""
    missing = [name for name in NEEDS.get(part, ()) if getattr(settings, name) is None]
    return _ADDED_BY[missing[0]] if missing else ""
