"""Object rule of a bundle, which decides which regions of a probability map are landslides, and its fitted values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, FiniteFloat, field_validator

from lim_keras.metrics.binary import Estimate

WorkingPointName = Literal["sensitive", "balanced", "strict"]

WORKING_POINTS: tuple[WorkingPointName, ...] = ("sensitive", "balanced", "strict")
"""Working points of a rule, from the most to the fewest landslides."""

DEFAULT_POINT: WorkingPointName = "balanced"

RuleSource = Literal["out_of_fold", "held_out"]


def _null_is_nan(value: Any) -> Any:
    """Convert null to NaN. Undefined scores are stored as null, because JSON has no NaN."""
    if isinstance(value, Mapping):
        return {key: math.nan if number is None else number for key, number in value.items()}
    return value


Scores = dict[str, Annotated[Estimate, BeforeValidator(_null_is_nan)]]
"""Value and 95 % interval of each score, by score name (f1, miou, ...)."""


class Part(BaseModel):
    """Strict, immutable base class of the records in a JSON file."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectRule:
    """Rule that decides which regions of a probability map are landslides.

    A region is a group of pixels with probability >= `threshold` that share sides. It is a landslide if its highest
    probability is at least `peak` and its area at least `min_area_m2`.

    Args:
        threshold: smallest probability of a pixel of a region, 0..1.
        peak: 0..1; a value up to `threshold` keeps all regions.
        min_area_m2: square metres; 0 keeps all regions.

    Source: hysteresis thresholding, Canny 1986, "A Computational Approach to Edge Detection".
    """

    threshold: float
    peak: float = 0.0
    min_area_m2: float = 0.0

    @property
    def keeps_all(self) -> bool:
        """True if the rule leaves no region out."""
        return self.peak <= self.threshold and not self.min_area_m2

    def low_peaks(self, peaks: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return for regions of highest probability `peaks` (n,) whether they are below the peak; False for NaN."""
        # Maps hold float32, so the rule's peak is rounded alike: an equal peak must not be lower.
        return peaks < np.float32(self.peak)

    def small(self, areas_m2: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return for regions of `areas_m2` (n,), square metres, whether they are too small; False for NaN."""
        return areas_m2 < self.min_area_m2

    def __str__(self) -> str:
        """Format the rule, such as "threshold 0.35, peak 0.7, at least 100 m2"."""
        area = f", at least {self.min_area_m2:g} m2" if self.min_area_m2 else ""
        peak = f", peak {self.peak:.4g}" if self.peak > self.threshold else ""
        return f"threshold {self.threshold:.4g}{peak}{area}"


class _RuleValues(Part):
    """Values of an `ObjectRule`."""

    threshold: FiniteFloat = Field(ge=0, le=1)
    peak: FiniteFloat = Field(ge=0, le=1)
    min_area_m2: FiniteFloat = Field(ge=0)

    @property
    def rule(self) -> ObjectRule:
        """The rule of these values."""
        return ObjectRule(threshold=self.threshold, peak=self.peak, min_area_m2=self.min_area_m2)


class WorkingPoint(_RuleValues):
    """Fitted rule with its scores on the held-out tiles.

    Args:
        scores: recall, precision and f1 of landslides at IoU 0.5 (`f1_iou_50`, ...) and at any overlap
            (`f1_any_overlap`, ...), and `false_alarms_km2`: predicted landslides that overlap no mapped one, for each
            square kilometre with labels. NaN where it is not defined.
    """

    scores: Scores


class CurvePoint(_RuleValues):
    """Rule with the fewest false alarms among all rules of at least its recall (any overlap).

    Args:
        false_alarms_km2: None without a ground sample distance.
    """

    recall: FiniteFloat = Field(ge=0, le=1)
    false_alarms_km2: FiniteFloat | None = Field(ge=0)
    f1_iou_50: FiniteFloat = Field(ge=0, le=1)
    f1_any_overlap: FiniteFloat = Field(ge=0, le=1)


class FittedRule(Part):
    """Working points of a bundle, chosen on held-out tiles (`lim_keras.evaluation.object_rule`).

    Args:
        source: "out_of_fold": each tile was predicted by the model of the run that was not trained on it; "held_out":
            tiles that no model of the bundle was trained on.
        tiles, landslides, area_km2: numbers of tiles and landslides that it was fitted on, and their labelled area;
            None without a ground sample distance.
        without: rule that keeps all regions at the threshold of the bundle, with its scores.
        working_points: "balanced", "sensitive" and "strict".
        curve: rules of the fewest false alarms for a recall, by rising recall.
    """

    source: RuleSource
    tiles: int = Field(ge=1)
    landslides: int = Field(ge=1)
    area_km2: FiniteFloat | None = Field(gt=0)
    without: WorkingPoint
    working_points: dict[WorkingPointName, WorkingPoint]
    curve: tuple[CurvePoint, ...]

    @field_validator("working_points")
    @classmethod
    def _check_names(cls, value: dict[WorkingPointName, WorkingPoint]) -> dict[WorkingPointName, WorkingPoint]:
        if set(value) != set(WORKING_POINTS):
            raise ValueError(f"expected the working points {', '.join(WORKING_POINTS)}, received {', '.join(value)}")
        return value
