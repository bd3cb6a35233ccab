"""Overlaps of georeferenced tiles, from where their files say that they lie."""

from collections.abc import Sequence

from pyproj import Transformer
from shapely import Polygon, STRtree
from shapely.ops import transform as project

from lim_keras.data.raster import RasterInfo, read_info
from lim_keras.data.tiles import Tile

# Neighbours that share an edge overlap by rounding only.
_MIN_SHARE = 1e-3


def read_footprints(tiles: Sequence[Tile]) -> dict[str, Polygon]:
    """Tile id to its outline on the ground, for the tiles whose files say where they lie.

    Outlines are in the tiles' CRS where they have one in common, in longitude and latitude where they have several.

    Raises:
        DataError: a file cannot be read.
    """
    infos = {tile.tile_id: read_info(tile.image) for tile in tiles if tile.crs}
    placed = {tile_id: info for tile_id, info in infos.items() if info.transform is not None}
    outlines = {tile_id: _outline(info) for tile_id, info in placed.items()}
    systems = {info.crs for info in placed.values()}
    if len(systems) < 2:
        return outlines
    to_degrees = {crs: Transformer.from_crs(crs, "EPSG:4326", always_xy=True).transform for crs in sorted(systems)}
    return {tile_id: project(to_degrees[placed[tile_id].crs], outline) for tile_id, outline in outlines.items()}


def overlapping_footprints(footprints: dict[str, Polygon]) -> list[tuple[str, str, float]]:
    """Every two tiles whose outlines overlap, with the common area over the smaller tile's area; in the given order."""
    ids, outlines = list(footprints), list(footprints.values())
    found: list[tuple[str, str, float]] = []
    if not outlines:
        return found
    for i, j in sorted(STRtree(outlines).query(outlines, predicate="intersects").T.tolist()):
        if i < j:
            share = outlines[i].intersection(outlines[j]).area / min(outlines[i].area, outlines[j].area)
            if share > _MIN_SHARE:
                found.append((ids[i], ids[j], float(share)))
    return found


def _outline(info: RasterInfo) -> Polygon:
    corners = ((0, 0), (info.width, 0), (info.width, info.height), (0, info.height))
    return Polygon([info.place(*corner) for corner in corners])
