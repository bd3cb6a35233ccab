"""Groups of linked tiles."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components


def connected(links: Iterable[tuple[int, int]], number: int) -> NDArray[np.int64]:
    """Number the sets of items that links connect, directly or in a chain.

    Args:
        links: pairs of positions, 0 to number - 1.
        number: number of items.

    Returns:
        The set of each item (number,).
    """
    ends = np.array(list(links), np.int64).reshape(-1, 2)
    graph = coo_matrix((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(number, number))
    return np.asarray(connected_components(graph, directed=False)[1], np.int64)


def name_groups(tile_ids: Sequence[str], links: Iterable[tuple[int, int]]) -> list[str]:
    """Return the group of each tile: the id of its first tile; "" for a tile without a link to another one.

    Args:
        tile_ids: ids of the tiles.
        links: pairs of positions of tiles that belong together.
    """
    if not tile_ids:
        return []
    sets = connected(links, len(tile_ids)).tolist()
    sizes, names = Counter(sets), dict[int, str]()
    return [
        names.setdefault(one, tile_id) if sizes[one] > 1 else "" for one, tile_id in zip(sets, tile_ids, strict=True)
    ]
