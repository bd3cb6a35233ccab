"""The folder layouts that are read without a manifest: Bijie's, and images/ with masks/."""

from collections import defaultdict
from pathlib import Path

from lim_keras.data.candidates import Candidate
from lim_keras.data.tile import Kind
from lim_keras.errors import DataError

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
