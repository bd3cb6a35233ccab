"""The paper's regional map: an image of 10 m mapped by the model of fine tiles, and by a model trained at 10 m."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lim_keras.bundle.info import BundleInfo
from lim_keras.bundle.protocol import SceneModel
from lim_keras.bundle.saved_model import Bundle
from lim_keras.data.contents import tile_contents
from lim_keras.errors import LimKerasWarning
from lim_keras.evaluation.evaluation import Evaluation, evaluate
from lim_keras.evaluation.resampled import resampled_predictions
from lim_keras.evaluation.stored_evaluations import evaluation_values, read_evaluation
from lim_keras.files import make_folder, write_text
from lim_keras.inference.maps import RANGES, InputScaling, ValueScale
from lim_keras.inventory.options import PredictOptions
from lim_keras.inventory.predict_scene import predict_scene
from lim_keras.inventory.scene_prediction import Execution, ScenePrediction
from lim_keras.metrics.binary import Confusion, pool
from lim_keras.raster.opening import gdal_settings
from lim_keras.raster.reader import RasterReader
from lim_keras.report.parts import Drawing, Part, Table, Value
from lim_keras.report.scene_maps import MappedScene, scene_maps
from lim_keras.report.tables import format_estimate, format_number
from lim_keras.reproduction.context import MAPS, SCORES, ReproductionContext
from lim_keras.reproduction.contrasts import difference, interval_sentence
from lim_keras.reproduction.experiments import COARSE
from lim_keras.reproduction.measures import ONE_SEED
from lim_keras.seals import check_sealed_file, is_sealed, sealed_json
from lim_keras.training.record import bundle_digest

TITLE = "Sentinel-2: a map of 10 m, by the model of fine tiles and by one trained at 10 m"

FINE = "windows_fcn_flk"
"""Experiment whose model maps the coarse tiles."""

_PAPER_FACTOR = 1.25
"""Distance that the paper resamples to, 1 m, over the distance of its training, 0.8 m."""

_OVERVIEW_PX = 1024


@dataclass(frozen=True, slots=True)
class Way:
    """A way to map a coarse image: its name for readers, and its evaluation on the coarse test tiles."""

    name: str
    evaluation: Evaluation


def make_sentinel2(context: ReproductionContext) -> Part:
    """Compare three ways to map the coarse test tiles, and map the coarse scene where one is given."""
    lacking = [name for name in (FINE, COARSE) if name not in context.experiments]
    if lacking:
        reasons = (f"`{name}` ({context.missing.get(name, 'it is no experiment of this budget')})" for name in lacking)
        return Part("sentinel2", TITLE, (f"Not made, because the experiment is not finished: {', '.join(reasons)}.",))
    fine, coarse = context.bundle(FINE), context.bundle(COARSE)
    reason = _unfit(fine.info, coarse.info)
    if reason:
        return Part("sentinel2", TITLE, (reason,))
    ways = _ways(context, fine, coarse)
    sources = {name: context.experiments[name].config.digest() for name in (FINE, COARSE)}
    text = [*_sentences(ways), *_on_values(fine.info, coarse.info)]
    drawings: tuple[Drawing, ...] = ()
    if context.settings.coarse_scene is None:
        text.append("No scene of about 10 m was given, so there is no map: add `--coarse-scene`.")
    else:
        sentence, drawings = _scene(context)
        text.append(sentence)
    return Part("sentinel2", TITLE, tuple(text), (way_table(ways, sources),), drawings)


def _unfit(fine: BundleInfo, coarse: BundleInfo) -> str:
    """Return why the model of fine tiles cannot map the coarse ones; "" if it can."""
    if fine.bands != coarse.bands:
        return f"Not made: the coarse tiles have {coarse.bands} bands, and the fine tiles {fine.bands}."
    if fine.gsd_m is None or coarse.gsd_m is None:
        return "Not made: the ground sample distance of the tiles is not known."
    if fine.gsd_m >= coarse.gsd_m:
        return f"Not made: the coarse tiles ({coarse.gsd_m:g} m) are not coarser than the others ({fine.gsd_m:g} m)."
    return ""


def _ways(context: ReproductionContext, fine: Bundle, coarse: Bundle) -> list[Way]:
    fine_m, coarse_m = fine.info.gsd_m or 0.0, coarse.info.gsd_m or 0.0
    at_m = _PAPER_FACTOR * fine_m
    return [
        Way(f"{fine_m:g} m model, tiles brought to {at_m:g} m", _evaluated(context, fine, coarse, at_m)),
        Way(f"{fine_m:g} m model, tiles of {coarse_m:g} m as they are", _evaluated(context, fine, coarse, None)),
        Way(f"model trained at {coarse_m:g} m", context.scores(COARSE).tiles),
    ]


def _evaluated(context: ReproductionContext, fine: Bundle, coarse: Bundle, at_m: float | None) -> Evaluation:
    """Evaluate the model of fine tiles on the coarse test tiles; read what an earlier call has evaluated."""
    tiles = context.data.coarse.test if context.data.coarse else None
    if tiles is None:
        raise ValueError("expected coarse tiles")
    settings = context.experiments[COARSE].config.evaluation
    facts = [bundle_digest(fine.info), fine.info.threshold, at_m, tile_contents(tiles), settings.bootstrap]
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    path = context.folder / SCORES / f"sentinel2_{'as_is' if at_m is None else 'resampled'}.json"
    check_sealed_file(path, "out")
    if is_sealed(path):
        known = json.loads(path.read_text(encoding="utf-8"))
        if known.get("digest") == digest:
            return read_evaluation(known["evaluation"])
    predictions = resampled_predictions(
        fine.predict,
        tiles,
        at_m,
        assumed_gsd_m=coarse.info.gsd_m or 0.0,
        scaling=scaling(fine.info, coarse.info.dtype, _mean(coarse.info)),
    )
    evaluation = evaluate(predictions, "tiles", fine.info.threshold, draws=settings.bootstrap)
    make_folder(path.parent, "out")
    write_text(path, sealed_json({"digest": digest, "evaluation": evaluation_values(evaluation)}))
    return evaluation


def scaling(model: BundleInfo, dtype: str, mean: float) -> InputScaling | None:
    """Return the conversion of images of another data type to those of a model; None for images of the same type."""
    if dtype == model.dtype:
        return None
    return InputScaling(model.dtype, tuple(one.mean for one in model.statistics), matched_scale(model, mean))


def matched_scale(model: BundleInfo, mean: float) -> ValueScale:
    """Return the raw values (low, high) that give an image the mean brightness of a model's training tiles.

    Args:
        model: description of the model.
        mean: mean of the image over its pixels with data and over all bands, above 0; 0 stays dark.
    """
    low, high = RANGES[model.dtype]
    return 0.0, mean * (high - low) / (_mean(model) - low)


def _mean(info: BundleInfo) -> float:
    return float(np.mean([one.mean for one in info.statistics]))


def way_table(ways: list[Way], sources: Mapping[str, str]) -> Table:
    """Return the scores of each way, and those of a mask that calls every pixel a landslide."""
    rows: list[tuple[Value, ...]] = []
    for way in ways:
        scores = way.evaluation.scores()
        estimates = (scores.model[name] for name in ("f1", "precision", "recall"))
        rows.append((way.name, *estimates, scores.average_precision, mapped_share(way.evaluation)))
    scores = ways[0].evaluation.scores()
    blind = (scores.blind[name] for name in ("f1", "precision", "recall"))
    rows.append(("everything is a landslide", *blind, scores.landslide_share, 1.0))
    rows.append(("truth", None, None, None, None, scores.landslide_share))
    columns = ("", "F1", "precision", "recall", "average precision", "mapped share")
    notes = (
        f"Coarse test tiles: {scores.samples}. Each way is scored on the pixels of these tiles, at the "
        "threshold of its model; probabilities on finer pixels are averaged over each pixel of the tile.",
    )
    return Table("sentinel2_tiles", "Coarse test tiles, mapped in three ways", columns, tuple(rows), notes, sources)


def mapped_share(evaluation: Evaluation) -> float:
    """Return the share of labelled pixels that are mapped as landslide."""
    confusion: Confusion = pool(sample.model for sample in evaluation.samples)
    return (confusion.tp + confusion.fp) / max(confusion.pixels, 1)


def _sentences(ways: list[Way]) -> list[str]:
    brought, as_is, trained = ways
    f1 = {way.name: way.evaluation.scores().model["f1"] for way in ways}
    blind = brought.evaluation.scores().blind["f1"]
    scores = "; ".join(f"{name} {format_estimate(one)}" for name, one in f1.items())
    added = difference([brought.evaluation], [as_is.evaluation])
    gained = difference([trained.evaluation], [brought.evaluation])
    return [
        f"F1 on the coarse test tiles: {scores}; everything is a landslide {format_number(blind.value)}.",
        f"Resampling the tiles to finer pixels changes F1 by {format_estimate(added)}. {interval_sentence(added)} "
        "Resampling adds pixels, but no detail.",
        f"F1 of the model trained at the ground sample distance of the image, less that of the paper's way, is "
        f"{format_estimate(gained)}. {interval_sentence(gained)}",
        ONE_SEED,
    ]


def _on_values(fine: BundleInfo, coarse: BundleInfo) -> list[str]:
    """State how the brightness of the two sets of tiles differs, and what was done about it."""
    if fine.dtype != coarse.dtype:
        _, high = matched_scale(fine, _mean(coarse))
        return [
            f"The coarse tiles hold {coarse.dtype} values, and the model of fine tiles takes {fine.dtype}. Values from "
            f"0 to {high:,.0f} become its whole range, so that the tiles get the mean brightness of its training tiles."
        ]
    return [
        f"All ways read the values of the coarse tiles unchanged. Their mean is {_mean(coarse):.0f}; that of the fine "
        f"training tiles is {_mean(fine):.0f}."
    ]


def _scene(context: ReproductionContext) -> tuple[str, tuple[Drawing, ...]]:
    """Map the coarse scene in three ways; return a sentence on it, and the maps."""
    path = context.settings.coarse_scene
    if path is None:
        raise ValueError("expected a coarse scene")
    fine, coarse = context.scene_model(FINE), context.scene_model(COARSE)
    with warnings.catch_warnings(), gdal_settings(), RasterReader(path) as named:
        # The sentence below states what these warnings state: scale, ground sample distance and bands.
        warnings.simplefilter("ignore", LimKerasWarning)
        bands = shown_bands(named, coarse.info.bands)
        if len(bands) < coarse.info.bands or named.info.gsd_m is None:
            return f"The scene `{named.stem}` lacks bands or a ground sample distance, so it is not mapped.", ()
        with RasterReader(path, bands=bands) as scene:
            mean = _scene_mean(scene)
            if mean <= 0:
                return f"The scene `{scene.stem}` holds no pixel above 0, so it is not mapped.", ()
            ways = {
                f"{fine.info.gsd_m:g} m model, scene brought to {fine.info.gsd_m:g} m": (fine, "resampled", True),
                f"{fine.info.gsd_m:g} m model, scene as it is": (fine, "as_is", False),
                f"model trained at {coarse.info.gsd_m:g} m": (coarse, "trained", False),
            }
            maps = [
                _map_scene(context, scene, title, way, matched_scale(way[0].info, mean)) for title, way in ways.items()
            ]
            chart = scene_maps(scene, maps, tuple(number for number in scene.bands[:3]))
            sentence = _scene_sentence(scene, maps, mean, fine.info, coarse.info)
    caption = (
        "The scene, and what each way maps as landslide. A pixel of the picture is coloured where any pixel of the map "
        "within it is landslide. There is no truth."
    )
    return sentence, (Drawing("sentinel2_maps", caption, chart),)


def shown_bands(scene: RasterReader, count: int) -> tuple[int, ...]:
    """Return the bands that a model of `count` bands reads: red, green, blue if the file names them, else the first."""
    named = tuple(scene.colour_bands.values())
    return named if len(named) == count else tuple(scene.bands[:count])


def _scene_mean(scene: RasterReader) -> float:
    """Return the mean over the pixels with data of all bands, of the scene reduced to 1,024 pixels."""
    pixels, valid = scene.overview(_OVERVIEW_PX)
    return float(pixels[valid].mean(dtype=np.float64)) if valid.any() else 0.0


def _map_scene(
    context: ReproductionContext, scene: RasterReader, title: str, way: tuple[SceneModel, str, bool], scale: ValueScale
) -> MappedScene:
    model, name, resample = way
    same = scene.info.dtype == model.info.dtype
    options = PredictOptions(
        all_regions=True, bands=tuple(scene.bands), scale=None if same else scale, resample=resample
    )
    folder = context.folder / MAPS / f"sentinel2_{name}"
    prediction = predict_scene(model, scene.path, folder, options, execution=Execution(progress=context.progress))
    return MappedScene(title, _mask(prediction), _share(prediction))


def _mask(prediction: ScenePrediction) -> Path:
    return next(path for path in prediction.files if path.name.endswith("_landslides.tif"))


def _share(prediction: ScenePrediction) -> float:
    return float(prediction.summary["landslide_pixels"] / max(prediction.summary["valid_pixels"], 1))


def _scene_sentence(
    scene: RasterReader, maps: list[MappedScene], mean: float, fine: BundleInfo, coarse: BundleInfo
) -> str:
    shares = "; ".join(f"{one.title}: {one.share:.2%}" for one in maps)
    values = "The values are read as they are."
    if scene.info.dtype not in (fine.dtype, coarse.dtype):
        high = (matched_scale(info, mean)[1] for info in (fine, coarse))
        values = (
            "Values from 0 to {:,.0f} (model of fine tiles) and to {:,.0f} (model trained on coarse ones) become the "
            "whole range of that model, so that the scene gets the mean brightness of its training tiles."
        ).format(*high)
    return (
        f"The scene `{scene.stem}` has no truth: the maps can be compared, but not scored. Its bands "
        f"{', '.join(map(str, scene.bands))} are read. {values} Mapped share: {shares}."
    )
