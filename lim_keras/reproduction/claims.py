"""Claims of the paper about effects: the measured difference with its interval, and a verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from lim_keras.metrics.binary import Estimate
from lim_keras.report.parts import Part, Table, Value
from lim_keras.report.tables import format_number
from lim_keras.reproduction.ablation import BOTH, EFFECTS, FOCAL_LOSS, SKIP_LEVELS, Ablation
from lim_keras.reproduction.context import ReproductionContext
from lim_keras.reproduction.contrasts import Verdict, difference, verdict
from lim_keras.reproduction.experiments import BASE, FOLDS
from lim_keras.reproduction.measures import (
    ALL_TILES,
    LABELS,
    LANDSLIDE_TILES,
    NO_SCENE,
    NO_TRANSFER,
    NOT_TRAINED,
    SCENE,
    SCORES,
    TRANSFER,
    finished_scores,
    ground_notes,
    hashes,
    models_name,
)
from lim_keras.reproduction.paper import CLAIMS, TABLE_3, TABLE_4, Claim, implied_precision
from lim_keras.reproduction.scores import ExperimentScores

TITLE = "Claims of the paper, tested"

_MEASURES = (LANDSLIDE_TILES, ALL_TILES, SCENE, TRANSFER)
"""Samples that claims are tested on; ALL_TILES only where false alarms count, which tiles without landslides have."""

_ABLATION: Mapping[str, tuple[str, Mapping[str, float]]] = {
    "skip levels": (SKIP_LEVELS, EFFECTS[SKIP_LEVELS]),
    "focal loss": (FOCAL_LOSS, EFFECTS[FOCAL_LOSS]),
    "both": (BOTH, EFFECTS[BOTH]),
    "k-fold": ("ensemble of the folds less one model", {FOLDS: 1.0, BASE: -1.0}),
}
"""Contrast of the ablation for the effect of a claim, with its name."""

_ALONE = ("skip levels", "focal loss")
"""Effects that no two methods of the paper separate."""

_RULE = (
    "A claim holds where the 95 % interval of the difference lies above 0 in the claimed direction, it is contradicted "
    "where the interval lies below 0, and it is not shown otherwise, also where there is no interval. Each difference "
    "is judged by itself: of twenty differences that are 0 in truth, about one has an interval without 0 by chance."
)

_LUCK = (
    "Models on whole tiles and on windows have one seed: their intervals cover the choice of the test ground, not the "
    "luck of training. Those of the ablation cover both, if settings have two or more seeds."
)

_MEMBERS = "FCN-FLK less its single models"

_NOTES = (
    "The paper changes skip levels and loss together, so it prints no difference for either alone.",
    "Fewer false alarms are measured as higher precision, also on all test tiles, because landslide tiles alone leave "
    "out the false alarms of other tiles. The paper's precision is computed from its F1 and recall.",
    "In the paper, FCN-FLK is compared with FCN-FL, not with its own single models, and differences from U-Net and "
    "SegNet are those of its Table 4, whose column FCN-FLK is equal to that of Table 3.",
)

_ONE_SEED = "1 seed"


@dataclass(frozen=True, slots=True)
class Finding:
    """Measured difference for a claim.

    Attributes:
        claim: the claim.
        kind: models that test it, of the ablation, on whole tiles or on windows.
        compared: the two that are compared.
        measured_on: name of the measure.
        seeds: number of seeds of each of them.
        effect: the difference; None if a model is not trained.
    """

    claim: Claim
    kind: str
    compared: str
    measured_on: str
    seeds: str
    effect: Estimate | None

    @property
    def verdict(self) -> Verdict | None:
        """Verdict by the interval; None without an effect."""
        return None if self.effect is None else verdict(self.effect)

    @property
    def labelled_verdict(self) -> str | None:
        """Verdict, with a mark if no second seed shows the luck of training."""
        return f"{self.verdict} ({_ONE_SEED})" if self.verdict and self.seeds == "1" else self.verdict


def make_claims(context: ReproductionContext) -> Part:
    """Test each claim on the landslide test tiles, the scene and the transfer tiles."""
    ablation = Ablation.read(context)
    methods = {method for claim in CLAIMS for method in (claim.method, claim.other)}
    found = finished_scores(context, (f"{one}_{method}" for one in ("whole", "windows") for method in sorted(methods)))
    findings = [one for claim in CLAIMS for one in _findings(claim, context, ablation, found)]
    rows = tuple(_row(one) for one in findings)
    columns = ("claim", "models", "compared", "measured on", "score", "seeds", "difference", "in the paper", "verdict")
    sources = hashes(found) | ablation.sources
    notes = (*_NOTES, *ground_notes(rows))
    tables = (
        _verdicts(findings, sources),
        Table("claims_differences", "Claims and measured differences", columns, rows, notes, sources),
    )
    settings = context.settings
    text = [*(_sentence(claim, findings) for claim in CLAIMS), _RULE, _LUCK, *_luck_sentences(ablation)]
    text += [NO_SCENE] if settings.scene is None else []
    text += [NO_TRANSFER] if settings.transfer is None and context.data.transfer is None else []
    return Part("claims", TITLE, tuple(text), tables)


def _findings(
    claim: Claim, context: ReproductionContext, ablation: Ablation, found: Mapping[str, ExperimentScores]
) -> Iterator[Finding]:
    """Yield the findings on a claim: of the ablation if it has a contrast for it, then of the two methods."""
    if claim.effect in _ABLATION:
        yield from _ablation_findings(claim, ablation, context)
    if claim.effect in _ALONE:
        return
    for examples in ("whole", "windows"):
        label = models_name(context, examples), f"{LABELS[claim.method]} less {LABELS[claim.other]}"
        both = [found.get(f"{examples}_{method}") for method in (claim.method, claim.other)]
        trained = [one for one in both if one is not None]
        if len(trained) < 2:
            yield Finding(claim, *label, "", "", None)
            continue
        for measure in _MEASURES:
            if measure is ALL_TILES and claim.score != "precision":
                continue
            ours, others = measure.of(trained[:1]), measure.of(trained[1:])
            if ours and others:
                yield Finding(claim, *label, measure.name, "1", difference(ours, others, measure.subset, claim.score))
        if claim.effect == "k-fold" and trained[0].members:
            yield _member_finding(claim, trained[0], models_name(context, examples))


def _ablation_findings(claim: Claim, ablation: Ablation, context: ReproductionContext) -> Iterator[Finding]:
    compared, weights = _ABLATION[claim.effect]
    label = f"ablation ({context.settings.edge_encoder})", compared
    if any(setting not in ablation.scores for setting in weights):
        yield Finding(claim, *label, "", "", None)
        return
    seeds = [len(ablation.scores[setting]) for setting in weights]
    told = str(min(seeds)) if min(seeds) == max(seeds) else f"{min(seeds)} to {max(seeds)}"
    for measure in (LANDSLIDE_TILES, SCENE):
        effect = ablation.effect(weights, measure, claim.score)
        if effect is not None:
            yield Finding(claim, *label, measure.name, told, effect)


def _member_finding(claim: Claim, scores: ExperimentScores, models: str) -> Finding:
    folds = list(scores.members.values())
    effect = difference([scores.tiles], folds, "landslide", claim.score)
    return Finding(claim, models, _MEMBERS, LANDSLIDE_TILES.name, "1", effect)


def _row(finding: Finding) -> tuple[Value, ...]:
    claim = finding.claim
    measured: tuple[Value, ...] = (finding.effect, _printed(claim), finding.verdict)
    if finding.effect is None:
        measured = (NOT_TRAINED, _printed(claim), None)
    labels = claim.sentence, finding.kind, finding.compared, finding.measured_on
    return (*labels, SCORES[claim.score], finding.seeds, *measured)


def _printed(claim: Claim) -> float | None:
    """Return the difference between the two methods in the paper; None if it prints none for the effect alone."""
    if claim.effect in _ALONE:
        return None
    table = TABLE_3 if claim.other in TABLE_3 else TABLE_4
    ours, others = table[claim.method], table[claim.other]
    if claim.score == "precision":
        return implied_precision(ours) - implied_precision(others)
    return ours[claim.score] - others[claim.score]


def _verdicts(findings: list[Finding], sources: Mapping[str, str]) -> Table:
    """Return the verdicts with a row for each claim, and a column for each kind of models and measure."""
    judged = [one for one in findings if one.compared != _MEMBERS]
    kinds = dict.fromkeys(one.kind for one in judged)
    measures = [one.name for one in _MEASURES if any(finding.measured_on == one.name for finding in judged)]
    cells = {(one.claim, one.kind, one.measured_on): one.labelled_verdict for one in judged}
    untrained = {(one.claim, one.kind) for one in judged if one.effect is None}
    keys = [(kind, measure) for kind in kinds for measure in measures]
    keys = [key for key in keys if any(cell[1:] == key for cell in cells)] or [(kind, "") for kind in kinds]
    rows = tuple(
        (
            claim.sentence,
            *(NOT_TRAINED if (claim, kind) in untrained else cells.get((claim, kind, on)) for kind, on in keys),
        )
        for claim in CLAIMS
    )
    columns = ("claim", *(f"{kind}: {on}" if on else kind for kind, on in keys))
    notes = (
        f"{_ONE_SEED}: the interval does not cover the luck of training.",
        "The comparison of FCN-FLK with its own single models stands only in the next table.",
    )
    return Table("claims", "Verdicts", columns, rows, notes, sources)


def _luck_sentences(ablation: Ablation) -> list[str]:
    """State how far two trainings of one setting differ by luck alone."""
    lucks = {one.name: ablation.luck(one) for one in (LANDSLIDE_TILES, SCENE)}
    told = [f"{format_number(luck.largest_difference)} on {name}" for name, luck in lucks.items() if luck is not None]
    if not told:
        return []
    return [
        f"In the ablation, two trainings that differ in their seed alone differ in F1 by up to {' and '.join(told)} in "
        "95 % of cases. A smaller difference between two single models may be luck."
    ]


def _sentence(claim: Claim, findings: list[Finding]) -> str:
    """Summarize the verdicts on a claim."""
    judged = [one for one in findings if one.claim == claim and one.verdict is not None]
    if not judged:
        return f"{claim.sentence} Not tested: its models are not trained."
    told = []
    for measured_on in dict.fromkeys(one.measured_on for one in judged):
        verdicts = Counter(one.labelled_verdict for one in judged if one.measured_on == measured_on)
        counts = [f"{count} x {name}" for name, count in verdicts.items()]
        told.append(f"{measured_on}, {' and '.join(counts)}")
    return f"{claim.sentence} Verdicts: {'; '.join(told)}."
