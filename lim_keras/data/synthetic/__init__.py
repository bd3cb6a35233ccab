"""A small made-up world, seeded and deterministic, for demo and tests: mountains, land use, landslides, tiles."""

from lim_keras.data.synthetic.tiles import cut_tiles
from lim_keras.data.synthetic.world import World, WorldFiles, make_world, write_world

__all__ = ["World", "WorldFiles", "cut_tiles", "make_world", "write_world"]
