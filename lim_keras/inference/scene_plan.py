"""Plan of a scene's prediction that processes and machines share: inputs, windows, strips and shares of the work."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields
from fractions import Fraction
from functools import cached_property
from itertools import islice
from pathlib import Path, PurePath
from typing import Any, Self

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from lim_keras.bundle.info import HALO_TOLERANCE, BundleInfo
from lim_keras.bundle.protocol import DescribedModel
from lim_keras.bundle.window_size import window_grid
from lim_keras.errors import ConfigError, DataError
from lim_keras.files import write_text
from lim_keras.inference.predict_maps import (
    MapOptions,
    ValidRegion,
    cell_strips,
    find_valid_regions,
    join_cells,
    valid_cells,
)
from lim_keras.inference.window_plan import WindowGrid, plan_size
from lim_keras.raster.georeference import Grid
from lim_keras.raster.opening import gdal_settings
from lim_keras.raster.reader import RasterReader
from lim_keras.raster.windows import Box, Window

PLAN, PARTS = "plan.json", "parts"
"""Names in a working folder: the plan, and the folder of its parts."""

_FORMAT = 1

# Hashes of unfinished maps on users' disks hold this former name.
_NAMES = {"tta": "symmetries"}


def map_facts(scene: RasterReader, info: BundleInfo, runtime: str, options: MapOptions) -> dict[str, Any]:
    """Return all inputs of a scene's maps as JSON values."""
    names = [field.name for field in fields(MapOptions) if field.name != "memory"]  # it does not change the results
    chosen = {_NAMES.get(name, name): _as_text(getattr(options, name)) for name in names}
    source = [PurePath(scene.name).name, *scene.fingerprint]
    facts = {"scene": source, "bundle": info.digest(), "runtime": runtime, "options": chosen, "dem": None}
    content: dict[str, Any] = json.loads(json.dumps(facts, default=str))
    return content


def hash_of(facts: Mapping[str, Any]) -> str:
    """Return the SHA-256 of JSON values."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def _as_text(value: Any) -> Any:
    """Return a value that JSON has."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


@dataclass(frozen=True)
class Share:
    """Share of the work of a call, from `start` to `stop`; the whole work is 0..1."""

    start: Fraction = Fraction(0)
    stop: Fraction = Fraction(1)

    @classmethod
    def of(cls, part: int, parts: int) -> Self:
        """Take one of equal parts, counted from 1."""
        return cls(Fraction(part - 1, parts), Fraction(part, parts))

    def within(self, start: Fraction, stop: Fraction) -> Share | None:
        """Return the share of a scene that is `start`..`stop` of the work; None if it has none."""
        if start == stop:
            return Share() if self.start <= start < self.stop or start == self.stop == 1 else None
        first, last = ((edge - start) / (stop - start) for edge in (self.start, self.stop))
        return None if last <= 0 or first >= 1 else Share(max(first, Fraction(0)), min(last, Fraction(1)))

    def strips(self, pixels: NDArray[np.int64]) -> tuple[int, int]:
        """Return the first strip, and the strip after the last, whose middles lie in this share; `pixels` of each."""
        doubled = 2 * np.cumsum(pixels) - pixels
        total = 2 * int(pixels.sum())
        first, last = (int(np.searchsorted(doubled, math.ceil(edge * total))) for edge in (self.start, self.stop))
        return first, last


@dataclass(frozen=True)
class ScenePart:
    """One of `count` parts of a call's work, `number` 1..count; `share`: its share of one scene."""

    number: int
    count: int
    share: Share

    @classmethod
    def parse(cls, text: str) -> Self:
        """Convert "3/20"; raise ConfigError for any other text."""
        match = re.fullmatch(r"\s*([0-9]{1,9})\s*/\s*([0-9]{1,9})\s*", text)
        number, count = (int(match[1]), int(match[2])) if match else (0, 0)
        if not 1 <= number <= count:
            raise ConfigError(
                f"Invalid value for `part`. Expected K/N, part K of N parts, counted from 1, such as 3/20. Received: "
                f"{text!r}."
            )
        return cls(number, count, Share.of(number, count))

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


@dataclass(frozen=True)
class Strip:
    """Row of windows of a valid region, which has the box `region`."""

    region: Box
    windows: tuple[Window, ...]

    @property
    def pixels(self) -> int:
        """Number of pixels that are kept."""
        return sum(window.core.height * window.core.width for window in self.windows)


@dataclass(frozen=True)
class PlanGrid:
    """Grid on which a scene is read; `warped`: it is not the scene's own."""

    height: int
    width: int
    crs: str
    transform: Affine | None
    gsd_m: float | None
    warped: bool

    @classmethod
    def of(cls, scene: RasterReader, *, warped: bool) -> Self:
        """Take the grid of a reader."""
        info = scene.info
        return cls(info.height, info.width, info.crs, info.transform, info.gsd_m, warped)

    @property
    def reading(self) -> Grid | None:
        """Grid to warp the scene to; None if it is read on its own."""
        if not self.warped or self.transform is None:
            return None
        return Grid(self.crs, self.transform, self.width, self.height, self.gsd_m)


@dataclass(frozen=True)
class ScenePlan:
    """Plan of a scene's maps. Strips are numbered from 0, in the order in which windows are written.

    Attributes:
        identity: SHA-256 of `facts`.
        facts: inputs of the maps, see `map_facts`.
        tile: rows and columns of a window.
        halo: pixels read beyond each core.
        cell: step of the grid on which windows start, pixels.
        spread: the maps have the band spread.
    """

    identity: str
    facts: Mapping[str, Any]
    grid: PlanGrid
    tile: tuple[int, int]
    halo: int
    cell: int
    regions: tuple[ValidRegion, ...]
    spread: bool

    @cached_property
    def pixels(self) -> NDArray[np.int64]:
        """Number of pixels of each strip."""
        return np.array([strip.pixels for strip in self._all()], np.int64)

    @cached_property
    def layout(self) -> dict[str, Any]:
        """Layout of the windows for a summary, see `lim_keras.inference.predict_maps.predict_maps`."""
        count = sum(len(strip.windows) for strip in self._all())
        sizes = {"count": count, "tile": list(self.tile), "halo": self.halo, "pixels": int(self.pixels.sum())}
        return sizes | {"islands": len(self.regions)}

    def strips(self, first: int, last: int) -> list[Strip]:
        """Return the strips `first`..`last` - 1."""
        return list(islice(self._all(), first, last))

    def _all(self) -> Iterator[Strip]:
        for region in self.regions:
            for row in region.rows(self.tile, self.halo):
                yield Strip(region.box, tuple(row))

    def write(self, work: Path) -> None:
        """Write the plan into a working folder."""
        regions = [[*asdict(one.box).values(), _packed(one.cells)] for one in self.regions]
        transform = None if self.grid.transform is None else list(self.grid.transform)[:6]
        content = {"format": _FORMAT, "identity": self.identity, "facts": self.facts, "tile": self.tile}
        content |= {"halo": self.halo, "cell": self.cell, "spread": self.spread, "regions": regions}
        content["grid"] = asdict(self.grid) | {"transform": transform}
        write_text(work / PLAN, json.dumps(content))

    @classmethod
    def read(cls, work: Path) -> Self | None:
        """Read the plan of a working folder; None if there is none.

        Raises:
            DataError: the file is damaged, or of another version.
        """
        path = work / PLAN
        try:
            values: Any = json.loads(path.read_text(encoding="utf-8"))
            if values.pop("format") != _FORMAT:
                raise ValueError("written by another version of lim-keras")
            grid, cell, spread = values["grid"], values["cell"], values["spread"]
            place = None if grid["transform"] is None else Affine(*grid["transform"])
            regions = tuple(_region(one, cell) for one in values["regions"])
            rows, columns = values["tile"]
            shape = PlanGrid(**grid | {"transform": place})
            return cls(
                values["identity"], values["facts"], shape, (rows, columns), values["halo"], cell, regions, spread
            )
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, zlib.error) as error:
            reason = getattr(error, "strerror", None) or error
            raise DataError(
                f"{path}: not a plan of a prediction in parts ({reason}). Delete the folder {work} to start anew."
            ) from error


def _packed(cells: NDArray[np.bool_]) -> str:
    return base64.b64encode(zlib.compress(np.packbits(cells).tobytes())).decode()


def _region(values: Any, cell: int) -> ValidRegion:
    box = Box(*values[:4])
    shape = -(-box.height // cell), -(-box.width // cell)
    bits = np.frombuffer(zlib.decompress(base64.b64decode(values[4])), np.uint8)
    cells = np.unpackbits(bits, count=shape[0] * shape[1]).reshape(shape).astype(np.bool_)
    return ValidRegion(box, cells, cell)


@dataclass(frozen=True)
class CellJob:
    """Job that reads which cells of a strip of a scene hold data, in any process.

    Attributes:
        scene: path or URL.
        grid: grid on which the scene is read; None: its own.
        cell: side of a cell, pixels.
        rows: first row of pixels of the strip, and the row after its last.
    """

    scene: str
    options: MapOptions
    grid: Grid | None
    cell: int
    rows: tuple[int, int]


def read_cells(job: CellJob) -> NDArray[np.bool_]:
    """Read a strip of cells (rows, columns), True where one of their pixels holds data."""
    bands, nodata, gsd_m = job.options.bands, job.options.nodata, job.options.gsd_m
    with (
        gdal_settings(),
        RasterReader(job.scene, bands=bands, nodata=nodata, gsd_m=gsd_m, measured=False) as scene,
        scene.on_grid(job.grid) if job.grid else nullcontext(scene) as reader,
    ):
        return valid_cells(reader, job.rows, job.cell)


def cell_jobs(info: BundleInfo, scene: RasterReader, options: MapOptions, grid: Grid | None) -> list[CellJob]:
    """Return the jobs that find the valid cells of a scene, from top to bottom; none where all pixels hold data.

    Args:
        scene: reader on its own grid, of a file that other processes can open by its name.
        grid: grid on which the scene is read; None: its own.
    """
    if grid is None and scene.everywhere_valid:
        return []
    cell, height = window_grid(info.stride), scene.info.height if grid is None else grid.height
    return [CellJob(scene.source, options, grid, cell, rows) for rows in cell_strips(height, cell)]


def make_plan(
    model: DescribedModel,
    scene: RasterReader,
    options: MapOptions,
    facts: Mapping[str, Any],
    *,
    warped: bool = False,
    cells: Iterable[NDArray[np.bool_]] | None = None,
) -> ScenePlan:
    """Plan the maps of a scene; the size of windows does not depend on the machine.

    Args:
        model: model, loaded or not, whose runtime is known.
        scene: reader on the grid of the maps.
        facts: inputs of the maps, see `map_facts`.
        warped: the grid of `scene` is not that of its file.
        cells: results of `cell_jobs`, from top to bottom; None: the cells are read here.

    Returns:
        The plan; it has no regions if no pixel holds data.

    Raises:
        ConfigError: the model cannot take windows of this size.
    """
    info = model.info
    cell, halo = window_grid(info.stride), info.halo_within(None if options.exact else HALO_TOLERANCE)
    if cells is None:
        regions = find_valid_regions(scene, cell)
    else:
        regions = join_cells(np.concatenate(list(cells)), cell, scene.info.height, scene.info.width)
    boxes = [region.box for region in regions]
    tile = plan_size(model, WindowGrid(boxes, cell, halo), options) if boxes else (cell, cell)
    grid = PlanGrid.of(scene, warped=warped)
    return ScenePlan(hash_of(facts), facts, grid, tile, halo, cell, tuple(regions), options.spread)


def check_same(plan: ScenePlan, facts: Mapping[str, Any], work: Path) -> None:
    """Raise DataError, which names what differs, if a plan was made for other inputs."""
    found = list(_differences(plan.facts, facts))
    if found:
        raise DataError(
            f"{work}: holds parts of this scene with other settings: {'; '.join(found)}. Give the settings of the "
            "parts, or another folder as `out`, or delete that working folder to start anew. Nothing was replaced."
        )


def _differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> Iterator[str]:
    if there["scene"] != here["scene"]:
        yield "the scene's file is another one, or changed since"
    if there["bundle"] != here["bundle"]:
        yield "the bundle is another one, or changed since"
    if there["runtime"] != here["runtime"]:
        yield f"`runtime` {there['runtime']} there, {here['runtime']} here"
    names = {former: name for name, former in _NAMES.items()}
    for name in sorted({*there["options"], *here["options"]}):
        values = [_shown(one["options"].get(name)) for one in (there, here)]
        if values[0] != values[1]:
            yield f"`{names.get(name, name)}` {values[0]} there, {values[1]} here"


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "given" if value else "not given"
    if isinstance(value, list):
        return ",".join(map(str, value))
    return "not given" if value is None else str(value)
