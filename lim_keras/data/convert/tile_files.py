"""Files of converted tiles: images, masks, manifest, and lists of the ids of val and test."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from lim_keras.data.convert.names import original
from lim_keras.data.convert.record import Tally
from lim_keras.data.convert.sample import ImageHeader, Labels, LeftOut, Sample
from lim_keras.data.groups import name_groups
from lim_keras.data.layouts import read_tiles
from lim_keras.data.manifest import Candidate, manifest_text
from lim_keras.data.tiles import IGNORED, LANDSLIDE, Tile, TileSet, read_pair
from lim_keras.errors import DataError
from lim_keras.ownership import file_hash
from lim_keras.raster.writer import write_raster

MANIFEST = "tiles.csv"
_LISTED_SPLITS = ("val", "test")
_DAMAGED = "image that cannot be read"


@dataclass(frozen=True, slots=True)
class Written:
    """Tile to write: its id, the sample, and the header of the image."""

    tile_id: str
    sample: Sample
    header: ImageHeader


@dataclass(frozen=True)
class TileFolder:
    """Folder of tiles: SHA-256 of its files by name, counts by source, images left out, and number of duplicates."""

    hashes: Mapping[str, str]
    tallies: Mapping[str, Tally]
    left_out: Sequence[LeftOut]
    duplicates: int


@dataclass(frozen=True, slots=True)
class _Tile:
    job: Written
    candidate: Candidate
    hashes: Mapping[str, str]
    tally: Tally

    @property
    def image_hash(self) -> str:
        return next(iter(self.hashes.values()))


Work = Callable[[Written], "_Tile | LeftOut"]


def write_folder(folder: Path, jobs: Sequence[Written], run: Callable[[Work], Iterable[_Tile | LeftOut]]) -> TileFolder:
    """Write images, masks, the manifest and lists of ids into an empty folder.

    Args:
        jobs: tiles to write.
        run: calls a function for each job, such as in threads.

    Raises:
        DataError: no image can be read, or a file cannot be written.
    """
    for name in ("images", "masks"):
        (folder / name).mkdir()
    results = list(run(lambda job: _write_tile(folder, job)))
    tiles = [one for one in results if isinstance(one, _Tile)]
    left_out = [one for one in results if isinstance(one, LeftOut)]
    if not tiles:
        raise DataError(f"no image can be converted. {left_out[0].detail}.")
    hashes = {name: text for tile in tiles for name, text in tile.hashes.items()}
    hashes |= _write_tables(folder, tiles)
    copies = Counter(tile.image_hash for tile in tiles)
    return TileFolder(
        hashes, {one.job.sample.source: one.tally for one in tiles}, left_out, copies.total() - len(copies)
    )


def _write_tile(folder: Path, job: Written) -> _Tile | LeftOut:
    """Write image and mask of a tile, and read both again."""
    header, sample = job.header, job.sample
    labels = sample.draw(header.height, header.width).labels
    written: list[Path] = []
    try:
        written = sample.image.write(folder / "images", job.tile_id)
    except DataError as error:
        if str(error).startswith(str(folder)):  # the disk is full, for example
            raise
        return _damaged(folder, job, written, error)
    written.append(_write_mask(folder / "masks", job, labels))
    try:
        _, read = read_pair(written[0], written[-1], "255")
    except DataError as error:
        return _damaged(folder, job, written, error)
    landslide, ignored = int(np.sum(read == LANDSLIDE)), int(np.sum(read == IGNORED))
    candidate = Candidate(
        tile_id=job.tile_id,
        image=written[0],
        mask=written[-1],
        scene=sample.split,
        gsd_m=sample.gsd_m,
        landslide_px=landslide,
        valid_px=read.size - ignored,
        ignore="255",
    )
    hashes = {path.relative_to(folder).as_posix(): file_hash(path) for path in written}
    return _Tile(job, candidate, hashes, Tally(1, landslide, ignored, read.size))


def _damaged(folder: Path, job: Written, written: Sequence[Path], error: DataError) -> LeftOut:
    """Delete the files of a tile and tell why it is left out."""
    for path in written:
        path.unlink(missing_ok=True)
    message = str(error)
    for path in written[:1]:
        message = message.replace(str(path), job.sample.source)
    return LeftOut(job.sample.source, _DAMAGED, message.replace(f"{folder}/", "").rstrip("."))


def _write_mask(folder: Path, job: Written, labels: Labels) -> Path:
    """Write labels as GeoTIFF on the grid of a georeferenced image, else as PNG."""
    if job.header.transform is not None:
        path = folder / f"{job.tile_id}.tif"
        return write_raster(path, labels, crs=job.header.crs, transform=job.header.transform)
    path = folder / f"{job.tile_id}.png"
    _, encoded = cv2.imencode(".png", labels)
    path.write_bytes(encoded.tobytes())
    return path


def _write_tables(folder: Path, tiles: Sequence[_Tile]) -> dict[str, str]:
    """Write the manifest and, where there are several splits, lists of ids; return the SHA-256 of each file."""
    groups = _groups(tiles)
    candidates = [tile.candidate.model_copy(update={"group": group}) for tile, group in zip(tiles, groups, strict=True)]
    files = {MANIFEST: _manifest(folder, candidates)}
    splits: defaultdict[str, list[str]] = defaultdict(list)
    for tile in tiles:
        splits[tile.job.sample.split].append(tile.job.tile_id)
    for split in _LISTED_SPLITS:
        if split in splits and len(splits) > 1:
            files[f"{split}.txt"] = "".join(f"{tile_id}\n" for tile_id in splits[split])
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8", newline="")
    return {name: file_hash(folder / name) for name in files}


def _manifest(folder: Path, candidates: Sequence[Candidate]) -> str:
    """Return the text of the manifest; columns that the images tell are read from their headers."""
    rows = [_row(one) for one in candidates]
    (folder / MANIFEST).write_text(manifest_text(TileSet(folder, tuple(rows), 1, ""), folder), encoding="utf-8")
    return manifest_text(read_tiles(folder / MANIFEST, decode=False), folder)


def _row(candidate: Candidate) -> Tile:
    values = candidate.model_dump(exclude={"fold"}) | {
        "kind": "landslide" if candidate.landslide_px else "non-landslide"
    }
    return Tile(**values)


def _groups(tiles: Sequence[_Tile]) -> list[str]:
    """Return the group of each tile: the first id among copies of one image, or "" for images without a copy."""
    first: dict[tuple[str, str], int] = {}
    links = []
    for number, tile in enumerate(tiles):
        for key in (("same file", tile.image_hash), ("copies of", original(tile.job.sample.source))):
            if key[1]:
                links.append((first.setdefault(key, number), number))
    return name_groups([tile.job.tile_id for tile in tiles], links)
