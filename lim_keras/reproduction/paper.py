"""Numbers of Chen et al. 2022: Tables 2, 3 and 4, and what follows from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

LANDSLIDE_TILES, OTHER_TILES = 770, 2003
"""Tiles of the Bijie data set."""

TABLE_2_PIXELS = 20_000_000
"""Landslide pixels of Table 2."""

IMBALANCE: Mapping[str, float] = {"before": 8.0, "after": 3.1}
"""Imbalance ratios of Table 2, before and after augmentation."""

TABLE_3: Mapping[str, Mapping[str, float]] = {
    "fcn_flk": {"accuracy": 0.93, "recall": 0.76, "f1": 0.62, "miou": 0.68},
    "fcn_fl": {"accuracy": 0.92, "recall": 0.73, "f1": 0.58, "miou": 0.66},
    "fcn": {"accuracy": 0.87, "recall": 0.68, "f1": 0.53, "miou": 0.53},
}
"""Scores on 70 landslide tiles of Bijie, by method."""

TABLE_4: Mapping[str, Mapping[str, float]] = {
    "fcn_flk": {"accuracy": 0.93, "recall": 0.76, "f1": 0.62, "miou": 0.68},
    "unet": {"accuracy": 0.90, "recall": 0.68, "f1": 0.53, "miou": 0.63},
    "segnet": {"accuracy": 0.89, "recall": 0.64, "f1": 0.44, "miou": 0.59},
}
"""Scores in Shuicheng County, by method; the paper prints the column of FCN-FLK of Table 3 again."""


@dataclass(frozen=True, slots=True)
class Claim:
    """Claim of the paper that one method has a higher score than another.

    Attributes:
        sentence: the claim in our words.
        method, other: keys of TABLE_3 and TABLE_4.
        score: score of the claim; a higher one is better.
        effect: change that makes the difference: "skip levels", "focal loss", "both" of them or "k-fold"; "" if none
            is named.
    """

    sentence: str
    method: str
    other: str
    score: str = "f1"
    effect: str = ""


CLAIMS = (
    Claim(
        "The symmetric decoder, with five skip levels instead of three, maps landslides better.",
        "fcn_fl",
        "fcn",
        effect="skip levels",
    ),
    Claim(
        "The focal loss, chosen against the imbalance, maps landslides better.", "fcn_fl", "fcn", effect="focal loss"
    ),
    Claim("Both changes together make FCN-FL better than FCN.", "fcn_fl", "fcn", effect="both"),
    Claim(
        "Cross-validation with the ensemble of its models maps landslides better.", "fcn_flk", "fcn_fl", effect="k-fold"
    ),
    Claim("FCN-FLK is better than U-Net.", "fcn_flk", "unet"),
    Claim("FCN-FLK is better than SegNet.", "fcn_flk", "segnet"),
    Claim("FCN-FLK has fewer false alarms than FCN.", "fcn_flk", "fcn", "precision"),
    Claim("FCN-FLK has fewer false alarms than U-Net.", "fcn_flk", "unet", "precision"),
    Claim("FCN-FLK has fewer false alarms than SegNet.", "fcn_flk", "segnet", "precision"),
)
"""Claims of the paper about effects."""


def implied_precision(scores: Mapping[str, float]) -> float:
    """Return the precision that follows from F1 and recall: F1 x recall / (2 x recall - F1)."""
    return scores["f1"] * scores["recall"] / (2 * scores["recall"] - scores["f1"])


def implied_share(scores: Mapping[str, float]) -> float:
    """Return the share of landslide pixels that follows: (1 - accuracy) / (2 x recall x (1 / F1 - 1))."""
    return (1 - scores["accuracy"]) / (2 * scores["recall"] * (1 / scores["f1"] - 1))


def implied_landslide_iou(scores: Mapping[str, float]) -> float:
    """Return the IoU of landslides that follows from F1: F1 / (2 - F1)."""
    return scores["f1"] / (2 - scores["f1"])


def implied_miou(scores: Mapping[str, float]) -> float:
    """Return the mean IoU over two classes that follows from accuracy, recall and F1."""
    wrong = 1 - scores["accuracy"]
    background = scores["accuracy"] - implied_share(scores) * scores["recall"]
    return (implied_landslide_iou(scores) + background / (background + wrong)) / 2
