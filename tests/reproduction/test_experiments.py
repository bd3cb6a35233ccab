"""Experiments of the reproduction: one change at a time, as in the paper."""

from pathlib import Path

import numpy as np
import pytest

from lim_keras.config import RunConfig
from lim_keras.config_file import load_config
from lim_keras.errors import DataError
from lim_keras.reproduction.experiments import (
    AXES,
    BASE,
    FOLDS,
    ablation_experiments,
    ablation_seeds,
    encoder_weights,
    experiments,
    needed_experiments,
)
from lim_keras.reproduction.settings import PARTS, ReproductionSettings
from lim_keras.reproduction.states import check_weights

BUDGETS = ("smoke", "evening", "cpu", "gpu")


def settings(**changes: object) -> ReproductionSettings:
    return ReproductionSettings(out=Path("out"), data=Path("tiles"), **changes)  # type: ignore[arg-type]


def configs(**changes: object) -> dict[str, RunConfig]:
    return {one.name: one.config for one in experiments(settings(**changes))}


def differing(one: RunConfig, other: RunConfig) -> set[str]:
    """Name the keys that differ, except the name of the run."""
    left, right = one.model_dump(), other.model_dump()
    found = set()
    for section, value in left.items():
        if isinstance(value, dict):
            found |= {f"{section}.{key}" for key in value if value[key] != right[section][key]}
        elif value != right[section]:
            found.add(section)
    return found - {"name"}


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("examples", ["whole", "windows"])
def test_fcn_is_the_papers_and_differs_from_fcn_fl_in_skip_levels_and_loss_only(budget, examples):
    known = configs(budget=budget)
    fcn, fcn_fl = known[f"{examples}_fcn"], known[f"{examples}_fcn_fl"]
    assert fcn.model.name == "fcn"
    assert fcn_fl.model.name == "fcn_fl"
    assert (fcn.loss.landslide_weight, fcn.loss.background_weight, fcn.loss.gamma) == (1.0, 1.0, 0.0)
    assert (fcn_fl.loss.landslide_weight, fcn_fl.loss.background_weight, fcn_fl.loss.gamma) == (0.75, 0.25, 1.75)
    changed = {"model.name", "loss.landslide_weight", "loss.background_weight", "loss.gamma"}
    assert differing(fcn, fcn_fl) == changed


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("examples", ["whole", "windows"])
def test_the_other_methods_have_the_recipe_of_fcn_fl(budget, examples):
    known = configs(budget=budget)
    base = known[f"{examples}_fcn_fl"]
    assert differing(known[f"{examples}_fcn_flk"], base) == set()
    assert differing(known[f"{examples}_unet"], base) == {"model.name"}
    assert differing(known[f"{examples}_segnet"], base) == {"model.name"}


def test_only_fcn_flk_is_trained_in_folds():
    folds = {one.name for one in experiments(settings()) if one.folds}
    assert folds == {"whole_fcn_flk", "windows_fcn_flk", "edge_folds_seed1"}
    assert all(one.config.folds == 5 for one in experiments(settings()))


def test_whole_tiles_are_trained_as_in_the_paper():
    config = configs()["whole_fcn_fl"]
    assert (config.sampling.mode, config.sampling.size, config.augmentation) == ("resized", 256, "paper")
    assert config.loss.dice_weight == 0
    assert (config.model.encoder, config.model.decoder_channels) == ("vgg16", 32)
    training = config.training
    assert (training.epochs, training.steps_per_epoch, training.batch_size) == (4, 200, 4)
    assert (training.learning_rate, training.encoder_learning_rate_factor) == (1e-3, 0.1)
    assert (training.frozen_encoder_scales, training.warmup_steps, training.precision) == (3, 50, "float32")


@pytest.mark.parametrize("budget", BUDGETS)
def test_the_ablation_has_tiles_of_the_size_of_the_methods(budget):
    known = configs(budget=budget)
    sizes = {known[name].sampling.size for name in known if name.startswith("edge_")}
    assert sizes == {known["whole_fcn_fl"].sampling.size}


def test_each_setting_of_the_ablation_changes_one_thing():
    known = configs()
    base = known["edge_base_seed1"]
    weights = {"loss.landslide_weight", "loss.background_weight"}
    changes = {
        "fcn_focal": {"model.name"},
        "fcn_fl_cross_entropy": weights | {"loss.gamma"},
        "fcn_cross_entropy": weights | {"loss.gamma", "model.name"},
        "weights_paper_eq5": {"loss.landslide_weight"},
        "weights_keras": weights,
        "gamma_0": {"loss.gamma"},
        "gamma_1": {"loss.gamma"},
        "gamma_2_5": {"loss.gamma"},
        "augmentation_none": {"augmentation"},
        "augmentation_dihedral": {"augmentation"},
        "windows": {"sampling.mode", "sampling.landslide_share"},
        FOLDS: set(),
    }
    assert set(changes) | {BASE} == {setting for axis in AXES.values() for setting in axis}
    for setting, expected in changes.items():
        assert differing(known[f"edge_{setting}_seed1"], base) == expected, setting
    gammas = [known[f"edge_{name}_seed1"].loss.gamma for name in AXES["gamma"]]
    assert gammas == [0, 1, 1.75, 2.5]


def test_each_setting_has_three_seeds_and_is_trained_once():
    names = [one.name for one in experiments(settings())]
    assert len(names) == len(set(names))
    one, other = (configs()[f"edge_base_seed{seed}"] for seed in (1, 3))
    assert differing(one, other) == {"seed"}
    assert ablation_seeds(settings(), "gamma_0") == (1, 2, 3)
    assert ablation_experiments(settings(), "gamma_0") == [f"edge_gamma_0_seed{seed}" for seed in (1, 2, 3)]
    assert ablation_experiments(settings(), FOLDS) == ["edge_folds_seed1"]
    # Ten methods, twelve settings with three seeds, and one cross-validation.
    assert len(names) == 10 + 12 * 3 + 1


def test_a_setting_that_equals_a_method_is_not_trained_again():
    given = settings(budget="smoke", encoder="small")
    known = {one.name: one for one in experiments(given)}
    equal = {"fcn_cross_entropy": "whole_fcn", BASE: "whole_fcn_fl", FOLDS: "whole_fcn_flk"}
    for setting, method in equal.items():
        assert ablation_experiments(given, setting) == [method]
        assert {"table3", "ablation", "claims", "differences"} <= known[method].parts
    assert len(known) == 10 + 13 - len(equal)
    assert "ablation" not in known["whole_unet"].parts
    # Other weights, or another encoder, make another model.
    for other in ({"edge_weights": "small.h5"}, {"encoder": "mobilenetv2"}):
        changed = settings(**{"budget": "smoke", "encoder": "small", **other})
        assert len(experiments(changed)) == 10 + 13
        assert ablation_experiments(changed, BASE) == ["edge_base_seed2022"]


def test_the_coarse_model_needs_coarse_tiles():
    assert "coarse_edge" not in configs()
    known = {one.name: one for one in experiments(settings(coarse=Path("l4s")))}
    assert known["coarse_edge"].data == "coarse"
    assert known["coarse_edge"].config.gsd_m == 10


def test_the_coarse_model_has_the_recipe_of_its_configuration_file():
    coarse = configs(coarse=Path("l4s"))["coarse_edge"]
    stored = load_config(Path(__file__).parents[2] / "configs" / "l4s.yaml")
    lengths = {"training.epochs", "training.steps_per_epoch", "training.batch_size", "training.warmup_steps"}
    assert differing(coarse, stored) - lengths == {"data_terms", "data_link", "training.tensorboard"}


def test_a_part_needs_only_its_experiments():
    names = [one.name for one in needed_experiments(settings(only=frozenset(("table3",))))]
    methods = ("fcn", "fcn_fl", "fcn_flk")
    assert names == [f"{examples}_{method}" for examples in ("whole", "windows") for method in methods]
    names = [one.name for one in needed_experiments(settings(only=frozenset(("figure10",)), scene=Path("s.tif")))]
    assert names == ["windows_fcn_flk", "windows_unet"]
    for none in (("table2", "figure6"), ("figure10",), ("sentinel2",)):  # the last two lack their data
        assert needed_experiments(settings(only=frozenset(none))) == ()
    everything = settings(coarse=Path("l4s"))
    assert needed_experiments(everything) == experiments(everything)
    assert {part for one in experiments(everything) for part in one.parts} < set(PARTS)


def test_smoke_needs_no_weights():
    assert {config.model.encoder for config in configs(budget="smoke", encoder="small").values()} == {"small"}
    assert {config.model.encoder_weights for config in configs(budget="smoke", encoder="small").values()} == {"none"}


def test_each_encoder_has_its_weights():
    given = settings(encoder_weights="vgg.h5", edge_weights="mobile.h5")
    weights = {one.name: encoder_weights(one, given) for one in experiments(given)}
    assert weights["whole_unet"] == "vgg.h5"
    assert weights["windows_unet"] == weights["edge_base_seed1"] == "mobile.h5"
    both = settings(encoder="mobilenetv2", encoder_weights="mobile.h5")
    assert {encoder_weights(one, both) for one in experiments(both)} == {"mobile.h5"}


@pytest.mark.parametrize("budget", BUDGETS)
def test_names_of_runs_are_names_of_experiments(budget):
    for one in experiments(settings(budget=budget, coarse=Path("l4s"))):
        assert one.config.name == one.name


@pytest.mark.parametrize(
    ("encoder", "good", "bad", "expected"),
    [
        ("vgg16", "w.h5", "w.npz", r"w\.npz: expected a file of Keras weights \(\.weights\.h5\) as weights of vgg16"),
        (
            "efficientnet_lite0",
            "w.npz",
            "w.h5",
            r"w\.h5: expected a file of arrays \(\.npz\) as weights of efficientnet",
        ),
    ],
)
def test_files_of_weights_are_those_of_the_encoder(tmp_path, encoder, good, bad, expected):
    (tmp_path / "w.h5").write_bytes(b"\x89HDF\r\n\x1a\n and more")
    np.savez(tmp_path / "w.npz", a=np.ones(3))

    def check(name):
        known = settings(encoder=encoder, encoder_weights=str(tmp_path / name), edge_weights="none")
        check_weights(needed_experiments(known), known)

    check(good)
    with pytest.raises(DataError, match=expected):
        check(bad)
