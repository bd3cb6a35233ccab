"""Report of a tiling: polygons that were read, and tiles and landslides of each scene."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

OUTSIDE, OUTSIDE_AOI, TOO_SMALL = "outside every scene", "outside the mapped area", "holds no pixel centre"


@dataclass(frozen=True)
class LostPolygon:
    """A landslide polygon that gives no pixel.

    Attributes:
        source: id of the feature.
        name: value of its column `id`, `name` or the like; "" without one.
        reason: `OUTSIDE`, `OUTSIDE_AOI` or `TOO_SMALL`.
    """

    source: int
    name: str
    reason: str


@dataclass(frozen=True)
class LabelReport:
    """Counts of the features of a file of labels; of a label raster, only `landslides` is not 0.

    Attributes:
        features: features of the layer.
        landslides: polygons that count as landslides, repeated ones left out; connected regions of a raster.
        uncertain: polygons that `ignore_where` selects, or landslides of a review without a sure verdict.
        rejected: landslides that a review rejects, which are background.
        not_selected: features that neither condition selects.
        repaired: invalid polygons, which were repaired.
        repeated: polygons that repeat another one.
        empty: features without geometry or without area.
        lines, points: lines and points, which are no landslides.
        lost: landslides that give no pixel on the scenes so far.
    """

    features: int = 0
    landslides: int = 0
    uncertain: int = 0
    rejected: int = 0
    not_selected: int = 0
    repaired: int = 0
    repeated: int = 0
    empty: int = 0
    lines: int = 0
    points: int = 0
    lost: tuple[LostPolygon, ...] = ()


@dataclass(frozen=True)
class SceneReport:
    """Tiles and landslides of one scene.

    Attributes:
        name: unique name, which its tiles begin with.
        path: the scene.
        width, height: size on the grid of the tiles, pixels.
        gsd_m: ground sample distance of the tiles, metres; None if unknown.
        crs: coordinate reference system of the tiles; "" if there is none.
        labelled_px: pixels with data and a label.
        landslide_tiles, background_tiles: numbers of tiles.
        landslides: landslides that touch the scene.
        covered: landslides that lie in the landslide tiles.
        lost: landslides in no tile: their names by reason.
        hard: background tiles on which the given model is wrong; None without a model.
    """

    name: str
    path: str
    width: int
    height: int
    gsd_m: float | None
    crs: str
    labelled_px: int
    landslide_tiles: int
    background_tiles: int
    landslides: int
    covered: int
    lost: Mapping[str, Sequence[str]]
    hard: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the report in JSON values."""
        return {**vars(self), "lost": {reason: list(ids) for reason, ids in self.lost.items()}}


@dataclass(frozen=True)
class TilingReport:
    """Report of a tiling.

    Attributes:
        scenes: one report for each scene.
        labels: counts of the polygons that were read, in JSON values.
        settings: options and inputs, in JSON values.
        groups: number of groups of tiles that show common ground or a common landslide.
        largest_group: tiles of the largest group.
        wanted: background tiles that were asked for; None: all.
    """

    scenes: tuple[SceneReport, ...]
    labels: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    groups: int = 0
    largest_group: int = 0
    wanted: int | None = None

    @property
    def landslide_tiles(self) -> int:
        """Landslide tiles of all scenes."""
        return sum(scene.landslide_tiles for scene in self.scenes)

    @property
    def background_tiles(self) -> int:
        """Background tiles of all scenes."""
        return sum(scene.background_tiles for scene in self.scenes)

    @property
    def landslides(self) -> int:
        """Landslides of all scenes; one that lies on two scenes counts twice."""
        return sum(scene.landslides for scene in self.scenes)

    @property
    def covered(self) -> int:
        """Landslides in tiles, of all scenes."""
        return sum(scene.covered for scene in self.scenes)

    @property
    def lost(self) -> dict[str, int]:
        """Number of lost landslides by reason, over all scenes."""
        counts: Counter[str] = Counter()
        for scene in self.scenes:
            counts.update({reason: len(ids) for reason, ids in scene.lost.items()})
        return dict(counts)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Make a report from `to_dict`."""
        scenes = tuple(SceneReport(**scene) for scene in values["scenes"])
        return cls(
            scenes, **{name: values[name] for name in ("labels", "settings", "groups", "largest_group", "wanted")}
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the whole report in JSON values."""
        return {
            "landslide_tiles": self.landslide_tiles,
            "background_tiles": self.background_tiles,
            "groups": self.groups,
            "largest_group": self.largest_group,
            "wanted": self.wanted,
            "labels": dict(self.labels),
            "scenes": [scene.to_dict() for scene in self.scenes],
            "settings": dict(self.settings),
        }
