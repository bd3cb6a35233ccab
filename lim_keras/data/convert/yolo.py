"""YOLO segmentation: a text file for each image, with a class and a polygon in shares of the image a line."""

from __future__ import annotations

import math
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from lim_keras.data.convert.classes import Classes, landslide_classes
from lim_keras.data.convert.image_file import ImageFile
from lim_keras.data.convert.names import folder_key, has_mask_folder, split_of
from lim_keras.data.convert.outlines import Objects, Region, Rings, as_points, problem_of
from lim_keras.data.convert.sample import ConvertOptions, Found, LeftOut, Sample
from lim_keras.data.convert.source_files import SourceFiles
from lim_keras.errors import DataError

_YAML = frozenset({".yaml", ".yml"})
_NAME_LISTS = ("classes.txt", "obj.names")
_BOX = 4  # numbers of a bounding box: centre, width, height
BOXES = "boxes without an outline (no label inside)"


@dataclass(frozen=True, slots=True)
class _Line:
    """Line of a label file: place in the files for reports, class, and its other numbers."""

    where: str
    number: int
    values: tuple[float, ...]


def is_yolo(files: SourceFiles) -> bool:
    """Return whether a folder holds YOLO labels: text files of numbers that belong to images."""
    labels = _label_files(files)
    found = [labels[folder_key(name)] for name in files.images() if folder_key(name) in labels]
    return any(_looks_like_labels(files.path(name)) for name in found[:20]) or (
        bool(found) and _names(files) is not None
    )


def find_yolo(files: SourceFiles, options: ConvertOptions) -> Found:
    """List the images of a folder with their polygons. Images without a label file are background.

    Raises:
        ConfigError: the classes of landslides are not known.
        DataError: a label file cannot be read, or no image has one.
    """
    labels, left_out, notes = _label_files(files), list[LeftOut](), Counter[str]()
    label_of = {name: labels.get(folder_key(name)) for name in files.images()}
    folders = {PurePosixPath(name).parent for name, label in label_of.items() if label}
    if not folders:
        raise DataError(
            f"{files.root}: no image has a label file of its name. Expected images/a.jpg and labels/a.txt. "
            f"Found {files.shown()}."
        )
    lines = {}
    for name, label in label_of.items():
        if PurePosixPath(name).parent in folders:
            lines[name] = _read(files, label, left_out)
            notes["images without a label file (background)"] += label is None
        else:
            left_out.append(LeftOut(name, "image in a folder without labels"))
    unused = set(labels.values()) - set(label_of.values())
    left_out += [LeftOut(name, "label file without an image") for name in sorted(unused) if has_mask_folder(name)]
    used = {line.number for some in lines.values() for line in some}
    names = _names(files) or {number: str(number) for number in used}
    chosen = landslide_classes(names, used, options, files.root)
    classes = Classes.of(names, chosen, options.ignore_classes)
    listed = _listed_splits(files)
    samples = []
    for name, some in lines.items():
        objects = _objects(some, classes, left_out, notes)
        split = listed.get(name) or split_of(name)
        samples.append(Sample(name, ImageFile(files.path(name), as_shown=True), objects.draw, split))
    return Found(samples, left_out, +notes)


def _label_files(files: SourceFiles) -> dict[str, str]:
    names = files.with_endings(frozenset({".txt"}))
    return {folder_key(name): name for name in names if PurePosixPath(name).name not in _NAME_LISTS}


def _looks_like_labels(path: Path) -> bool:
    try:
        with path.open(encoding="utf-8-sig") as stream:
            first = next((line.split() for line in stream if line.strip()), [])
        return len(first) >= 1 + _BOX and all(math.isfinite(float(one)) for one in first)
    except (OSError, ValueError):
        return False


def _names(files: SourceFiles) -> dict[int, str] | None:
    """Read the names of the classes; None if no file has them."""
    for name in files.with_endings(_YAML):
        path = files.path(name)
        try:
            content: Any = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
            found = content.get("names") if isinstance(content, dict) else None
            if isinstance(found, dict | list):
                items = found.items() if isinstance(found, dict) else enumerate(found)
                return {int(number): str(text) for number, text in items}
        except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
            reason = " ".join(str(error).split())
            raise DataError(f"{path}: expected a YAML file with the names of the classes ({reason}).") from error
    for name in files.names:
        if PurePosixPath(name).name in _NAME_LISTS:
            lines = files.path(name).read_text(encoding="utf-8-sig", errors="replace").splitlines()
            return dict(enumerate(line.strip() for line in lines if line.strip()))
    return None


def _listed_splits(files: SourceFiles) -> dict[str, str]:
    """Return the split by image, from the folders and lists of paths that a data.yaml names as train, val and test.

    Paths may belong to another computer: an image counts whose path is the end of a listed one.
    """
    images, listed = files.images(), list[tuple[str, list[str]]]()
    for name in files.with_endings(_YAML):
        content: Any = None
        with suppress(OSError, ValueError, yaml.YAMLError):
            content = yaml.safe_load(files.path(name).read_text(encoding="utf-8-sig"))
        for split in ("test", "val", "train"):
            places = content.get(split) if isinstance(content, dict) else None
            for place in places if isinstance(places, list) else [places]:
                if isinstance(place, str):
                    listed.append((split, _listed_images(files, images, place)))
    # The smaller part counts, such as images/val of images; parts of one size are the same, and train.
    listed.sort(key=lambda one: -len(one[1]))
    return {name: split for split, names in listed for name in names}


def _listed_images(files: SourceFiles, images: list[str], place: str) -> list[str]:
    """Return the images of a list of paths (.txt), or of a folder."""
    tails = _tails(place)
    if not place.lower().endswith(".txt"):
        folder = next((tail for tail in tails if any(name.startswith(f"{tail}/") for name in images)), None)
        return [name for name in images if folder is not None and name.startswith(f"{folder}/")]
    path = next((files.path(tail) for tail in tails if tail in files.names), None)
    if path is None:
        return []
    known = set(images)
    lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    named = (next((tail for tail in _tails(line) if tail in known), None) for line in lines)
    return [name for name in named if name is not None]


def _tails(path: str) -> list[str]:
    """Return the path without its first parts, the longest first."""
    parts = [part for part in path.strip().replace("\\", "/").split("/") if part not in ("", ".", "..")]
    return ["/".join(parts[first:]) for first in range(len(parts))]


def _read(files: SourceFiles, name: str | None, left_out: list[LeftOut]) -> list[_Line]:
    """Read the lines of a label file; none without a file."""
    if name is None:
        return []
    path, lines = files.path(name), list[_Line]()
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as a label file of text ({error}).") from error
    for row, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        where = f"{name}, line {row}"
        try:
            number, *values = (float(one) for one in line.split())
            lines.append(_Line(where, int(number), tuple(values)))
        except (ValueError, OverflowError):
            left_out.append(LeftOut(where, "line that is not a class and numbers"))
    return lines


def _objects(lines: list[_Line], classes: Classes, left_out: list[LeftOut], notes: Counter[str]) -> Objects:
    landslides: list[Region] = []
    ignored: list[Region] = []
    for line in lines:
        if line.number not in classes.known:
            left_out.append(LeftOut(line.where, "object of an unknown class", f"class {line.number}"))
            continue
        if line.number not in classes.landslide | classes.ignored:
            notes["objects of other classes (background)"] += 1
            continue
        kept = landslides if line.number in classes.landslide else ignored
        if len(line.values) == _BOX:
            x, y, width, height = line.values
            points = [(x - width / 2, y - height / 2), (x + width / 2, y - height / 2)]
            points += [(x + width / 2, y + height / 2), (x - width / 2, y + height / 2)]
            kept = ignored
        else:
            try:
                points = as_points(line.values)
            except ValueError as error:
                left_out.append(LeftOut(line.where, "polygon of an odd number of coordinates", str(error)))
                continue
        problem = problem_of(points, 1, 1)
        if problem:
            left_out.append(LeftOut(line.where, problem))
            continue
        notes[BOXES if len(line.values) == _BOX else "polygons"] += 1
        kept.append(Rings((tuple(points),), normalised=True))
    return Objects(tuple(landslides), tuple(ignored))
