"""COCO instance segmentation: a JSON file of images, categories and outlines."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import PurePosixPath
from typing import Any

from lim_keras.data.convert.classes import Classes, landslide_classes
from lim_keras.data.convert.image_file import ImageFile, shown_or_stored
from lim_keras.data.convert.names import split_of
from lim_keras.data.convert.outlines import Objects, Region, Rings, as_points, problem_of
from lim_keras.data.convert.rle import read_runs
from lim_keras.data.convert.sample import ConvertOptions, Drawn, Found, LeftOut, Sample
from lim_keras.data.convert.source_files import SourceFiles
from lim_keras.data.convert.yolo import BOXES
from lim_keras.errors import DataError

_JSON = frozenset({".json"})
_NO_CLASS = "annotation of an unknown category"
_NO_IMAGE = "annotation of a missing image"


def is_coco(files: SourceFiles) -> bool:
    """Return whether a folder holds a JSON file of images and annotations."""
    return bool(_documents(files))


def find_coco(files: SourceFiles, options: ConvertOptions) -> Found:
    """List the images of the annotation files below a folder.

    Raises:
        ConfigError: the categories of landslides are not known.
        DataError: there is no annotation file, or none of its images exist.
    """
    documents = _documents(files)
    if not documents:
        raise DataError(f"{files.root}: expected a JSON file of `images` and `annotations`. Found {files.shown()}.")
    reading = _Reading(files, options, _landslides(files, documents, options), _by_name(files))
    for name, document in documents.items():
        reading.add(name, document, several=len(documents) > 1)
    if not reading.samples:
        first = next((one for one in reading.left_out if one.reason != _NO_IMAGE), LeftOut("none", "no images"))
        raise DataError(
            f"{files.root}: no image of the annotation files can be used. Give the folder that holds images and "
            f"annotations. First image: {first.name} ({first.reason})."
        )
    return Found(reading.samples, reading.left_out, +reading.notes)


@dataclass
class _Reading:
    """State of reading annotation files. `places` are the paths of image files by their last part."""

    files: SourceFiles
    options: ConvertOptions
    landslides: tuple[str, ...]
    places: Mapping[str, Sequence[str]]
    samples: list[Sample] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    notes: Counter[str] = field(default_factory=Counter)
    used: set[str] = field(default_factory=set)

    def add(self, name: str, document: dict[str, Any], *, several: bool) -> None:
        """Add the images of one annotation file."""
        annotations: defaultdict[Any, list[Mapping[str, Any]]] = defaultdict(list)
        for one in _objects(document, "annotations"):
            annotations[_hashable(one.get("image_id"))].append(one)
        classes = Classes.of(_categories(document), self.landslides, self.options.ignore_classes)
        split = split_of(name, with_name=True)
        split = split or (PurePosixPath(name).stem if several else "")
        seen: set[Any] = set()
        for image in _objects(document, "images"):
            number = _hashable(image.get("id"))
            source = f"{image.get('file_name')}"
            if number in seen:
                self.left_out.append(LeftOut(source, "second image of one id", f"{name}, id {number}"))
                continue
            seen.add(number)
            self._add_image(name, image, annotations.get(number, []), classes, split)
        for number, some in annotations.items():
            if number not in seen:
                self.left_out += [LeftOut(_named(name, one), _NO_IMAGE) for one in some]

    def _add_image(
        self,
        name: str,
        image: Mapping[str, Any],
        annotations: Sequence[Mapping[str, Any]],
        classes: Classes,
        split: str,
    ) -> None:
        found = self._find(str(image.get("file_name") or ""), name)
        if isinstance(found, LeftOut):
            self.left_out.append(found)
            return
        self.used.add(found)
        try:
            size = int(image["width"]), int(image["height"])
        except (KeyError, TypeError, ValueError, OverflowError):
            size = None
        objects = self._drawable(name, annotations, classes, size)
        path = self.files.path(found)
        picture = ImageFile(path, as_shown=shown_or_stored(path, size))
        split = split_of(found) or split
        self.samples.append(Sample(found, picture, partial(_draw, objects, size), split))

    def _find(self, file_name: str, document: str) -> str | LeftOut:
        """Find the image file of a name: its path, or the only one below the folder that ends with it."""
        parts = [part for part in file_name.replace("\\", "/").split("/") if part not in ("", ".", "..")]
        places = self.places.get(parts[-1].casefold(), ()) if parts else ()
        best: list[str] = []
        for length in range(len(parts), 0, -1):
            tail = [part.casefold() for part in parts[-length:]]
            best = [one for one in places if [part.casefold() for part in PurePosixPath(one).parts[-length:]] == tail]
            if best:
                break
        if len(best) > 1:
            beside = PurePosixPath(document).parent
            split = split_of(document, with_name=True)
            nearer = [one for one in best if PurePosixPath(one).is_relative_to(beside) and beside.parts]
            nearer = nearer or [one for one in best if split and split_of(one) == split]
            best = nearer or best
        if not best:
            return LeftOut(file_name or "(no file name)", "image file that does not exist", document)
        if len(best) > 1:
            return LeftOut(file_name, "several files of one name", ", ".join(best[:3]))
        if best[0] in self.used:
            return LeftOut(best[0], "image listed twice", document)
        return best[0]

    def _drawable(
        self, name: str, annotations: Sequence[Mapping[str, Any]], classes: Classes, size: tuple[int, int] | None
    ) -> Objects:
        landslides: list[Region] = []
        ignored: list[Region] = []
        for one in annotations:
            number = _hashable(one.get("category_id"))
            if number not in classes.known:
                self.left_out.append(LeftOut(_named(name, one), _NO_CLASS, f"category {number}"))
            elif number in classes.landslide:
                self._add_regions(name, one, size, landslides, ignored)
            elif number in classes.ignored:
                self._add_regions(name, one, size, ignored, ignored)
            else:
                self.notes["annotations of other categories (background)"] += 1
        return Objects(tuple(landslides), tuple(ignored))

    def _add_regions(
        self,
        name: str,
        annotation: Mapping[str, Any],
        size: tuple[int, int] | None,
        regions: list[Region],
        ignored: list[Region],
    ) -> None:
        """Add the outline of an annotation to `regions`; where it has none, its box to `ignored`."""
        outline = annotation.get("segmentation")
        before = len(regions)
        if isinstance(outline, dict):
            try:
                regions.append(read_runs(outline))
                crowd = annotation.get("iscrowd")
                self.notes["regions of run lengths" + (", of several objects (iscrowd)" if crowd else "")] += 1
            except ValueError as error:
                self.left_out.append(LeftOut(_named(name, annotation), str(error)))
        elif isinstance(outline, list):
            for points in _polygons(outline):
                problem = _problem(points, size)
                if problem:
                    self.left_out.append(LeftOut(_named(name, annotation), problem))
                    continue
                regions.append(Rings((tuple(as_points(points)),)))
                self.notes["polygons"] += 1
        if len(regions) == before:
            box = _box(annotation, size)
            if box is None:
                if not outline:
                    self.left_out.append(LeftOut(_named(name, annotation), "annotation without an outline"))
                return
            ignored.append(box)
            self.notes[BOXES] += 1


def _documents(files: SourceFiles) -> dict[str, dict[str, Any]]:
    """Read the annotation files of a folder."""
    found = {}
    for name in files.with_endings(_JSON):
        try:
            document = json.loads(files.path(name).read_text(encoding="utf-8-sig"))
        except OSError as error:
            raise DataError(f"{files.path(name)}: cannot be read ({error.strerror or error}).") from error
        except (ValueError, RecursionError) as error:
            if any(word in PurePosixPath(name).name.lower() for word in ("coco", "annotation", "instances")):
                raise DataError(f"{files.path(name)}: expected a JSON file ({error}).") from error
            continue
        if isinstance(document, dict) and all(isinstance(document.get(key), list) for key in ("images", "annotations")):
            found[name] = document
    return found


def _by_name(files: SourceFiles) -> dict[str, list[str]]:
    places: defaultdict[str, list[str]] = defaultdict(list)
    for name in files.images():
        places[PurePosixPath(name).name.casefold()].append(name)
    return dict(places)


def _objects(document: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    return [one for one in document[key] if isinstance(one, dict)]


def _hashable(value: Any) -> Any:
    """Return a number that may be a dictionary key; some tools write numbers as text."""
    if isinstance(value, str) and value.strip().isdecimal():
        return int(value)
    return value if isinstance(value, int | float | str | None) else str(value)


def _landslides(
    files: SourceFiles, documents: Mapping[str, Mapping[str, Any]], options: ConvertOptions
) -> tuple[str, ...]:
    """Return the names of the categories that are landslides, from all annotation files."""
    names: dict[int, str] = {}
    used: set[int] = set()
    for document in documents.values():
        for number, text in _categories(document).items():
            key = number if names.get(number, text) == text else max(names) + 1  # files may number them differently
            names[key] = text
            if any(_hashable(one.get("category_id")) == number for one in _objects(document, "annotations")):
                used.add(key)
    return landslide_classes(names, used, options, files.root)


def _categories(document: Mapping[str, Any]) -> dict[int, str]:
    """Return the names of the categories by number; without names, the numbers of the annotations."""
    listed = document.get("categories")
    if isinstance(listed, list) and listed:
        known = [one for one in listed if isinstance(one, dict) and isinstance(_hashable(one.get("id")), int)]
        return {_hashable(one["id"]): str(one.get("name", one["id"])) for one in known}
    numbers = {_hashable(one.get("category_id")) for one in _objects(document, "annotations")}
    return {number: str(number) for number in numbers if isinstance(number, int)}


def _named(name: str, annotation: Mapping[str, Any]) -> str:
    return f"{name}, annotation {annotation.get('id')}"


def _polygons(outline: list[Any]) -> list[Any]:
    """Return the lists of coordinates of an outline; points may be pairs."""
    if outline and all(isinstance(one, int | float) for one in outline):
        return [outline]
    return [
        [value for point in one for value in point]
        if isinstance(one, list) and one and all(isinstance(point, list) for point in one)
        else one
        for one in outline
    ]


def _problem(points: Any, size: tuple[int, int] | None) -> str:
    try:
        width, height = size or (float("inf"), float("inf"))
        return problem_of(as_points(points), width, height)
    except (TypeError, ValueError):
        return "polygon that is no list of x and y"


def _box(annotation: Mapping[str, Any], size: tuple[int, int] | None) -> Rings | None:
    """Return the box of an annotation; None if it has none with an area in the image."""
    try:
        x, y, width, height = (float(value) for value in annotation["bbox"])
    except (KeyError, TypeError, ValueError):
        return None
    corners = ((x, y), (x + width, y), (x + width, y + height), (x, y + height))
    if not (width > 0 and height > 0) or _problem([value for point in corners for value in point], size):
        return None
    return Rings((corners,))


def _draw(objects: Objects, size: tuple[int, int] | None, height: int, width: int) -> Drawn:
    if size is not None and size != (width, height):
        raise DataError(f"the annotation file says {size[0]} x {size[1]} px, but the image is {width} x {height} px")
    return objects.draw(height, width)
