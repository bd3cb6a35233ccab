"""Figures 6, 7, 9 and 10 of the paper: augmentations, models side by side, and the map of a region."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from lim_keras.data.augment import PAPER_RECIPES, paper_recipe
from lim_keras.data.tiles import Array, Tile, TileSet, read_tile, resample
from lim_keras.errors import DataError, LimKerasWarning
from lim_keras.evaluation.bundle_report import bundle_evaluator
from lim_keras.evaluation.evaluation import Evaluation, Prediction
from lim_keras.evaluation.evaluator import read_matching_tiles
from lim_keras.evaluation.scene import SceneMatches, match_mask
from lim_keras.inventory.options import PredictOptions
from lim_keras.inventory.predict_scene import predict_scene
from lim_keras.inventory.scene_prediction import Execution
from lim_keras.raster.opening import gdal_settings
from lim_keras.raster.reader import RasterReader
from lim_keras.report.parts import Drawing, Part, Table, Value
from lim_keras.report.region_map import detection_counts, region_map
from lim_keras.report.sample_grids import ComparedSample, augmentation_grid, comparison_grid
from lim_keras.reproduction.context import MAPS, ReproductionContext
from lim_keras.reproduction.measures import ANY_OVERLAP, LABELS, finished_scores, hashes

FIGURE_6 = "Figure 6: the three augmentations"
FIGURE_7 = "Figure 7: FCN, FCN-FL and FCN-FLK on the same tiles"
FIGURE_9 = "Figure 9: FCN-FLK, FCN-FL, U-Net and SegNet on the same tiles"
FIGURE_10 = "Figure 10: map of a region by FCN-FLK and U-Net"

SHOWN = 6
"""Tiles of Figures 7 and 9."""

_SIDE, _SEED = 256, 2022

_RECIPES = ("tile", "left-right flip, mean filter", "up-down flip, random gamma", "both flips, random noise")


def make_figure6(context: ReproductionContext) -> Part:
    """Draw one landslide tile and the paper's three augmentations of it, image and mask."""
    tile = median_landslide_tile(context.tiles.without(context.test_ids))
    image, mask = resample(*read_tile(tile), (_SIDE, _SIDE))
    low, high = _range(image)
    examples = {
        title: paper_recipe(image, mask, recipe, low, high, np.random.default_rng(_SEED))
        for recipe, title in zip(range(PAPER_RECIPES), _RECIPES, strict=True)
    }
    caption = (
        f"Tile `{tile.tile_id}`, resized to {_SIDE} x {_SIDE} pixels, and its three augmented copies; masks below them."
    )
    text = (
        "Training shows each landslide tile four times in an epoch: as it is, and in three augmented copies. Random "
        "strengths are drawn anew each time; the paper does not print them.",
        "The tile is chosen by a rule: among the landslide tiles that train models, it has the median share of "
        "landslide pixels.",
    )
    return Part("figure6", FIGURE_6, text, drawings=(Drawing("figure6", caption, augmentation_grid(examples)),))


def make_figure7(context: ReproductionContext) -> Part:
    """Draw FCN, FCN-FL and FCN-FLK, trained on whole tiles, on the same six test tiles."""
    return _compared(context, "figure7", FIGURE_7, ("fcn", "fcn_fl", "fcn_flk"), context.test_tiles)


def make_figure9(context: ReproductionContext) -> Part:
    """Draw the four networks, trained on whole tiles, on six tiles of the other region, else on six test tiles."""
    transfer = context.data.transfer
    tiles = context.test_tiles if transfer is None else transfer
    part = _compared(context, "figure9", FIGURE_9, ("fcn_flk", "fcn_fl", "unet", "segnet"), tiles)
    if transfer is not None:
        return part
    note = "No tiles of another region were given, so these are test tiles: add `--transfer`."
    return Part(part.name, part.title, (note, *part.text), part.tables, part.drawings)


def make_figure10(context: ReproductionContext) -> Part:
    """Draw the scene as FCN-FLK and U-Net map it, with boxes around false detections and their numbers."""
    methods = [method for method in ("fcn_flk", "unet") if f"windows_{method}" in context.experiments]
    text, rows, drawings, sources = [*_unfinished(context, ("windows_fcn_flk", "windows_unet"))], [], [], {}
    for method in methods:
        name, label = f"windows_{method}", LABELS[method]
        threshold, matches, drawing = _mapped(context, name, label)
        drawings.append(drawing)
        sources[name] = context.experiments[name].config.digest()
        scores = matches.detections.any_overlap
        rows += [(label, area, *detection_counts(score)) for area, score in scores.items()]
        mapped, found, _, false = detection_counts(scores["all"])
        text.append(
            f"{label}, at its threshold of {threshold:.2f}: mapped landslides {mapped:,}, found {found:,}; polygons "
            f"drawn {scores['all'].predicted:,}, without a mapped landslide {false:,}."
        )
    columns = ("method", "area class", "mapped", "found", "missed", "false")
    notes = (
        ANY_OVERLAP,
        "Mapped: in the truth. A polygon that shares area with no mapped landslide is a false detection. Mapped "
        "landslides and false detections count in the class of their own area.",
    )
    tables = (Table("figure10_detections", "Detections by area", columns, tuple(rows), notes, sources),) if rows else ()
    return Part("figure10", FIGURE_10, tuple(text), tables, tuple(drawings))


def choose_evenly(f1: Mapping[str, float], count: int = SHOWN) -> list[str]:
    """Choose samples spread evenly over their order by F1, the lowest and the highest among them.

    Args:
        f1: F1 of each sample, by name; equal ones are ordered by name.
        count: number of samples; all of them, where there are no more.
    """
    order = sorted(f1, key=lambda name: (f1[name], name))
    if len(order) <= count:
        return order
    return [order[round(k * (len(order) - 1) / (count - 1))] for k in range(count)]


def median_landslide_tile(tiles: TileSet) -> Tile:
    """Return the landslide tile with the median share of landslide pixels, of equal ones the first by id."""
    landslides = [tile for tile in tiles if tile.landslide_px]
    if not landslides:
        raise DataError(f"{tiles.root}: expected a tile with landslide pixels among those that train models.")
    landslides.sort(key=lambda tile: (tile.landslide_px / tile.valid_px, tile.tile_id))
    return landslides[(len(landslides) - 1) // 2]


def _range(image: Array) -> tuple[Array, Array]:
    """Return lowest and highest value of each band: those of the data type, or those of a tile in another type."""
    if image.dtype == np.uint8:
        return np.zeros(image.shape[2]), np.full(image.shape[2], 255.0)
    low, high = (edge(axis=(0, 1)).astype(np.float64) for edge in (image.min, image.max))
    return low, np.maximum(high, low + 1e-6)


def _compared(context: ReproductionContext, part: str, title: str, methods: Sequence[str], tiles: TileSet) -> Part:
    """Draw methods, trained on whole tiles, on six landslide tiles that a rule chooses."""
    names = [f"whole_{method}" for method in methods]
    found = finished_scores(context, names)
    missing = _unfinished(context, names)
    if not found:
        return Part(part, title, missing)
    chosen = next((name for name in ("whole_fcn_flk", *names) if name in found), names[0])
    is_transfer = tiles is context.data.transfer
    samples = found[chosen].transfer if is_transfer else found[chosen].tiles
    f1 = {} if samples is None else landslide_f1(samples)
    ids = choose_evenly(f1)
    label = LABELS[chosen.removeprefix("whole_")]
    text = (
        *missing,
        f"The tiles are chosen by a rule: the landslide tiles are sorted by the F1 of {label}, and taken at equal "
        f"steps from the lowest to the highest. Tiles shown: {len(ids)}. Each model is shown at its own threshold.",
    )
    labels = [LABELS[name.removeprefix("whole_")] for name in found]
    thresholds = {label: found[name].threshold for label, name in zip(labels, found, strict=True)}
    compared = _predicted(context, found, tiles, ids)
    caption = (
        f"Landslide tiles of {'another region' if is_transfer else 'the test set'}: image, truth (white: landslide), "
        "and each model's right and wrong pixels with its F1."
    )
    rows: tuple[tuple[Value, ...], ...] = tuple(
        (one.sample.name, *(one.f1(number, limit) for number, limit in enumerate(thresholds.values())))
        for one in compared
    )
    table = Table(f"{part}_tiles", "F1 of the tiles that are shown", ("tile", *labels), rows, sources=hashes(found))
    drawing = Drawing(part, caption, comparison_grid(compared, thresholds))
    return Part(part, title, text, (table,), (drawing,))


def landslide_f1(evaluation: Evaluation) -> dict[str, float]:
    """Return the F1 of each landslide sample, by name."""
    return {one.name: one.model.scores()["f1"] for one in evaluation.samples if one.kind == "landslide"}


def _predicted(
    context: ReproductionContext, names: Iterable[str], tiles: TileSet, ids: Sequence[str]
) -> list[ComparedSample]:
    """Predict tiles by the models of some experiments; return them in the order of the ids."""
    by_model: list[dict[str, Prediction]] = []
    for name in names:
        bundle = context.bundle(name)
        chosen = read_matching_tiles(tiles.subset(ids), bundle.info)
        predictions = bundle_evaluator(bundle).predict_tiles(bundle.predict, chosen)
        by_model.append({one.sample.name: one for one in predictions})
    return [
        ComparedSample(by_model[0][name].sample, [predictions[name].probability for predictions in by_model])
        for name in ids
    ]


def _unfinished(context: ReproductionContext, names: Iterable[str]) -> tuple[str, ...]:
    """Return a sentence that names the experiments that are not finished; nothing if all are."""
    lacking = [name for name in names if name not in context.experiments]
    if not lacking:
        return ()
    reasons = [f"`{name}`" + (f" ({context.missing[name]})" if name in context.missing else "") for name in lacking]
    return (f"Not shown, because the experiment is not finished: {', '.join(reasons)}.",)


def _mapped(context: ReproductionContext, name: str, label: str) -> tuple[float, SceneMatches, Drawing]:
    """Map the scene by an experiment's model; return the threshold, the matched landslides and the drawing."""
    scene, truth, model = context.settings.scene, context.settings.truth, context.scene_model(name)
    if scene is None or truth is None:
        raise ValueError("expected a scene and its truth")
    folder, threshold = context.folder / MAPS / name, model.info.threshold
    with warnings.catch_warnings(), gdal_settings(), RasterReader(scene) as reader:
        # The evaluation of the same scene by the same model has given these warnings.
        warnings.simplefilter("ignore", LimKerasWarning)
        options, execution = PredictOptions(all_regions=True), Execution(progress=context.progress)
        prediction = predict_scene(model, scene, folder, options, execution=execution)
        mask = next(path for path in prediction.files if path.name.endswith("_landslides.tif"))
        matches = match_mask(mask, reader, Path(truth))
        chart = region_map(reader, matches, f"{label} at a threshold of {threshold:.2f}")
    caption = (
        f"Landslides that {label} predicts in the scene. Boxes hold predicted polygons that touch no landslide of the "
        "truth. Right: mapped landslides (truth), found and missed ones, and false detections, by area."
    )
    return threshold, matches, Drawing(f"figure10_{name.removeprefix('windows_')}", caption, chart)
