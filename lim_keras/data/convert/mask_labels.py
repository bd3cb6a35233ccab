"""Labels of mask images: binary masks, and values or colours that the caller names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lim_keras.data.convert.sample import Drawn, Labels, Value
from lim_keras.data.tiles import IGNORED, LANDSLIDE
from lim_keras.errors import ConfigError, DataError
from lim_keras.raster.images import decode, file_format, read_info
from lim_keras.raster.masks import is_lossy, read_labels
from lim_keras.raster.opening import explained
from lim_keras.raster.reader import RasterReader

Array = NDArray[Any]
_DARK, _BRIGHT = 64, 191  # grey values of a JPEG mask that count as background and as landslide
_LOSSY = 32  # largest change by JPEG of a value that the caller names
_LISTED = 8


@dataclass(frozen=True, slots=True)
class MaskRule:
    """Values of masks that mean landslide and that mean no label; without any, masks hold 0 and 1, or 0 and 255."""

    landslide: tuple[Value, ...] = ()
    ignore: tuple[Value, ...] = ()

    def read(self, path: Path) -> Drawn:
        """Read the labels of a mask image.

        Raises:
            ConfigError: the values of the mask can be read in several ways.
            DataError: the file is unreadable.
        """
        lossy = is_lossy(path) if _is_known(path) else False
        if not self.landslide:
            return self._binary(path, lossy)
        bands, marked = _bands(path)
        slack = _LOSSY if lossy else 0
        labels = np.where(_matches(bands, self.landslide, path, slack), np.uint8(LANDSLIDE), np.uint8(0))
        if self.ignore:
            labels[_matches(bands, self.ignore, path, slack) & (labels == 0)] = IGNORED
        labels[marked & (labels == 0)] = IGNORED
        return Drawn(labels)

    def array(self, values: Array, name: str) -> Drawn:
        """Return the labels of an array (height, width[, bands])."""
        bands = values if values.ndim == 3 else values[..., np.newaxis]
        if self.landslide:
            labels = np.where(_matches(bands, self.landslide, name, 0), np.uint8(LANDSLIDE), np.uint8(0))
            if self.ignore:
                labels[_matches(bands, self.ignore, name, 0) & (labels == 0)] = IGNORED
            return Drawn(labels)
        if bands.shape[2] != 1:
            raise DataError(f"{name}: expected a mask of one band. Received: {bands.shape[2]} bands.")
        return Drawn(self._by_values(bands[..., 0], np.zeros(bands.shape[:2], np.bool_), name))

    def _binary(self, path: Path, lossy: bool) -> Drawn:
        nodata = read_info(path, measured=False).nodata if _is_known(path) else None
        if _is_known(path) and nodata is None:
            values = _read_labels(path)
            marked = np.zeros(values.shape, np.bool_)
        else:
            bands, marked = _bands(path)
            values = bands[..., 0]
        if nodata in (1, 255) and nodata not in self.ignore and (values == nodata).any():
            raise ConfigError(
                f"{path}: the mask holds its nodata value {nodata:g}. If it means no label, give it as `ignore`; if it "
                "is landslide, as `landslide`."
            )
        if lossy:
            return _from_jpeg(values, path)
        return Drawn(self._by_values(values, marked, path))

    def _by_values(self, values: Array, marked: NDArray[np.bool_], name: Path | str) -> Labels:
        labels = np.zeros(values.shape, np.uint8)
        ignored = _matches(values[..., np.newaxis], self.ignore, name, 0) if self.ignore else np.zeros_like(marked)
        rest = values[~(ignored | marked)]
        is_1, is_255 = bool((rest == 1).any()), bool((rest == 255).any())
        if is_1 and is_255:
            raise ConfigError(
                f"{name}: the mask holds 0, 1 and 255. If 255 means no label, give 255 as `ignore`; otherwise name the "
                "values of landslide as `landslide`."
            )
        if not np.isin(rest, (0, 1, 255)).all():
            raise ConfigError(
                f"{name}: expected a mask of 0 and 1, or of 0 and 255. Received the values {_listed(values)}. Name the "
                "values of landslide as `landslide`: a value, a range such as 128-255, or a colour R,G,B."
            )
        labels[np.isin(values, (1, 255))] = LANDSLIDE
        labels[ignored | marked] = IGNORED
        return labels


def _read_labels(path: Path) -> Array:
    """Read the labels of a mask; where they are not clear, the error asks for the values or colours of landslide."""
    try:
        return read_labels(path)
    except DataError as error:
        if "bands differ" in str(error):
            raise ConfigError(_colours(path)) from error
        if "palette does not tell" in str(error):
            raise ConfigError(f"{error} Or name its index or colour as `landslide`.") from error
        if "transparent or masked" in str(error):
            raise ConfigError(
                f"{path}: the mask has transparent or masked pixels. Name the values or colours of landslide as "
                "`landslide`; transparent pixels of other colours are then background."
            ) from error
        raise


def _from_jpeg(values: Array, path: Path) -> Drawn:
    """Return the labels of a JPEG mask; grey pixels, which JPEG makes at edges, get no label."""
    if 0 < values.max() < _DARK:
        raise ConfigError(
            f"{path}: a JPEG mask of values up to {values.max()}, which JPEG may have changed. Save the masks as PNG, "
            "or name the values of landslide as `landslide`, such as 1-255."
        )
    labels = np.full(values.shape, IGNORED, np.uint8)
    labels[values < _DARK], labels[values > _BRIGHT] = 0, LANDSLIDE
    return Drawn(labels, Counter({"pixels of JPEG masks that are neither black nor white (no label)": _count(labels)}))


def _count(labels: Labels) -> int:
    return int((labels == IGNORED).sum())


def _is_known(path: Path) -> bool:
    try:
        file_format(path)
    except DataError:
        return False
    return True


def _bands(path: Path) -> tuple[Array, NDArray[np.bool_]]:
    """Read a mask (height, width, bands), and which pixels a TIFF marks without a label (nodata 0 does not)."""
    if _is_known(path) and file_format(path) != "tiff":
        header, pixels, _ = decode(path, file_format(path))
        if header.palette is None:
            return pixels, np.zeros(pixels.shape[:2], np.bool_)
        with explained(path), RasterReader(path, bands=(1,), measured=False) as reader:
            indices = reader.pixels()
        return np.concatenate([indices, header.palette[indices[..., 0]]], axis=2), np.zeros(indices.shape[:2], np.bool_)
    with explained(path), RasterReader(path, measured=False) as reader:
        pixels, valid = reader.image()
        if reader.info.nodata == 0:
            valid = np.ones_like(valid)
    nodata = reader.info.nodata
    if nodata in (1, 255) and not valid.all() and pixels.shape[2] == 1:
        return pixels, np.zeros(valid.shape, np.bool_)
    return pixels, ~valid


def _matches(bands: Array, wanted: Sequence[Value], name: Path | str, slack: float) -> NDArray[np.bool_]:
    found = np.zeros(bands.shape[:2], np.bool_)
    count = bands.shape[2]
    for value in wanted:
        if isinstance(value, tuple) and len(value) == 3:
            if count < 3:
                raise DataError(f"{name}: expected a mask in colours, because a colour is looked for. It has one band.")
            colour = bands[..., -3:] if count == 4 else bands[..., :3]
            found |= (np.abs(colour.astype(np.float64) - value) <= slack).all(axis=2)
            continue
        low, high = value if isinstance(value, tuple) else (value, value)
        if count in (2, 3) and (bands != bands[..., :1]).any():
            raise ConfigError(_colours_of(bands, name))
        found |= (bands[..., 0] >= low - slack) & (bands[..., 0] <= high + slack)
    return found


def _colours(path: Path) -> str:
    return _colours_of(_bands(path)[0], path)


def _colours_of(bands: Array, name: Path | str) -> str:
    colours = np.unique(bands.reshape(-1, bands.shape[2]), axis=0)[:_LISTED].tolist()
    listed = "; ".join(",".join(f"{part:g}" for part in colour) for colour in colours)
    return f"{name}: a mask in colours. Name those of landslide as `landslide`, such as 255,0,0. Received: {listed}."


def _listed(values: Array) -> str:
    found = np.unique(values)
    shown = ", ".join(f"{value:g}" for value in found[:_LISTED].tolist())
    return f"{shown}, ... ({len(found)} values)" if len(found) > _LISTED else shown
