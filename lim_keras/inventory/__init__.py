"""From a landslide mask to an inventory that a GIS opens: polygons with attributes, terrain and a style."""

from lim_keras.inventory.landslides import Inventory, InventoryOptions, polygonise
from lim_keras.inventory.write import write_inventory

__all__ = ["Inventory", "InventoryOptions", "polygonise", "write_inventory"]
