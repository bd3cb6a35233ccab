"""Layouts of labelled tiles on disk: find the tiles, then check every file.

To read another layout, write a function that takes a path and returns candidates and messages, and add it to `LAYOUTS`.
If the masks of the layout are not raster files, convert them first to PNG or GeoTIFF with the values 0, 1 and 255.
"""

import os
import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any, get_args

import numpy as np

from lim_keras.data.manifest import Candidate, read_candidates
from lim_keras.data.tiles import IGNORED, LANDSLIDE, Kind, Tile, TileSet, raise_problems, read_pair
from lim_keras.errors import DataError, LimKerasWarning
from lim_keras.progress import ProgressCallback, track
from lim_keras.raster.georeference import RasterInfo
from lim_keras.raster.images import read_info
from lim_keras.raster.masks import read_labels

Found = tuple[list[Candidate], list[str]]
"""Tiles that a layout lists, and messages about problems with its files."""

_MANIFEST = "tiles.csv"
_READ = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff"})
_NOT_READ = re.compile(
    r"\.(avif|bmp|dng|ecw|exr|gif|h5|heic|heif|img|jfif|jp2|jpe|jxl|mat|nc|np[yz]|p[bgp]m|psd|sid|vrt|webp)"
)
MOSTLY_LANDSLIDE = 0.8
"""Share of landslide in a mask above which it may be inverted."""
_USABLE_ID = re.compile(r"[^\s#./\\\x00-\x1f\x7f]([^\x00-\x1f\x7f/\\]*[^\s\x00-\x1f\x7f/\\])?")
_ID_BYTES = 200
"""Longest id: file systems allow names of 255 bytes, of which endings take some."""
ID_RULE = (
    "Ids name files and lines of lists: they must not be empty, start with `#`, a dot or a blank, end with a blank, be "
    f"longer than {_ID_BYTES} bytes, or hold a slash, backslash, line break or control character."
)


@dataclass(frozen=True, slots=True)
class Layout:
    """Arrangement of tile files on disk.

    Attributes:
        description: text for the error message when no layout matches.
        matches: function that tells whether a path holds this layout.
        find: function that lists the tiles of such a path.
    """

    description: str
    matches: Callable[[Path], bool]
    find: Callable[[Path], Found]


def read_tiles(
    path: str | os.PathLike[str], progress: ProgressCallback | None = None, *, decode: bool = True
) -> TileSet:
    """Read labelled tiles in one of the `LAYOUTS` and check every image and mask.

    Args:
        path: a manifest (.csv) or a folder.
        progress: receives the number of checked tiles.
        decode: if False, trust the manifest's pixel counts and read image headers only, for files checked before.

    Raises:
        DataError: no layout matches, or files are bad; the error lists the first 20 bad files and counts the rest.

    Warns:
        LimKerasWarning: masks look inverted, or tiles have no labelled pixel (only with `decode`).
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: no such file or folder. Expected a folder of tiles or a tiles.csv.")
    if path.is_dir() and (path / _MANIFEST).is_file():
        path = path / _MANIFEST
    layout = find_layout(path)
    if layout is None:
        expected = ", or ".join(layout.description for layout in LAYOUTS)
        raise DataError(f"{path}: expected {expected}. Found {_contents(path)}.")
    return _checked_tiles(path, layout.find(path), progress, decode)


def find_layout(path: Path) -> Layout | None:
    """Return the first layout that matches a path; None without one."""
    is_listed = path.is_dir() and (path / _MANIFEST).is_file()
    return next((layout for layout in LAYOUTS if is_listed or layout.matches(path)), None)


def read_images(folder: Path, progress: ProgressCallback | None = None) -> TileSet:
    """Read the images of a folder, which holds no masks, as tiles of kind non-landslide; errors as in `read_tiles`."""
    image_of, problems = _by_stem(folder)
    found = [
        Candidate(tile_id=stem, image=path, kind="non-landslide") for stem, paths in image_of.items() for path in paths
    ]
    return _checked_tiles(folder, (found, problems), progress, True)


def _checked_tiles(path: Path, found: Found, progress: ProgressCallback | None, decode: bool) -> TileSet:
    candidates, problems = found
    if not candidates and not problems:
        raise DataError(f"{path}: no tiles were found. Expected images of .png, .jpg or .tif.")
    results = list(_check_all(candidates, progress, decode))
    passed = [result for result in results if isinstance(result, _Checked)]
    failed = [result for result in results if isinstance(result, str)]
    raise_problems(path, [*problems, *_id_problems(candidates), *failed, *_mixed_types(passed)])
    root = path if path.is_dir() else path.parent
    if decode:
        _warn_of_labels(path, [result.tile for result in passed])
    return TileSet(root, tuple(result.tile for result in passed), passed[0].bands, passed[0].dtype)


def _warn_of_labels(path: Path, tiles: Sequence[Tile]) -> None:
    """Warn of masks that are valid but look wrong."""
    inverted = [tile.tile_id for tile in tiles if tile.landslide_px > MOSTLY_LANDSLIDE * tile.valid_px]
    empty = [tile.tile_id for tile in tiles if not tile.valid_px]
    others = [tile for tile in tiles if tile.ignore != "255"]
    mixed = [tile.tile_id for tile in others if len(others) < len(tiles) and _marks_with_255(tile)]
    for ids, message in (
        (
            inverted,
            f"more than {MOSTLY_LANDSLIDE:.0%} landslide. If they are inverted, write landslide as 255, background as "
            "0.",
        ),
        (empty, "without a labelled pixel. Training and evaluation learn nothing from them: leave them out."),
        (
            mixed,
            'read with 255 as landslide, but 255 means no label in others. If it does here, too, set ignore "255".',
        ),
    ):
        if ids:
            listed = ", ".join(ids[:5]) + (", ..." if len(ids) > 5 else "")
            text = f"{path}: {len(ids)} of {len(tiles)} tiles are {message} Tiles: {listed}."
            warnings.warn(text, LimKerasWarning, stacklevel=3)


def _marks_with_255(tile: Tile) -> bool:
    """Return whether 255 is landslide in the mask of a tile."""
    return bool(tile.mask and tile.landslide_px and (read_labels(tile.mask, marked=True) == IGNORED).any())


def _has_kind_folders(path: Path) -> bool:
    return any((path / kind).is_dir() for kind in get_args(Kind))


def _find_bijie(folder: Path) -> Found:
    """List the tiles of landslide/{image,mask} and non-landslide/{image,mask}, the layout of the Bijie data set."""
    candidates, problems = [], []
    for other in sorted(folder.iterdir()):
        if other.name not in get_args(Kind) and (other / "image").is_dir():
            problems.append(f"{other}: its tiles are not read. Rename it to landslide or non-landslide, or move it.")
    for kind in get_args(Kind):
        part = folder / kind
        if not part.is_dir():
            continue
        if not (part / "image").is_dir():
            problems.append(f"{part}: expected a folder `image` in it. Found {_contents(part)}.")
            continue
        found, unpaired = _find_pairs(part / "image", part / "mask", kind)
        candidates += found
        problems += unpaired
    return candidates, problems


def _find_pairs(images: Path, masks: Path, kind: Kind | None) -> Found:
    """Pair images and masks by file stem. Only tiles of kind non-landslide may lack a mask."""
    image_of, problems = _by_stem(images)
    mask_of, unread = _by_stem(masks) if masks.is_dir() else ({}, [])
    problems += unread
    candidates = []
    for stem, paths in image_of.items():
        mask = mask_of.get(stem, [None])[0]
        if mask is None and kind != "non-landslide":
            problems.append(f"{paths[0]}: its mask is missing. Expected {masks / stem} with the ending .png or .tif.")
        else:
            candidates += [Candidate(tile_id=stem, image=path, mask=mask, kind=kind) for path in paths]
    for stem, paths in mask_of.items():
        if stem not in image_of:
            problems.append(
                f"{paths[0]}: a mask without an image. Expected {images / stem} with the ending .png, .jpg or .tif."
            )
        problems += [f"{path}: a second mask of the tile {stem}, beside {paths[0].name}." for path in paths[1:]]
    return candidates, problems


LAYOUTS = (
    Layout("a tiles.csv", lambda path: not path.is_dir(), read_candidates),
    Layout("folders landslide/image, landslide/mask and non-landslide/image", _has_kind_folders, _find_bijie),
    Layout(
        "folders images and masks",
        lambda path: (path / "images").is_dir(),
        lambda path: _find_pairs(path / "images", path / "masks", None),
    ),
)
"""Known layouts; the first that matches is read."""


def _contents(folder: Path) -> str:
    names = sorted(entry.name for entry in folder.iterdir())
    return ", ".join(names[:6]) + (", ..." if len(names) > 6 else "") if names else "an empty folder"


def _by_stem(folder: Path) -> tuple[dict[str, list[Path]], list[str]]:
    """Return image files by stem, sorted by name, and messages about image types that are not read."""
    found: defaultdict[str, list[Path]] = defaultdict(list)
    problems = []
    for path in sorted(folder.iterdir()):
        suffix = path.suffix.lower()
        if path.name.startswith("."):
            continue
        if suffix in _READ:
            found[path.stem].append(path)
        elif path.is_dir() and any(file.suffix.lower() in _READ for file in path.iterdir()):
            problems.append(f"{path}: a folder of images, which are not read. Move them to {folder}, or elsewhere.")
        elif _NOT_READ.fullmatch(suffix):
            problems.append(f"{path}: files of {suffix} are not read. Convert it to PNG or TIFF.")
    return dict(found), problems


@dataclass(frozen=True, slots=True)
class _Checked:
    tile: Tile
    bands: int
    dtype: str


def _check_all(
    candidates: Sequence[Candidate], progress: ProgressCallback | None, decode: bool
) -> Iterator[_Checked | str]:
    """Yield a tile or a message for each candidate; files are decoded in threads."""
    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
    try:
        checked = pool.map(_check, candidates, repeat(decode))
        yield from track(checked, "checking tiles", len(candidates), progress, "tiles")
    finally:
        pool.shutdown(cancel_futures=True)


def _check(candidate: Candidate, decode: bool) -> _Checked | str:
    try:
        landslide_px, valid_px = candidate.landslide_px, candidate.valid_px
        if decode or landslide_px is None or valid_px is None:
            _, labels = read_pair(candidate.image, candidate.mask, candidate.ignore)
            landslide_px, valid_px = int(np.sum(labels == LANDSLIDE)), int(np.sum(labels != IGNORED))
        info = read_info(candidate.image)
        return _Checked(_tile(candidate, info, landslide_px, valid_px), info.bands, info.dtype)
    except DataError as error:
        return str(error)
    except OSError as error:
        return f"{error.filename or candidate.image}: cannot be read ({error.strerror or error})."
    except MemoryError as error:
        return f"{candidate.image}: image or mask do not fit in memory ({error or 'no room'}). Cut them into tiles."


def _tile(candidate: Candidate, info: RasterInfo, landslide_px: int, valid_px: int) -> Tile:
    found: dict[str, Any] = {
        "width": info.width,
        "height": info.height,
        "landslide_px": landslide_px,
        "valid_px": valid_px,
    }
    for name, value in found.items():
        stated = getattr(candidate, name)
        if stated is not None and stated != value:
            raise DataError(
                f"{candidate.image}: the manifest says {name} {stated}, but the files have {value}. They changed after "
                f"it was written, or it counts pixels without data. Correct or remove the column `{name}`."
            )
    x, y = candidate.x, candidate.y
    if x is None and y is None:
        x, y = info.place(info.width / 2, info.height / 2) or (None, None)
    found |= {"x": x, "y": y, "kind": _kind(candidate, landslide_px), "crs": candidate.crs or info.crs}
    found["gsd_m"] = info.gsd_m if candidate.gsd_m is None else candidate.gsd_m
    return Tile(**(candidate.model_dump(exclude={"fold"}) | found))


def _kind(candidate: Candidate, landslide_px: int) -> Kind:
    if candidate.kind is None:
        return "landslide" if landslide_px else "non-landslide"
    if candidate.kind == "non-landslide" and landslide_px:
        raise DataError(f"{candidate.mask}: the mask of a non-landslide tile holds {landslide_px} landslide pixels.")
    if candidate.kind == "landslide" and candidate.mask is None:
        raise DataError(f"{candidate.image}: its mask is missing: a tile of kind landslide needs one.")
    return candidate.kind


def is_usable_id(tile_id: str) -> bool:
    """Return whether a text can be the id of a tile, see `ID_RULE`; text that is not UTF-8 cannot."""
    try:
        return _USABLE_ID.fullmatch(tile_id) is not None and len(tile_id.encode()) <= _ID_BYTES
    except UnicodeEncodeError:
        return False


def _id_problems(candidates: Sequence[Candidate]) -> list[str]:
    images: defaultdict[str, list[Path]] = defaultdict(list)
    for candidate in candidates:
        images[candidate.tile_id].append(candidate.image)
    problems = []
    for tile_id, (first, *others) in images.items():
        if not is_usable_id(tile_id):
            problems.append(f"{first}: the tile id {tile_id[:_ID_BYTES]!r} cannot be used. {ID_RULE}")
        problems += [f"{path}: a second tile of the id {tile_id!r}, beside {first}." for path in others]
    return problems


def _mixed_types(checked: Sequence[_Checked]) -> list[str]:
    """Report tiles whose bands or data type differ from those of most tiles."""
    counts = Counter((result.bands, result.dtype) for result in checked)
    if len(counts) < 2:
        return []
    (bands, dtype), most = counts.most_common(1)[0]
    return [
        f"{result.tile.image}: {result.bands} band(s) of {result.dtype}, "
        f"but {most} of the {len(checked)} tiles have {bands} of {dtype}."
        for result in checked
        if (result.bands, result.dtype) != (bands, dtype)
    ]
