"""Ablation: the effect of each part of the method alone, with several seeds for each setting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from lim_keras.evaluation.evaluation import Evaluation, Subset
from lim_keras.metrics.binary import Estimate
from lim_keras.report.parts import Part, Table, Value
from lim_keras.report.tables import format_estimate
from lim_keras.reproduction.context import ReproductionContext
from lim_keras.reproduction.contrasts import (
    Term,
    TrainingLuck,
    contrast,
    difference,
    mean_score,
    training_luck,
    verdict,
)
from lim_keras.reproduction.experiments import AXES, BASE, FOLDS, ablation_experiments
from lim_keras.reproduction.measures import (
    ALL_TILES,
    LANDSLIDE_TILES,
    NO_SCENE,
    NOT_TRAINED,
    SCENE,
    WINDOWS,
    Measure,
    finished_scores,
    ground_notes,
    hashes,
)
from lim_keras.reproduction.scores import ExperimentScores

TITLE = "Ablation: one change at a time"

MEASURES = (LANDSLIDE_TILES, ALL_TILES, WINDOWS, SCENE)

SETTINGS: Mapping[str, str] = {
    "fcn_cross_entropy": "three skip levels, cross-entropy",
    "fcn_focal": "three skip levels, focal loss",
    "fcn_fl_cross_entropy": "five skip levels, cross-entropy",
    BASE: "base",
    "weights_paper_eq5": "weights .25 / .25 (paper-eq5)",
    "weights_keras": "weights .25 / .75 (keras)",
    "gamma_0": "gamma 0",
    "gamma_1": "gamma 1",
    "gamma_2_5": "gamma 2.5",
    "augmentation_none": "no augmentation",
    "augmentation_dihedral": "augmentation dihedral",
    "windows": "windows at native scale",
    FOLDS: "ensemble of the folds",
}
"""Names of the settings for readers."""

BASE_NAMES: Mapping[str, str] = {
    "skip levels and loss": "five skip levels, focal loss (base)",
    "class weights": "weights .75 / .25 (paper-text, base)",
    "gamma": "gamma 1.75 (base)",
    "augmentation": "augmentation paper (base)",
    "examples": "whole tiles (base)",
    "models": "one model (base)",
}
"""Name of the base in each question of AXES."""

_BASE = (
    "The base is FCN-FL: five skip levels, focal loss with gamma 1.75 and weights .75 / .25 of landslide and "
    "background, whole tiles, the paper's augmentation, one model. Every other setting changes what its name says."
)

EFFECTS: Mapping[str, Mapping[str, float]] = {
    "five skip levels instead of three, mean over both losses": {
        **{BASE: 0.5, "fcn_fl_cross_entropy": 0.5},
        **{"fcn_focal": -0.5, "fcn_cross_entropy": -0.5},
    },
    "focal loss instead of cross-entropy, mean over three and five levels": {
        **{BASE: 0.5, "fcn_focal": 0.5},
        **{"fcn_fl_cross_entropy": -0.5, "fcn_cross_entropy": -0.5},
    },
    "interaction": {BASE: 1, "fcn_focal": -1, "fcn_fl_cross_entropy": -1, "fcn_cross_entropy": 1},
    "five skip levels, with cross-entropy": {"fcn_fl_cross_entropy": 1, "fcn_cross_entropy": -1},
    "five skip levels, with focal loss": {BASE: 1, "fcn_focal": -1},
    "focal loss, with three skip levels": {"fcn_focal": 1, "fcn_cross_entropy": -1},
    "focal loss, with five skip levels": {BASE: 1, "fcn_fl_cross_entropy": -1},
    "both changes, as from FCN to FCN-FL": {BASE: 1, "fcn_cross_entropy": -1},
}
"""Weights of the settings in each effect of skip levels and loss: two main effects, the interaction, single changes."""

SKIP_LEVELS, FOCAL_LOSS, *_, BOTH = EFFECTS

_SPREAD = (
    "Intervals add the spread between seeds of single models. The ensemble of the folds varies less, so its interval "
    "is too wide rather than too narrow."
)


@dataclass(frozen=True)
class Ablation:
    """Scores of the settings that are trained, one for each seed."""

    scores: Mapping[str, tuple[ExperimentScores, ...]]
    _luck: dict[tuple[str, str], TrainingLuck | None] = field(default_factory=dict)

    @classmethod
    def read(cls, context: ReproductionContext) -> Ablation:
        """Read the scores of all finished experiments of the ablation."""
        found: dict[str, tuple[ExperimentScores, ...]] = {}
        for setting in SETTINGS:
            several = tuple(finished_scores(context, ablation_experiments(context.settings, setting)).values())
            found |= {setting: several} if several else {}
        return cls(found)

    @cached_property
    def sources(self) -> dict[str, str]:
        """Configuration hash of each experiment."""
        return hashes({one.experiment: one for several in self.scores.values() for one in several})

    @cached_property
    def less_base(self) -> dict[str, list[Estimate | None]]:
        """F1 of each setting less that of the base, under each of MEASURES; None if one of them is not trained."""
        others = [setting for setting in SETTINGS if setting != BASE]
        return {one: [self.effect({one: 1.0, BASE: -1.0}, measure) for measure in MEASURES] for one in others}

    @property
    def seeds(self) -> int:
        """Largest number of seeds of a setting."""
        return max((len(several) for several in self.scores.values()), default=0)

    def models(self, setting: str, measure: Measure) -> list[Evaluation]:
        """Return the evaluations of a setting, one for each seed; none if it is not trained."""
        return measure.of(self.scores.get(setting, ()))

    def luck(self, measure: Measure, score: str = "f1") -> TrainingLuck | None:
        """Pool the variance between seeds over the settings of one model."""
        key = measure.name, score
        if key not in self._luck:
            single = [self.models(setting, measure) for setting in self.scores if setting != FOLDS]
            self._luck[key] = training_luck(single, measure.subset, score)
        return self._luck[key]

    def mean(self, setting: str, measure: Measure) -> Estimate | None:
        """Return the mean F1 of a setting over its seeds."""
        models = self.models(setting, measure)
        return mean_score(models, measure.subset, luck=self.luck(measure)) if models else None

    def effect(self, weights: Mapping[str, float], measure: Measure, score: str = "f1") -> Estimate | None:
        """Return a weighted sum of the settings' mean scores; None if one of them is not trained."""
        terms: list[Term] = [(weight, self.models(setting, measure)) for setting, weight in weights.items()]
        if not all(models for _, models in terms):
            return None
        return contrast(terms, measure.subset, score, self.luck(measure, score))


def make_ablation(context: ReproductionContext) -> Part:
    """Compare the settings of the ablation with the base, and separate skip levels from the loss."""
    ablation = Ablation.read(context)
    effects, settings, folds = _effects(ablation), _settings(ablation), _folds(ablation)
    text = (
        _BASE,
        _seeds_text(ablation),
        *_effect_sentences(ablation),
        *_interval_sentences(ablation),
        *([NO_SCENE] if context.settings.scene is None else []),
    )
    return Part("ablation", TITLE, text, (effects, *settings, folds))


def _effects(ablation: Ablation) -> Table:
    rows = tuple(
        (name, *_or_untrained([ablation.effect(weights, measure) for measure in MEASURES], weights, ablation))
        for name, weights in EFFECTS.items()
    )
    columns = ("effect on F1", *(measure.name for measure in MEASURES))
    notes = (
        "The first two rows are main effects. The interaction is the effect of five skip levels with focal loss, less "
        "that with cross-entropy.",
        *ground_notes(rows),
    )
    title = "Skip levels and loss: effects on F1, with paired intervals"
    return Table("ablation_effects", title, columns, rows, notes, ablation.sources)


def _or_untrained(cells: list[Estimate | None], settings: Mapping[str, float], ablation: Ablation) -> tuple[Value, ...]:
    lacks = any(setting not in ablation.scores for setting in settings)
    return (NOT_TRAINED, *(None for _ in cells[1:])) if lacks else tuple(cells)


def _settings(ablation: Ablation) -> tuple[Table, Table]:
    """Return the mean F1 of each setting, and its difference from the base."""
    names = tuple(measure.name for measure in MEASURES)
    means: list[tuple[Value, ...]] = []
    differences: list[tuple[Value, ...]] = []
    for axis, settings in AXES.items():
        for setting in settings:
            name = BASE_NAMES[axis] if setting == BASE else SETTINGS[setting]
            label = (axis, name, len(ablation.scores.get(setting, ())))
            means.append(
                (*label, *_or_untrained([ablation.mean(setting, one) for one in MEASURES], {setting: 1}, ablation))
            )
            if setting != BASE:
                cells = ablation.less_base[setting]
                differences.append((*label, *_or_untrained(cells, {setting: 1, BASE: -1}, ablation)))
    columns = ("question", "setting", "seeds", *names)
    sources = ablation.sources
    title = "Mean F1 of a setting less that of the base"
    notes = ground_notes(differences)
    if ablation.seeds > 1:
        notes = (_SPREAD, *notes)
    return (
        Table("ablation", "Mean F1 over the seeds of a setting", columns, tuple(means), ground_notes(means), sources),
        Table("ablation_differences", title, columns, tuple(differences), notes, sources),
    )


def _folds(ablation: Ablation) -> Table:
    """Return the F1 of the ensemble of the folds, and the mean F1 of its single models."""
    columns = ("F1", LANDSLIDE_TILES.name, ALL_TILES.name, WINDOWS.name)
    title = "The ensemble of the folds, and its single models"
    note = (
        "The ensemble averages the probabilities of its models. All rows are of the same trained models, at the same "
        "threshold. The intervals cover the choice of the test ground alone."
    )
    several = ablation.scores.get(FOLDS, ())
    if not several:
        return Table("ablation_folds", title, columns, ((SETTINGS[FOLDS], NOT_TRAINED, None, None),))
    scores = several[0]
    subsets: list[tuple[Evaluation, Subset]] = [
        (scores.tiles, "landslide"),
        (scores.tiles, "all"),
        (scores.windows, "all"),
    ]
    members = [list(one.values()) for one in (scores.members, scores.members, scores.member_windows)]
    pairs = [(one, models, subset) for (one, subset), models in zip(subsets, members, strict=True)]
    rows: tuple[tuple[Value, ...], ...] = (
        (SETTINGS[FOLDS], *(mean_score([one], subset) for one, _, subset in pairs)),
        ("its single models, mean F1", *(mean_score(models, subset) for _, models, subset in pairs)),
        ("ensemble less single models", *(difference([one], models, subset) for one, models, subset in pairs)),
    )
    return Table("ablation_folds", title, columns, rows, (note,), hashes({scores.experiment: scores}))


def _seeds_text(ablation: Ablation) -> str:
    luck = ablation.luck(LANDSLIDE_TILES)
    if luck is None:
        return (
            "Each setting has one seed. The intervals cover the choice of the test ground, not the luck of training: "
            "a difference may be luck even where its interval does not contain 0."
        )
    return (
        f"A setting has up to {ablation.seeds} seeds. Intervals cover the choice of the test ground and the luck of "
        f"training: between seeds of one setting, F1 on landslide tiles has a standard deviation of "
        f"{luck.variance**0.5:.3f}, pooled over the settings ({luck.freedom} degrees of freedom)."
    )


def _effect_sentences(ablation: Ablation) -> list[str]:
    lines = []
    for name in (SKIP_LEVELS, FOCAL_LOSS):
        effects = {one.name: ablation.effect(EFFECTS[name], one) for one in MEASURES}
        told = [f"{where} {format_estimate(effect)}" for where, effect in effects.items() if effect is not None]
        lines += [f"Main effect on F1 of {name}: {'; '.join(told)}."] if told else []
    return lines


def _interval_sentences(ablation: Ablation) -> list[str]:
    """List the settings whose difference from the base has an interval without 0."""
    lines = []
    sides = {"above": "holds", "below": "contradicted"}
    for number, measure in enumerate(MEASURES):
        effects = {SETTINGS[setting]: cells[number] for setting, cells in ablation.less_base.items()}
        known = {name: effect for name, effect in effects.items() if effect is not None}
        for side, judged in sides.items():
            names = "; ".join(name for name, effect in known.items() if verdict(effect) == judged)
            lines += [f"Less the base, with an interval {side} 0 on {measure.name}: {names}."] if names else []
    return lines
