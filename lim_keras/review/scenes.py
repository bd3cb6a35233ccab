"""Scenes of a folder of maps, and their review files."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pyproj import CRS

from lim_keras.errors import DataError, LimKerasWarning
from lim_keras.inventory.result_files import read_summary
from lim_keras.ownership import file_hash
from lim_keras.raster.opening import is_remote
from lim_keras.review.reader import ReviewReader, read_crs
from lim_keras.review.review_file import CLASSES, make_review_file
from lim_keras.review.store import ReviewStore

_INVENTORY, _REVIEW, _SUMMARY, _PROBABILITY = "_inventory.gpkg", "_review.gpkg", "_summary.json", "_probability.tif"


@dataclass(frozen=True)
class MappedScene:
    """Files of a scene in a folder of `lim-keras predict`.

    Attributes:
        folder: the folder.
        name: name of the scene, with which the names of its files begin.
    """

    folder: Path
    name: str

    @property
    def inventory(self) -> Path:
        """GeoPackage that `predict` wrote."""
        return self.folder / f"{self.name}{_INVENTORY}"

    @property
    def review(self) -> Path:
        """Review file, which need not exist."""
        return self.folder / f"{self.name}{_REVIEW}"

    @property
    def probability(self) -> Path | None:
        """Probability map; None if it is not there."""
        path = self.folder / f"{self.name}{_PROBABILITY}"
        return path if path.is_file() else None

    @cached_property
    def summary(self) -> dict[str, Any]:
        """Content of the scene's summary; empty where there is none."""
        return read_summary(self.folder / f"{self.name}{_SUMMARY}")

    @property
    def image(self) -> str | None:
        """Path or address of the scene that was mapped, as the summary records it; None if it is unknown."""
        recorded = self.summary.get("scene")
        return recorded if isinstance(recorded, str) else None

    @property
    def threshold(self) -> float | None:
        """Smallest probability that was called landslide; None if it is unknown."""
        value = self.summary.get("settings", {}).get("threshold")
        return float(value) if isinstance(value, int | float) else None

    def open_review(self, reviewer: str, *, classes: Sequence[str] = CLASSES) -> ReviewStore:
        """Open the review of the scene for a reviewer; make its file first if there is none.

        Args:
            classes: classes of landslides of a new file.

        Raises:
            DataError: the inventory or the review cannot be read, the review is that of another scene or in another
                CRS, or the file cannot be written.

        Warns:
            LimKerasWarning: the inventory changed since the review began.
        """
        if not os.path.lexists(self.review):
            about = {"scene": self.image or "", "gsd_m": _text(self.summary.get("gsd_m"))}
            make_review_file(self.inventory, self.review, classes=classes, about=about)
        store = ReviewStore(self.review, reviewer, probability=self.probability)
        try:
            self._check_inventory(store)
        except BaseException:
            store.close()
            raise
        return store

    def read_review(self) -> ReviewReader:
        """Open the review of the scene to read it only.

        Raises:
            DataError: there is no review, it cannot be read, or it is that of another scene.
        """
        reader = ReviewReader(self.review)
        try:
            self._check_inventory(reader)
        except BaseException:
            reader.close()
            raise
        return reader

    def _check_inventory(self, review: ReviewReader) -> None:
        """Refuse the review of another scene, and warn if the scene was mapped anew."""
        known = review.about.get("inventory_sha256")
        if not self.inventory.is_file() or not known or file_hash(self.inventory) == known:
            return
        name = review.about.get("inventory", self.inventory.name)
        if name != self.inventory.name:
            raise DataError(
                f"{self.review}: expected the review of {self.inventory.name}. It is that of {name}. Move it away or "
                "rename it."
            )
        if (crs := read_crs(self.inventory)) is not None and not _same_crs(crs, review.crs):
            raise DataError(
                f"{self.review}: expected the CRS of {self.inventory.name}. The scene was mapped anew in another CRS "
                "since this review began. Move the review away to begin a new one."
            )
        warnings.warn(
            f"{self.review}: {self.inventory.name} changed since this review began, which keeps the landslides of "
            "that time. To review the new ones, move the review file away.",
            LimKerasWarning,
            stacklevel=3,
        )


def find_scenes(maps: str | os.PathLike[str]) -> list[MappedScene]:
    """Find the scenes of a folder of maps that have an inventory or a review; also one by its file.

    Args:
        maps: folder of `lim-keras predict`, or an inventory (`<scene>_inventory.gpkg`) or review in it.

    Raises:
        DataError: nothing is there, or it is no map.
    """
    if is_remote(maps):
        raise DataError(f"{maps}: expected a folder on this machine. Copy the maps here first.")
    path = Path(maps)
    names = sorted(path.iterdir()) if path.is_dir() else [path]
    endings = (_INVENTORY, _REVIEW)
    found = {
        (one.parent, one.name.removesuffix(ending))
        for one in names
        for ending in endings
        if one.name.endswith(ending) and one.is_file() and not one.name.startswith(".")
    }
    if not found:
        what = f"a folder of `lim-keras predict` with *{_INVENTORY}" if path.is_dir() else f"a folder, or *{_INVENTORY}"
        what = f"{what}, or *{_REVIEW}"
        there = "It has neither" if path.is_dir() else "It has another name" if path.exists() else "There is nothing"
        raise DataError(f"{path}: expected {what}. {there}.")
    return [MappedScene(folder, name) for folder, name in sorted(found)]


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _same_crs(one: str, other: str) -> bool:
    return bool(one) == bool(other) and (not one or CRS(one) == CRS(other))
