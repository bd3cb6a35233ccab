"""Overlaps of georeferenced tiles, from where their files say that they lie."""

from collections.abc import Sequence
from typing import Any

from pyproj import Transformer
from shapely import Polygon, STRtree

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
    systems = {tile_id: info.crs for tile_id, info in infos.items() if info.transform is not None}
    corners = {tile_id: _corners(infos[tile_id]) for tile_id in systems}
    if len(set(systems.values())) < 2:
        return {tile_id: Polygon(points) for tile_id, points in corners.items()}
    to_degrees = {crs: Transformer.from_crs(crs, "EPSG:4326", always_xy=True) for crs in set(systems.values())}
    return {tile_id: Polygon(to_degrees[systems[tile_id]].itransform(points)) for tile_id, points in corners.items()}


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


def _corners(info: RasterInfo) -> list[tuple[float, float]]:
    place: Any = info.transform
    # Written out, because affine 2 has no `@` and affine 3 warns of `*`.
    return [
        (place.a * x + place.b * y + place.c, place.d * x + place.e * y + place.f)
        for x, y in ((0, 0), (info.width, 0), (info.width, info.height), (0, info.height))
    ]
