"""Table 3: FCN, FCN-FL and FCN-FLK on landslide tiles, beside an image-blind mask and the paper's scores."""

from __future__ import annotations

from collections.abc import Mapping

from lim_keras.metrics.binary import Estimate
from lim_keras.report.parts import Part, Table, Value
from lim_keras.report.tables import format_estimate, format_number
from lim_keras.reproduction.context import ReproductionContext
from lim_keras.reproduction.contrasts import difference, interval_sentence, mean_score
from lim_keras.reproduction.measures import (
    LABELS,
    LANDSLIDE_TILES,
    NO_SCENE,
    NOT_TRAINED,
    ONE_SEED,
    SCORES,
    finished_scores,
    hashes,
    models_name,
    scene_table,
)
from lim_keras.reproduction.paper import (
    TABLE_3,
    implied_landslide_iou,
    implied_miou,
    implied_precision,
    implied_share,
)
from lim_keras.reproduction.scores import ExperimentScores

TITLE = "Table 3: FCN, FCN-FL and FCN-FLK"

METHODS = ("fcn", "fcn_fl", "fcn_flk")

MEMBERS = "single models of FCN-FLK, mean score"


def make_table3(context: ReproductionContext) -> Part:
    """Compare the three methods on the landslide test tiles and on the scene, trained on whole tiles and on windows."""
    tables: list[Table] = []
    text: list[str] = []
    for examples in ("whole", "windows"):
        found = finished_scores(context, (f"{examples}_{method}" for method in METHODS))
        by_method = {name.removeprefix(f"{examples}_"): scores for name, scores in found.items()}
        models = models_name(context, examples)
        title = f"Landslide test tiles, models trained on {models}"
        columns, rows = method_columns(by_method, METHODS, TABLE_3, members=True)
        tables.append(Table(f"table3_{examples}", title, columns, rows, _notes() if not tables else (), hashes(found)))
        text += _sentences(by_method, models)
    scene = scene_table(context, "table3_scene", METHODS)
    lines = (*text, ONE_SEED, *([NO_SCENE] if scene is None and context.settings.scene is None else []))
    return Part("table3", TITLE, lines, (*tables, *([scene] if scene else [])))


def method_columns(
    found: Mapping[str, ExperimentScores],
    methods: tuple[str, ...],
    printed: Mapping[str, Mapping[str, float]],
    *,
    members: bool = False,
) -> tuple[tuple[str, ...], tuple[tuple[Value, ...], ...]]:
    """Return columns and rows of a table with a row for each score and a column for each method.

    Args:
        found: scores of the methods that are trained.
        methods: all methods.
        printed: scores in the paper, by method.
        members: add the mean score of the single models of FCN-FLK.
    """
    ours = ["image-blind mask", *(LABELS[method] for method in methods), *([MEMBERS] if members else [])]
    of_paper = {method: printed[method] for method in methods if method in printed}
    columns = ("score", *ours, *(f"{LABELS[method]}, the paper" for method in of_paper))
    blind = next((one.tiles.scores("landslide").blind for one in found.values()), {})
    estimates = {method: LANDSLIDE_TILES.estimates(scores) for method, scores in found.items()}
    folds = found["fcn_flk"].members if "fcn_flk" in found else {}
    rows: list[tuple[Value, ...]] = []
    for score, label in SCORES.items():
        cells: list[Value] = [blind.get(score)]
        cells += [estimates[method][score] if method in estimates else NOT_TRAINED for method in methods]
        if members:
            cells.append(mean_score(list(folds.values()), "landslide", score) if folds else NOT_TRAINED)
        rows.append((label, *cells, *(_printed(values, score) for values in of_paper.values())))
    return columns, tuple(rows)


def _printed(values: Mapping[str, float], score: str) -> float:
    """Return a score of the paper; precision and IoU of landslides follow from F1 and recall."""
    computed = {"precision": implied_precision, "iou_landslide": implied_landslide_iou}
    return computed[score](values) if score in computed else values[score]


def _sentences(found: Mapping[str, ExperimentScores], models: str) -> list[str]:
    if "fcn_flk" not in found:
        return [f"FCN-FLK is not trained on {models}."]
    scores = found["fcn_flk"]
    tiles = scores.tiles.scores("landslide")
    f1, blind = tiles.model["f1"], tiles.blind["f1"]
    lines = [
        f"FCN-FLK, trained on {models}, has F1 {format_estimate(f1)}; landslide test tiles: {tiles.samples}. The paper "
        f"prints {format_number(TABLE_3['fcn_flk']['f1'])} for its 70 tiles. The image-blind mask, which never sees "
        f"the image, has F1 {format_estimate(blind)} on our tiles."
    ]
    if scores.members:
        lines.append(_gain_over_members(scores))
    return lines


def _gain_over_members(scores: ExperimentScores) -> str:
    """State the difference between the ensemble, which averages probabilities, and its single models."""
    folds = list(scores.members.values())
    alone: Estimate = mean_score(folds, "landslide")
    gain = difference([scores.tiles], folds, "landslide")
    return (
        f"FCN-FLK averages the probabilities of {scores.folds} models. Alone, at the same threshold, these models have "
        f"a mean F1 of {format_estimate(alone)}. FCN-FLK less this mean is {format_estimate(gain)}. "
        f"{interval_sentence(gain)}"
    )


def _notes() -> tuple[str, ...]:
    shares = {LABELS[method]: format_number(implied_share(values)) for method, values in TABLE_3.items()}
    fcn = TABLE_3["fcn"]
    return (
        "The paper does not publish the list of its test tiles, so ours are others.",
        "P5 to P7 are explained in the part `differences`.",
        "The paper prints neither precision nor the IoU of landslides; here they are computed from its F1 and recall "
        "(P6).",
        "mIoU is the mean over two classes. Eq. 9 of the paper averages over three, but its values fit two (P5).",
        "The share of landslide pixels in the paper's test tiles follows from its F1, recall and accuracy: "
        f"{', '.join(f'{share} for {label}' for label, share in shares.items())}. These shares should be equal, so the "
        "column FCN was not computed on the same pixels as the other two. Its mIoU does not fit either: the paper "
        f"prints {format_number(fcn['miou'])}, and {format_number(implied_miou(fcn))} follows from the rest of the "
        "column (P6).",
    )
