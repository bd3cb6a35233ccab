"""Facts of the split of a run: spatial folds, and leaks that were allowed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class FoldFacts:
    """One fold of a split by position.

    Attributes:
        tiles, landslide_tiles: numbers of held-out tiles.
        landslide_share: landslide pixels / labelled pixels of the held-out tiles.
        training_tiles: number of tiles that the model of this fold is trained on.
        left_out: tiles that neither train nor are held out, because they overlap a held-out tile or lie in its buffer.
        nearest_m: shortest distance from a held-out tile to any other tile but the test tiles, metres.
        nearest_training_m: shortest distance from a held-out tile to a tile that the model is trained on, metres.
    """

    tiles: int
    landslide_tiles: int
    landslide_share: float
    training_tiles: int
    left_out: tuple[str, ...]
    nearest_m: float | None
    nearest_training_m: float | None


@dataclass(frozen=True)
class SplitFacts:
    """Content of `split.json`; empty for random folds without leaks.

    Attributes:
        method: "random" or "spatial".
        units: kind and size of the units of spatial folds, such as "blocks of 500 m"; "" if there are none.
        number_of_units: number of these units.
        buffer_m: buffer of spatial folds, metres.
        folds: facts of each fold; empty for random folds.
        leaks: a sentence for each thing that test tiles share with training tiles; they flatter the test scores.
    """

    method: str = "random"
    units: str = ""
    number_of_units: int = 0
    buffer_m: float = 0.0
    folds: Mapping[int, FoldFacts] = field(default_factory=dict)
    leaks: tuple[str, ...] = ()

    @property
    def shortest_m(self) -> float | None:
        """Shortest distance between tiles of two folds, metres; None if unknown."""
        return min((one.nearest_m for one in self.folds.values() if one.nearest_m is not None), default=None)

    def left_out(self, fold: int) -> tuple[str, ...]:
        """Ids of the tiles that do not train the model of a fold, besides its held-out tiles and the test tiles."""
        return self.folds[fold].left_out if fold in self.folds else ()

    @property
    def all_left_out(self) -> set[str]:
        """Ids of the tiles that are left out of the training of at least one fold."""
        return {name for facts in self.folds.values() for name in facts.left_out}

    @property
    def headline(self) -> str:
        """Method, shortest distance and tiles lost in one sentence."""
        lost = [len(facts.left_out) for facts in self.folds.values()]
        units = f"{self.number_of_units} {self.units}" if self.units else "the validation tiles of the list"
        apart = "unknown" if self.shortest_m is None else f"{self.shortest_m:,.0f} m"
        near = f" or are nearer than {self.buffer_m:,g} m" if self.buffer_m else ""
        return (
            f"spatial folds of {units}; shortest distance between folds {apart}; training tiles left out because they "
            f"overlap held-out tiles{near}: {', '.join(map(str, lost))}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the content as JSON values; empty for random folds without leaks."""
        if not self.folds and not self.leaks:
            return {}
        values = asdict(self) | {"folds": {str(fold): asdict(facts) for fold, facts in self.folds.items()}}
        return values | {"shortest_m": self.shortest_m}

    def to_json(self) -> str:
        """Return the text of `split.json`; "" for random folds without leaks."""
        values = self.to_dict()
        return json.dumps(values, indent=2, allow_nan=False) + "\n" if values else ""

    @classmethod
    def read(cls, path: Path) -> SplitFacts:
        """Read a `split.json` that a run has written."""
        values = json.loads(path.read_text(encoding="utf-8"))
        folds = {
            int(fold): FoldFacts(**(facts | {"left_out": tuple(facts["left_out"])}))
            for fold, facts in values.pop("folds").items()
        }
        del values["shortest_m"]
        return cls(**(values | {"folds": folds, "leaks": tuple(values["leaks"])}))
