"""Public functions that make tiles."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from lim_keras.api.bundles import as_count, as_number, as_path, public
from lim_keras.api.places import locked
from lim_keras.errors import ConfigError
from lim_keras.files import StrPath

if TYPE_CHECKING:
    from lim_keras.data.convert.record import Conversion
    from lim_keras.data.convert.sample import Format, Value
    from lim_keras.progress import ProgressCallback


@public
def convert_tiles(
    source: StrPath,
    out: StrPath,
    *,
    format: Format | None = None,
    bands: Sequence[int] = (),
    landslide: float | Sequence[Value] = (),
    ignore: float | Sequence[Value] = (),
    classes: Sequence[str] = (),
    ignore_classes: Sequence[str] = (),
    dry_run: bool = False,
    wait: bool = False,
    progress: ProgressCallback | None = None,
) -> Conversion:
    """Convert another layout of labelled images to a folder with tiles.csv, images/ and masks/.

    Images that `read_tiles` reads are copied as they are, others become GeoTIFF. Outlines are drawn by pixel centres.
    Files and annotations that cannot be converted are left out; the result and convert.json list them.

    Args:
        source: folder of a data set; or, for COCO and YOLO, its annotation file or data.yaml.
        out: folder to write. It may be new, empty, or an unchanged earlier conversion, which is replaced.
        format: "landslide4sense", "pairs", "coco" or "yolo"; None: tell it by the files.
        bands: bands of Landslide4Sense to keep, in this order, numbers from 1; empty: all.
        landslide: mask values that are landslide: a number, or a list of numbers, ranges (lowest, highest) and colours
            (red, green, blue), 0..255; empty: 1, or 255 in masks of 0 and 255. All other values are background.
        ignore: mask values without a label, as for `landslide`.
        classes: names or numbers of the COCO or YOLO classes that are landslides; empty: the only class.
        ignore_classes: names or numbers of classes whose pixels have no label.
        dry_run: count, and write nothing.
        wait: wait for the end of another call that writes the same folder; False: raise an error.
        progress: receives the progress; None: a bar on a terminal.

    Returns:
        Counts of tiles and pixels, and what was left out.

    Raises:
        ConfigError: an argument does not fit the data set, or it is not known which values or classes are landslides.
        DataError: the format is not known, no image can be converted, or `out` holds files of the user.

    Examples:
        >>> lk.convert_tiles("Landslide4Sense", "tiles", bands=(4, 3, 2)).tiles
        >>> lk.convert_tiles("labelled", "tiles", landslide=[(255, 0, 0)])
    """
    from lim_keras.data.convert.conversion import convert
    from lim_keras.data.convert.record import check_replaceable
    from lim_keras.data.convert.sample import ConvertOptions, Format
    from lim_keras.report.progress import ProgressBar

    if format is not None and format not in get_args(Format):
        raise ConfigError(
            f"Invalid value for `format`. Expected one of {', '.join(get_args(Format))}. Received: {format!r}."
        )
    options = ConvertOptions(
        format=format,
        bands=tuple(as_count("bands", band) for band in _items("bands", bands)),
        landslide=_as_values("landslide", landslide),
        ignore=_as_values("ignore", ignore),
        classes=_as_names("classes", classes),
        ignore_classes=_as_names("ignore_classes", ignore_classes),
    )
    source, out = as_path("source", source), as_path("out", out)
    _check_apart(source, out)
    with nullcontext() if dry_run else locked(out, "out", wait=wait):
        if not dry_run:
            check_replaceable(out)
        return convert(source, out, options, dry_run=dry_run, progress=progress or ProgressBar())


def _check_apart(source: Path, out: Path) -> None:
    inner, outer = source.resolve(), out.resolve()
    if outer == inner or outer in inner.parents:
        raise ConfigError(f"`out` {out} holds the data set {source}. Give another folder as `out`.")


def _items(name: str, value: Any) -> list[Any]:
    if isinstance(value, Iterable) and not isinstance(value, str):
        return list(value)
    raise ConfigError(f"Invalid value for `{name}`. Expected a sequence. Received: {value!r}.")


def _as_names(name: str, value: Any) -> tuple[str, ...]:
    names = [value] if isinstance(value, str) else _items(name, value)
    if not all(isinstance(one, str) for one in names):
        raise ConfigError(f"Invalid value for `{name}`. Expected names. Received: {value!r}.")
    return tuple(names)


def _as_values(name: str, value: Any) -> tuple[Value, ...]:
    items = _items(name, value) if isinstance(value, Iterable) else [value]
    return tuple(_as_value(name, one) for one in items)


def _as_value(name: str, value: Any) -> Value:
    if not isinstance(value, Iterable):
        return as_number(name, value)
    parts = tuple(as_number(name, part) for part in _items(name, value))
    if len(parts) == 2 and parts[0] <= parts[1]:
        return parts[0], parts[1]
    if len(parts) == 3:
        return parts[0], parts[1], parts[2]
    raise ConfigError(
        f"Invalid value for `{name}`. Expected numbers, (lowest, highest) or (red, green, blue). Received: {value!r}."
    )
