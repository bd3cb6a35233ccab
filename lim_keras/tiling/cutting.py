"""Cut planned tiles from their scenes, in threads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lim_keras.data.tiles import IGNORED, LANDSLIDE, Tile, TileSet
from lim_keras.ownership import file_hash
from lim_keras.progress import ProgressCallback, track
from lim_keras.raster.georeference import shifted
from lim_keras.raster.writer import write_raster
from lim_keras.tiling.folder import IMAGES, MASKS, CutTile, TilingFolder
from lim_keras.tiling.plan import PlannedTile
from lim_keras.tiling.scenes import TilingScene

_NOTED = 16  # tiles that are added to the journal at once


def cut_tiles(
    tiles: Sequence[PlannedTile],
    scenes: Sequence[TilingScene],
    folder: TilingFolder,
    *,
    jobs: int,
    progress: ProgressCallback | None = None,
) -> dict[str, CutTile]:
    """Write image and mask of every tile into the working folder; keep the tiles that a killed call has cut.

    Args:
        tiles: planned tiles.
        scenes: open scenes of the plan.
        folder: output folder.
        jobs: number of threads.
        progress: receives the number of tiles.

    Returns:
        The tiles by their names, in the order of `tiles`.

    Raises:
        DataError: a scene cannot be read, or a file cannot be written.
    """
    begun = folder.begin()
    done = {tile.tile_id: cut for tile in tiles if (cut := begun.get(tile.tile_id)) and folder.has(cut)}
    left = [tile for tile in tiles if tile.tile_id not in done]
    pool = ThreadPoolExecutor(jobs)
    noted: list[CutTile] = []
    try:
        results = pool.map(lambda tile: _cut(tile, scenes[tile.scene], folder.work), left)
        for one in track(results, "cutting tiles", len(left), progress, "tiles"):
            noted.append(one)
            done[one.tile_id] = one
            if len(noted) == _NOTED:
                folder.note(noted)
                noted = []
    finally:
        pool.shutdown(cancel_futures=True)
        if done:
            folder.note(noted)
        else:
            folder.abandon()
    return {tile.tile_id: done[tile.tile_id] for tile in tiles}


def _cut(tile: PlannedTile, scene: TilingScene, work: Path) -> CutTile:
    pixels, valid = scene.image(tile.box)
    mask = scene.mask(tile.box, valid)
    info, name = scene.info, f"{tile.tile_id}.tif"
    transform = None if info.transform is None else shifted(info.transform, tile.box.left, tile.box.top)
    marks = None if valid.all() else valid
    image = write_raster(work / IMAGES / name, pixels, crs=info.crs, transform=transform, valid=marks)
    labels = write_raster(work / MASKS / name, mask, crs=info.crs, transform=transform, nodata=IGNORED)
    counts = int((mask == LANDSLIDE).sum()), int((mask != IGNORED).sum())
    return CutTile(tile.tile_id, file_hash(image), file_hash(labels), *counts)


def tile_set(
    tiles: Sequence[PlannedTile], cut: Mapping[str, CutTile], scenes: Sequence[TilingScene], folder: Path
) -> TileSet:
    """Describe cut tiles as a tile set of the output folder."""
    first = scenes[0]
    dtype = first.info.dtype if first.scale is None else "uint8"
    return TileSet(folder, tuple(_tiles(tiles, cut, scenes, folder)), first.info.bands, dtype)


def _tiles(
    tiles: Sequence[PlannedTile], cut: Mapping[str, CutTile], scenes: Sequence[TilingScene], folder: Path
) -> Iterator[Tile]:
    for tile in tiles:
        scene, box, name = scenes[tile.scene], tile.box, f"{tile.tile_id}.tif"
        centre = (box.left + box.right) / 2, (box.top + box.bottom) / 2
        x, y = scene.info.place(*centre) or centre
        yield Tile(
            tile_id=tile.tile_id,
            image=folder / IMAGES / name,
            mask=folder / MASKS / name,
            kind=tile.kind,
            group=tile.group,
            scene=scene.name,
            x=x,
            y=y,
            width=box.width,
            height=box.height,
            gsd_m=scene.info.gsd_m,
            crs=scene.info.crs,
            landslide_px=cut[tile.tile_id].landslide_px,
            valid_px=cut[tile.tile_id].valid_px,
            ignore="255",
        )
