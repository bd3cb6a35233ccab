"""Pair images and masks by their names."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from lim_keras.data.convert.names import folder_key, has_mask_folder, has_mask_name, name_key, sibling_key
from lim_keras.data.convert.sample import LeftOut

SEVERAL = "several images or masks of one name"
_BACKGROUND = re.compile(r"no[nt]?[-_ ]?landslides?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Pairing:
    """Pairs (image, mask) of relative paths, images of background without a mask, and files left over."""

    pairs: Sequence[tuple[str, str]]
    background: Sequence[str]
    left_out: Sequence[LeftOut]


def pair(names: Sequence[str]) -> Pairing:
    """Pair images and masks in three steps; each step takes the files that the step before left.

    1. Folders named after masks, such as `masks/a.png` with `images/a.png`.
    2. Names with a word for masks, such as `a_mask.png` with `a.png`.
    3. A folder named after masks beside a folder of any name, such as `labels/a.png` with `rgb/a.png`.

    Args:
        names: relative paths of image files.
    """
    pairs: list[tuple[str, str]] = []
    rest = _pair_by(names, has_mask_folder, folder_key, pairs)
    rest = _pair_by(rest, has_mask_name, name_key, pairs)
    rest = _pair_by(rest, has_mask_folder, sibling_key, pairs)
    groups = _groups(rest, has_mask_name, sibling_key)
    background, left_out = [], []
    for images, masks in groups.values():
        several = bool(images and masks)
        for name in (*images, *masks):
            if several:
                left_out.append(LeftOut(name, SEVERAL))
            elif name in masks:
                left_out.append(LeftOut(name, "mask without an image"))
            elif any(_BACKGROUND.fullmatch(part) for part in PurePosixPath(name).parts[:-1]):
                background.append(name)
            else:
                left_out.append(LeftOut(name, "image without a mask"))
    order = {name: number for number, name in enumerate(names)}
    return Pairing(sorted(pairs, key=lambda one: order[one[0]]), background, left_out)


Groups = dict[str, tuple[list[str], list[str]]]
"""Images and masks by their common key."""


def _groups(names: Iterable[str], is_mask: Callable[[str], bool], key: Callable[[str], str]) -> Groups:
    groups: defaultdict[str, tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
    for name in names:
        groups[key(name)][is_mask(name)].append(name)
    return dict(groups)


def _pair_by(
    names: Iterable[str], is_mask: Callable[[str], bool], key: Callable[[str], str], pairs: list[tuple[str, str]]
) -> list[str]:
    """Add the pairs of one image and one mask to `pairs`, and return the other names."""
    rest = []
    for images, masks in _groups(names, is_mask, key).values():
        if len(images) == len(masks) == 1:
            pairs.append((images[0], masks[0]))
        else:
            rest += [*images, *masks]
    return rest
