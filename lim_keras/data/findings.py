"""Results of a data set's audit: checks, the tiles that each one found, and disagreements with predictions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from lim_keras.data.dataset_report import DatasetReport
from lim_keras.data.tiles import TileSet

Part = Literal["leaks", "labels", "images", "set", "predictions"]

Status = Literal["leak", "found", "clear", "skipped"]
"""leak: tiles of two sides of a split share something; found: another defect; skipped: the check does not apply."""


FEATURES = {
    "size": "size of the tile, px",
    "brightness": "brightness of the background",
    "sharpness": "fine detail of the background, log10",
    "blocks": "strength of JPEG blocks",
    "jpeg_quality": "JPEG quality of the file",
}
"""Figures that may separate landslide tiles from the others, with their meaning."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """One tile, or one pair of tiles, that a check found.

    Attributes:
        tile_id: the tile.
        value: strength; the largest is the worst.
        text: measured figures.
        other: second tile of a pair; "" for a single tile.
    """

    tile_id: str
    value: float
    text: str
    other: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """Result of one check.

    Attributes:
        name: key of the check, such as "shifted_masks".
        part: section of the report.
        title: heading.
        explanation: meaning of the defect, one sentence.
        advice: cure.
        status: result.
        note: figures of the whole set, or the reason of a skipped check; "" for none.
        evidence: tiles and pairs, worst first.
    """

    name: str
    part: Part
    title: str
    explanation: str
    advice: str
    status: Status
    note: str = ""
    evidence: tuple[Evidence, ...] = ()

    @property
    def count(self) -> int:
        """Number of tiles or pairs."""
        return len(self.evidence)

    @property
    def is_finding(self) -> bool:
        """True if the check found a defect."""
        return self.status in ("leak", "found")


@dataclass(frozen=True, slots=True)
class Region:
    """Connected pixels of a tile where label and prediction differ.

    Attributes:
        x, y, width, height: bounding box, pixels of the tile.
        area_px: area, pixels of the tile.
        probability: mean predicted probability of landslide.
    """

    x: int
    y: int
    width: int
    height: int
    area_px: int
    probability: float


@dataclass(frozen=True, slots=True)
class Disagreement:
    """Pixels of a tile where label and out-of-fold prediction differ.

    Attributes:
        tile_id: the tile.
        fold: fold whose model was not trained on the tile.
        kind: "missed": labelled as landslide, but not predicted; "false": predicted, but labelled as background.
        area_px: number of such pixels, pixels of the tile.
        weight: sum of their probabilities for the class that the label does not name; candidates are sorted by it.
        share: share of all such pixels of the set, 0..1.
        probability: mean predicted probability of landslide of these pixels.
        regions: connected regions, the largest first.
    """

    tile_id: str
    fold: int
    kind: Literal["missed", "false"]
    area_px: int
    weight: float
    share: float
    probability: float
    regions: tuple[Region, ...]


@dataclass(frozen=True)
class AuditReport:
    """Results of an audit; `lim_keras.audit_tiles` makes one.

    Attributes:
        tiles: the tiles.
        checks: all checks, in the order of the report.
        dataset: counts, imbalance and centre bias.
        disagreements: candidates for label errors, worst first; empty without a run.
        threshold: threshold of the run, 0..1; None without a run.
        features: figures of each tile by name, such as "sharpness", in the order of the tiles; NaN where unknown.
    """

    tiles: TileSet
    checks: tuple[Check, ...]
    dataset: DatasetReport
    disagreements: tuple[Disagreement, ...] = ()
    threshold: float | None = None
    features: Mapping[str, tuple[float, ...]] | None = None

    @property
    def findings(self) -> tuple[Check, ...]:
        """Checks that found a defect."""
        return tuple(check for check in self.checks if check.is_finding)

    @property
    def has_leak(self) -> bool:
        """True if tiles on two sides of the split share something."""
        return any(check.status == "leak" for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """Return all results in a form that JSON can store."""
        return {
            "data": str(self.tiles.root),
            "tiles": len(self.tiles),
            "leak": self.has_leak,
            "findings": [check.name for check in self.findings],
            "checks": [{**asdict(check), "count": check.count} for check in self.checks],
            "threshold": self.threshold,
            "disagreements": [asdict(one) for one in self.disagreements],
            "dataset": self.dataset.to_dict(),
        }
