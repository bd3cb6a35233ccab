"""Whether a scene is one that a model was trained for: bands, data type, ground sample distance, brightness."""

from __future__ import annotations

import math
import warnings
from itertools import count
from pathlib import Path

import numpy as np
import rasterio
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.warp import transform_bounds

from lim_keras.bundle.info import BundleInfo
from lim_keras.errors import DataError, DomainWarning
from lim_keras.inference.stream import ValueScale
from lim_keras.raster.georeference import open_raster
from lim_keras.raster.reader import RasterInfo
from lim_keras.raster.scene import Grid, SceneReader
from lim_keras.raster.windows import Box

GSD_TOLERANCE = 1.5
_BRIGHTNESS_TOLERANCE = 2.0
_SAMPLES, _SAMPLE = 5, 256


def check_scene(info: RasterInfo, model: BundleInfo, scale: ValueScale | None) -> None:
    """Compare a scene's bands and values with what a model takes.

    Args:
        info: of the scene as it will be read, bands chosen.
        model: of the bundle.
        scale: how its values will be converted; None: not at all.

    Raises:
        DataError: a palette, another number of bands, or values of another range and no scale.
    """
    _check_bands(info, model)
    if scale is not None:
        if not (math.isfinite(scale[0]) and math.isfinite(scale[1]) and scale[0] < scale[1]):
            raise DataError(f"Invalid scale. Expected LOW,HIGH with LOW < HIGH. Received: {scale[0]:g},{scale[1]:g}")
        return
    if info.dtype != model.dtype:
        trained = f"{min(one.min for one in model.statistics):g} to {max(one.max for one in model.statistics):g}"
        raise DataError(
            f"{info.path}: expected {model.dtype} values ({trained} in training), as the bundle {model.name} takes. "
            f"Received: {info.dtype}. Say with --scale LOW,HIGH which values are the darkest and the brightest, such "
            "as --scale 0,3000 for Sentinel-2 reflectance x 10000."
        )


def _check_bands(info: RasterInfo, model: BundleInfo) -> None:
    with open_raster(info.path) as file:
        kinds = file.colorinterp
    if ColorInterp.palette in kinds and set(kinds) <= {ColorInterp.palette, ColorInterp.alpha}:
        raise DataError(f"{info.path}: the image has a palette. Expand it to RGB (`gdal_translate -expand rgb`).")
    if info.bands == model.bands:
        return
    cure = f"Choose and order them with --bands, such as --bands {','.join(map(str, range(1, model.bands + 1)))}."
    if len(kinds) < model.bands:
        cure = f"The file holds no more than {len(kinds)}: give an image of the bands that the model was trained on."
    raise DataError(
        f"{info.path}: expected {model.bands} bands, as the bundle {model.name} takes. Received: {info.bands}. {cure}"
    )


def gsd_ratio(path: Path, gsd_m: float | None, model: BundleInfo, *, resample: bool = False) -> float | None:
    """Ground sample distance of a scene over that of training, after a warning where the two are not alike.

    resample: whether the scene will be warped to the distance of training.

    Warns:
        DomainWarning: farther apart than a factor of GSD_TOLERANCE, or one of them is not known.
    """
    if model.gsd_m is None or gsd_m is None:
        if model.gsd_m is not None and not resample:  # without it, nothing can be resampled: an error says the same
            warnings.warn(
                f"{path}: its ground sample distance is not known; the model was trained at {model.gsd_m:.3g} m. "
                "Say it with --gsd.",
                DomainWarning,
                stacklevel=2,
            )
        return None
    ratio = gsd_m / model.gsd_m
    if not 1 / GSD_TOLERANCE <= ratio <= GSD_TOLERANCE:
        warnings.warn(
            f"{path}: a pixel is {gsd_m:.3g} m, but the model was trained at {model.gsd_m:.3g} m. "
            f"{_at_another_distance(ratio, resample)}",
            DomainWarning,
            stacklevel=2,
        )
    return ratio


def _at_another_distance(ratio: float, resample: bool) -> str:
    if resample:
        return "The scene is warped to that distance" + (", which adds no detail." if ratio > 1 else ".")
    size = f"It sees landslides {1 / ratio:.2g} times the size that it knows."
    return f"{size} --resample warps the scene to that distance."


def reading_grid(info: RasterInfo, model: BundleInfo, resample: bool) -> Grid | None:
    """The grid that a scene is to be read on; None: its own.

    Args:
        info: of the scene, with its ground sample distance where that is known.
        model: of the bundle.
        resample: bring a scene to the distance of training beyond a factor of GSD_TOLERANCE.

    Raises:
        DataError: it is to be brought there, and one of the distances, or where the scene lies, is not known.

    Warns:
        DomainWarning: as `gsd_ratio`.
    """
    ratio = gsd_ratio(info.path, info.gsd_m, model, resample=resample)
    if not resample:
        return None
    if ratio is None or model.gsd_m is None or info.gsd_m is None:
        raise DataError(
            f"{info.path}: --resample needs the ground sample distances of the scene and of the bundle. "
            f"Received: {info.gsd_m} m and {model.gsd_m} m. Say that of the scene with --gsd."
        )
    near = 1 / GSD_TOLERANCE <= ratio <= GSD_TOLERANCE
    return None if near else training_grid(info, info.gsd_m, model.gsd_m)


def training_grid(info: RasterInfo, gsd_m: float, wanted_m: float) -> Grid:
    """The grid on which a scene has the ground sample distance of training.

    Args:
        info: of the scene.
        gsd_m: its ground sample distance, metres.
        wanted_m: that of training.

    A scene in degrees goes to the UTM zone of its centre.

    Raises:
        DataError: the scene has no coordinate reference system.
    """
    if not info.crs or info.transform is None:
        raise DataError(
            f"{info.path}: cannot be resampled to {wanted_m:.3g} m, as it has no coordinate reference system. Give it "
            "one (`gdal_translate -a_srs ... -a_ullr ...`)."
        )
    crs = CRS.from_string(info.crs)
    target = crs if crs.is_projected else _utm_zone(info)
    # A projection may stretch the ground and count in feet: what gsd_m says of a pixel holds for all its multiples.
    step = math.sqrt(abs(info.transform.determinant)) * wanted_m / gsd_m if crs.is_projected else wanted_m
    # All four: a scene may be rotated, or stored from the south up.
    corners = [info.place(column, row) for column in (0, info.width) for row in (0, info.height)]
    eastings, northings = zip(*filter(None, corners), strict=True)
    left, bottom, right, top = min(eastings), min(northings), max(eastings), max(northings)
    left, bottom, right, top = transform_bounds(crs, target, left, bottom, right, top)
    width, height = max(1, round((right - left) / step)), max(1, round((top - bottom) / step))
    return Grid(target.to_string(), rasterio.Affine(step, 0, left, 0, -step, top), width, height, wanted_m)


def _utm_zone(info: RasterInfo) -> CRS:
    centre = info.place(info.width / 2, info.height / 2)
    longitude, latitude = centre or (0.0, 0.0)
    zone = min(int((longitude + 180) // 6) % 60 + 1, 60)
    return CRS.from_epsg((32600 if latitude >= 0 else 32700) + zone)


def check_place(scene: SceneReader) -> None:
    """Say that a scene's maps will have no place although the scene could.

    Warns:
        DomainWarning: ground control points or rational polynomial coefficients (RPCs) alone say where it lies.
    """
    if scene.needs_warping:
        warnings.warn(
            f"{scene.info.path}: only ground control points or RPCs say where it lies, so its maps and polygons will "
            "have no place. Warp it first (`gdalwarp -t_srs ... -tps`, or `-rpc`).",
            DomainWarning,
            stacklevel=2,
        )


def check_brightness(scene: SceneReader, model: BundleInfo, scale: ValueScale | None) -> None:
    """Compare a few samples of a scene with the training tiles' mean.

    Warns:
        DomainWarning: some bands' mean is farther from that of training than two of its standard deviations.
    """
    if scale is not None:
        return
    height, width = scene.info.height, scene.info.width
    values = []
    for top in np.linspace(0, max(height - _SAMPLE, 0), _SAMPLES, dtype=int):
        for left in np.linspace(0, max(width - _SAMPLE, 0), _SAMPLES, dtype=int):
            box = Box(int(top), int(left), min(int(top) + _SAMPLE, height), min(int(left) + _SAMPLE, width))
            pixels, valid = scene.image(box)
            values.append(pixels[valid][::7])
    sample = np.concatenate(values)
    if not len(sample):
        return
    far = [
        (band, mean, known.mean, known.std)
        for band, mean, known in zip(count(1), sample.mean(axis=0, dtype=np.float64), model.statistics)
        if known.std > 0 and abs(mean - known.mean) > _BRIGHTNESS_TOLERANCE * known.std
    ]
    if far:
        bands, means = (", ".join(f"{one[part]:.3g}" for one in far) for part in (0, 1))
        known_means = ", ".join(f"{mean:.3g} +- {std:.3g}" for _, _, mean, std in far)
        subject = f"bands {bands} have the means" if len(far) > 1 else f"band {bands} has the mean"
        warnings.warn(
            f"{scene.info.path}: {subject} {means}, but {known_means} in training. Are the bands in the model's order "
            "(--bands), and their values of its range (--scale)?",
            DomainWarning,
            stacklevel=2,
        )
