"""Ablation and claims from planted effects."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lim_keras.evaluation.evaluation import Evaluation
from lim_keras.metrics.binary import Estimate
from lim_keras.report.documents import report_markdown
from lim_keras.report.parts import Part, Table
from lim_keras.reproduction.ablation import BASE_NAMES, SETTINGS, make_ablation
from lim_keras.reproduction.claims import make_claims
from lim_keras.reproduction.experiments import AXES, FOLDS
from lim_keras.reproduction.scores import ExperimentScores
from tests.reproduction.hand_made import MadeContext, evaluation, experiment

TILES = np.random.default_rng(4).integers(30, 60, 40)
"""Landslide pixels found by the worst model in each of 40 tiles, of 100."""


def found(more: int, start: int = 0, tiles: int = 40) -> Evaluation:
    """In each tile, `more` landslide pixels are found beyond the worst model, and no pixel is a false alarm."""
    hits = [int(one) + more for one in TILES[start : start + tiles]]
    return evaluation([(one, 0, 100 - one, 900) for one in hits])


def f1(*more: int) -> float:
    """Mean F1 of such models."""
    recall = [(TILES.mean() + one) / 100 for one in more]
    return float(np.mean([2 * one / (1 + one) for one in recall]))


def seeds(setting: str, gains: tuple[int, ...], **others: Any) -> list[ExperimentScores]:
    return [experiment(f"edge_{setting}_seed{k + 1}", found(more), **others) for k, more in enumerate(gains)]


def table(part: Part, name: str) -> Table:
    return next(one for one in part.tables if one.name == name)


@pytest.fixture
def context() -> MadeContext:
    """Focal loss adds 20 pixels, five skip levels none, seeds one; three folds have 25 in the mean, and alone 20."""
    members = {k: found(more) for k, more in enumerate((19, 20, 21))}
    made = [
        *seeds("fcn_cross_entropy", (0, 1, 2)),
        *seeds("fcn_fl_cross_entropy", (2, 1, 0)),
        *seeds("fcn_focal", (21, 20, 22)),
        *seeds("base", (20, 21, 22)),
        *seeds("gamma_0", (5, 6)),
        *seeds(FOLDS, (25,), folds=3, members=members, member_windows=members),
    ]
    return MadeContext(*made, budget="cpu", scene=Path("scene.tif"))


def test_every_setting_has_a_name() -> None:
    assert set(BASE_NAMES) == set(AXES)
    assert set(SETTINGS) == {setting for axis in AXES.values() for setting in axis}


def test_main_effects_and_interaction(context: MadeContext) -> None:
    part = make_ablation(context)
    effects: Mapping[Any, Any] = {row[0]: row[1:] for row in table(part, "ablation_effects").rows}
    low, high, low_five, high_five = f1(0, 1, 2), f1(21, 20, 22), f1(2, 1, 0), f1(20, 21, 22)
    expected = {
        "five skip levels instead of three, mean over both losses": (high_five - high + low_five - low) / 2,
        "focal loss instead of cross-entropy, mean over three and five levels": (high_five - low_five + high - low) / 2,
        "interaction": high_five - high - low_five + low,
        "both changes, as from FCN to FCN-FL": high_five - low,
    }
    for name, value in expected.items():
        assert [cell.value for cell in effects[name]] == pytest.approx([value] * 4), name
    levels, loss = (effects[name][0] for name in list(expected)[:2])
    assert levels.low < 0 < levels.high and loss.low > 0.1
    sentence = "Main effect on F1 of focal loss instead of cross-entropy, mean over three and five levels: landslide"
    assert sentence in " ".join(part.text)


def test_settings_are_compared_with_the_base(context: MadeContext) -> None:
    part = make_ablation(context)
    means: dict[Any, Any] = {row[:2]: row[2:] for row in table(part, "ablation").rows}
    assert means["gamma", "gamma 1.75 (base)"][0] == 3 and means["gamma", "gamma 1.75 (base)"][
        1
    ].value == pytest.approx(f1(20, 21, 22))
    assert means["gamma", "gamma 1"] == (0, "not trained", None, None, None)
    differences: dict[Any, Any] = {row[:2]: row[2:] for row in table(part, "ablation_differences").rows}
    count, *cells = differences["gamma", "gamma 0"]
    assert count == 2 and [one.value for one in cells] == pytest.approx([f1(5, 6) - f1(20, 21, 22)] * 4)
    assert ("gamma", "gamma 1.75 (base)") not in differences
    text = " ".join(part.text)
    assert "with an interval below 0 on landslide tiles: three skip levels, cross-entropy; five skip" in text
    # Variance of F1 between seeds, of four settings of three and one of two seeds: 9 degrees of freedom.
    assert "up to 3 seeds" in text and "(9 degrees of freedom)" in text


def test_the_ensemble_beside_its_single_models(context: MadeContext) -> None:
    rows: dict[Any, Any] = {row[0]: row[1:] for row in table(make_ablation(context), "ablation_folds").rows}
    assert [one.value for one in rows["ensemble of the folds"]] == pytest.approx([f1(25)] * 3)
    assert [one.value for one in rows["its single models, mean F1"]] == pytest.approx([f1(19, 20, 21)] * 3)
    assert [one.value for one in rows["ensemble less single models"]] == pytest.approx([f1(25) - f1(19, 20, 21)] * 3)


def test_one_seed_says_that_luck_is_not_covered() -> None:
    gains = {"base": 20, "fcn_cross_entropy": 0}
    made = [experiment(f"edge_{setting}_seed2022", found(more)) for setting, more in gains.items()]
    part = make_ablation(MadeContext(*made, budget="smoke"))
    text = " ".join(part.text)
    assert "Each setting has one seed" in text and "not the luck of training" in text and "add `--scene`" in text
    assert "not trained" in report_markdown([make_ablation(MadeContext())], "Report")


def claim_rows(part: Part) -> dict[tuple[str, str, str], tuple[Any, ...]]:
    """Rows of the differences by claim, what is compared, its models and samples."""
    rows = table(part, "claims_differences").rows
    return {(str(row[0]), f"{row[2]}, {row[1]}", str(row[3])): row[4:] for row in rows}


def test_verdicts_of_planted_effects(context: MadeContext) -> None:
    part = make_claims(context)
    rows = claim_rows(part)
    verdicts = {claim.split(",")[0]: row[-1] for (claim, _, where), row in rows.items() if where == "scene"}
    assert "two trainings that differ in their seed alone differ in F1 by up to" in " ".join(part.text)
    assert verdicts["The symmetric decoder"] == "not shown"
    assert verdicts["The focal loss"] == "holds"
    judged: dict[Any, Any] = {row[0].split(",")[0]: row[1:] for row in table(part, "claims").rows}  # type: ignore[union-attr]
    assert judged["The focal loss"] == ("holds", "holds"), "three seeds"
    focal = next(row for (claim, _, _), row in rows.items() if claim.startswith("The focal loss"))
    score, count, effect, printed, _ = focal
    assert (score, count, printed) == ("F1", "3", None) and isinstance(effect, Estimate)


def test_claims_about_methods() -> None:
    worse_alarms = replace(
        found(20),
        samples=tuple(replace(sample, model=replace(sample.model, fp=50, tn=850)) for sample in found(20).samples),
    )
    members = {0: found(9), 1: found(10)}
    made = [
        experiment("whole_fcn_flk", found(15), folds=2, members=members),
        experiment("whole_fcn_fl", found(10)),
        experiment("whole_unet", worse_alarms),
        experiment("whole_segnet", found(20)),
    ]
    part = make_claims(MadeContext(*made, scene=Path("scene.tif")))
    rows = claim_rows(part)
    unet, segnet, fewer = "FCN-FLK less U-Net, ", "FCN-FLK less SegNet, ", " has fewer false alarms than "
    models = "whole tiles (vgg16)"
    judged = {(claim, where): row for (claim, of, where), row in rows.items() if of.endswith(models)}
    assert judged["FCN-FLK is better than SegNet.", "scene"][-1] == "contradicted"
    assert judged["FCN-FLK is better than SegNet.", "scene"][-2] == pytest.approx(0.62 - 0.44)
    alarms = rows[f"FCN-FLK{fewer}U-Net.", unet + models, "landslide tiles"]
    assert alarms[0] == "precision" and alarms[-1] == "holds"
    # Neither FCN-FLK nor SegNet has a false alarm: a precision of 1 for both.
    none = rows[f"FCN-FLK{fewer}SegNet.", segnet + models, "scene"]
    assert none[2] == Estimate(0, 0, 0) and none[-1] == "not shown"
    of_folds = next(row for (_, of, _), row in rows.items() if of.startswith("FCN-FLK less its single models"))
    assert of_folds[2].value == pytest.approx(f1(15) - f1(9, 10)) and of_folds[-1] == "holds"
    text = " ".join(part.text)
    assert "The symmetric decoder, with five skip levels instead of three, maps landslides better. Not tested" in text
    told = "landslide tiles, 1 x contradicted (1 seed); scene, 1 x contradicted (1 seed)."
    assert f"FCN-FLK is better than SegNet. Verdicts: {told}" in text
    verdicts: dict[Any, Any] = {row[0]: row[1:] for row in table(part, "claims").rows}
    names = table(part, "claims").columns[1:]
    assert names == tuple(f"whole tiles (vgg16): {one}" for one in ("landslide tiles", "all test tiles", "scene"))
    assert verdicts["FCN-FLK is better than SegNet."] == ("contradicted (1 seed)", None, "contradicted (1 seed)")
    assert verdicts[f"FCN-FLK{fewer}U-Net."] == ("holds (1 seed)",) * 3
    assert verdicts["Both changes together make FCN-FL better than FCN."] == ("not trained",) * 3


def test_claims_without_any_model() -> None:
    part = make_claims(MadeContext())
    assert all(row[6] == "not trained" and row[-1] is None for row in table(part, "claims_differences").rows)
    assert {cell for row in table(part, "claims").rows for cell in row[1:]} == {"not trained", None}
    assert report_markdown([part], "Report").count("Not tested: its models are not trained.") == 9
