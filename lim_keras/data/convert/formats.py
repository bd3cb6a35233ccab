"""Recognise the layout of a data set by its files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lim_keras.data.convert.coco import find_coco, is_coco
from lim_keras.data.convert.landslide4sense import HDF5_ENDINGS, find_landslide4sense
from lim_keras.data.convert.pairing import pair
from lim_keras.data.convert.pairs import find_pairs, has_pairs
from lim_keras.data.convert.sample import ConvertOptions, Format, Found
from lim_keras.data.convert.source_files import SourceFiles
from lim_keras.data.convert.yolo import find_yolo, is_yolo
from lim_keras.errors import ConfigError, DataError

_FIND: dict[Format, Callable[[SourceFiles, ConvertOptions], Found]] = {
    "landslide4sense": find_landslide4sense,
    "pairs": find_pairs,
    "coco": find_coco,
    "yolo": find_yolo,
}
_OPTIONS: dict[str, tuple[Format, ...]] = {
    "bands": ("landslide4sense",),
    "landslide": ("landslide4sense", "pairs"),
    "ignore": ("landslide4sense", "pairs"),
    "classes": ("coco", "yolo"),
    "ignore_classes": ("coco", "yolo"),
}
"""Formats that each option is for."""


def list_files(source: Path, out: Path) -> SourceFiles:
    """List the files of a source: a folder, or the annotation file (.json, .yaml) in one; those in `out` left out.

    Raises:
        DataError: the source is missing or no such file.
    """
    if source.is_dir():
        return SourceFiles.read(source, out)
    if not source.exists():
        raise DataError(f"{source}: no such file or folder.")
    ending = source.suffix.lower()
    if ending not in (".json", ".yaml", ".yml"):
        hint = " Unpack it first." if ending in (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar") else ""
        raise DataError(f"{source}: expected a folder, a COCO file (.json) or a data.yaml.{hint}")
    folder = source.parent
    if folder.name.lower() in ("annotations", "annotation", "labels"):
        folder = folder.parent
    files = SourceFiles.read(folder, out)
    others = (".json",) if ending == ".json" else (".yaml", ".yml")
    own = source.relative_to(folder).as_posix()
    return SourceFiles(folder, tuple(one for one in files.names if one == own or not one.lower().endswith(others)))


def recognise(files: SourceFiles, options: ConvertOptions) -> Format:
    """Return the format of a source, which the options may name.

    Raises:
        ConfigError: several formats match, or an option is not for the format.
        DataError: no format matches.
    """
    found = options.format or _by_content(files)
    for name, formats in _OPTIONS.items():
        if getattr(options, name) and found not in formats:
            raise ConfigError(f"`{name}` is for {' and '.join(formats)} only. The format of {files.root} is {found}.")
    return found


def _by_content(files: SourceFiles) -> Format:
    if files.with_endings(HDF5_ENDINGS):
        return "landslide4sense"
    tests: dict[Format, Callable[[SourceFiles], bool]] = {"coco": is_coco, "yolo": is_yolo, "pairs": has_pairs}
    found = [name for name, matches in tests.items() if matches(files)]
    if len(found) > 1 and "pairs" in found and not _mostly_masks(files):
        found.remove("pairs")
    if len(found) > 1:
        raise ConfigError(f"{files.root}: holds {' and '.join(found)}. Name the one to convert as `format`.")
    if not found:
        raise DataError(
            f"{files.root}: expected Landslide4Sense HDF5 files, images and masks (a.png in the folders images and "
            f"masks, or a.png and a_mask.png), a COCO file or YOLO labels. "
            f"Found {files.shown()}."
        )
    return found[0]


def _mostly_masks(files: SourceFiles) -> bool:
    """Return whether most images of a folder belong to pairs; names such as target_1.jpg may look like masks."""
    images = files.images()
    return 4 * len(pair(images).pairs) >= len(images)


def find_samples(files: SourceFiles, options: ConvertOptions, kind: Format) -> Found:
    """List the labelled images of a source; errors as in the function of the format."""
    return _FIND[kind](files, options)
