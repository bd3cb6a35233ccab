"""Georeference of a raster, and warping to another grid."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
from affine import Affine
from numpy.typing import NDArray
from pyproj import Geod, Transformer
from pyproj.exceptions import ProjError
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.env import Env
from rasterio.io import MemoryFile
from rasterio.vrt import WarpedVRT
from rasterio.warp import reproject

from lim_keras.raster.windows import Box

Floats = NDArray[np.float64]
Points = Floats | NDArray[np.int32]

ELLIPSOID = Geod(ellps="WGS84")
_LONGITUDE_LATITUDE = "OGC:CRS84"
_PROJECTION_TOLERANCE = 0.01
_SAMPLED_SIDE = 9


@dataclass(frozen=True)
class RasterInfo:
    """Header of a raster: size in pixels, and number of the bands that are read (by default all but alpha).

    Attributes:
        path: path of the file; a string for a URL or a GDAL name.
        dtype: NumPy name of the data type.
        crs: coordinate reference system; "" if there is none.
        transform: affine transform from pixels to units of the CRS; None if there is none.
        gsd_m: ground sample distance, metres (side of a square with the area of a pixel); None if unknown.
        nodata: value of pixels without data; None if the file sets none.
    """

    path: Path | str
    width: int
    height: int
    bands: int
    dtype: str
    crs: str
    transform: Affine | None
    gsd_m: float | None
    nodata: float | None

    @property
    def box(self) -> Box:
        """All pixels."""
        return Box(0, 0, self.height, self.width)

    def place(self, column: float, row: float) -> tuple[float, float] | None:
        """Convert a point, counted from the upper left corner, to units of the CRS; None without a transform."""
        return None if self.transform is None else _place(self.transform, column, row)


@dataclass(frozen=True)
class Grid:
    """A grid of pixels: CRS in any form that rasterio takes, transform, and size in pixels."""

    crs: str
    transform: Affine
    width: int
    height: int
    gsd_m: float | None


@dataclass(frozen=True)
class Georeference:
    """Position of a scene's pixels; a point is (column, row), counted from the upper left corner.

    Attributes:
        transform: from pixels to units of the CRS; to (column, -row) for a scene without a georeference, as in QGIS.
        crs: coordinate reference system; "" if there is none.
        gsd_m: ground sample distance in metres; None if unknown.
        located: the CRS gives a position on the earth for the scene.
    """

    transform: Affine
    crs: str
    gsd_m: float | None
    located: bool = True

    @classmethod
    def of(cls, info: RasterInfo, gsd_m: float | None = None) -> Georeference:
        """Take the georeference of a raster; `gsd_m` is used if the raster has no ground sample distance."""
        if info.transform is None:
            return cls(Affine(1.0, 0.0, 0.0, 0.0, -1.0, 0.0), "", gsd_m)
        ground = cls(info.transform, info.crs, info.gsd_m or gsd_m)
        centre = np.array([[info.width / 2, info.height / 2]])
        located = ground.to_degrees is not None and bool(np.isfinite(ground.degrees(centre)).all())
        return ground if located else replace(ground, located=False)

    @property
    def to_degrees(self) -> Transformer | None:
        """Transformer from the CRS to longitude and latitude (WGS 84); None without a CRS or off the earth's surface.

        A local (engineering) CRS, a CRS of another planet and a geocentric CRS give no longitude and latitude.
        """
        return _to_degrees(self.crs) if self.crs and self.located else None

    @property
    def scale_m(self) -> float:
        """Metres per coordinate unit, for a scene without longitude and latitude; NaN if unknown."""
        unit = _local_unit(pyproj.CRS.from_user_input(self.crs)) if self.crs else None
        if unit is not None:
            return unit
        return math.nan if self.gsd_m is None else self.gsd_m / math.sqrt(abs(self.transform.determinant))

    def place(self, points: Points) -> Floats:
        """Convert points (n, 2) to the scene's CRS."""
        return apply(self.transform, points)

    def degrees(self, points: Points) -> Floats:
        """Convert points (n, 2) to longitude and latitude; needs `to_degrees`."""
        if self.to_degrees is None:
            raise ValueError("Expected a scene with a CRS.")
        placed = self.place(points)
        return np.stack(self.to_degrees.transform(placed[:, 0], placed[:, 1]), axis=-1).reshape(-1, 2)

    def pixel_sides(self, columns: Floats, rows: Floats) -> tuple[Floats, Floats, Floats]:
        """Measure the pixels around points (n,) on the ellipsoid, or in the plane of a local CRS.

        Returns:
            Width and height of a pixel, metres, and azimuth of the image's upward direction, degrees clockwise from
            north (of a local CRS: from its y axis). Each is (n,), NaN outside the area of the CRS.
        """
        if self.to_degrees is None:
            across, down = axes(self.transform) * self.scale_m
            upward = np.degrees(np.arctan2(-down[0], -down[1]))
            same = np.ones(len(columns))
            return same * np.hypot(*across), same * np.hypot(*down), same * upward
        ends = ((columns - 0.5, rows), (columns + 0.5, rows), (columns, rows + 0.5), (columns, rows - 0.5))
        left, right, below, above = (self.degrees(np.stack(end, axis=-1)).T for end in ends)
        across = ELLIPSOID.inv(*left, *right)[2]
        azimuth, _, down = ELLIPSOID.inv(*below, *above)
        return np.asarray(across), np.asarray(down), np.asarray(azimuth)


def apply(transform: Affine, points: Points) -> Floats:
    """Transform points (n, 2) without the operators of affine, which differ between affine 2 and affine 3."""
    return np.stack(_place(transform, points[:, 0], points[:, 1]), axis=-1)


def inverse(transform: Affine) -> Affine:
    """Invert a transform."""
    size = transform.a * transform.e - transform.b * transform.d
    a, b, d, e = transform.e / size, -transform.b / size, -transform.d / size, transform.a / size
    return Affine(a, b, -(a * transform.c + b * transform.f), d, e, -(d * transform.c + e * transform.f))


def shifted(transform: Affine, column: float, row: float, step: float = 1) -> Affine:
    """Move a transform's origin to a pixel, and make its pixels `step` times as large."""
    x, y = _place(transform, column, row)
    return Affine(transform.a * step, transform.b * step, x, transform.d * step, transform.e * step, y)


def border(box: Box, points: int = 32) -> Floats:
    """Return points (4 * points, 2), (column, row), along the border of a box, as its sides bend in another CRS."""
    along = np.arange(points) / points
    sides = ((along, 0 * along), (1 + 0 * along, along), (1 - along, 1 + 0 * along), (0 * along, 1 - along))
    unit = np.concatenate([np.stack(side, axis=-1) for side in sides])
    return np.asarray(unit * (box.width, box.height) + (box.left, box.top), np.float64)


def metres_per_degree(latitude: Floats) -> Floats:
    """Compute the metres (n, 2) per degree of longitude and per degree of latitude at latitudes (n,), WGS 84 ellipsoid.

    Source: radii of curvature, Snyder 1987, USGS Professional Paper 1395, equations 4-18 and 4-20.
    """
    flatten = 1 - ELLIPSOID.es * np.sin(np.radians(latitude)) ** 2
    across = ELLIPSOID.a / np.sqrt(flatten) * np.cos(np.radians(latitude))
    along = ELLIPSOID.a * (1 - ELLIPSOID.es) / flatten**1.5
    return np.radians(np.stack([across, along], axis=-1))


def ground_sample_distance(crs: Any, transform: Affine, width: int, height: int) -> float | None:
    """Compute the ground sample distance, metres, at a raster's centre; None without a CRS or where it is unknown.

    Return the pixel size in the CRS if it differs by less than 1 % from the distance measured on the ellipsoid, as in
    UTM. Otherwise return the measured distance, as in Web Mercator, which stretches by 1 / cos(latitude).
    """
    if not crs:
        return None
    sides = ground_sides(crs, transform, width / 2, height / 2)
    measured = None if sides is None else math.sqrt(_area(sides))
    nominal = math.sqrt(abs(transform.determinant)) * crs.linear_units_factor[1] if crs.is_projected else None
    if nominal and (measured is None or abs(measured / nominal - 1) < _PROJECTION_TOLERANCE):
        return float(nominal)
    return measured


@dataclass(frozen=True)
class PixelShape:
    """Shape of a pixel on the ground.

    Attributes:
        width_m, height_m: lengths of its sides, metres.
        stretch: ratio, >= 1, of the largest to the smallest magnification of the ground: 1 for a square, the ratio of
            the sides for a rectangle.
    """

    width_m: float
    height_m: float
    stretch: float


def pixel_shape(info: RasterInfo) -> PixelShape | None:
    """Measure the pixel at a raster's centre; None where its size on the ground is unknown."""
    if info.transform is None:
        return None
    crs = CRS.from_string(info.crs) if info.crs else None
    sides = None if crs is None else ground_sides(crs, info.transform, info.width / 2, info.height / 2)
    if sides is None:
        sides = axes(info.transform) * Georeference.of(info).scale_m
    if not np.isfinite(sides).all():
        return None
    width, height = np.hypot(*sides.T)
    largest, smallest = np.linalg.svd(sides, compute_uv=False)
    with np.errstate(all="ignore"):
        stretch = float(largest / smallest)
    return PixelShape(float(width), float(height), stretch) if np.isfinite(stretch) else None


def mean_pixel_area(info: RasterInfo) -> float | None:
    """Compute the mean area of a raster's pixels on the ground, m2; None where their size is unknown.

    Within 1 %, it is the square of the ground sample distance. Pixels of large maps in degrees differ in size.
    """
    if info.gsd_m is None:
        return None
    nominal = info.gsd_m**2
    ground = Georeference.of(info)
    if ground.to_degrees is None:
        return nominal
    along = (np.arange(_SAMPLED_SIDE) + 0.5) / _SAMPLED_SIDE
    crs = CRS.from_string(info.crs)
    sides = [ground_sides(crs, ground.transform, x * info.width, y * info.height) for x in along for y in along]
    areas = [_area(one) for one in sides if one is not None]
    mean = float(np.mean(areas)) if areas else nominal
    return nominal if abs(mean / nominal - 1) < _PROJECTION_TOLERANCE else mean


def ground_sides(crs: Any, transform: Affine, column: float, row: float) -> Floats | None:
    """Measure the sides of the pixel at a point: vectors (2, 2) across and down, metres east and north.

    In a local CRS they are metres along its axes. None outside the area of the CRS, and in a geocentric CRS.
    """
    if not (crs.is_projected or crs.is_geographic):
        unit = _local_unit(pyproj.CRS.from_wkt(crs.to_wkt()))
        return None if unit is None else axes(transform) * unit
    ground = Georeference(transform, crs.to_wkt(), None)
    if ground.to_degrees is None:
        return None
    corners = ground.degrees(np.array([(column, row), (column + 1, row), (column, row + 1)], np.float64))
    if not np.isfinite(corners).all():
        return None
    azimuth, _, metres = ELLIPSOID.inv(*corners[[0, 0]].T, *corners[1:].T)
    angle = np.radians(azimuth)
    sides = np.stack([np.sin(angle), np.cos(angle)], axis=-1) * np.reshape(metres, (2, 1))
    return sides if _area(sides) > 0 else None


def _area(sides: Floats) -> float:
    (a, b), (c, d) = sides
    return float(abs(a * d - b * c))


def axes(transform: Affine) -> Floats:
    """Return the vectors (2, 2) from a pixel to the next one across and down, in units of the CRS."""
    return np.array([[transform.a, transform.d], [transform.b, transform.e]])


@lru_cache(maxsize=64)
def _to_degrees(crs: str) -> Transformer | None:
    try:
        if pyproj.CRS.from_user_input(crs).is_geocentric:
            return None
        return Transformer.from_crs(crs, _LONGITUDE_LATITUDE, always_xy=True)
    except ProjError:
        return None


def _local_unit(crs: pyproj.CRS) -> float | None:
    """Return metres per unit of a local (engineering) CRS; None for another kind of CRS."""
    return float(crs.axis_info[0].unit_conversion_factor) if crs.is_engineering and crs.axis_info else None


def full_turn(crs: str) -> float | None:
    """Compute the length of 360 degrees along the x axis of a CRS whose map repeats itself; None for other CRS.

    These are CRS in degrees and cylindrical projections, such as Web Mercator.
    """
    known = pyproj.CRS.from_user_input(crs)
    if known.is_geographic:
        return None if known.is_derived else float(2 * math.pi / known.axis_info[0].unit_conversion_factor)
    if _to_degrees(crs) is None:
        return None
    longitudes, latitudes = (part.ravel() for part in np.meshgrid(np.arange(-180.0, 180, 30) + 0.1, [0.0, 20, 40]))
    to_crs = Transformer.from_crs(_LONGITUDE_LATITUDE, crs, always_xy=True)
    x, y = (np.reshape(part, (3, -1)) for part in to_crs.transform(longitudes, latitudes))
    steps = np.diff(x, axis=1)
    step = float(np.median(steps))
    # One step of each row may cross the edge of the map.
    even = (np.isclose(steps, step, rtol=1e-6).sum(axis=1) >= steps.shape[1] - 1).all()
    level = np.isfinite(y).all() and np.ptp(y, axis=1).max() < 1e-6 * abs(step)
    return 12 * step if even and level and step > 0 and np.allclose(x, x[0], atol=1e-6 * step) else None


def name_of(crs: str) -> str:
    """Return the name of a CRS."""
    return str(pyproj.CRS.from_user_input(crs).name)


def fits_geotiff(crs: str) -> bool:
    """Return whether a GeoTIFF can hold a CRS; derived CRS, such as degrees with a rotated pole, do not fit."""
    pixel = {"width": 1, "height": 1, "count": 1, "dtype": "uint8", "transform": Affine(1, 0, 9, 0, -1, 9)}
    with Env(GDAL_PAM_ENABLED="NO"), MemoryFile() as file:
        with file.open(driver="GTiff", crs=CRS.from_user_input(crs), **pixel):
            pass
        with file.open() as back:
            return back.crs is not None


def same_crs(one: str, other: str) -> bool:
    """Return whether two strings mean the same CRS; "" is no CRS."""
    return one == other or bool(one and other and CRS.from_user_input(one) == CRS.from_user_input(other))


def _place(transform: Affine, column: Any, row: Any) -> tuple[Any, Any]:
    return (
        transform.a * column + transform.b * row + transform.c,
        transform.d * column + transform.e * row + transform.f,
    )


def on_grid(dataset: Any, grid: Grid) -> WarpedVRT:
    """Warp a dataset to a grid, bilinearly; its last band is an alpha band that marks pixels with data."""
    target = {"crs": grid.crs, "transform": grid.transform, "width": grid.width, "height": grid.height}
    how = {"resampling": Resampling.bilinear, "add_alpha": True, "NUM_THREADS": "ALL_CPUS"}
    return WarpedVRT(dataset, **how, **target)


def north_up(dataset: Any, void: float | None = None) -> WarpedVRT:
    """View one band north up, as float32 with NaN for no data; a band that is not rotated is not resampled.

    void: value without data of a file that declares none.
    """
    matrix = dataset.transform
    kept = {"crs": dataset.crs, "dtype": "float32", "nodata": np.nan}
    if void is not None:
        kept["src_nodata"] = void
    if matrix.b == matrix.d == 0:
        width, height = dataset.width, dataset.height
        left, top = min(matrix.c, matrix.c + matrix.a * width), max(matrix.f, matrix.f + matrix.e * height)
        upright = Affine(abs(matrix.a), 0.0, left, 0.0, -abs(matrix.e), top)
        size = {"width": width, "height": height}
        return WarpedVRT(dataset, transform=upright, resampling=Resampling.nearest, **size, **kept)
    return WarpedVRT(dataset, resampling=Resampling.bilinear, **kept)


def averaged(dataset: Any, step: int) -> WarpedVRT:
    """View the means of step x step pixels; NaN is no data."""
    target = {"crs": dataset.crs, "transform": shifted(dataset.transform, 0, 0, step)}
    size = {"width": -(-dataset.width // step), "height": -(-dataset.height // step)}
    return WarpedVRT(dataset, resampling=Resampling.average, nodata=np.nan, **target, **size)


def as_float32(dataset: Any) -> WarpedVRT:
    """View a dataset with its values converted to float32."""
    size = {"width": dataset.width, "height": dataset.height}
    return WarpedVRT(dataset, dtype="float32", crs=dataset.crs, transform=dataset.transform, **size)


def resample(
    layers: NDArray[np.float32],
    source: tuple[Any, Affine],
    target: tuple[Any, Affine],
    shape: tuple[int, int],
    *,
    nearest: bool = False,
) -> NDArray[np.float32]:
    """Warp layers (n, height, width), each with its own gaps, bilinearly or to the nearest pixel; NaN is no data.

    source, target: CRS and transform. shape: rows and columns of the result.
    """
    found = np.full((len(layers), *shape), np.nan, np.float32)
    grids = {"src_crs": source[0], "src_transform": source[1], "dst_crs": target[0], "dst_transform": target[1]}
    gaps = {"src_nodata": np.nan, "dst_nodata": np.nan, "UNIFIED_SRC_NODATA": "NO"}
    reproject(layers, found, resampling=Resampling.nearest if nearest else Resampling.bilinear, **grids, **gaps)
    return found
