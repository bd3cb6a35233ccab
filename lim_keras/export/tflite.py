"""Export LiteRT files."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lim_keras.bundle.info import ENSEMBLE, BundleInfo, FileRecord, LiteRtFigures, fold_name
from lim_keras.bundle.litert import (
    INDEX_FILE,
    LiteRtFile,
    LiteRtIndex,
    LiteRtModel,
    Variant,
    approximate,
    halo_of_input,
    measuring_side,
)
from lim_keras.bundle.saved_model import load_bundle
from lim_keras.data.tiles import TileSet
from lim_keras.errors import BundleError, DataError, LimKerasWarning
from lim_keras.evaluation.evaluator import choose_tiles
from lim_keras.export.documents import write_documents
from lim_keras.export.tflite_check import (
    Tally,
    Window,
    calibration_windows,
    compare,
    convert,
    input_of,
    random_windows,
    tile_windows,
)
from lim_keras.files import make_folder

FOLDER = "tflite"

_NO_TILES: dict[str, Any] = {"training_tiles": (), "test_tiles": (), "held_out": {}}

_CALIBRATION_WINDOWS = 256
"""With 64 one model's int8 file lost .0101 of landslide IoU, with 256 .0051."""


@dataclass(frozen=True)
class LiteRtOptions:
    """What is asked of an export.

    Args:
        variants: which files to make.
        tile: height and width of their windows, pixels; None: any.
        fold: of this fold alone; None: of all, as one file.
        data: tiles, for calibration and test; without, only the numbers' differences on random pixels are measured.
        test_ids: tiles to test on; None: the run's test tiles, else all not trained on.
        allow_drop: keep files beyond their limit.
        out: folder of the files; None: `<bundle>/tflite`.
        threads: of the interpreter; None: one a core.
    """

    variants: tuple[Variant, ...]
    tile: int | None = None
    fold: int | None = None
    data: Path | None = None
    test_ids: tuple[str, ...] | None = None
    allow_drop: bool = False
    out: Path | None = None
    threads: int | None = None


@dataclass(frozen=True)
class LiteRtExport:
    """What was made. files: all of them by name. refused: those beyond their limit, which were not kept."""

    folder: Path
    files: Mapping[str, LiteRtFile]
    refused: tuple[str, ...]
    reference: dict[str, float | None]

    @property
    def figures(self) -> dict[str, LiteRtFigures]:
        """Measurements of every file, as model.json holds them."""
        return {name: _figures(file, self.reference) for name, file in self.files.items()}


def export_litert(bundle: Path, asked: LiteRtOptions) -> LiteRtExport:
    """Make .tflite files of a bundle, run each on the test windows, and keep those within their limit.

    Raises:
        BundleError: the bundle cannot be read, or LiteRT cannot run a file.
        DataError: int8 without tiles, tiles that do not fit, or a tile size off the network's grid.

    Warns:
        LimKerasWarning: windows too small for exact maps, or pixels that are taken as float32.
    """
    info = BundleInfo.read(bundle)
    side = measuring_side(info) if asked.tile is None else asked.tile
    halo = halo_of_input(info, asked.tile)
    source = fold_name(asked.fold or 0) if asked.fold is not None or info.folds == 1 else ENSEMBLE
    tiles = _read_tiles(asked, info)
    _warn(info, source, asked.tile, halo)
    folder = asked.out or bundle / FOLDER
    make_folder(folder)
    drafts = {variant: folder / f".{source}_{variant}.tflite.partial" for variant in asked.variants}
    try:
        _convert(bundle, asked, info, side, tiles, drafts)
        folds = info.folds if source == ENSEMBLE else 1
        seen = info.model_copy(update={"halo": halo, "folds": folds})
        models = {variant: LiteRtModel(seen, path, asked.threads) for variant, path in drafts.items()}
        windows = _windows(tiles, asked, info, side)
        reference, tallies = compare(load_bundle(bundle, asked.fold).predict, models, windows, side, info.threshold)
        files = {
            f"{source}_{variant}.tflite": LiteRtFile(
                record=FileRecord.of(path),
                variant=variant,
                source=source,
                folds=folds,
                tile=asked.tile,
                halo=halo,
                input=input_of(info),
                measured=tallies[variant].judged(variant, side, reference),
            )
            for variant, path in drafts.items()
        }
        result = _keep(folder, info, files, drafts, reference, asked)
        _record(bundle, info, result)
        return result
    finally:
        for path in drafts.values():
            path.unlink(missing_ok=True)


def _read_tiles(asked: LiteRtOptions, info: BundleInfo) -> TileSet | None:
    if asked.data is None:
        if "int8" in asked.variants:
            raise DataError(
                "int8 is calibrated on real training tiles, landslides among them: give --data. Its scales would be "
                "wrong for other pixels."
            )
        return None
    tiles = TileSet.read(asked.data)
    if (tiles.bands, tiles.dtype) != (info.bands, info.dtype):
        raise DataError(
            f"{asked.data}: expected tiles of {info.bands} bands of {info.dtype}, as the bundle {info.name} takes. "
            f"Received: {tiles.bands} bands of {tiles.dtype}"
        )
    return tiles


def _warn(info: BundleInfo, source: str, tile: int | None, halo: int) -> None:
    if halo < info.halo:
        warnings.warn(approximate(source, info, tile, halo), LimKerasWarning, stacklevel=3)
    if input_of(info) != info.dtype:
        message = f"{info.name}: LiteRT files of {info.dtype} bundles take float32 pixels, of the same raw values."
        warnings.warn(message, LimKerasWarning, stacklevel=3)


def _convert(
    bundle: Path,
    asked: LiteRtOptions,
    info: BundleInfo,
    side: int,
    tiles: TileSet | None,
    drafts: Mapping[Variant, Path],
) -> None:
    folds = range(info.folds) if asked.fold is None else [asked.fold]
    models = [load_bundle(bundle, fold).saved_model for fold in folds]
    for variant, path in drafts.items():
        calibration = []
        if variant == "int8" and tiles is not None:
            known = _training_tiles(tiles, asked, info)
            calibration = calibration_windows(known, info.gsd_m, side, _CALIBRATION_WINDOWS)
        path.write_bytes(convert(models, variant, asked.tile, info, calibration))


def _training_tiles(tiles: TileSet, asked: LiteRtOptions, info: BundleInfo) -> TileSet:
    """What the bundle was trained on as far as it is there, and never a test tile."""
    tests = {*(asked.test_ids or ()), *info.test_tiles}
    trained = [one for one in tiles.ids if one in set(info.training_tiles) - tests]
    chosen = trained or [one for one in tiles.ids if one not in tests]
    return replace(tiles, tiles=tiles.subset(chosen).tiles)


def _windows(tiles: TileSet | None, asked: LiteRtOptions, info: BundleInfo, side: int) -> Iterator[Window]:
    if tiles is None:
        return random_windows(info.bands, max(one.max for one in info.statistics), side)
    chosen = choose_tiles(tiles, asked.test_ids, test=info.test_tiles, training=info.training_tiles)
    return tile_windows(chosen, info.gsd_m, side)


def _keep(
    folder: Path,
    info: BundleInfo,
    files: Mapping[str, LiteRtFile],
    drafts: Mapping[Variant, Path],
    reference: Tally,
    asked: LiteRtOptions,
) -> LiteRtExport:
    """Give files within their limits their names and tflite.json; what it says of others of this bundle stays."""
    refused = [] if asked.allow_drop else [name for name, one in files.items() if one.measured.within is False]
    scores = {name: reference.score(name) for name in ("f1", "iou_landslide")}
    before = _known(folder, info)
    kept = {name: one for name, one in files.items() if name not in refused}
    for name, one in kept.items():
        drafts[one.variant].replace(folder / name)
    if kept:
        source = next(iter(kept.values())).source
        known = {} if before is None else {name: one for name, one in before.files.items() if name not in files}
        references = {} if before is None else before.reference
        # Of the figures `files` says more; which tiles the model knows is in model.json, and half of its size.
        described = info.model_copy(update={"litert": {}, "sha256": "", **_NO_TILES})
        LiteRtIndex(model=described, reference={**references, source: scores}, files={**known, **kept}).write(folder)
    return LiteRtExport(folder, files, tuple(refused), scores)


def _known(folder: Path, info: BundleInfo) -> LiteRtIndex | None:
    """tflite.json of an earlier export of the same bundle."""
    if not (folder / INDEX_FILE).exists():
        return None
    try:
        index = LiteRtIndex.read(folder)
    except BundleError:
        return None
    return index if _graphs(index.model) == _graphs(info) else None


def _graphs(info: BundleInfo) -> dict[str, FileRecord]:
    """The SavedModels' files; others change with what is exported beside them."""
    folders = {ENSEMBLE, *(fold_name(fold) for fold in range(info.folds))}
    return {name: record for name, record in info.files.items() if name.split("/")[0] in folders}


def _record(bundle: Path, info: BundleInfo, made: LiteRtExport) -> None:
    """Make what was exported into the bundle a part of it: model.json, model card and STAC item know it.

    Other files that lie there are none of the bundle's, and `lim-keras verify` says so.
    """
    folder = bundle / FOLDER
    if made.folder.resolve() != folder.resolve():
        return
    files = {name: record for name, record in info.files.items() if name.split("/")[0] != FOLDER}
    index = _known(folder, info)
    there = [] if index is None else [folder / name for name in (INDEX_FILE, *sorted(index.files))]
    files |= {f"{FOLDER}/{path.name}": FileRecord.of(path) for path in there if path.is_file()}
    changes = {"files": files, "litert": _litert(index, info, made)}
    write_documents(bundle, info.model_copy(update=changes)).write(bundle)


def _litert(index: LiteRtIndex | None, info: BundleInfo, made: LiteRtExport) -> dict[str, LiteRtFigures]:
    """The figures of every file in tflite.json; of those made earlier what is known, as their windows were others."""
    if index is None:
        return {}
    figures = {}
    for name, file in index.files.items():
        path = f"{FOLDER}/{name}"
        new = name in made.files and name not in made.refused
        if not new and path in info.litert:
            figures[path] = info.litert[path]
        else:
            figures[path] = _figures(file, made.reference if new else index.reference.get(file.source, {}))
    return figures


def _figures(file: LiteRtFile, reference: Mapping[str, float | None]) -> LiteRtFigures:
    measured = file.measured.model_dump()
    return LiteRtFigures(
        bytes=file.record.bytes,
        tile=file.tile,
        saved_model_f1=reference.get("f1"),
        saved_model_iou=reference.get("iou_landslide"),
        **measured,
    )
