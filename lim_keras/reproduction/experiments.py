"""Experiments of the reproduction: the models to train, with their configurations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from lim_keras.config import (
    EncoderName,
    EvaluationSection,
    LossSection,
    ModelName,
    ModelSection,
    RunConfig,
    SamplingSection,
    TrainingSection,
)
from lim_keras.reproduction.settings import Budget, ReproductionSettings, lacking

FOCAL = LossSection(landslide_weight=0.75, background_weight=0.25, gamma=1.75)
"""Focal loss with the weights that the paper's text describes."""

CROSS_ENTROPY = LossSection(landslide_weight=1.0, background_weight=1.0, gamma=0.0)

METHODS = ("fcn", "fcn_fl", "fcn_flk", "unet", "segnet")
"""Methods of Tables 3 and 4: FCN has three skip levels and cross-entropy, FCN-FL five and focal loss, FCN-FLK is FCN-FL
in folds; U-Net and SegNet have the loss of FCN-FL."""

BASE, FOLDS = "base", "folds"
"""Settings of the ablation: FCN-FL on whole tiles with focal loss and the paper's augmentation, and in folds."""

AXES: Mapping[str, tuple[str, ...]] = {
    "skip levels and loss": ("fcn_cross_entropy", "fcn_focal", "fcn_fl_cross_entropy", BASE),
    "class weights": (BASE, "weights_paper_eq5", "weights_keras"),
    "gamma": ("gamma_0", "gamma_1", BASE, "gamma_2_5"),
    "augmentation": ("augmentation_none", BASE, "augmentation_dihedral"),
    "examples": (BASE, "windows"),
    "models": (BASE, FOLDS),
}
"""Settings that each question of the ablation compares. A setting of several questions is trained once."""

COARSE = "coarse_edge"
"""Experiment on the tiles of about 10 m."""

_DATA_GSD_M, _COARSE_GSD_M = 0.8, 10.0  # of tiles whose files have none

# The seed of a smoke test is that of the methods, so that settings that equal a method are not trained again.
_SEEDS: Mapping[Budget, tuple[int, ...]] = {
    "smoke": (2022,),
    "evening": (1, 2, 3),
    "cpu": (1, 2, 3),
    "gpu": (1, 2, 3),
}

_PARTS: Mapping[str, tuple[str, ...]] = {
    "table3": ("fcn", "fcn_fl", "fcn_flk"),
    "table4": ("fcn_fl", "fcn_flk", "unet", "segnet"),
    "claims": METHODS,
    "curves": METHODS,
    "differences": ("fcn", "fcn_fl", "fcn_flk"),
}
"""Methods that a part needs, trained on whole tiles and on windows."""

_PARTS_OF_ONE: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "whole": {"figure7": ("fcn", "fcn_fl", "fcn_flk"), "figure9": ("fcn_fl", "fcn_flk", "unet", "segnet")},
    "windows": {"figure10": ("fcn_flk", "unet"), "sentinel2": ("fcn_flk",)},
}
"""Methods that a part needs, trained on one of the two."""

_DIFFERENT = (BASE, "weights_paper_eq5", "weights_keras")
"""Settings of the ablation that the part `differences` needs."""


@dataclass(frozen=True, slots=True)
class Experiment:
    """A model, or the models of a cross-validation, and the parts of the report that need it.

    Attributes:
        name: name of its folders, of its configuration and of its bundle.
        config: configuration of the run.
        folds: True: cross-validation; False: one model.
        data: tiles that it is trained on.
        parts: parts that need it.
    """

    name: str
    config: RunConfig
    folds: bool
    data: Literal["tiles", "coarse"]
    parts: frozenset[str]


def experiments(settings: ReproductionSettings) -> tuple[Experiment, ...]:
    """Return all experiments of a budget, in the order of their training; the settings' parts do not matter.

    A setting of the ablation that equals a method is not trained again: the parts that need it need the method.
    """
    methods, ablation, equal = _of_tables(settings), tuple(_ablation(settings)), _equal_methods(settings)
    parts = {one.name: one.parts for one in methods}
    for one in ablation:
        if one.name in equal:
            parts[equal[one.name]] |= one.parts
    coarse = [_coarse(settings)] if settings.coarse is not None else []
    alone = (one for one in ablation if one.name not in equal)
    return (*(replace(one, parts=parts[one.name]) for one in methods), *alone, *coarse)


def needed_experiments(settings: ReproductionSettings) -> tuple[Experiment, ...]:
    """Return the experiments that the parts of the settings need; a part that lacks its data needs none."""
    parts = {name for name in settings.parts if not lacking(name, settings)}
    return tuple(one for one in experiments(settings) if one.parts & parts)


def ablation_experiments(settings: ReproductionSettings, setting: str) -> list[str]:
    """Return the names of the experiments of a setting of the ablation, one for each seed."""
    equal = _equal_methods(settings)
    names = [_ablation_name(setting, seed) for seed in ablation_seeds(settings, setting)]
    return [equal.get(name, name) for name in names]


def _ablation_name(setting: str, seed: int) -> str:
    return f"edge_{setting}_seed{seed}"


def ablation_seeds(settings: ReproductionSettings, setting: str) -> tuple[int, ...]:
    """Return the seeds of a setting of the ablation; a cross-validation has several models, so one seed."""
    seeds = _SEEDS[settings.budget]
    return seeds[:1] if setting == FOLDS else seeds


def encoder_weights(experiment: Experiment, settings: ReproductionSettings) -> str | None:
    """Return the encoder weights given for an experiment; None: those of its configuration."""
    if experiment.name.startswith("whole_"):
        return settings.encoder_weights
    same = settings.encoder_weights if settings.encoder == settings.edge_encoder else None
    return same if settings.edge_weights is None else settings.edge_weights


def _of_tables(settings: ReproductionSettings) -> tuple[Experiment, ...]:
    return (*_methods(settings, "whole"), *_methods(settings, "windows"))


def _equal_methods(settings: ReproductionSettings) -> dict[str, str]:
    """Return the method that equals an experiment of the ablation in all but its name, by the experiment's name."""

    def content(one: Experiment) -> tuple[str, bool, str | None]:
        return one.config.model_copy(update={"name": ""}).digest(), one.folds, encoder_weights(one, settings)

    methods = {content(one): one.name for one in _of_tables(settings)}
    return {one.name: methods[key] for one in _ablation(settings) if (key := content(one)) in methods}


def _methods(settings: ReproductionSettings, examples: Literal["whole", "windows"]) -> Iterator[Experiment]:
    """Yield the methods of Tables 3 and 4, trained on whole resized tiles or on windows."""
    for method in METHODS:
        name = f"{examples}_{method}"
        config = _whole(settings, name, method) if examples == "whole" else _windows(settings, name, method)
        parts = {**_PARTS, **_PARTS_OF_ONE[examples]}
        needed = frozenset(part for part, methods in parts.items() if method in methods)
        yield Experiment(name, config, method == "fcn_flk", "tiles", needed)


def _whole(settings: ReproductionSettings, name: str, method: str) -> RunConfig:
    """Configure a method on whole tiles, resized and augmented as in the paper."""
    return _config(
        settings,
        name,
        model=_model(method, settings.encoder),
        loss=CROSS_ENTROPY if method == "fcn" else FOCAL,
        sampling=SamplingSection(mode="resized", size=_WHOLE_SIZES[settings.budget]),
        augmentation="paper",
        training=_training(settings, settings.encoder, "whole"),
    )


def _windows(settings: ReproductionSettings, name: str, method: str) -> RunConfig:
    """Configure a method on windows at native scale."""
    smoke = settings.budget == "smoke"
    loss = CROSS_ENTROPY if method == "fcn" else FOCAL
    return _config(
        settings,
        name,
        model=_model(method, settings.edge_encoder).model_copy(update={"input_reduction": 1 if smoke else 2}),
        loss=loss.model_copy(update={"dice_weight": 1.0}),  # either loss alone converges slowly on windows
        sampling=SamplingSection(mode="windows", size=64 if smoke else 384, landslide_share=0.4),
        augmentation="dihedral",
        training=_training(settings, settings.edge_encoder, "windows"),
    )


def _ablation(settings: ReproductionSettings) -> Iterator[Experiment]:
    """Yield the settings of the ablation: the base, and one change of it each."""
    for setting in dict.fromkeys(setting for axis in AXES.values() for setting in axis):
        for seed in ablation_seeds(settings, setting):
            name = _ablation_name(setting, seed)
            config = _ablated(settings, name, setting).model_copy(update={"seed": seed})
            parts = frozenset(("ablation", "claims", *(("differences",) if setting in _DIFFERENT else ())))
            yield Experiment(name, config, setting == FOLDS, "tiles", parts)


def _ablated(settings: ReproductionSettings, name: str, setting: str) -> RunConfig:
    size = _WHOLE_SIZES[settings.budget]
    fcn = setting in ("fcn_cross_entropy", "fcn_focal")
    changes: dict[str, dict[str, Any]] = {
        "fcn_cross_entropy": {"loss": CROSS_ENTROPY},
        "fcn_fl_cross_entropy": {"loss": CROSS_ENTROPY},
        "weights_paper_eq5": {"loss": LossSection(landslide_weight=0.25, background_weight=0.25, gamma=1.75)},
        "weights_keras": {"loss": LossSection(landslide_weight=0.25, background_weight=0.75, gamma=1.75)},
        "gamma_0": {"loss": FOCAL.model_copy(update={"gamma": 0.0})},
        "gamma_1": {"loss": FOCAL.model_copy(update={"gamma": 1.0})},
        "gamma_2_5": {"loss": FOCAL.model_copy(update={"gamma": 2.5})},
        "augmentation_none": {"augmentation": "none"},
        "augmentation_dihedral": {"augmentation": "dihedral"},
        "windows": {"sampling": SamplingSection(mode="windows", size=size, landslide_share=0.4)},
    }
    values: dict[str, Any] = {
        "model": _model("fcn" if fcn else "fcn_fl", settings.edge_encoder),
        "loss": FOCAL,
        "sampling": SamplingSection(mode="resized", size=size),
        "augmentation": "paper",
        "training": _training(settings, settings.edge_encoder, "ablation"),
    }
    return _config(settings, name, **{**values, **changes.get(setting, {})})


def _coarse(settings: ReproductionSettings) -> Experiment:
    """Configure FCN-FL on windows of tiles of about 10 m, as configs/l4s.yaml but for the length of the training."""
    # Nearly every tile shows landslides, and each has its own contrast stretch: half of the windows show one tile only.
    sampling = SamplingSection(
        mode="windows", size=32 if settings.budget == "smoke" else 128, landslide_share=1.0, paste=0.5
    )
    config = _config(
        settings,
        COARSE,
        model=_model("fcn_fl", settings.edge_encoder),
        loss=FOCAL.model_copy(update={"dice_weight": 1.0}),
        sampling=sampling,
        augmentation="dihedral",
        training=_training(settings, settings.edge_encoder, "windows"),
    )
    changed = config.model_copy(update={"gsd_m": _COARSE_GSD_M})
    return Experiment(COARSE, changed, False, "coarse", frozenset(("sentinel2",)))


def _config(settings: ReproductionSettings, name: str, **sections: Any) -> RunConfig:
    smoke = settings.budget == "smoke"
    return RunConfig(
        name=name,
        gsd_m=_DATA_GSD_M,
        folds=2 if smoke else 5,
        evaluation=EvaluationSection(windows=12, bootstrap=30) if smoke else EvaluationSection(),
        **sections,
    )


def _model(method: str, encoder: EncoderName) -> ModelSection:
    names: dict[str, ModelName] = {"fcn": "fcn", "unet": "unet", "segnet": "segnet"}
    weights = "none" if encoder == "small" else "imagenet"
    channels = 16 if encoder == "small" else 32
    return ModelSection(
        name=names.get(method, "fcn_fl"), encoder=encoder, encoder_weights=weights, decoder_channels=channels
    )


_LENGTHS: Mapping[Budget, Mapping[str, Mapping[str, Any]]] = {
    "smoke": {
        "whole": {"epochs": 1, "steps_per_epoch": 4, "learning_rate": 4e-3, "warmup_steps": 1},
        "windows": {"epochs": 1, "steps_per_epoch": 4, "learning_rate": 4e-3, "warmup_steps": 1},
        "ablation": {"epochs": 1, "steps_per_epoch": 4, "learning_rate": 4e-3, "warmup_steps": 1},
    },
    "evening": {
        "whole": {"epochs": 3, "steps_per_epoch": 200, "batch_size": 4, "warmup_steps": 50},
        "windows": {"epochs": 3, "steps_per_epoch": 150, "warmup_steps": 50},
        "ablation": {"epochs": 3, "steps_per_epoch": 80, "warmup_steps": 50},
    },
    "cpu": {
        "whole": {"epochs": 4, "steps_per_epoch": 200, "batch_size": 4, "warmup_steps": 50},
        "windows": {"epochs": 4, "steps_per_epoch": 200, "warmup_steps": 50},
        "ablation": {"epochs": 4, "steps_per_epoch": 100, "warmup_steps": 50},
    },
    "gpu": {
        "whole": {"epochs": 30, "learning_rate": 5e-4, "warmup_steps": 100, "precision": "auto"},
        "windows": {"epochs": 8, "steps_per_epoch": 200, "warmup_steps": 100, "precision": "auto"},
        "ablation": {"epochs": 10, "steps_per_epoch": 200, "warmup_steps": 100, "precision": "auto"},
    },
}
"""Keys of `training` for each budget and kind of experiment."""

_WHOLE_SIZES: Mapping[Budget, int] = {"smoke": 64, "evening": 192, "cpu": 256, "gpu": 256}
"""Side of the whole resized tiles, px; the paper has 256."""

_FROZEN_SCALES: Mapping[Budget, int] = {"smoke": 0, "evening": 4, "cpu": 3, "gpu": 0}
"""Scales of VGG16 that do not learn: the finest cost most of the time of a step on a CPU, and need little training."""

_ENCODER_RATES: Mapping[EncoderName, float] = {"vgg16": 0.1, "vgg19": 0.1, "small": 1.0}
_OTHER_RATE = 0.5


def _training(
    settings: ReproductionSettings, encoder: EncoderName, kind: Literal["whole", "windows", "ablation"]
) -> TrainingSection:
    """Set the length for the budget, and the recipe for the encoder."""
    frozen = _FROZEN_SCALES[settings.budget] if encoder == "vgg16" else 0
    return TrainingSection(
        **_LENGTHS[settings.budget][kind],
        encoder_learning_rate_factor=_ENCODER_RATES.get(encoder, _OTHER_RATE),
        frozen_encoder_scales=frozen,
        tensorboard=False,
    )
