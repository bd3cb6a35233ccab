"""From a landslide mask to an inventory that a GIS opens: polygons with attributes, terrain and a style."""

from lim_keras.inventory.checks import check_inventory
from lim_keras.inventory.landslides import Inventory, InventoryOptions, polygonise
from lim_keras.inventory.write import write_inventory

__all__ = ["Inventory", "InventoryOptions", "check_inventory", "polygonise", "write_inventory"]
