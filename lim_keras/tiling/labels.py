"""Labels of scenes: mapped landslides from a vector file or from a label raster."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from geopandas import GeoDataFrame
from numpy.typing import NDArray

from lim_keras.errors import ConfigError, DataError, LimKerasWarning
from lim_keras.evaluation.truth import warn_of_study_area
from lim_keras.raster.georeference import RasterInfo
from lim_keras.raster.labels import LabelsOnGrid
from lim_keras.raster.reader import NO_LABEL
from lim_keras.raster.windows import Box
from lim_keras.tiling.burning import BurntPolygons, holds_pixel
from lim_keras.tiling.label_raster import LabelRaster
from lim_keras.tiling.mapped_polygons import MappedPolygons, in_pixels, inside
from lim_keras.tiling.report import OUTSIDE, OUTSIDE_AOI, TOO_SMALL, LabelReport, LostPolygon
from lim_keras.tiling.review_labels import LANDSLIDES, ReviewLabels, is_review, read_review
from lim_keras.tiling.selection import Selection, read_aoi, read_selection
from lim_keras.vectors.formats import find_source


@dataclass(frozen=True)
class LabelOptions:
    """Labels of a call: where they are, and which of them count.

    Attributes:
        path: vector file of any GDAL format, or label raster (1 landslide, 0 background, 255 or nodata: no label).
        layer: layer of the vector file; needed where several layers may hold polygons.
        where: condition in SQL on the attributes: only these polygons are landslides. None: all.
        ignore_where: condition in SQL: these polygons are uncertain, whether `where` selects them or not. Their pixels
            get no label (255), except where a certain landslide covers them.
        aoi: polygons of the area that was mapped; pixels outside of it get no label.
        touched: count all pixels that a polygon touches; else those whose centre it contains.
    """

    path: Path
    layer: str | None = None
    where: str | None = None
    ignore_where: str | None = None
    aoi: Path | None = None
    touched: bool = False


@dataclass(frozen=True)
class SceneLabels:
    """Labels on the grid of a scene.

    Attributes:
        landslides: single polygons in the CRS of the scene, cut at its edge and at the mapped area. `source` is the id
            of the feature; of a label raster, the number of the connected region.
    """

    landslides: GeoDataFrame
    _certain: BurntPolygons | LabelsOnGrid | None  # None: no label on the scene
    _uncertain: BurntPolygons | None
    _mapped: tuple[BurntPolygons, ...]  # outside of one of them, there is no label
    _rejected: BurntPolygons | None = None

    @property
    def everywhere(self) -> bool:
        """True if every pixel has a label: no mapped area, no uncertain landslide, no label raster."""
        gaps = isinstance(self._certain, LabelsOnGrid | None)
        return not gaps and self._uncertain is None and not self._mapped

    def mask(self, box: Box) -> NDArray[np.uint8]:
        """Return the labels (height, width) of a box of the grid: 1 landslide, 0 background, 255 no label.

        Memory grows with the box, not with the scene. Boxes that overlap agree in every pixel.
        """
        if self._certain is None:
            return np.full((box.height, box.width), NO_LABEL, np.uint8)
        if isinstance(self._certain, LabelsOnGrid):
            labels = self._certain.labels(box)
        else:
            labels = np.zeros((box.height, box.width), np.uint8)
            if self._uncertain is not None:
                labels[self._uncertain.burn(box)] = NO_LABEL
            labels[self._certain.burn(box)] = 1
        for area in self._mapped:
            labels[~area.burn(box)] = NO_LABEL
        return labels

    @property
    def has_rejected(self) -> bool:
        """True for labels of a review, whose rejected landslides are hard background."""
        return self._rejected is not None

    def rejected(self, box: Box) -> NDArray[np.bool_]:
        """Return which pixels (height, width) of a box an expert rejected; only of labels that have such pixels."""
        if self._rejected is None:
            return np.zeros((box.height, box.width), np.bool_)
        background: NDArray[np.bool_] = self.mask(box) == 0
        return self._rejected.burn(box) & background


@dataclass
class _Tally:
    """Counts of `on_scene`, over all scenes so far.

    Attributes:
        scenes: headers of the scenes.
        on_scene, on_mapped: ids of the features that lie on a scene, and on its mapped area.
        burnt: ids of the landslides that give a pixel.
        mapped_scenes, labelled_scenes: numbers of scenes with a mapped area, and with labels of a raster.
        regions: number of connected regions of a label raster.
    """

    scenes: list[RasterInfo] = field(default_factory=list)
    on_scene: set[int] = field(default_factory=set)
    on_mapped: set[int] = field(default_factory=set)
    burnt: set[int] = field(default_factory=set)
    mapped_scenes: int = 0
    labelled_scenes: int = 0
    regions: int = 0


@dataclass(frozen=True)
class LabelSource:
    """Labels of all scenes of a call; the files are read once.

    Attributes:
        options: where the labels are, and which of them count.
        labels: polygons that count, or the label raster.
        aoi: area that was mapped; None: everywhere.
        review: labels of a reviewed inventory; None: of another file.
    """

    options: LabelOptions
    labels: Selection | LabelRaster
    aoi: MappedPolygons | None
    review: ReviewLabels | None = None
    _tally: _Tally = field(default_factory=_Tally)

    @classmethod
    def read(cls, options: LabelOptions) -> LabelSource:
        """Read the files, select and clean the polygons.

        Raises:
            DataError: a file cannot be read, or holds no polygon or labels that can be read in two ways.
            ConfigError: a condition is wrong, there is no such layer, or an option does not fit a label raster.

        Warns:
            LimKerasWarning: geometries were repaired or do not count, or a condition selects nothing.
        """
        aoi = None if options.aoi is None else read_aoi(options.aoi)
        source = find_source(options.path)
        if source.is_raster:
            for argument in ("layer", "where", "ignore_where", "touched"):
                if getattr(options, argument):
                    raise ConfigError(f"{options.path}: a raster has no polygons. Leave out `{argument}`.")
            return cls(options, LabelRaster.read(source), aoi)
        if options.layer is None and is_review(options.path):
            for argument in ("where", "ignore_where"):
                if getattr(options, argument):
                    raise ConfigError(
                        f"{options.path}: a review says itself which landslides count. Leave out `{argument}`, or give "
                        f"`layer` {LANDSLIDES} to read it as any other file, whose unreviewed ground is background."
                    )
            review = read_review(source)
            return cls(options, review.landslides, aoi, review)
        how = {"layer": options.layer, "where": options.where, "ignore_where": options.ignore_where}
        return cls(options, read_selection(source, **how), aoi)

    def on_scene(self, scene: RasterInfo) -> SceneLabels:
        """Place the labels on the grid of a scene; labels that do not lie on it give background.

        Raises:
            DataError: the file or the scene lacks a CRS, or the labels cannot be reprojected.
        """
        self._tally.scenes.append(scene)
        mapped = None if self.aoi is None else self.aoi.on_scene(scene)
        self._tally.mapped_scenes += mapped is None or not mapped.empty
        area = () if mapped is None else (BurntPolygons(in_pixels(mapped.geometry.to_numpy(), scene)),)
        if isinstance(self.labels, LabelRaster):
            found, labels = self.labels.on_scene(scene)
            found = found if mapped is None else inside(found, mapped)
            self._tally.regions += len(found)
            self._tally.labelled_scenes += labels is not None
            return SceneLabels(found, labels, None, area)
        found = self._landslides(self.labels.certain.on_scene(scene), mapped)
        warn_of_study_area(found.geometry, scene, self.options.path)
        touched, pixels = self.options.touched, in_pixels(found.geometry.to_numpy(), scene)
        burnt = np.ones(len(found), np.bool_) if touched else holds_pixel(pixels)
        self._tally.burnt.update(found["source"].to_numpy()[burnt].tolist())
        certain, uncertain = BurntPolygons(pixels, touched=touched), None
        if not self.labels.uncertain.polygons.empty:
            doubtful = self.labels.uncertain.on_scene(scene)
            self._tally.on_scene.update(doubtful["source"].tolist())
            uncertain = BurntPolygons(in_pixels(doubtful.geometry.to_numpy(), scene), touched=touched)
        if self.review is None:
            return SceneLabels(found, certain, uncertain, area)
        known, rejected = (self._burnt(one, scene) for one in (self.review.known, self.review.rejected))
        return SceneLabels(found, certain, uncertain, (*area, known), rejected)

    def _burnt(self, polygons: MappedPolygons, scene: RasterInfo) -> BurntPolygons:
        placed = polygons.on_scene(scene).geometry.to_numpy()
        return BurntPolygons(in_pixels(placed, scene), touched=self.options.touched)

    def _landslides(self, found: GeoDataFrame, mapped: GeoDataFrame | None) -> GeoDataFrame:
        self._tally.on_scene.update(found["source"].tolist())
        found = found if mapped is None else inside(found, mapped)
        self._tally.on_mapped.update(found["source"].tolist())
        return found

    def check_placement(self) -> None:
        """Find out why no label lies on any scene so far.

        Raises:
            DataError: the labels, or the area that was mapped, would lie on a scene in another CRS or axis order; or
                the area or the label raster lies on no scene.

        Warns:
            LimKerasWarning: no landslide lies on any scene.
        """
        tally = self._tally
        if self.aoi is not None and tally.scenes and not tally.mapped_scenes:
            for scene in tally.scenes:
                self.aoi.check_place(scene)
            raise DataError(f"{self.options.aoi}: none of its polygons lies on a scene. Is it the right file?")
        if isinstance(self.labels, LabelRaster):
            if tally.scenes and not tally.labelled_scenes:
                raise DataError(f"{self.options.path}: lies on no scene. Is it the right file?")
            return
        if tally.on_scene or self.labels.certain.polygons.empty:
            return
        for scene in tally.scenes:
            self.labels.certain.check_place(scene)
        message = f"{self.options.path}: none of its {len(self.labels.certain.polygons)} polygons lies on a scene."
        warnings.warn(f"{message} Is it the right file?", LimKerasWarning, stacklevel=2)

    def report(self) -> LabelReport:
        """Return counts of the features, and the landslides that give no pixel on the scenes so far."""
        if isinstance(self.labels, LabelRaster):
            return LabelReport(landslides=self._tally.regions)
        ids = self.labels.certain.polygons.index.tolist()
        lost = (one for one in ids if one not in self._tally.burnt)
        named = tuple(LostPolygon(one, self.labels.names.get(one, ""), self._reason(one)) for one in lost)
        return replace(self.labels.report, lost=named)

    def _reason(self, source: int) -> str:
        if source in self._tally.on_mapped:
            return TOO_SMALL
        return OUTSIDE_AOI if source in self._tally.on_scene else OUTSIDE
