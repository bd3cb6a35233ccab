"""Prediction of a scene: how it is carried out, and its result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from lim_keras.errors import DataError
from lim_keras.object_storage import Address, read_object
from lim_keras.pyogrio_import import load_pyogrio

if TYPE_CHECKING:
    import geopandas

    from lim_keras.inventory.scene_files import ReadPreview
    from lim_keras.inventory.scene_workers import SceneWorkers
    from lim_keras.progress import ProgressCallback


@dataclass(frozen=True, kw_only=True)
class Execution:
    """Execution of predictions. Its settings do not change maps and inventory.

    Attributes:
        read_preview: reads the picture of a preview; None: there are no previews.
        workers: machines that predict the maps; None: this process does.
        say: receives a line of text for every scene of several that is done or failed.
        progress: receives the number of predicted pixels of each scene.
    """

    read_preview: ReadPreview | None = None
    workers: SceneWorkers | None = None
    say: Callable[[str], object] = str
    progress: ProgressCallback | None = None

    @property
    def has_preview(self) -> bool:
        """True if previews are drawn."""
        return self.read_preview is not None


DEFAULT_EXECUTION = Execution()
"""Execution in this process, without previews and messages."""


@dataclass(frozen=True)
class ScenePrediction:
    """Result of `lim_keras.inventory.predict_scene.predict_scene`.

    Attributes:
        scene: the raster; a string where it is a URL or a GDAL name.
        files: what was written on this machine; the files of the parts for a call with `part`.
        summary: content of `<scene>_summary.json`. Of a call with `part`: its `part`, the number of its `strips` (rows
            of windows), and how many files it `made`.
        was_there: an earlier call with the same options wrote the files.
        addresses: what was uploaded to object storage.
    """

    scene: Path | str
    files: tuple[Path, ...]
    summary: dict[str, Any]
    was_there: bool = False
    addresses: tuple[str, ...] = ()

    @cached_property
    def inventory(self) -> geopandas.GeoDataFrame:
        """Landslides, one row each, read from the GeoPackage on first access.

        Raises:
            DataError: a call with `part` made no inventory.
        """
        import geopandas

        load_pyogrio()
        names = self.addresses or tuple(map(str, self.files))
        file = next((name for name in names if name.endswith(".gpkg")), None)
        if file is None:
            raise DataError(f"{self.scene}: has no inventory yet. Make all parts, then call with `merge`.")
        address = Address.find(file) if self.addresses else None
        if address is None:
            return geopandas.read_file(file)
        with TemporaryDirectory() as folder:  # GDAL warns of GeoPackages in memory that have no name
            copy = Path(folder, "inventory.gpkg")
            copy.write_bytes(read_object(address))
            return geopandas.read_file(copy)
