"""Georeference of a raster, and warping to another grid."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from pyproj import Geod, Transformer
from pyproj.exceptions import ProjError
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import RasterioError
from rasterio.vrt import WarpedVRT
from rasterio.warp import reproject, transform_bounds
from rasterio.warp import transform as transform_points

from lim_keras.errors import DataError
from lim_keras.raster.windows import Box

Floats = NDArray[np.float64]

ELLIPSOID = Geod(ellps="WGS84")
_LONGITUDE_LATITUDE = "OGC:CRS84"
_PROJECTION_TOLERANCE = 0.01


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
    """

    transform: Affine
    crs: str
    gsd_m: float | None

    @classmethod
    def of(cls, info: RasterInfo, gsd_m: float | None = None) -> Georeference:
        """Take the georeference of a raster; `gsd_m` is used if the raster has no ground sample distance."""
        if info.transform is None:
            return cls(Affine(1.0, 0.0, 0.0, 0.0, -1.0, 0.0), "", gsd_m)
        return cls(info.transform, info.crs, info.gsd_m or gsd_m)

    @cached_property
    def to_degrees(self) -> Transformer | None:
        """Transformer from the CRS to longitude and latitude (WGS 84); None without a CRS or with a local CRS."""
        if not self.crs:
            return None
        try:
            return Transformer.from_crs(self.crs, _LONGITUDE_LATITUDE, always_xy=True)
        except ProjError:
            return None

    @property
    def scale_m(self) -> float:
        """Metres per coordinate unit, for a scene without longitude and latitude; NaN if unknown."""
        return math.nan if self.gsd_m is None else self.gsd_m / math.sqrt(abs(self.transform.determinant))

    def place(self, points: Floats) -> Floats:
        """Convert points (n, 2) to the scene's CRS."""
        return apply(self.transform, points)

    def degrees(self, points: Floats) -> Floats:
        """Convert points (n, 2) to longitude and latitude; needs `to_degrees`."""
        if self.to_degrees is None:
            raise ValueError("Expected a scene with a CRS.")
        placed = self.place(points)
        return np.stack(self.to_degrees.transform(placed[:, 0], placed[:, 1]), axis=-1).reshape(-1, 2)

    def pixel_sides(self, columns: Floats, rows: Floats) -> tuple[Floats, Floats, Floats]:
        """Measure the pixels around points (n,) on the ellipsoid; needs `to_degrees`.

        Returns:
            Width and height of a pixel, metres, and azimuth of the image's upward direction, degrees clockwise from
            north. Each is (n,), NaN outside the area of the CRS.
        """
        ends = ((columns - 0.5, rows), (columns + 0.5, rows), (columns, rows + 0.5), (columns, rows - 0.5))
        left, right, below, above = (self.degrees(np.stack(end, axis=-1)).T for end in ends)
        across = ELLIPSOID.inv(*left, *right)[2]
        azimuth, _, down = ELLIPSOID.inv(*below, *above)
        return np.asarray(across), np.asarray(down), np.asarray(azimuth)


def apply(transform: Affine, points: Floats) -> Floats:
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
    """Compute the ground sample distance, metres, at a raster's centre; None without a CRS or with a local CRS.

    Return the pixel size in the CRS if it differs by less than 1 % from the distance measured on the ellipsoid, as in
    UTM. Otherwise return the measured distance, as in Web Mercator, which stretches by 1 / cos(latitude).
    """
    if not crs or not (crs.is_projected or crs.is_geographic):
        return None
    nominal = None
    if crs.is_projected:
        nominal = math.sqrt(abs(transform.determinant)) * crs.linear_units_factor[1]
    measured = _measured_gsd(crs, transform, width / 2, height / 2)
    if nominal and (measured is None or abs(measured / nominal - 1) < _PROJECTION_TOLERANCE):
        return float(nominal)
    return measured


def _measured_gsd(crs: Any, transform: Affine, column: float, row: float) -> float | None:
    """Measure the square root of a pixel's area on the ellipsoid, metres."""
    corners = [_place(transform, *point) for point in ((column, row), (column + 1, row), (column, row + 1))]
    try:
        longitudes, latitudes = transform_points(crs, _LONGITUDE_LATITUDE, *zip(*corners, strict=True))
    except RasterioError:
        return None
    degrees = np.stack([longitudes, latitudes], axis=-1)
    (x1, y1), (x2, y2) = (degrees[1:] - degrees[0]) * metres_per_degree(degrees[:1, 1])
    area = abs(x1 * y2 - y1 * x2)
    return math.sqrt(area) if math.isfinite(area) and area > 0 else None


def grid_with_gsd(info: RasterInfo, gsd_m: float, wanted_m: float) -> Grid:
    """Compute the grid that resamples a scene from `gsd_m` to `wanted_m`, metres; a scene in degrees goes to UTM.

    Raises:
        DataError: the scene has no CRS.
    """
    if not info.crs or info.transform is None:
        raise DataError(
            f"{info.path}: cannot be resampled to {wanted_m:.3g} m, as it has no coordinate reference system. Give it "
            "one (`gdal_translate -a_srs ... -a_ullr ...`)."
        )
    crs = CRS.from_string(info.crs)
    target = crs if crs.is_projected else _utm_zone(info)
    # A projection may stretch the ground or use feet, but it does not change the ratio of the distances.
    step = math.sqrt(abs(info.transform.determinant)) * wanted_m / gsd_m if crs.is_projected else wanted_m
    corners = [_place(info.transform, column, row) for column in (0, info.width) for row in (0, info.height)]
    eastings, northings = zip(*corners, strict=True)
    bounds = min(eastings), min(northings), max(eastings), max(northings)
    left, bottom, right, top = transform_bounds(crs, target, *bounds)
    width, height = max(1, round((right - left) / step)), max(1, round((top - bottom) / step))
    return Grid(target.to_string(), Affine(step, 0, left, 0, -step, top), width, height, wanted_m)


def _utm_zone(info: RasterInfo) -> CRS:
    longitude, latitude = info.place(info.width / 2, info.height / 2) or (0.0, 0.0)
    zone = min(int((longitude + 180) // 6) % 60 + 1, 60)
    return CRS.from_epsg((32600 if latitude >= 0 else 32700) + zone)


def same_crs(one: str, other: str) -> bool:
    """Return whether two strings mean the same CRS; "" is no CRS."""
    return one == other or bool(one and other and CRS.from_user_input(one) == CRS.from_user_input(other))


def _place(transform: Affine, column: Any, row: Any) -> tuple[Any, Any]:
    return (
        transform.a * column + transform.b * row + transform.c,
        transform.d * column + transform.e * row + transform.f,
    )


def on_grid(dataset: Any, grid: Grid, nodata: float | str) -> WarpedVRT:
    """Warp a dataset to a grid, bilinearly; its alpha band marks pixels with data. nodata: see `reader.Nodata`."""
    target = {"crs": grid.crs, "transform": grid.transform, "width": grid.width, "height": grid.height}
    source: dict[str, Any] = {} if nodata == "file" else {"src_nodata": nodata if isinstance(nodata, float) else None}
    add_alpha = ColorInterp.alpha not in dataset.colorinterp
    return WarpedVRT(dataset, resampling=Resampling.bilinear, add_alpha=add_alpha, **target, **source)


def north_up(dataset: Any) -> WarpedVRT:
    """View one band north up, as float32 with NaN for no data; a band that is already north up is not resampled."""
    matrix = dataset.transform
    kept = {"crs": dataset.crs, "dtype": "float32", "nodata": np.nan}
    if matrix.b == matrix.d == 0 and matrix.a > 0 > matrix.e:
        size = {"width": dataset.width, "height": dataset.height}
        return WarpedVRT(dataset, transform=matrix, resampling=Resampling.nearest, **size, **kept)
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
