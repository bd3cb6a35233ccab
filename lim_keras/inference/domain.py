"""Check that a scene fits a model: bands, data type, ground sample distance, brightness."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from lim_keras.bundle.info import BundleInfo
from lim_keras.errors import ConfigError, DataError, DomainWarning
from lim_keras.inference.maps import ValueScale
from lim_keras.raster.georeference import Georeference, Grid, RasterInfo, fits_geotiff, name_of, pixel_shape
from lim_keras.raster.reader import RasterReader
from lim_keras.raster.resampling import grid_with_gsd
from lim_keras.raster.windows import BLOCK, Box, blocks, sample_boxes

GSD_TOLERANCE = 1.5
STRETCH_TOLERANCE = 1.2
_COLOURS = 3  # red, green, blue
_BRIGHTNESS_TOLERANCE = 2.0
_SAMPLES, _SAMPLE = 5, 256
_PARTLY = 0.001  # share of pixels with nodata in some bands only, above which a warning follows
_MASK_LIKE = 0.9  # smallest share of the most frequent value above 0 in a mask


def check_scene(scene: RasterReader, model: BundleInfo, scale: ValueScale | None) -> None:
    """Compare a scene's bands and data type with those of a model.

    Args:
        scene: scene, opened with the bands to read.
        scale: raw values (low, high) to convert to the range of the data type; None: no conversion.

    Raises:
        ConfigError: `scale` is not (low, high) with low < high.
        DataError: the scene has a palette or another number of bands, or another data type without `scale`.

    Warns:
        DomainWarning: the bands are read in the order of the file, which is not red, green, blue.
    """
    info = scene.info
    _check_bands(scene, model)
    _check_colours(scene, model)
    if scale is not None:
        if not (math.isfinite(scale[0]) and math.isfinite(scale[1]) and scale[0] < scale[1]):
            raise ConfigError(
                f"Invalid value for `scale`. Expected LOW,HIGH with LOW < HIGH. Received: {scale[0]:g},{scale[1]:g}."
            )
        return
    if info.dtype != model.dtype:
        trained = f"{min(one.min for one in model.statistics):g} to {max(one.max for one in model.statistics):g}"
        raise DataError(
            f"{info.path}: expected {model.dtype} values ({trained} in training), as the bundle {model.name} takes. "
            f"Received: {info.dtype}. Give the darkest and the brightest value, such as `scale` 0,3000 for "
            "Sentinel-2 reflectance x 10000."
        )


def known_scale(scene: RasterReader, model: BundleInfo, scale: ValueScale | None) -> ValueScale | None:
    """Return the raw values (low, high) to convert to the range of a model's data type; None: no conversion.

    Args:
        scale: those that the caller gives. If None, a Sentinel-2 product gets the range of ESA's true-colour image if
            the model takes uint8.
    """
    if scale is None and scene.product is not None and model.dtype == "uint8":
        return scene.product.true_colour
    return scale


def _check_bands(scene: RasterReader, model: BundleInfo) -> None:
    info = scene.info
    if scene.has_palette:
        raise DataError(f"{info.path}: the image has a palette. Expand it to RGB (`gdal_translate -expand rgb`).")
    if info.bands == model.bands:
        return
    colours = list(scene.colour_bands.values()) if model.bands == _COLOURS else []
    advice = f"Choose and order them with `bands` {','.join(map(str, colours or range(1, model.bands + 1)))}."
    if scene.product is not None:
        advice = f"Name them in its order with `bands`; the product holds {', '.join(scene.product.bands)}."
    elif scene.count < model.bands:
        advice = f"The file holds no more than {scene.count}: give an image of the bands that the model was trained on."
    raise DataError(
        f"{info.path}: expected {model.bands} bands, as the bundle {model.name} takes. Received: {info.bands}. {advice}"
    )


def _check_colours(scene: RasterReader, model: BundleInfo) -> None:
    colours = list(scene.colour_bands.values())
    if scene.has_chosen_bands or model.bands != _COLOURS or not colours or scene.bands == colours:
        return
    order = ", ".join(sorted(scene.colour_bands, key=scene.colour_bands.__getitem__))
    warnings.warn(
        f"{scene.name}: the file says that its bands are {order}, and they are read in this order. If the model was "
        f"trained on red, green, blue, give `bands` {','.join(map(str, colours))}.",
        DomainWarning,
        stacklevel=3,
    )


def gsd_ratio(path: Path | str, gsd_m: float | None, model: BundleInfo, *, resample: bool = False) -> float | None:
    """Return the scene's ground sample distance divided by that of training; None if either is unknown.

    Warns:
        DomainWarning: the two differ by more than a factor of GSD_TOLERANCE, or the scene's distance is unknown.
    """
    if model.gsd_m is None or gsd_m is None:
        if model.gsd_m is not None and not resample:  # `reading_grid` raises an error if it resamples
            warnings.warn(
                f"{path}: its ground sample distance is not known; the model was trained at {model.gsd_m:.3g} m. "
                "Give `gsd_m`.",
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
    size = f"Landslides appear {1 / ratio:.2g} times as large as in training."
    return f"{size} `resample` warps the scene to that distance."


def is_stretched(info: RasterInfo, *, resample: bool = False) -> bool:
    """Return whether a scene's pixels are far from squares on the ground; False where their size is unknown.

    Warns:
        DomainWarning: one direction is magnified more than STRETCH_TOLERANCE times as much as the other.
    """
    shape = pixel_shape(info)
    if shape is None or shape.stretch <= STRETCH_TOLERANCE:
        return False
    cure = "The scene is warped to square pixels." if resample else "`resample` warps the scene to square pixels."
    warnings.warn(
        f"{info.path}: a pixel is {shape.width_m:.3g} m wide and {shape.height_m:.3g} m high on the ground, so "
        f"landslides appear stretched by {shape.stretch:.2g}:1, but the model was trained on square pixels. {cure}",
        DomainWarning,
        stacklevel=2,
    )
    return True


def reading_grid(info: RasterInfo, model: BundleInfo, resample: bool) -> Grid | None:
    """Choose the grid on which a scene is read; None: the scene's own grid.

    With `resample`, the scene is warped to square pixels of the ground sample distance of training if the two distances
    differ by more than a factor of GSD_TOLERANCE, or if its pixels are not square (`is_stretched`).

    Raises:
        DataError: the scene has to be resampled, but one of the distances or its CRS is unknown, or it is narrower than
            a pixel of the new grid.

    Warns:
        DomainWarning: as in `gsd_ratio` and `is_stretched`.
    """
    ratio = gsd_ratio(info.path, info.gsd_m, model, resample=resample)
    stretched = is_stretched(info, resample=resample)
    if not resample:
        return None
    if ratio is None or model.gsd_m is None or info.gsd_m is None:
        raise DataError(
            f"{info.path}: `resample` needs the ground sample distances of the scene and of the bundle. "
            f"Received: {info.gsd_m} m and {model.gsd_m} m. Give that of the scene as `gsd_m`."
        )
    near = 1 / GSD_TOLERANCE <= ratio <= GSD_TOLERANCE and not stretched
    if not near:
        _check_size(info, model.gsd_m)
    return None if near else grid_with_gsd(info, info.gsd_m, model.gsd_m)


def _check_size(info: RasterInfo, wanted_m: float) -> None:
    """Refuse to resample a scene that is narrower than a pixel of the new grid, such as degrees at a pole."""
    shape = pixel_shape(info)
    if shape is None:
        return
    width, height = shape.width_m * info.width, shape.height_m * info.height
    if min(width, height) < wanted_m:
        raise DataError(
            f"{info.path}: `resample` needs a scene of at least one pixel of {wanted_m:.3g} m. Received: {width:.3g} m "
            f"wide and {height:.3g} m high on the ground. Check its position and the size of its pixels (`gdalinfo`)."
        )


def check_place(scene: RasterReader) -> None:
    """Check whether the position of a scene on the earth is known.

    Raises:
        DataError: a GeoTIFF cannot hold the scene's CRS, so that its maps would have no position.

    Warns:
        DomainWarning: the scene has only ground control points or rational polynomial coefficients (RPCs), or its CRS
            gives no longitude and latitude, such as a local (engineering) CRS.
    """
    if scene.needs_warping:
        warnings.warn(
            f"{scene.name}: only ground control points or RPCs give its position, so its maps and polygons will have "
            "no georeference. Warp it first (`gdalwarp -t_srs ... -tps`, or `-rpc`).",
            DomainWarning,
            stacklevel=2,
        )
    elif scene.info.crs and not fits_geotiff(scene.info.crs):
        raise DataError(
            f"{scene.name}: expected a CRS that a GeoTIFF can hold, as its maps are GeoTIFFs. Received: "
            f"{name_of(scene.info.crs)}. Warp it first (`gdalwarp -t_srs EPSG:4326`, or to a CRS in metres)."
        )
    elif scene.info.crs and Georeference.of(scene.info).to_degrees is None:
        areas = "are unknown; give `gsd_m`" if scene.info.gsd_m is None else "are measured in its plane"
        warnings.warn(
            f"{scene.name}: its CRS ({name_of(scene.info.crs)}) gives no longitude and latitude here. Landslides get "
            f"none, GeoJSON files hold coordinates of that CRS, and areas {areas}.",
            DomainWarning,
            stacklevel=2,
        )


def check_pages(scene: RasterReader) -> None:
    """Warn (DomainWarning) if a file holds several images, of which only the first is read."""
    if len(scene.pages) > 1:
        warnings.warn(
            f"{scene.name}: holds {len(scene.pages)} images (pages), of which only the first is read. Give each of the "
            f"others as a file of its own (`gdal_translate {scene.pages[1]} page_2.tif`).",
            DomainWarning,
            stacklevel=2,
        )


def check_validity(scene: RasterReader) -> dict[str, Any]:
    """Describe which pixels of a scene hold data, for its summary; reads a scene with nodata values once.

    Returns:
        The rule (see `lim_keras.raster.validity.Validity.describe`), and `partly_nodata_pixels`: number of pixels that
        hold no data only because some bands, but not all, hold their nodata value.

    Warns:
        DomainWarning: an alpha band does not look like a mask, or many dark or bright pixels count as no data.
    """
    for band in scene.validity.alpha:
        _check_alpha(scene, band)
    valid = partly = 0
    if sum(value is not None for value in scene.validity.nodata) > 1:
        for box in blocks(scene.info.height, scene.info.width, 2 * BLOCK):
            counts = [int(part.sum()) for part in scene.image_marks(box)]
            valid, partly = valid + counts[0], partly + counts[1]
    if partly > _PARTLY * (valid + partly) and scene.validity.has_ambiguous_values:
        values = ", ".join(dict.fromkeys(f"{value:g}" for value in scene.validity.nodata if value is not None))
        share = partly / (valid + partly)
        warnings.warn(
            f"{scene.name}: {partly:,} pixels ({share:.2%} of those with data) hold the nodata value {values} in some "
            "bands only, as dark or saturated ground does. They count as no data. If they are ground, give `nodata` "
            "none.",
            DomainWarning,
            stacklevel=2,
        )
    return {**scene.validity.describe(scene.nodata), "partly_nodata_pixels": partly}


def _check_alpha(scene: RasterReader, band: int) -> None:
    """Warn if an alpha band does not look like a mask, which has one value for data: it may be near infrared."""
    sample = np.concatenate([scene.band(band, box).ravel()[::7] for box in _sample_boxes(scene)])
    shown = sample[sample > 0]
    if len(shown) and np.unique(shown, return_counts=True)[1].max() < _MASK_LIKE * len(shown):
        warnings.warn(
            f"{scene.name}: band {band} is tagged as alpha, but its values vary more than those of a mask. Pixels "
            f"where it is 0 count as no data ({1 - len(shown) / len(sample):.2%} of a sample). If it is an image band, "
            f"such as near infrared, give `bands` {','.join(map(str, scene.bands))} and `nodata` none.",
            DomainWarning,
            stacklevel=3,
        )


def _sample_boxes(scene: RasterReader) -> Iterator[Box]:
    return sample_boxes(scene.info.height, scene.info.width, side=_SAMPLE, count=_SAMPLES)


def check_brightness(scene: RasterReader, model: BundleInfo, scale: ValueScale | None) -> None:
    """Warn (DomainWarning) if a band's sampled mean is over two training standard deviations off its training mean."""
    if scale is not None:
        return
    values = []
    for box in _sample_boxes(scene):
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
            f"{scene.name}: {subject} {means}, but {known_means} in training. Check the order of the bands (`bands`) "
            "and the range of their values (`scale`).",
            DomainWarning,
            stacklevel=2,
        )
