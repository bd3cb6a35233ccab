"""Export LiteRT (TensorFlow Lite) files and keep those that agree with the SavedModel."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lim_keras.bundle.info import ENSEMBLE, BundleInfo, FileRecord, LiteRtFigures, fold_name, is_bundle_name
from lim_keras.bundle.litert import (
    INDEX_FILE,
    LiteRtFile,
    LiteRtIndex,
    LiteRtModel,
    Variant,
    comparison_side,
    halo_of_input,
    warn_if_approximate,
)
from lim_keras.bundle.replaceable import bundle_record, check_outside_bundles
from lim_keras.bundle.saved_model import load_bundle
from lim_keras.bundle.window_size import check_input_size
from lim_keras.data.tiles import TileSet
from lim_keras.errors import BundleError, ConfigError, LimKerasWarning
from lim_keras.evaluation.evaluator import choose_tiles, read_matching_tiles
from lim_keras.export.disk_errors import disk_errors
from lim_keras.export.documents import DOCUMENTS, write_documents
from lim_keras.export.tflite_check import (
    Window,
    calibration_windows,
    compare,
    convert,
    input_type,
    random_windows,
    tile_windows,
)
from lim_keras.files import StrPath, draft_folder, flush, left_drafts, make_folder
from lim_keras.ownership import check_replaceable_files

FOLDER = "tflite"

_NO_TILES: dict[str, Any] = {"training_tiles": (), "test_tiles": (), "held_out": {}}

_CALIBRATION_WINDOWS = 256


@dataclass(frozen=True)
class LiteRtOptions:
    """Options of `lim_keras.export_litert`; without tiles, files are compared on random pixels."""

    variants: tuple[Variant, ...]
    tile: int | None = None
    fold: int | None = None
    tiles: Path | None = None
    tile_ids: tuple[str, ...] | None = None
    allow_drop: bool = False
    out: Path | None = None
    threads: int | None = None


@dataclass(frozen=True)
class LiteRtExport:
    """Result of a LiteRT export: every converted file, names of the refused files, scores of the SavedModel."""

    folder: Path
    files: Mapping[str, LiteRtFile]
    refused: tuple[str, ...]
    reference: dict[str, float | None]

    @property
    def figures(self) -> dict[str, LiteRtFigures]:
        """Measurements of every file, as stored in model.json."""
        return {name: _figures(file, self.reference) for name, file in self.files.items()}


def export_litert(bundle: StrPath, options: LiteRtOptions) -> LiteRtExport:
    """Convert a bundle to .tflite files, compare each with the SavedModel, and keep files within their error limit.

    Files in `<bundle>/tflite` become part of the bundle: its model.json, model card and STAC item are rewritten.
    """
    export = _Export.prepare(Path(bundle), options)
    folder = options.out or export.bundle / FOLDER
    if not _is_inside(export, folder):
        check_outside_bundles(folder, "out")
    make_folder(folder)
    _check_replaceable(export, folder)
    with disk_errors(folder), draft_folder(folder / FOLDER) as partial:
        drafts = {variant: partial / export.name(variant) for variant in options.variants}
        _convert(export, drafts)
        reference, files = _compare(export, drafts)
        refused = [name for name, file in files.items() if file.measured.within is False and not options.allow_drop]
        result = LiteRtExport(folder, files, tuple(refused), reference)
        _keep(export, result, partial)
        _record(export, result, partial)
    return result


def _check_replaceable(export: _Export, folder: Path) -> None:
    """Refuse to replace files of the user and LiteRT files of another bundle, before the conversion."""
    index = _any_index(folder)
    if index is not None and _saved_models(index.model) != _saved_models(export.info):
        raise BundleError(
            f"{folder}: holds LiteRT files of another bundle, {index.model.name}, or of an earlier training of this "
            "one. Move them away, or give another folder as `out`."
        )
    # A killed call may have moved files before it wrote their record, which lies beside its drafts.
    left = left_drafts(folder / FOLDER)
    written = [_written(place) for place in (folder, *left)]
    if _is_inside(export, folder):
        record = bundle_record(export.info)
        check_replaceable_files(export.bundle, DOCUMENTS, record, *map(_recorded, left), argument="out")
        written.append({name.removeprefix(f"{FOLDER}/"): digest for name, digest in record.items()})
    names = [*map(export.name, export.options.variants), INDEX_FILE]
    check_replaceable_files(folder, names, *written, argument="out")


def _any_index(folder: Path) -> LiteRtIndex | None:
    try:
        return LiteRtIndex.read(folder)
    except BundleError:
        return None


def _written(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of the files that tflite.json lists, and its own as we write it."""
    index = _any_index(folder)
    if index is None:
        return {}
    own = {INDEX_FILE: hashlib.sha256(index.text().encode()).hexdigest()}
    return {name: file.record.sha256 for name, file in index.files.items()} | own


def _recorded(folder: Path) -> dict[str, str]:
    """Return what the model.json lists that a killed call left in a folder of drafts."""
    try:
        return bundle_record(BundleInfo.read(folder))
    except BundleError:
        return {}


def _is_inside(export: _Export, folder: Path) -> bool:
    return folder.resolve() == (export.bundle / FOLDER).resolve()


@dataclass(frozen=True)
class _Export:
    bundle: Path
    info: BundleInfo
    options: LiteRtOptions
    tiles: TileSet | None
    source: str
    halo: int
    side: int

    def name(self, variant: Variant) -> str:
        """Return the name of a file."""
        return f"{self.source}_{variant}.tflite"

    @classmethod
    def prepare(cls, bundle: Path, options: LiteRtOptions) -> _Export:
        info = BundleInfo.read(bundle)
        check_input_size(info, options.tile)
        side = comparison_side(info) if options.tile is None else options.tile
        halo = halo_of_input(info, options.tile)
        source = fold_name(options.fold or 0) if options.fold is not None or info.folds == 1 else ENSEMBLE
        tiles = _read_tiles(options, info)
        warn_if_approximate(source, info, options.tile, halo)
        if input_type(info) != info.dtype:
            message = f"{info.name}: LiteRT files of {info.dtype} bundles take float32 pixels, of the same raw values."
            warnings.warn(message, LimKerasWarning, stacklevel=3)
        return cls(bundle, info, options, tiles, source, halo, side)


def _read_tiles(options: LiteRtOptions, info: BundleInfo) -> TileSet | None:
    if options.tiles is None:
        if "int8" in options.variants:
            raise ConfigError("int8 is calibrated on training tiles, landslides among them. Give `tiles`.")
        return None
    return read_matching_tiles(options.tiles, info)


def _convert(export: _Export, drafts: Mapping[Variant, Path]) -> None:
    info, fold = export.info, export.options.fold
    models = [load_bundle(export.bundle, one).saved_model for one in (range(info.folds) if fold is None else [fold])]
    for variant, path in drafts.items():
        calibration = []
        if variant == "int8" and export.tiles is not None:
            known = _training_tiles(export.tiles, export)
            calibration = calibration_windows(known, info.gsd_m, export.side, _CALIBRATION_WINDOWS)
        path.write_bytes(convert(models, variant, export.options.tile, info, calibration))


def _training_tiles(tiles: TileSet, export: _Export) -> TileSet:
    """Select the training tiles of the bundle; if there are none, all tiles that are not in the comparison."""
    tests = {*(export.options.tile_ids or ()), *export.info.test_tiles}
    trained = [one for one in tiles.ids if one in set(export.info.training_tiles) - tests]
    chosen = trained or [one for one in tiles.ids if one not in tests]
    return replace(tiles, tiles=tiles.subset(chosen).tiles)


def _compare(export: _Export, drafts: Mapping[Variant, Path]) -> tuple[dict[str, float | None], dict[str, LiteRtFile]]:
    """Return scores of the SavedModel, and the record of each draft by name."""
    info, options, side = export.info, export.options, export.side
    folds = info.folds if export.source == ENSEMBLE else 1
    described = info.model_copy(update={"halo": export.halo, "folds": folds})
    models = {variant: LiteRtModel(described, draft, options.threads) for variant, draft in drafts.items()}
    saved_model = load_bundle(export.bundle, options.fold).predict
    reference, tallies = compare(saved_model, models, _windows(export), side=side, threshold=info.threshold)
    files = {
        draft.name: LiteRtFile(
            record=FileRecord.of(draft),
            variant=variant,
            source=export.source,
            folds=folds,
            tile=options.tile,
            halo=export.halo,
            input=input_type(info),
            measured=tallies[variant].measured(variant, side, reference),
        )
        for variant, draft in drafts.items()
    }
    return {name: reference.score(name) for name in ("f1", "iou_landslide")}, files


def _windows(export: _Export) -> Iterator[Window]:
    info, tiles = export.info, export.tiles
    if tiles is None:
        return random_windows(info.bands, max(one.max for one in info.statistics), export.side)
    chosen = choose_tiles(tiles, export.options.tile_ids, test=info.test_tiles, training=info.training_tiles)
    return tile_windows(chosen, info.gsd_m, export.side)


def _keep(export: _Export, result: LiteRtExport, partial: Path) -> None:
    """Move accepted files to their folder and list them in tflite.json, beside earlier files of this bundle."""
    folder, info = result.folder, export.info
    before = _read_index(folder, info)
    kept = {name: file for name, file in result.files.items() if name not in result.refused}
    if not kept:
        return
    known = {} if before is None else {name: file for name, file in before.files.items() if name not in result.files}
    references = {} if before is None else before.reference
    # Omit figures and tile ids: model.json holds them, and they are half of its size.
    described = info.model_copy(update={"litert": {}, "sha256": "", **_NO_TILES})
    references = {**references, export.source: result.reference}
    index = LiteRtIndex(model=described, reference=references, files={**known, **kept})
    index.write(partial)  # for the next call, if this one is killed while it moves the files
    for name in kept:
        flush(partial / name)
        (partial / name).replace(folder / name)
    index.write(folder)


def _read_index(folder: Path, info: BundleInfo) -> LiteRtIndex | None:
    """Read tflite.json; None unless it is from an export of the same SavedModels."""
    index = _any_index(folder)
    return index if index is not None and _saved_models(index.model) == _saved_models(info) else None


def _saved_models(info: BundleInfo) -> dict[str, FileRecord]:
    folders = {ENSEMBLE, *(fold_name(fold) for fold in range(info.folds))}
    return {name: record for name, record in info.files.items() if name.split("/")[0] in folders}


def _record(export: _Export, result: LiteRtExport, partial: Path) -> None:
    """Add files inside the bundle to model.json, and set the bundle's name to the present name of its folder.

    partial: folder of drafts, which tells the next call what was written if this one is killed.
    """
    bundle, info, folder = export.bundle, export.info, export.bundle / FOLDER
    if not _is_inside(export, result.folder):
        return
    files = {name: record for name, record in info.files.items() if name.split("/")[0] != FOLDER}
    index = _read_index(folder, info)
    there = [] if index is None else [folder / name for name in (INDEX_FILE, *sorted(index.files))]
    files |= {f"{FOLDER}/{path.name}": FileRecord.of(path) for path in there if path.is_file()}
    changes: dict[str, Any] = {"files": files, "litert": _known_figures(index, info, result)}
    name = bundle.resolve().name
    if is_bundle_name(name):
        changes["name"] = name
    changed = write_documents(partial, info.model_copy(update=changes))
    changed.write(partial)
    for name in DOCUMENTS:
        (partial / name).replace(bundle / name)
    changed.write(bundle)


def _known_figures(index: LiteRtIndex | None, info: BundleInfo, result: LiteRtExport) -> dict[str, LiteRtFigures]:
    """Return figures of every file in tflite.json; earlier files keep their figures, measured on other windows."""
    if index is None:
        return {}
    figures = {}
    for name, file in index.files.items():
        path = f"{FOLDER}/{name}"
        new = name in result.files and name not in result.refused
        if not new and path in info.litert:
            figures[path] = info.litert[path]
        else:
            figures[path] = _figures(file, result.reference if new else index.reference.get(file.source, {}))
    return figures


def _figures(file: LiteRtFile, reference: Mapping[str, float | None]) -> LiteRtFigures:
    return LiteRtFigures(
        bytes=file.record.bytes,
        tile=file.tile,
        saved_model_f1=reference.get("f1"),
        saved_model_iou=reference.get("iou_landslide"),
        **file.measured.model_dump(),
    )
