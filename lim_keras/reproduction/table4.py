"""Table 4: FCN-FLK, FCN-FL, U-Net and SegNet with one encoder, one budget and one recipe."""

from __future__ import annotations

from collections.abc import Mapping

from lim_keras.metrics.binary import Estimate
from lim_keras.report.parts import Part, Table, Value
from lim_keras.report.tables import format_estimate
from lim_keras.reproduction.context import ReproductionContext
from lim_keras.reproduction.contrasts import difference
from lim_keras.reproduction.measures import (
    LABELS,
    LANDSLIDE_TILES,
    NO_SCENE,
    NO_TRANSFER,
    NOT_TRAINED,
    ONE_SEED,
    SCENE,
    SCORES,
    TRANSFER,
    WINDOWS,
    finished_scores,
    ground_notes,
    hashes,
    models_name,
    scene_table,
)
from lim_keras.reproduction.paper import TABLE_4
from lim_keras.reproduction.scores import ExperimentScores
from lim_keras.reproduction.table3 import method_columns

TITLE = "Table 4: FCN-FLK, U-Net and SegNet"

METHODS = ("fcn_flk", "fcn_fl", "unet", "segnet")

PAIRS = (("fcn_flk", "unet"), ("fcn_flk", "segnet"), ("fcn_fl", "unet"), ("fcn_fl", "segnet"))

_MEASURES = (LANDSLIDE_TILES, WINDOWS, SCENE, TRANSFER)

_FAIR = (
    "FCN-FLK averages the probabilities of several models; U-Net and SegNet are one model each. FCN-FL is one model "
    "with the same encoder, loss, budget and recipe, so it is the fair comparison of the decoders."
)

_NOTE = (
    "The paper's columns are scores in another region, Shuicheng County. Its column FCN-FLK is equal to that of its "
    "Table 3 in every number, so its Table 4 is no target (P7)."
)


def make_table4(context: ReproductionContext) -> Part:
    """Compare the four decoders on the landslide test tiles, in windows, on the scene and on the transfer tiles."""
    by_examples = {
        examples: finished_scores(context, (f"{examples}_{method}" for method in METHODS))
        for examples in ("whole", "windows")
    }
    tables = [_tiles_table(context, examples, found) for examples, found in by_examples.items()]
    scene, transfer = scene_table(context, "table4_scene", METHODS), _transfer_table(context, by_examples)
    tables += [one for one in (scene, transfer) if one is not None]
    differences = _differences(context, by_examples)
    lines = [_FAIR, *_sentences(differences), ONE_SEED]
    lines += [NO_SCENE] if scene is None and context.settings.scene is None else []
    lines += [NO_TRANSFER] if transfer is None and context.data.transfer is None else []
    return Part("table4", TITLE, tuple(lines), (*tables, differences))


Found = Mapping[str, ExperimentScores]


def _tiles_table(context: ReproductionContext, examples: str, found: Found) -> Table:
    by_method = {name.removeprefix(f"{examples}_"): scores for name, scores in found.items()}
    columns, rows = method_columns(by_method, METHODS, TABLE_4)
    title = f"Landslide test tiles, models trained on {models_name(context, examples)}"
    notes = (_NOTE,) if examples == "whole" else ()
    return Table(f"table4_{examples}", title, columns, rows, notes, hashes(found))


def _transfer_table(context: ReproductionContext, by_examples: Mapping[str, Found]) -> Table | None:
    """Return the scores on the landslide tiles of another region; None without such tiles."""
    found = {name: scores for several in by_examples.values() for name, scores in several.items() if scores.transfer}
    if not found:
        return None
    rows: list[tuple[Value, ...]] = []
    for examples in by_examples:
        models = models_name(context, examples)
        several = {name: found[name] for name in by_examples[examples] if name in found}
        blind = [one.transfer.scores("landslide").blind for one in several.values() if one.transfer is not None][:1]
        rows += [(models, "image-blind mask", *(one[score] for score in SCORES)) for one in blind]
        rows += [(models, LABELS[method], *_cells(found.get(f"{examples}_{method}"))) for method in METHODS]
    columns = ("trained on", "method", *SCORES.values())
    return Table("table4_transfer", "Landslide tiles of the other region", columns, tuple(rows), (), hashes(found))


def _cells(scores: ExperimentScores | None) -> tuple[Value, ...]:
    if scores is None:
        return (NOT_TRAINED, *(None for _ in list(SCORES)[1:]))
    estimates = TRANSFER.estimates(scores)
    return tuple(estimates[score] for score in SCORES)


def _differences(context: ReproductionContext, by_examples: Mapping[str, Found]) -> Table:
    """Return differences of F1 between two methods under each measure, with paired intervals."""
    rows = []
    for examples, found in by_examples.items():
        for first, second in PAIRS:
            both = [found.get(f"{examples}_{method}") for method in (first, second)]
            cells = _pair_cells([one for one in both if one is not None])
            rows.append((models_name(context, examples), LABELS[first], LABELS[second], *cells))
    columns = ("trained on", "method", "less", *(f"F1, {measure.name}" for measure in _MEASURES))
    sources = hashes({name: one for found in by_examples.values() for name, one in found.items()})
    paired = "Intervals are paired: each bootstrap draw takes the same ground for both methods."
    notes = (paired, *ground_notes(rows))
    return Table("table4_differences", "Differences of F1", columns, tuple(rows), notes, sources)


def _pair_cells(both: list[ExperimentScores]) -> tuple[Value, ...]:
    if len(both) < 2:
        return (NOT_TRAINED, *(None for _ in _MEASURES[1:]))
    pairs = [(measure.of(both), measure.subset) for measure in _MEASURES]
    return tuple(
        difference(evaluations[:1], evaluations[1:], subset) if len(evaluations) == 2 else None
        for evaluations, subset in pairs
    )


def _sentences(differences: Table) -> list[str]:
    """State the differences under each measure."""
    lines = []
    for models, first, second, *cells in differences.rows:
        named = zip(_MEASURES, cells, strict=True)
        told = [f"{one.name} {format_estimate(cell)}" for one, cell in named if isinstance(cell, Estimate)]
        lines += [f"F1 of {first} less that of {second}, trained on {models}: {'; '.join(told)}."] if told else []
    return lines
