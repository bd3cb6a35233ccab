"""Read rasters: header, pixels, validity and labels."""

import math
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError, RasterioIOError
from rasterio.warp import transform as transform_points

from lim_keras.errors import DataError
from lim_keras.raster import encoded_images as codecs

Array = npt.NDArray[Any]

IMAGE_DTYPES = ("uint8", "uint16", "float32")

_opening = threading.Lock()

_WGS84_SEMI_MAJOR_M = 6378137.0

_WGS84_ECCENTRICITY_SQUARED = 0.00669437999014

_PROJECTION_TOLERANCE = 0.01


@dataclass(frozen=True)
class RasterInfo:
    """What a raster's header says.

    width, height: pixels. bands: without alpha. crs: "" where there is none. transform: pixel to CRS, None where there
    is none. gsd_m: ground sample distance, metres (side of a square as large as a pixel), None where it is unknown.
    """

    path: Path
    width: int
    height: int
    bands: int
    dtype: str
    crs: str
    transform: rasterio.Affine | None
    gsd_m: float | None
    nodata: float | None

    def place(self, column: float, row: float) -> tuple[float, float] | None:
        """Where a point of the raster lies, in units of its CRS; column and row count from its upper left corner."""
        return None if self.transform is None else _place(self.transform, column, row)


def read_info(path: str | os.PathLike[str]) -> RasterInfo:
    """Read the header of a PNG, JPEG or TIFF file, without its pixels.

    Raises:
        DataError: not a file of these formats, or its header is damaged.
    """
    path = Path(path)
    kind = codecs.file_format(path)
    if kind != "tiff":
        header = codecs.read_header(path, kind)
        return RasterInfo(path, header.width, header.height, header.bands, header.dtype, "", None, None, header.nodata)
    with _open(path) as source:
        return _info(source, path)


def read_scene_info(path: str | os.PathLike[str]) -> RasterInfo:
    """Read the header of a raster in any format that GDAL knows, such as GeoTIFF, VRT or JPEG 2000.

    Raises:
        DataError: not a raster, or its header is damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: not found. Expected a raster, such as a GeoTIFF.")
    with _open(path) as source:
        if source.count == 0:
            raise DataError(
                f"{path}: expected a raster with bands. Received: none. Make a file of one of its subdatasets, which "
                "`gdalinfo` names (`gdal_translate SUBDATASET scene.tif`), and give that."
            )
        return _info(source, path)


def _info(source: Any, path: Path) -> RasterInfo:
    transform = None if source.transform.is_identity else source.transform
    return RasterInfo(
        path,
        source.width,
        source.height,
        len(_image_bands(source)),
        source.dtypes[0],
        source.crs.to_string() if source.crs else "",
        transform,
        _ground_sample_distance(source) if transform else None,
        source.nodata,
    )


def read_image(path: str | os.PathLike[str]) -> Array:
    """Read an image (height, width, bands) in its own dtype: uint8, uint16 or float32; PNG and JPEG in RGB order.

    Raises:
        DataError: unreadable, truncated, of another dtype, or with a palette (TIFF) or an alpha band that is none.
    """
    path = Path(path)
    kind = codecs.file_format(path)
    if kind != "tiff":
        return codecs.decode(path, kind)[1]
    with _open(path) as source:
        if source.dtypes[0] not in IMAGE_DTYPES:
            raise DataError(
                f"{path}: expected an image of {', '.join(IMAGE_DTYPES)}, but it is {source.dtypes[0]}. "
                "Convert it (for example `gdal_translate -ot Float32`)."
            )
        if ColorInterp.palette in source.colorinterp:
            raise DataError(f"{path}: the image has a palette. Expand it to RGB (`gdal_translate -expand rgb`).")
        _check_alpha(source, path)
        return np.stack(source.read(_image_bands(source)), axis=-1)


def read_valid(path: str | os.PathLike[str]) -> npt.NDArray[np.bool_]:
    """Which pixels (height, width) hold data: by nodata value, internal mask, alpha, and finite in every band.

    True everywhere where the file marks nothing. With a nodata value, a pixel is absent if every band holds it.
    """
    path = Path(path)
    kind = codecs.file_format(path)
    if kind == "tiff":
        with _open(path) as source:
            valid = source.dataset_mask() > 0
            if np.dtype(source.dtypes[0]).kind == "f":
                valid &= np.isfinite(source.read(_image_bands(source))).all(axis=0)
            return np.asarray(valid, dtype=np.bool_)
    header, pixels, alpha = codecs.decode(path, kind)
    if alpha is not None:
        return np.asarray(alpha > 0, dtype=np.bool_)
    if header.nodata is not None:
        return np.asarray((pixels != header.nodata).any(axis=-1), dtype=np.bool_)
    return np.ones(pixels.shape[:2], dtype=np.bool_)


def read_labels(path: str | os.PathLike[str]) -> Array:
    """Read the label values (height, width) of a mask, in any dtype: one band, or three equal ones; alpha is left out.

    A palette PNG gives the grey of its colours where they are grey, and the palette's indices where they are not.

    Raises:
        DataError: unreadable, truncated, or a coloured picture.
    """
    path = Path(path)
    kind = codecs.file_format(path)
    if kind == "tiff":
        with _open(path) as source:
            bands = np.moveaxis(source.read(_image_bands(source)), 0, -1)
    else:
        header, bands, _ = codecs.decode(path, kind)
        if header.palette is not None and not _is_grey(header.palette):
            with _open(path) as source:
                bands = np.moveaxis(source.read([1]), 0, -1)
    if not _equal_bands(bands):
        raise DataError(f"{path}: expected a mask of one band, but its {bands.shape[-1]} bands differ. Save it grey.")
    return np.ascontiguousarray(bands[..., 0])


def fill_invalid(image: Array, valid: npt.NDArray[np.bool_]) -> Array:
    """The image with its absent pixels at each band's mean over the present ones (0 where none is).

    A nodata value such as -9999 or NaN would otherwise reach the pixels around it through the receptive field.
    image: (height, width, bands). valid: (height, width).
    """
    if valid.all():
        return image
    filled = image.copy()
    mean = image[valid].mean(axis=0, dtype=np.float64) if valid.any() else np.zeros(image.shape[-1])
    filled[~valid] = (np.rint(mean) if image.dtype.kind in "ui" else mean).astype(image.dtype)
    return filled


def write_raster(
    path: str | os.PathLike[str],
    array: Array,
    *,
    crs: str = "",
    transform: rasterio.Affine | None = None,
    nodata: float | None = None,
    valid: npt.NDArray[np.bool_] | None = None,
    compress: str = "deflate",
) -> Path:
    """Write (height, width) or (height, width, bands) as a tiled, compressed GeoTIFF: beside its place, then renamed.

    A reader never sees half a file. valid: (height, width), kept as internal mask. bool arrays become uint8.

    Raises:
        DataError: the name does not end in .tif or .tiff, the array is empty or not of 2 or 3 axes, or writing fails.
    """
    path = Path(path)
    bands = _as_bands(path, array)
    beside = path.with_name(f".{path.stem}.{os.getpid()}.{threading.get_ident()}{path.suffix}")
    profile = _profile(bands, compress) | {"crs": crs or None, "transform": transform, "nodata": nodata}
    try:
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
            with _quiet_about_georeference():
                target = rasterio.open(beside, "w", **{key: item for key, item in profile.items() if item is not None})
            with target:
                target.write(bands)
                if valid is not None:
                    target.write_mask(valid)
        beside.replace(path)
    except (RasterioError, OSError, ValueError, TypeError) as error:
        raise DataError(f"{path}: cannot be written ({error}).") from error
    finally:
        with suppress(OSError):
            beside.unlink()
    return path


def _as_bands(path: Path, array: Array) -> Array:
    if path.suffix.lower() not in (".tif", ".tiff"):
        raise DataError(f"{path}: expected a name that ends in .tif or .tiff.")
    if array.ndim not in (2, 3) or array.size == 0:
        raise DataError(f"{path}: expected an array of (height, width[, bands]). Received the shape {array.shape}.")
    bands = array[np.newaxis] if array.ndim == 2 else np.moveaxis(array, -1, 0)
    return bands.astype(np.uint8) if bands.dtype == np.bool_ else bands


def _profile(bands: Array, compress: str) -> dict[str, Any]:
    """Creation options. GDAL would call the fourth of four uint8 bands alpha, near infrared as it may be: ALPHA=NO."""
    count, height, width = bands.shape
    rgb = bands.dtype == np.uint8 and count == 3
    options: dict[str, Any] = {
        "driver": "GTiff",
        "count": count,
        "height": height,
        "width": width,
        "dtype": bands.dtype.name,
        "compress": compress,
        "tiled": True,
        "blockxsize": 256,
        "blockysize": 256,
        "bigtiff": "IF_SAFER",
        "photometric": "RGB" if rgb else "MINISBLACK",
    }
    if compress.lower() in ("deflate", "lzw", "zstd"):
        options["predictor"] = 3 if bands.dtype.kind == "f" else 2
    return options | ({} if rgb or count == 1 else {"alpha": "NO"})


@contextmanager
def _quiet_about_georeference() -> Iterator[None]:
    """Silence rasterio on tiles without a place. Warning filters are global: one thread at a time may change them."""
    with _opening, warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    try:
        with _quiet_about_georeference():
            source = rasterio.open(path, sharing=False)
        with source:
            yield source
    except RasterioIOError as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        raise DataError(f"{path}: cannot be read; the file is truncated or damaged ({reason}). Replace it.") from error


def _image_bands(source: Any) -> list[int]:
    return [index for index, kind in enumerate(source.colorinterp, start=1) if kind != ColorInterp.alpha]


def _check_alpha(source: Any, path: Path) -> None:
    """Many writers tag the near infrared of four uint8 bands as alpha; to leave it out in silence would lose a band."""
    if not any(MaskFlags.alpha in flags for flags in source.mask_flag_enums):
        return
    index = source.colorinterp.index(ColorInterp.alpha) + 1
    alpha = source.read(index)
    if not np.isin(alpha, (0, 1, np.iinfo(alpha.dtype).max if alpha.dtype.kind in "ui" else 1)).all():
        raise DataError(
            f"{path}: band {index} is tagged as alpha, but it holds more than the values of a mask. "
            f"If it is an image band, say so: `gdal_edit.py -colorinterp_{index} undefined {path.name}`."
        )


def _is_grey(palette: Array) -> bool:
    """Whether colours tell the labels. Where the first two are one colour only the indices do."""
    return _equal_bands(palette) and not np.array_equal(palette[:1], palette[1:2])


def _equal_bands(bands: Array) -> bool:
    return all(np.array_equal(bands[..., 0], bands[..., band]) for band in range(1, bands.shape[-1]))


def _place(matrix: rasterio.Affine, column: float, row: float) -> tuple[float, float]:
    """Written out, for the operators of affine 2 and affine 3 differ."""
    return (
        matrix.a * column + matrix.b * row + matrix.c,
        matrix.d * column + matrix.e * row + matrix.f,
    )


def _ground_sample_distance(source: Any) -> float | None:
    """Metres a pixel at the raster's centre: as its CRS counts, unless the projection stretches the ground there.

    UTM is off by 0.04 % and keeps its round figures; Web Mercator is off by 1 / cos(latitude) and does not.
    """
    if not source.crs or not (source.crs.is_projected or source.crs.is_geographic):  # a local grid has no place
        return None
    matrix = source.transform
    nominal = None
    if source.crs.is_projected:
        nominal = math.sqrt(abs(matrix.determinant)) * source.crs.linear_units_factor[1]
    measured = _measured_gsd(source)
    if nominal and (measured is None or abs(measured / nominal - 1) < _PROJECTION_TOLERANCE):
        return float(nominal)
    return measured


def _measured_gsd(source: Any) -> float | None:
    """The centre pixel's sides, as longitudes and latitudes, laid out in metres on the WGS 84 ellipsoid."""
    column, row = source.width / 2, source.height / 2
    points = ((column, row), (column + 1, row), (column, row + 1))
    corners = [_place(source.transform, *point) for point in points]
    try:
        longitudes, latitudes = transform_points(source.crs, "OGC:CRS84", *zip(*corners, strict=True))
    except RasterioError:
        return None
    latitude = math.radians(latitudes[0])
    flatten = 1 - _WGS84_ECCENTRICITY_SQUARED * math.sin(latitude) ** 2
    parallel = _WGS84_SEMI_MAJOR_M / math.sqrt(flatten) * math.cos(latitude)
    meridian = _WGS84_SEMI_MAJOR_M * (1 - _WGS84_ECCENTRICITY_SQUARED) / flatten**1.5
    sides = [
        (math.radians(x - longitudes[0]) * parallel, math.radians(y - latitudes[0]) * meridian)
        for x, y in zip(longitudes[1:], latitudes[1:], strict=True)
    ]
    area = abs(sides[0][0] * sides[1][1] - sides[0][1] * sides[1][0])
    return math.sqrt(area) if math.isfinite(area) and area > 0 else None
