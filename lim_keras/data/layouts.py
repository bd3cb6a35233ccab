"""Folder layouts of tiles, and checks of the tiles found."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import numpy as np

from lim_keras.data.manifest import Candidate, raise_problems
from lim_keras.data.tile import IGNORED, LANDSLIDE, Kind, Tile, read_pair
from lim_keras.errors import DataError
from lim_keras.progress import ProgressCallback, track
from lim_keras.raster.georeference import RasterInfo
from lim_keras.raster.images import read_info

_READ = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff"})

_NOT_READ = frozenset({".bmp", ".gif", ".webp", ".jp2", ".npy", ".npz", ".h5", ".img"})

Found = tuple[list[Candidate], list[str]]


def find_tiles(folder: Path) -> Found:
    """Tiles of a folder in one of the two layouts, and what is wrong with their pairing, as messages.

    Raises:
        DataError: the folder has neither layout.
    """
    if (folder / "landslide").is_dir() or (folder / "non-landslide").is_dir():
        return _bijie(folder)
    if (folder / "images").is_dir():
        return _pairs(folder / "images", folder / "masks", None)
    raise DataError(
        f"{folder}: expected a tiles.csv, or folders landslide/image, landslide/mask and non-landslide/image, "
        f"or folders images and masks. Found {_contents(folder)}."
    )


def _contents(folder: Path) -> str:
    names = sorted(entry.name for entry in folder.iterdir())
    return ", ".join(names[:6]) + (", ..." if len(names) > 6 else "") if names else "an empty folder"


def _bijie(folder: Path) -> Found:
    candidates, problems = [], []
    kinds: tuple[Kind, Kind] = ("landslide", "non-landslide")
    for kind in kinds:
        room = folder / kind
        if not room.is_dir():
            continue
        if not (room / "image").is_dir():
            problems.append(f"{room}: expected a folder `image` in it. Found {_contents(room)}.")
            continue
        found, wrong = _pairs(room / "image", room / "mask", kind)
        candidates += found
        problems += wrong
    return candidates, problems


def _pairs(images: Path, masks: Path, kind: Kind | None) -> Found:
    """Pair by stem. Tiles of kind non-landslide may go without a mask; all others may not."""
    image_of, problems = _by_stem(images)
    mask_of, wrong = _by_stem(masks) if masks.is_dir() else ({}, [])
    problems += wrong
    candidates = []
    for stem, paths in image_of.items():
        mask = mask_of.get(stem, [None])[0]
        if mask is None and kind != "non-landslide":
            problems.append(f"{paths[0]}: its mask is missing. Expected {masks / stem} with the ending .png or .tif.")
        else:
            candidates += [Candidate(stem, path, mask, kind) for path in paths]
    for stem, paths in mask_of.items():
        if stem not in image_of:
            problems.append(
                f"{paths[0]}: a mask without an image. Expected {images / stem} with the ending .png, .jpg or .tif."
            )
        problems += [f"{path}: a second mask of the tile {stem}, beside {paths[0].name}." for path in paths[1:]]
    return candidates, problems


def _by_stem(folder: Path) -> tuple[dict[str, list[Path]], list[str]]:
    """Image files by stem, sorted by name; hidden files (macOS leaves some) and all that is no image are skipped."""
    found: defaultdict[str, list[Path]] = defaultdict(list)
    problems = []
    for path in sorted(folder.iterdir()):
        ending = path.suffix.lower()
        if path.name.startswith(".") or not (ending in _READ or ending in _NOT_READ):
            continue
        if ending in _NOT_READ:
            problems.append(f"{path}: files of {ending} are not read. Convert it to PNG or TIFF.")
        else:
            found[path.stem].append(path)
    return dict(found), problems


_USABLE_ID = re.compile(r"[^\s#./\\]([^\n\r/\\]*[^\s/\\])?")


@dataclass(frozen=True, slots=True)
class Checked:
    """The tiles that passed, and what they share."""

    tiles: tuple[Tile, ...]
    bands: int
    dtype: str


def check_tiles(
    where: Path,
    candidates: Sequence[Candidate],
    problems: Sequence[str],
    progress: ProgressCallback | None = None,
    decode: bool = True,
) -> Checked:
    """Decode every image and mask, in threads, and make tiles of the candidates.

    Args:
        where: what the error names first.
        candidates: tiles as claimed.
        problems: what is known to be wrong already.
        progress: receives the number of checked tiles.
        decode: False decodes only where a candidate does not claim its pixel counts.

    Raises:
        DataError: all problems of all tiles: the first 20 and a count of the rest; or there are no tiles.
    """
    if not candidates and not problems:
        raise DataError(f"{where}: no tiles were found. Expected images of .png, .jpg or .tif.")
    results = list(_check_all(candidates, progress, decode))
    passed = [result for result in results if isinstance(result, _Passed)]
    failed = [result for result in results if isinstance(result, str)]
    raise_problems(where, [*problems, *_id_problems(candidates), *failed, *_odd_ones(passed)])
    return Checked(tuple(result.tile for result in passed), passed[0].bands, passed[0].dtype)


@dataclass(frozen=True, slots=True)
class _Passed:
    tile: Tile
    bands: int
    dtype: str


def _check_all(
    candidates: Sequence[Candidate], progress: ProgressCallback | None, decode: bool
) -> Iterator[_Passed | str]:
    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
    try:
        checked = pool.map(_check, candidates, repeat(decode))
        yield from track(checked, "checking tiles", len(candidates), progress, "tiles")
    finally:
        pool.shutdown(cancel_futures=True)


def _check(candidate: Candidate, decode: bool) -> _Passed | str:
    try:
        landslide_px, valid_px = candidate.landslide_px, candidate.valid_px
        if decode or landslide_px is None or valid_px is None:
            _, labels = read_pair(candidate.image, candidate.mask, candidate.ignore)
            landslide_px, valid_px = int(np.sum(labels == LANDSLIDE)), int(np.sum(labels != IGNORED))
        info = read_info(candidate.image)
        tile = _tile(candidate, info, landslide_px, valid_px)
    except DataError as error:
        return str(error)
    except OSError as error:
        return f"{error.filename or candidate.image}: cannot be read ({error.strerror or error})."
    return _Passed(tile, info.bands, info.dtype)


def _tile(claim: Candidate, info: RasterInfo, landslide_px: int, valid_px: int) -> Tile:
    found = {"width": info.width, "height": info.height, "landslide_px": landslide_px, "valid_px": valid_px}
    for name, value in found.items():
        claimed = getattr(claim, name)
        if claimed is not None and claimed != value:
            raise DataError(
                f"{claim.image}: the manifest says {name} {claimed}, its files hold {value}. "
                f"They changed since it was written: correct or remove the column `{name}`."
            )
    x, y = _centre(claim, info)
    return Tile(
        tile_id=claim.tile_id,
        image=claim.image,
        mask=claim.mask,
        kind=_kind(claim, landslide_px),
        group=claim.group,
        scene=claim.scene,
        x=x,
        y=y,
        gsd_m=info.gsd_m if claim.gsd_m is None else claim.gsd_m,
        crs=claim.crs or info.crs,
        ignore=claim.ignore,
        **found,
    )


def _centre(claim: Candidate, info: RasterInfo) -> tuple[float | None, float | None]:
    centre = info.place(info.width / 2, info.height / 2)
    if claim.x is not None or claim.y is not None or centre is None:
        return claim.x, claim.y
    return centre


def _kind(claim: Candidate, landslide_px: int) -> Kind:
    if claim.kind is None:
        return "landslide" if landslide_px else "non-landslide"
    if claim.kind == "non-landslide" and landslide_px:
        raise DataError(f"{claim.mask}: the mask of a non-landslide tile holds {landslide_px} landslide pixels.")
    if claim.kind == "landslide" and claim.mask is None:
        raise DataError(f"{claim.image}: its mask is missing: a tile of kind landslide needs one.")
    return claim.kind


def _id_problems(candidates: Sequence[Candidate]) -> list[str]:
    images: defaultdict[str, list[Path]] = defaultdict(list)
    for candidate in candidates:
        images[candidate.tile_id].append(candidate.image)
    problems = []
    for tile_id, (first, *others) in images.items():
        if not _USABLE_ID.fullmatch(tile_id):
            problems.append(
                f"{first}: the tile id {tile_id!r} cannot be used. Ids name files and lines of lists: they must not be "
                "empty, start with `#`, a dot or a blank, end with a blank, or hold a slash, backslash or line break."
            )
        problems += [f"{path}: a second tile of the id {tile_id!r}, beside {first}." for path in others]
    return problems


def _odd_ones(passed: Sequence[_Passed]) -> list[str]:
    """Tiles whose bands or dtype are not those of the most tiles."""
    counts = Counter((result.bands, result.dtype) for result in passed)
    if len(counts) < 2:
        return []
    (bands, dtype), most = counts.most_common(1)[0]
    return [
        f"{result.tile.image}: {result.bands} band(s) of {result.dtype}, "
        f"but {most} of the {len(passed)} tiles have {bands} of {dtype}."
        for result in passed
        if (result.bands, result.dtype) != (bands, dtype)
    ]
