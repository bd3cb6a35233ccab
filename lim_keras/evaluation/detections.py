"""Landslides as objects: how many mapped ones a predicted inventory finds, and how many of its own are right.

Pixels weigh large landslides; objects weigh every landslide alike. Truth is read from polygons or from a label raster.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyproj
import rasterio
import rasterio.features
import shapely
from numpy.typing import NDArray
from pyproj.exceptions import ProjError
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window as RasterWindow
from rich.table import Table
from rich.text import Text
from shapely.affinity import affine_transform

from lim_keras.data.box import Box
from lim_keras.data.raster import RasterInfo
from lim_keras.errors import DataError, LimKerasWarning
from lim_keras.evaluation.tables import format_number

VECTOR_SUFFIXES = (".geojson", ".json", ".gpkg", ".shp", ".fgb")
IOU = 0.5
UNLABELLED = 255

_ELLIPSOID = pyproj.Geod(ellps="WGS84")
_LABEL_BLOCK = 2048
_GRID_TOLERANCE_PX = 0.1


AREA_CLASSES = {"small": (0.0, 1_000.0), "medium": (1_000.0, 10_000.0), "large": (10_000.0, math.inf)}
"""From, to, in m2; both bounds belong to the middle class."""

_ROWS = {"all": "all", "small": "< 1,000 m²", "medium": "1,000 to 10,000 m²", "large": "> 10,000 m²"}
_CRITERIA = {"iou_50": f"IoU of at least {IOU}", "any_overlap": "any overlap"}


@dataclass(frozen=True, slots=True)
class DetectionScore:
    """Counts of polygons by one criterion, and their ratios; NaN where nothing was counted.

    truth: mapped landslides, found: those that a prediction meets. predicted: predicted landslides, right: those that
    meet a mapped one.
    """

    truth: int
    found: int
    predicted: int
    right: int

    @property
    def recall(self) -> float:
        """Share of the mapped landslides that are found."""
        return self.found / self.truth if self.truth else math.nan

    @property
    def precision(self) -> float:
        """Share of the predicted landslides that are right."""
        return self.right / self.predicted if self.predicted else math.nan

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 0 where one is 0 and the other has nothing to count."""
        precision, recall = self.precision, self.recall
        if precision == 0 or recall == 0:
            return 0.0
        return 2 * precision * recall / (precision + recall)

    def to_dict(self) -> dict[str, int | float | None]:
        """Ready for JSON: None for a ratio that is not defined."""
        ratios = {"precision": self.precision, "recall": self.recall, "f1": self.f1}
        return asdict(self) | {name: None if math.isnan(value) else value for name, value in ratios.items()}


@dataclass(frozen=True)
class Detections:
    """Scores by "all" and, where areas are known, by the names of AREA_CLASSES.

    iou_50: a prediction and a mapped landslide are a pair if their IoU is at least 0.5; each is in one pair at most.
    any_overlap: a mapped landslide is found if any prediction overlaps it, a prediction is right if it overlaps any
    mapped landslide, however little (touching is no overlap).

    In an area class, recall counts mapped landslides by their own area, precision counts predicted ones by their own,
    and F1 is that of these two: a pair may count in one class on one side, in another class on the other.
    """

    iou_50: dict[str, DetectionScore]
    any_overlap: dict[str, DetectionScore]

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON: bounds of the area classes in m2 (None: no bound), and scores by criterion."""
        bounds = {name: [low, high if math.isfinite(high) else None] for name, (low, high) in AREA_CLASSES.items()}
        scores = {one: {name: score.to_dict() for name, score in getattr(self, one).items()} for one in _CRITERIA}
        return {"area_classes_m2": bounds, **scores}

    def table(self) -> Table:
        """For a terminal: one row an area class, the criteria one below the other."""
        table = Table(
            title="Landslides as polygons",
            caption="By area: recall by that of the mapped landslide, precision by that of the predicted one.",
        )
        table.add_column("")
        for heading in ("found", "of mapped", "recall", "right", "of predicted", "precision", "F1"):
            table.add_column(heading, justify="right")
        for criterion, heading in _CRITERIA.items():
            table.add_row(Text(heading, "bold"))
            for name, score in getattr(self, criterion).items():
                recall, precision, f1 = map(format_number, (score.recall, score.precision, score.f1))
                found, right = (f"{score.found:,}", f"{score.truth:,}"), (f"{score.right:,}", f"{score.predicted:,}")
                table.add_row(f"  {_ROWS[name]}", *found, recall, *right, precision, Text(f1, "bold"))
            table.add_section()
        return table


def score_detections(
    predicted: geopandas.GeoDataFrame,
    truth: geopandas.GeoDataFrame,
    *,
    valid: Any | None = None,
    gsd_m: float | None = None,
) -> Detections:
    """Compare landslides polygon by polygon.

    Multi-polygons count part by part. Pairs of an IoU of at least 0.5 are taken greedily, the best first, for mapped
    landslides may overlap each other. What lies outside `valid` is cut off first: a landslide entirely outside counts
    nowhere, one that the cut divides counts part by part. The IoU is planar, in the CRS of `predicted`; areas for the
    classes are geodesic.

    Args:
        predicted: polygons in the scene's CRS; without CRS, in the scene's own coordinates.
        truth: polygons; reprojected if they are in another CRS.
        valid: polygon or multi-polygon, in the CRS of `predicted`, where the scene holds data; None: everywhere.
        gsd_m: metres of one unit of the coordinates (a pixel) where there is no CRS; without it there are no classes.

    Raises:
        DataError: one of the two has a CRS and the other has none.

    Warns:
        LimKerasWarning: truth polygons are invalid; they are repaired.
    """
    mapped = tidy_polygons(_in_crs_of(predicted, truth), "truth")
    called = tidy_polygons(predicted.geometry, "predicted")
    if valid is not None:
        mapped, called = _cut(mapped, valid), _cut(called, valid)
    areas = polygon_areas_m2(mapped, gsd_m), polygon_areas_m2(called, gsd_m)
    pairs, iou = _overlaps(mapped.to_numpy(), called.to_numpy())
    return Detections(_scores(_best_pairs(pairs, iou), *areas), _scores(pairs, *areas))


def polygon_areas_m2(polygons: geopandas.GeoSeries, gsd_m: float | None = None) -> NDArray[np.float64]:
    """Areas in square metres: on the WGS 84 ellipsoid, so that degrees and Web Mercator come out right.

    Without a CRS, or with one that has no place on Earth, planar areas times gsd_m ** 2; NaN without gsd_m.
    """
    try:
        return np.array([_geodesic_area(polygon) for polygon in polygons.to_crs("OGC:CRS84")], np.float64)
    except (ValueError, ProjError):  # ValueError: there is no CRS
        return np.asarray(polygons.area, np.float64) * (math.nan if gsd_m is None else gsd_m**2)


def tidy_polygons(geometries: geopandas.GeoSeries, name: str) -> geopandas.GeoSeries:
    """Single, valid, flat polygons of some area: multi-polygons exploded, invalid ones repaired, all else left out.

    Warns:
        LimKerasWarning: how many of `name` were invalid.
    """
    shapes = shapely.force_2d(geometries.dropna().to_numpy())
    shapes = shapes[np.isfinite(shapely.bounds(shapes)).all(axis=-1)]  # empty, or beyond what the CRS can show
    invalid = ~shapely.is_valid(shapes)
    if invalid.any():
        shapes[invalid] = shapely.make_valid(shapes[invalid])
        message = f"{name}: {invalid.sum()} of {len(shapes)} polygons are invalid (they cross themselves); repaired."
        warnings.warn(message, LimKerasWarning, stacklevel=3)
    return geopandas.GeoSeries(_parts(shapes), crs=geometries.crs)


def read_truth(path: Path, like: RasterInfo) -> geopandas.GeoDataFrame:
    """Mapped landslides of a scene, as single polygons in its CRS (without one: in its own coordinates).

    Args:
        path: polygons (VECTOR_SUFFIXES) in any CRS, cut at the scene's edge; GeoJSON of a scene without CRS is taken in
            the scene's own coordinates, (column, -row) where it has no place. Or a label raster on the scene's grid, 1
            landslide, 0 background, 255 no label, where pixels hang together over edges, not over corners; one that
            does not say where it lies needs the scene's size only.
        like: the scene (`lim_keras.data.raster.read_info`).

    Raises:
        DataError: unreadable, no polygon in it, no CRS, several layers, another grid, or unknown labels.

    Warns:
        LimKerasWarning: polygons are invalid, and repaired; or none of them lies on the scene.
    """
    if path.suffix.lower() not in VECTOR_SUFFIXES:
        return geopandas.GeoDataFrame(geometry=_read_label_raster(path, like), crs=like.crs or None)
    tidy = tidy_polygons(_to_scene(_read_vector(path), path, like), str(path))
    if tidy.empty:
        raise DataError(f"{path}: holds no polygon. Expected landslides as polygons or multi-polygons.")
    inside = _cut(tidy, _outline(Box(0, 0, like.height, like.width), _matrix(like)))
    if inside.empty:
        message = f"{path}: none of its {len(tidy)} polygons lies on the scene {like.path}. Is it the right file?"
        warnings.warn(message, LimKerasWarning, stacklevel=2)
    return geopandas.GeoDataFrame(geometry=inside)


def rasterise_block(truth: geopandas.GeoDataFrame, like: RasterInfo, box: Box) -> NDArray[np.uint8]:
    """The truth polygons on a block of the scene's grid: (height, width), 1 where they hold a pixel's centre, else 0.

    truth: of `read_truth`. like: the scene. box: the block, in pixels of the scene.
    """
    matrix = _matrix(like)
    near = truth.geometry.iloc[truth.sindex.query(_outline(box, matrix), predicate="intersects")]
    mask = np.zeros((box.height, box.width), np.uint8)
    if len(near):
        a, b, c, d, e, f = matrix[:6]
        left, top = a * box.left + b * box.top + c, d * box.left + e * box.top + f
        rasterio.features.rasterize(near, out=mask, transform=rasterio.Affine(a, b, left, d, e, top))
    return mask


def _in_crs_of(predicted: geopandas.GeoDataFrame, truth: geopandas.GeoDataFrame) -> geopandas.GeoSeries:
    if predicted.empty or truth.empty or predicted.crs == truth.crs:
        return truth.geometry
    if predicted.crs is None or truth.crs is None:
        raise DataError(
            "Expected `predicted` and `truth` both with a CRS, or both without. "
            f"Received: {predicted.crs and predicted.crs.name} and {truth.crs and truth.crs.name}."
        )
    return truth.geometry.to_crs(predicted.crs)


def _cut(polygons: geopandas.GeoSeries, area: Any) -> geopandas.GeoSeries:
    """What of the polygons lies inside an area, as single polygons."""
    shapely.prepare(area)
    shapes = np.array(polygons)
    across = ~shapely.covers(area, shapes)
    shapes[across] = shapely.intersection(shapes[across], area)
    return geopandas.GeoSeries(_parts(shapes), crs=polygons.crs)


def _parts(shapes: NDArray[Any]) -> NDArray[Any]:
    """Single polygons; taken apart twice, for a collection may hold multi-polygons."""
    parts = shapely.get_parts(shapely.get_parts(shapes))
    return np.asarray(parts[shapely.area(parts) > 0])


def _overlaps(mapped: NDArray[Any], called: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Pairs (n, 2) of positions that have ground in common, mapped before called, and the IoU (n,) of each."""
    pairs = shapely.STRtree(called).query(mapped, predicate="intersects").T
    first, second = mapped[pairs[:, 0]], called[pairs[:, 1]]
    common = shapely.area(shapely.intersection(first, second))
    overlap = common > 0
    union = shapely.area(first) + shapely.area(second) - common
    return pairs[overlap], common[overlap] / union[overlap]


def _best_pairs(pairs: NDArray[np.int64], iou: NDArray[np.float64]) -> NDArray[np.int64]:
    """One-to-one pairs (m, 2) of at least IOU, the best first; of equal ones, the first mapped."""
    taken: tuple[set[int], set[int]] = (set(), set())
    best = []
    for index in np.argsort(-iou, kind="stable"):
        mapped, called = (int(position) for position in pairs[index])
        if iou[index] < IOU:
            break
        if mapped not in taken[0] and called not in taken[1]:
            taken[0].add(mapped)
            taken[1].add(called)
            best.append((mapped, called))
    return np.array(best, np.int64).reshape(-1, 2)


def _scores(
    pairs: NDArray[np.int64], mapped_m2: NDArray[np.float64], called_m2: NDArray[np.float64]
) -> dict[str, DetectionScore]:
    found, right = np.zeros(len(mapped_m2), bool), np.zeros(len(called_m2), bool)
    found[pairs[:, 0]] = True
    right[pairs[:, 1]] = True
    scores = {"all": DetectionScore(len(found), int(found.sum()), len(right), int(right.sum()))}
    if np.isnan(mapped_m2).any() or np.isnan(called_m2).any():
        return scores
    mapped_class, called_class = _class_numbers(mapped_m2), _class_numbers(called_m2)
    for number, name in enumerate(AREA_CLASSES):
        truth, predicted = mapped_class == number, called_class == number
        counts = (truth.sum(), (found & truth).sum(), predicted.sum(), (right & predicted).sum())
        scores[name] = DetectionScore(*map(int, counts))
    return scores


def _class_numbers(areas_m2: NDArray[np.float64]) -> NDArray[np.int64]:
    low, high = AREA_CLASSES["medium"]
    return np.where(areas_m2 < low, 0, np.where(areas_m2 > high, 2, 1))


def _geodesic_area(polygon: Any) -> float:
    """In m2, of longitudes and latitudes; ring by ring, so that it does not matter which way round they go."""
    rings = [polygon.exterior, *polygon.interiors]
    first, *holes = (abs(_ELLIPSOID.polygon_area_perimeter(*shapely.get_coordinates(ring).T)[0]) for ring in rings)
    return float(first - sum(holes))


def _read_vector(path: Path) -> geopandas.GeoDataFrame:
    """The one layer of a file that has geometries; GeoPackages hold layers of styles besides."""
    try:
        layers = geopandas.list_layers(path).dropna(subset="geometry_type")["name"].tolist()
        if len(layers) != 1:
            raise DataError(f"{path}: expected one layer with geometries. Received: {', '.join(layers) or 'none'}.")
        return geopandas.read_file(path, layer=layers[0], columns=[])
    except (RuntimeError, shapely.errors.ShapelyError) as error:  # RuntimeError: base of pyogrio's errors
        raise DataError(f"{path}: cannot be read as polygons ({error}).") from error


def _to_scene(frame: geopandas.GeoDataFrame, path: Path, like: RasterInfo) -> geopandas.GeoSeries:
    if not like.crs:
        # GeoJSON cannot say that it has no CRS: it is read as longitude and latitude.
        if frame.crs is None or path.suffix.lower() in (".geojson", ".json"):
            return frame.geometry.set_crs(None, allow_override=True)
        raise DataError(f"{path}: has a CRS ({frame.crs.name}), but the scene {like.path} has none to bring it to.")
    if frame.crs is None:
        raise DataError(
            f"{path}: has no CRS, but the scene {like.path} is in {like.crs}. Say what it is in "
            "(a Shapefile needs its .prj beside it)."
        )
    try:
        return frame.geometry.to_crs(like.crs)
    except ProjError as error:
        raise DataError(f"{path}: cannot be brought from {frame.crs.name} to {like.crs} ({error}).") from error


def _read_label_raster(path: Path, like: RasterInfo) -> list[Any]:
    """GDAL polygonises row by row: the raster is never in memory as a whole."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            source = rasterio.open(path, sharing=False)
        with source:
            unplaced = source.crs is None and source.transform.is_identity
            _check_grid(source, path, like, unplaced)
            _check_labels(source, path)
            band = rasterio.band(source, 1)
            # 0 as mask: the background would become a polygon with a hole for every landslide
            mask = band if source.dtypes[0] == "uint8" else None
            shapes = rasterio.features.shapes(band, mask=mask, connectivity=4)
            found = [shapely.geometry.shape(shape) for shape, value in shapes if value == 1]
            # a band's outlines come in the coordinates of its file, whatever is asked
            a, b, c, d, e, f = _matrix(like)[:6]
            return [affine_transform(shape, (a, b, d, e, c, f)) for shape in found] if unplaced else found
    except RasterioError as error:
        raise DataError(f"{path}: cannot be read as polygons or as a label raster ({error}).") from error


def _check_grid(source: Any, path: Path, like: RasterInfo, unplaced: bool) -> None:
    if source.count != 1:
        raise DataError(f"{path}: expected a label raster of one band. Received: {source.count} bands.")
    matrix, crs = _matrix(like), rasterio.CRS.from_user_input(like.crs) if like.crs else None
    scene, reach = Box(0, 0, like.height, like.width), _GRID_TOLERANCE_PX * math.sqrt(abs(matrix.determinant))
    same_place = source.crs == crs and _outline(scene, source.transform).equals_exact(_outline(scene, matrix), reach)
    if (source.width, source.height) != (like.width, like.height) or not (unplaced or same_place):
        raise DataError(
            f"{path}: lies on another grid than the scene {like.path}. Expected {like.width} x {like.height} px, CRS "
            f"{crs}, transform {tuple(matrix[:6])}. Received: {source.width} x {source.height} px, CRS {source.crs}, "
            f"transform {tuple(source.transform[:6])}. Warp it onto the scene's grid (nearest neighbour)."
        )


def _check_labels(source: Any, path: Path) -> None:
    found: set[float] = set()
    for top in range(0, source.height, _LABEL_BLOCK):
        for left in range(0, source.width, _LABEL_BLOCK):
            height, width = min(_LABEL_BLOCK, source.height - top), min(_LABEL_BLOCK, source.width - left)
            found.update(np.unique(source.read(1, window=RasterWindow(left, top, width, height))).tolist())
    unknown = found - {0, 1, UNLABELLED} - ({source.nodata} if source.nodata is not None else set())
    shown = ", ".join(f"{value:g}" for value in sorted(found)[:10])
    if unknown:
        raise DataError(f"{path}: expected the labels 1 landslide, 0 background, 255 no label. Received: {shown}.")
    if not found & {0, 1} or (1 not in found and UNLABELLED in found and source.nodata != UNLABELLED):
        raise DataError(
            f"{path}: expected pixels of 1 landslide or 0 background. Received: {shown}. 255 means no label; where it "
            "means landslide, write 1 instead."
        )


def _matrix(like: RasterInfo) -> rasterio.Affine:
    """Pixels to coordinates; (column, -row) for a scene without a place, as inventories and QGIS have it."""
    return like.transform or rasterio.Affine(1.0, 0.0, 0.0, 0.0, -1.0, 0.0)


def _outline(box: Box, matrix: rasterio.Affine) -> Any:
    a, b, c, d, e, f = matrix[:6]
    corners = ((box.left, box.top), (box.right, box.top), (box.right, box.bottom), (box.left, box.bottom))
    return shapely.Polygon([(a * x + b * y + c, d * x + e * y + f) for x, y in corners])
