"""Fit the object rule of an exported bundle to labelled tiles that it was not trained on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from lim_keras.bundle.info import BundleInfo, FileRecord
from lim_keras.bundle.litert import FOLDER, INDEX_FILE, LiteRtIndex
from lim_keras.bundle.object_rule import FittedRule
from lim_keras.bundle.replaceable import bundle_record
from lim_keras.bundle.saved_model import load_bundle
from lim_keras.data.tiles import TileSet, TileStore
from lim_keras.errors import ConfigError, DataError
from lim_keras.evaluation.evaluator import choose_tiles, read_matching_tiles
from lim_keras.evaluation.object_rule import LabelledMap, fit_object_rule, predicted_maps
from lim_keras.export.disk_errors import disk_errors
from lim_keras.export.documents import DOCUMENTS, write_documents
from lim_keras.export.measured_halo import read_litert_index
from lim_keras.files import StrPath, draft_folder, left_drafts
from lim_keras.ownership import check_replaceable_files

_GRID = 64


def fit_bundle_rule(bundle: Path, tiles: StrPath | TileSet, tile_ids: Sequence[str], *, seed: int = 2022) -> FittedRule:
    """Fit the object rule of a bundle, and write it into its model.json, tflite.json, model card and STAC item.

    A tile that the bundle records as held out from one fold of several is predicted by that fold; a tile that no model
    was trained on is predicted by the whole bundle.

    Args:
        bundle: folder of the bundle; its models stay as they are.
        tiles: labelled tiles.
        tile_ids: ids of the held-out tiles.
        seed: seed of the layout of the sheets and of the bootstrap.

    Raises:
        BundleError: the bundle is damaged, or its tflite.json was changed.
        ConfigError: the bundle's model was trained on resized tiles, which have no ground sample distance.
        DataError: a tile is a test tile, was trained on, or shares ground with one that was; the tiles do not fit the
            bundle or hold no landslide; or the model card or the STAC item was changed.
    """
    info = BundleInfo.read(bundle)
    if info.sampling.get("mode") == "resized":
        raise ConfigError(
            f"{bundle}: expected a model that was trained on windows. Received: one that was trained on resized tiles, "
            "on which regions have another size than in scenes. Give predictions a threshold, a peak and a smallest "
            "area instead."
        )
    index = read_litert_index(bundle, info)
    left = [BundleInfo.read(one) for one in left_drafts(bundle / DOCUMENTS[0]) if (one / "model.json").exists()]
    check_replaceable_files(bundle, DOCUMENTS, *map(bundle_record, (info, *left)), argument="bundle")
    known = read_matching_tiles(tiles, info)
    chosen = choose_tiles(known, tile_ids)
    check_held_out(known, chosen, info)
    if not any(one.landslide_px for one in chosen):
        raise DataError(
            f"{known.root}: expected landslides in the tiles of an object rule. Received: {len(chosen)} tiles, which "
            "hold no landslide. Name tiles with landslides, too."
        )
    several = info.folds > 1 and any(one in info.held_out for one in chosen.ids)
    fitted = fit_object_rule(
        _held_out_maps(bundle, info, chosen, seed),
        threshold=info.threshold,
        gsd_m=info.gsd_m,
        source="out_of_fold" if several else "held_out",
        seed=seed,
    )
    _store(bundle, info.model_copy(update={"object_rule": fitted}), index)
    return fitted


def check_held_out(known: TileSet, chosen: TileSet, info: BundleInfo) -> None:
    """Raise DataError if chosen tiles are test tiles of a bundle, or were trained on, or share a group with such tiles.

    A tile that is held out from a fold may share a group with tiles that are held out from the same fold, because that
    fold alone predicts it.

    Args:
        known: all known tiles; tiles of one group show the same ground.
    """
    trained, test = set(info.training_tiles), set(info.test_tiles)
    held_out = {name: fold for name, fold in info.held_out.items() if info.folds > 1 or name not in trained}
    unseen_by: dict[str, set[int | None]] = {}  # by group: the fold that each of its tiles is held out from
    for one in known:
        if one.group and one.tile_id in trained | test:
            unseen_by.setdefault(one.group, set()).add(held_out.get(one.tile_id))
    shared = [
        one.tile_id
        for one in chosen
        if any(fold is None or fold != held_out.get(one.tile_id) for fold in unseen_by.get(one.group, ()))
    ]
    reasons = {
        "test tiles, which choose nothing": [one.tile_id for one in chosen if one.tile_id in test],
        "tiles that the model was trained on": [one for one in chosen.ids if one in trained and one not in held_out],
        "tiles on the ground of training or test tiles": shared,
    }
    for reason, found in reasons.items():
        if found:
            raise DataError(
                f"{known.root}: expected tiles that {info.name} was not trained on. Received: {len(found)} {reason}, "
                f"such as {found[0]}. Leave them out."
            )


def _held_out_maps(bundle: Path, info: BundleInfo, chosen: TileSet, seed: int) -> Iterator[LabelledMap]:
    """Predict tiles by models that were not trained on them."""
    by_fold: dict[int | None, list[str]] = {}
    for name in chosen.ids:
        by_fold.setdefault(info.held_out.get(name) if info.folds > 1 else None, []).append(name)
    for fold, names in by_fold.items():
        predict = load_bundle(bundle, fold).predict
        store = TileStore(chosen.subset(names), info.gsd_m, info.gsd_m, cache="recent")
        yield from predicted_maps(predict, store, seed=seed, multiple=max(_GRID, info.stride))


def _store(bundle: Path, info: BundleInfo, index: LiteRtIndex | None) -> None:
    """Write the description of a bundle; a call that is killed meanwhile leaves drafts that tell what it wrote."""
    with disk_errors(bundle), draft_folder(bundle / DOCUMENTS[0]) as partial:
        if index is not None:
            described = index.model.model_copy(update={"object_rule": info.object_rule})
            changed = index.model_copy(update={"model": described})
            record = {f"{FOLDER}/{INDEX_FILE}": FileRecord.of(changed.write(partial))}
            info = info.model_copy(update={"files": info.files | record})
        info = write_documents(partial, info)
        info.write(partial)
        if index is not None:
            (partial / INDEX_FILE).replace(bundle / FOLDER / INDEX_FILE)
        for name in DOCUMENTS:
            (partial / name).replace(bundle / name)
        info.write(bundle)
