"""Names in other data sets: roles of files, splits, tile ids, and copies of one image."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath

from lim_keras.data.convert.sample import Sample

_MASK = r"(?:ground[_\- ]?truths?|masks?|msk|labels?|lbl|gt|truths?|annotations?|annots?|targets?|segmentations?|seg)"
_IMAGE = r"(?:images?|imgs?|inputs?|pictures?|photos?|sat)"
_BEFORE, _AFTER = r"(?<![^\W\d_])", r"(?![^\W\d_])"
_MASK_WORD = re.compile(f"{_BEFORE}{_MASK}{_AFTER}", re.IGNORECASE)
_IMAGE_WORD = re.compile(f"{_BEFORE}{_IMAGE}{_AFTER}", re.IGNORECASE)
_ROLE_WORD = re.compile(f"{_BEFORE}(?:{_MASK}|{_IMAGE}){_AFTER}", re.IGNORECASE)
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_SEPARATORS = re.compile(r"[_\-. ]+")
_BESIDE_SPLIT = re.compile(rf"{_BEFORE}(?:coco|instances|data|sets?|datasets?|splits?){_AFTER}|\d", re.IGNORECASE)
_SPLITS = {"train": "train", "training": "train", "traindata": "train"} | dict.fromkeys(
    ("val", "valid", "validation", "validdata", "valdata"), "val"
)
_SPLITS |= dict.fromkeys(("test", "testing", "testdata"), "test")
_COPY = re.compile(r"\.rf\.[0-9a-zA-Z]+$")  # augmented copies of one image in exports of Roboflow
_UNUSABLE = re.compile(r"[\x00-\x1f\x7f/\\]")
_ID_BYTES = 180


def has_mask_folder(name: str) -> bool:
    """Return whether a relative path lies in a folder of masks, by its innermost folder named after images or masks."""
    for part in reversed(PurePosixPath(name).parts[:-1]):
        part = _CAMEL.sub("_", part)
        if _MASK_WORD.search(part):
            return True
        if _IMAGE_WORD.search(part):
            return False
    return False


def has_mask_name(name: str) -> bool:
    """Return whether the file name of a relative path, or its folder, holds a word such as `mask` or `label`."""
    return bool(_MASK_WORD.search(_CAMEL.sub("_", PurePosixPath(name).stem))) or has_mask_folder(name)


def folder_key(name: str) -> str:
    """Return the path without its ending and without words such as `images` and `masks` in its folders."""
    *folders, _ = PurePosixPath(name).parts
    return "/".join([*filter(None, map(_without_role, folders)), PurePosixPath(name).stem])


def name_key(name: str) -> str:
    """Return the path without its ending and without words such as `image` and `mask`, in lower case."""
    parts = PurePosixPath(name).with_suffix("").parts
    return "/".join(filter(None, map(_without_role, parts))).casefold()


def sibling_key(name: str) -> str:
    """Return the key of `name_key` without the innermost folder, whose name may be any, such as `rgb`."""
    path = PurePosixPath(name)
    return name_key(str(path.parent.parent / path.name)) if len(path.parts) > 1 else name_key(name)


def _without_role(part: str) -> str:
    return _SEPARATORS.sub("_", _ROLE_WORD.sub("", _CAMEL.sub("_", part))).strip("_")


def split_of(name: str, *, with_name: bool = False) -> str:
    """Return "train", "val" or "test", if a folder of a relative path says so; else "". `with_name`: or its file."""
    path = PurePosixPath(name)
    for part in [*path.parts[:-1], *([path.stem] if with_name else [])]:
        split = _SPLITS.get(_SEPARATORS.sub("", _BESIDE_SPLIT.sub("", _without_role(part))).casefold())
        if split:
            return split
    return ""


def original(source: str) -> str:
    """Return the name of the image that augmented copies were made of; "" if the path is no such copy."""
    stem = PurePosixPath(source).stem
    return _COPY.sub("", stem) if _COPY.search(stem) else ""


def tile_ids(samples: Sequence[Sample]) -> list[str]:
    """Return a unique and usable tile id for each sample: the stem, with split, folders or a number where needed."""
    stems = [_usable(PurePosixPath(sample.source).stem) for sample in samples]
    with_split = [
        _usable(f"{one.split}_{stem}") if one.split else stem for one, stem in zip(samples, stems, strict=True)
    ]
    with_folders = [_usable("_".join(PurePosixPath(sample.source).with_suffix("").parts[-8:])) for sample in samples]
    ids = _replace_repeated(_replace_repeated(stems, with_split), with_folders)
    return _numbered(ids)


def _replace_repeated(ids: list[str], longer: list[str]) -> list[str]:
    counts = Counter(one.casefold() for one in ids)
    return [new if counts[one.casefold()] > 1 else one for one, new in zip(ids, longer, strict=True)]


def _numbered(ids: list[str]) -> list[str]:
    """Add numbers to ids that file systems without case cannot tell apart."""
    taken = {one.casefold() for one in ids}
    seen: set[str] = set()
    result = []
    for tile_id in ids:
        new, number = tile_id, 2
        while new.casefold() in seen or (new != tile_id and new.casefold() in taken):
            new, number = f"{tile_id}_{number}", number + 1
        seen.add(new.casefold())
        result.append(new)
    return result


def _usable(name: str) -> str:
    """Change a name to one that can name a tile, see `lim_keras.data.layouts`."""
    name = _UNUSABLE.sub("_", unicodedata.normalize("NFC", name)).strip().lstrip("#. \t").strip()
    name = name.encode("utf-8", "replace").decode()
    while len(os.fsencode(name)) > _ID_BYTES:
        name = name[1:]
    return name or "tile"
