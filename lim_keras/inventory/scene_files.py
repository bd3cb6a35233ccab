"""Write the files of a mapped scene: rasters, inventory, style, preview, STAC item and summary."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from lim_keras.bundle.info import STAC_FILE, BundleInfo
from lim_keras.bundle.protocol import DescribedModel
from lim_keras.files import write_text
from lim_keras.inference.familiarity import FamiliarityMap
from lim_keras.inventory.landslides import InventoryTotals, MaskSource, stream_inventory
from lim_keras.inventory.object_rule import leave_out_regions
from lim_keras.inventory.options import PredictOptions, rule_of
from lim_keras.inventory.outputs import describe_inventory, write_style
from lim_keras.inventory.remote_results import is_staging
from lim_keras.inventory.result_files import ResultFiles
from lim_keras.inventory.vector_files import write_frames
from lim_keras.ownership import file_hash
from lim_keras.raster.georeference import Georeference, RasterInfo
from lim_keras.raster.reader import RasterReader
from lim_keras.raster.writer import Counts, RasterDrafts
from lim_keras.seals import sealed_json


class ScenePicture(Protocol):
    """Picture of a scene without its landslides, such as `lim_keras.report.preview.Preview`."""

    def draw(self, inventory: Path, path: Path) -> object:
        """Draw the picture, with the landslides of a vector file, into `path`."""
        ...


class ReadPreview(Protocol):
    """Function that reads the picture of a scene, such as `lim_keras.report.preview.read_preview`."""

    def __call__(self, scene: RasterReader, *, bands: Sequence[int], gsd_m: float | None) -> ScenePicture:
        """Read one (grey) or three bands of a scene; `gsd_m`: size of a pixel, metres, or None if unknown."""
        ...


@dataclass(frozen=True)
class SceneFiles:
    """Drafts of a scene's files, with pixel counts of the mask and totals of the inventory."""

    counts: Counts
    totals: InventoryTotals
    drafts: tuple[Path, ...]


def write_scene_files(
    maps: Path,
    reader: RasterReader,
    *,
    model: BundleInfo,
    options: PredictOptions,
    files: ResultFiles,
    familiarity: FamiliarityMap | None = None,
    read_preview: ReadPreview | None,
) -> SceneFiles:
    """Write rasters, inventory, style and preview as drafts.

    A thread reads the preview's picture and converts the rasters while the inventory is made.

    Mask and inventory hold the regions that the object rule of the options keeps.

    Args:
        maps: raw maps on the grid of the scene, see `lim_keras.inference.maps.Maps`.
        reader: the scene; only this function uses it meanwhile.
        files: names of the drafts.
        familiarity: gets a raster and a column of the inventory; None: it is not mapped.
        read_preview: reads the picture of the preview; None: there is no preview.

    Raises:
        DataError: a file cannot be read or written.
    """
    probability, landslides = files.draft("probability.tif"), files.draft("landslides.tif")
    rule, kind, spread = rule_of(options, model), options.probability, options.spread
    with ThreadPoolExecutor(1) as pool:
        picture = None if read_preview is None else pool.submit(_picture, reader, read_preview)
        with RasterDrafts(maps, probability, landslides, threshold=rule.threshold, kind=kind, spread=spread) as rasters:
            source = MaskSource(
                mask=rasters.mask,
                maps=maps,
                folds=model.folds,
                gsd_m=reader.info.gsd_m,
                scene=reader.path,
                folder=files.work,
                familiarity=None
                if familiarity is None
                else partial(familiarity.at, ground=Georeference.of(reader.info)),
            )
            left_out = leave_out_regions(rasters, source, rule, fill_holes_m2=options.fill_holes_m2)
            totals = InventoryTotals(dropped_small=left_out.small)
            if options.peak is not None:
                totals.dropped_low = left_out.below_peak
            conversion = pool.submit(rasters.convert)
            inventories = _write_inventories(source, options, files, totals)
            drafts = [*inventories, write_style(files.draft("inventory.qml"))]
            if familiarity is not None:
                drafts.insert(0, familiarity.write(files.draft("familiarity.tif")))
            if picture is not None:
                drafts.append(files.draft("preview.png"))
                picture.result().draw(inventories[0], drafts[-1])
            conversion.result()
    return SceneFiles(rasters.counts, totals, (probability, landslides, *drafts))


def _picture(reader: RasterReader, read_preview: ReadPreview) -> ScenePicture:
    bands = reader.bands[:3] if len(reader.bands) >= 3 else reader.bands[:1] * 3
    return read_preview(reader, bands=bands, gsd_m=reader.info.gsd_m)


def _write_inventories(
    source: MaskSource, options: PredictOptions, files: ResultFiles, totals: InventoryTotals
) -> list[Path]:
    """Write the inventory in each format, the GeoPackage first; `totals` receives the counts."""
    paths = [files.draft(f"inventory.{kind}") for kind in dict.fromkeys(("gpkg", *options.formats))]
    write_frames(stream_inventory(source, options, totals), paths, layer="landslides")
    return paths


def write_documents(
    summary: dict[str, Any],
    drafts: Sequence[Path],
    *,
    info: RasterInfo,
    files: ResultFiles,
    bundle: Path | None,
) -> tuple[dict[str, Any], list[Path]]:
    """Write STAC item and summary as drafts.

    Args:
        summary: facts of the prediction.
        drafts: all other files.
        info: header of the scene.
        bundle: folder of the model's bundle; None: there is none.

    Returns:
        The whole summary, and all drafts, the summary last.
    """
    results, stac = [draft.name for draft in drafts], files.draft("stac.json")
    summary = summary | {"files": [*results, stac.name]}
    folder = None if is_staging(files.folder) else files.folder
    described = [*results, files.name("summary.json")]
    item = describe_inventory(info, summary, files=described, stem=files.stem, folder=folder, bundle=bundle)
    write_text(stac, json.dumps(item, indent=2, allow_nan=False) + "\n")
    text = sealed_json(summary | {"sha256": {draft.name: file_hash(draft) for draft in (*drafts, stac)}})
    return json.loads(text), [*drafts, stac, write_text(files.draft("summary.json"), text)]


def bundle_folder(model: DescribedModel) -> Path | None:
    """Return the folder that holds a model's files and its STAC item; None where there is none."""
    path = getattr(model, "path", None)
    folders = () if path is None else (path, *path.parents[:2])  # a LiteRT file lies in <bundle>/tflite
    return next((folder for folder in folders if (folder / STAC_FILE).is_file()), None)
