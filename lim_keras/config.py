"""Configuration of a run: schema and defaults."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from lim_keras.files import write_text

ModelName = Literal["fcn", "fcn_fl", "unet", "segnet"]  # keys of `models.decoders.DECODERS`

EncoderName = Literal[  # keys of `models.encoders.ENCODERS`
    "vgg16",
    "mobilenetv2",
    "efficientnet_lite0",
    "efficientnet_lite1",
    "efficientnet_lite2",
    "efficientnet_lite3",
    "efficientnet_lite4",
    "small",
    "vgg19",
    "mobilenet",
    "resnet50",
    "resnet101",
    "resnet50v2",
    "densenet121",
    "convnext_tiny",
    "convnext_small",
]

SamplingMode = Literal["windows", "resized"]

Augmentation = Literal["paper", "dihedral", "none"]

SplitMethod = Literal["random", "spatial"]

Optimizer = Literal["adamw", "sgd"]

Schedule = Literal["cosine", "plateau", "constant"]

Precision = Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"]

Cache = Literal["memory", "disk", "none"]

ENCODER_STRIDE = 32
"""Pixels of the encoder's input for one cell of its coarsest feature map."""

LARGEST_BUFFER_M = 50_000  # regions of tiles are projected on their own, and lie farther apart


_GLOBAL_ENCODERS = ("efficientnetb", "efficientnetv2", "mobilenetv3")  # names without _ and -

GLOBAL_REASON = (
    "its squeeze-and-excite blocks average the whole image, so predictions in windows would differ from those of the "
    "whole scene at any halo"
)


def sees_whole_image(encoder: str) -> bool:
    """Tell whether a name is that of a known network with operations over the whole image, which is refused."""
    return encoder.lower().replace("_", "").replace("-", "").startswith(_GLOBAL_ENCODERS)


class Section(BaseModel):
    """Base of all sections: unknown keys are refused, values are neither converted nor changed."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True)


class ModelSection(Section):
    """The network (`lim_keras.models.build_model`)."""

    name: ModelName = Field("fcn_fl", description="decoder: fcn (FCN-8s), fcn_fl (adds five scales), unet or segnet")
    encoder: EncoderName = Field(
        "vgg16",
        description="vgg16 (the paper's), mobilenetv2 or efficientnet_lite0 to 4 (edge devices), small (tests), or "
        "another one: see the page Choose an encoder",
    )
    encoder_weights: str = Field(
        "imagenet",
        min_length=1,
        description="imagenet (downloaded by Keras; not for efficientnet_lite), none, or a weights file",
    )
    decoder_channels: int = Field(32, ge=1, description="channels of every decoder stage")
    input_reduction: Literal[1, 2, 4] = Field(1, description="factor by which the network reduces the image")
    dropout: float = Field(0.0, ge=0, lt=1, description="share of decoder channels dropped during training")

    @field_validator("encoder", mode="before")
    @classmethod
    def _check_local(cls, value: object) -> object:
        if isinstance(value, str) and sees_whole_image(value):
            message = f"an encoder of local operations ({value}: {GLOBAL_REASON}), such as efficientnet_lite0"
            raise PydanticCustomError("global_encoder", "Input should be {message}", {"message": message})
        return value

    @property
    def stride(self) -> int:
        """Pixels of input for one cell of the coarsest feature map; `sampling.size` is a multiple of it."""
        return ENCODER_STRIDE * self.input_reduction


class LossSection(Section):
    """Focal loss (Eq. 5) with a weight for each class, and an optional soft Dice term."""

    landslide_weight: float = Field(0.75, gt=0, description="weight of landslide pixels")
    background_weight: float = Field(0.25, gt=0, description="weight of background pixels")
    gamma: float = Field(1.75, ge=0, description="focusing exponent; 0 is weighted cross-entropy")
    dice_weight: float = Field(0.0, ge=0, description="weight of the added soft Dice loss; 0: none")


class SamplingSection(Section):
    """Content of a training example."""

    mode: SamplingMode = Field("windows", description="windows at one scale, or resized (whole tiles)")
    size: int = Field(256, ge=ENCODER_STRIDE, description="height and width of an example, pixels")
    gsd_m: float | None = Field(
        None, gt=0, description="ground sample distance of windows, metres; null: that of the tiles"
    )
    scale_jitter: tuple[float, float] = Field(
        (0.7, 1.4), strict=False, description="lowest and highest random magnification of a window"
    )
    landslide_share: float = Field(0.5, ge=0, le=1, description="share of examples drawn from landslide tiles")
    paste: float = Field(1.0, ge=0, le=1, description="share of windows surrounded by other tiles")

    @model_validator(mode="after")
    def _check_scale_jitter(self) -> Self:
        low, high = self.scale_jitter
        if not 0 < low <= high:
            raise _problem("scale_jitter", "[lowest, highest] with 0 < lowest <= highest", list(self.scale_jitter))
        return self

    @model_validator(mode="after")
    def _check_gsd_has_windows(self) -> Self:
        if self.mode == "resized" and self.gsd_m is not None:
            raise _problem("gsd_m", "null if sampling.mode is resized, because tiles then have no scale", self.gsd_m)
        return self


class NegativesSection(Section):
    """Tiles without any landslide, from other data sets, that examples are drawn from as well."""

    paths: tuple[str, ...] = Field(
        (), strict=False, description="folders or tiles.csv files of images without any landslide; []: none"
    )
    share: float = Field(
        0.2, gt=0, lt=1, description="share of windows that begin with a negative tile, and of tiles that fill windows"
    )
    gsd_m: float | None = Field(
        None, gt=0, description="ground sample distance of negative tiles whose files have none, metres; null: gsd_m"
    )
    mine: bool = Field(False, description="draw negative tiles on which the model gives false alarms more often")
    rounds: int = Field(4, ge=2, description="parts of the training; with mine, the model is applied between them")


class PhotometricSection(Section):
    """Random changes of colour, contrast, haze and sharpness after `augmentation`; a null takes `strength`."""

    strength: float = Field(
        0.0, ge=0, le=10, description="strength of all changes: 0 none, 0.5 mild, 1 moderate, 2 strong"
    )
    haze: float | None = Field(None, ge=0, le=10, description="strength of haze: added scattered light")
    blur: float | None = Field(None, ge=0, le=10, description="strength of Gaussian blur")
    white_balance: float | None = Field(
        None, ge=0, le=10, description="strength of a factor for each band; two bands or more"
    )
    hue: float | None = Field(
        None,
        ge=0,
        le=10,
        description="strength of changes of hue and saturation in the first three bands; needs three bands",
    )
    contrast: float | None = Field(
        None, ge=0, le=10, description="strength of contrast changes about the mean of each band"
    )
    gamma: float | None = Field(None, ge=0, le=10, description="strength of random powers of the values")
    jpeg: float | None = Field(
        None, ge=0, le=10, description="strength of JPEG compression of the first three bands; 8-bit images only"
    )

    def strengths(self) -> dict[str, float]:
        """Return the strength of each change."""
        values: dict[str, float | None] = self.model_dump(exclude={"strength"})
        return {name: self.strength if value is None else value for name, value in values.items()}


class TrainingSection(Section):
    """Optimization of the weights."""

    epochs: int = Field(30, ge=1, description="number of epochs of steps_per_epoch batches")
    steps_per_epoch: int | None = Field(
        None, ge=1, description="batches per epoch; null: enough to show every training tile about once"
    )
    batch_size: int = Field(8, ge=1, description="examples per batch")
    optimizer: Optimizer = Field("adamw", description="adamw, or sgd with momentum")
    learning_rate: float = Field(1e-3, gt=0, description="peak learning rate of the decoder")
    weight_decay: float = Field(1e-4, ge=0, description="decoupled weight decay")
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum of sgd")
    schedule: Schedule = Field(
        "cosine", description="cosine (to zero), plateau (lowered when validation F1 stalls) or constant"
    )
    warmup_steps: int = Field(0, ge=0, description="steps over which the learning rate rises from zero")
    encoder_learning_rate_factor: float = Field(
        1.0, gt=0, description="learning rate of the encoder over learning_rate"
    )
    freeze_encoder_epochs: int = Field(0, ge=0, description="first epochs without updates of the encoder")
    frozen_encoder_scales: int = Field(
        0, ge=0, le=5, description="scales of the encoder, finest first, that are never trained; makes steps faster"
    )
    precision: Precision = Field(
        "float32",
        description="Keras dtype policy; auto: mixed_bfloat16 where it is measured to be faster, else float32",
    )
    early_stopping: int | None = Field(
        None, ge=1, description="epochs without a better validation F1 before stopping; null: never"
    )
    cache: Cache = Field("memory", description="where decoded tiles are stored between epochs")
    validation_fraction: float = Field(
        0.2,
        gt=0,
        le=0.5,
        description="share of tiles that fit holds out for validation if no validation tiles are given",
    )
    tensorboard: bool = Field(True, description="write TensorBoard logs into the run folder")
    deterministic: bool = Field(False, description="bit-equal results of equal runs; slower")
    start_share: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of the weights of --start-from in the final weights; the trained weights have the rest",
    )

    @model_validator(mode="after")
    def _check_freezing_ends(self) -> Self:
        if self.freeze_encoder_epochs > self.epochs:
            message = f"at most training.epochs ({self.epochs})"
            raise _problem("freeze_encoder_epochs", message, self.freeze_encoder_epochs)
        return self


class SplitSection(Section):
    """Choice of the folds of `cv`, and of the validation tiles of `fit` and `distill`."""

    method: SplitMethod = Field("random", description="random, or spatial (whole blocks or clusters of tiles)")
    shape: Literal["blocks", "clusters"] = Field(
        "blocks", description="blocks (square cells of a grid) or clusters (k-means)"
    )
    block_m: float | None = Field(None, gt=0, description="side of a block, metres; null: the largest for even folds")
    clusters: int | None = Field(None, ge=2, description="number of clusters; null: the fewest for even folds")
    buffer_m: float = Field(
        0.0,
        ge=0,
        le=LARGEST_BUFFER_M,
        description="spatial: training tiles nearer to a held-out tile are left out, metres",
    )


class DistillationSection(Section):
    """Targets of `lim-keras distill`; other commands ignore this section."""

    teacher_weight: float = Field(
        0.5, gt=0, le=1, description="share of the teacher's probability in the target; the mask has the rest"
    )
    tta: bool = Field(False, description="average the teacher's probability over eight symmetries")


class ExportSection(Section):
    """Format of the exported models."""

    half_size: bool = Field(False, description="store kernels of SavedModels as float16, in half the space")


class EvaluationSection(Section):
    """Evaluation of the result."""

    windows: int = Field(400, ge=1, description="number of random windows of the windows protocol")
    bootstrap: int = Field(1000, ge=1, description="bootstrap resamples behind each 95 % interval")


class RunConfig(Section):
    """All settings of a run except data and folders."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="name of run folder and bundle: letters, digits, '.', '_' and '-'",
    )
    seed: int = Field(2022, ge=0, lt=2**32, description="seed of all random numbers")
    gsd_m: float | None = Field(None, gt=0, description="ground sample distance of tiles whose files have none, metres")
    model: ModelSection = ModelSection()
    loss: LossSection = LossSection()
    sampling: SamplingSection = SamplingSection()
    negatives: NegativesSection = NegativesSection()
    augmentation: Augmentation = Field(
        "dihedral", description="paper (Fig. 6), dihedral (eight symmetries and colour) or none"
    )
    colour_jitter: float = Field(1.0, ge=0, description="strength of dihedral's colour changes; 0: symmetries only")
    photometric: PhotometricSection = PhotometricSection()
    training: TrainingSection = TrainingSection()
    folds: int = Field(5, ge=2, description="folds of cross-validation")
    split: SplitSection = SplitSection()
    evaluation: EvaluationSection = EvaluationSection()
    distillation: DistillationSection = DistillationSection()
    export: ExportSection = ExportSection()
    data_terms: str = Field("", description="terms of use of the training data, a sentence for the model card")
    data_link: str = Field(
        "", pattern=r"^(https?://\S+)?$", description="web page of the training data, for model card and STAC item"
    )

    @model_validator(mode="after")
    def _check_size_fits_stride(self) -> Self:
        if self.sampling.size % self.model.stride:
            message = f"a multiple of {self.model.stride}, which is 32 x model.input_reduction"
            raise _problem("sampling.size", message, self.sampling.size)
        return self

    @model_validator(mode="after")
    def _check_negatives(self) -> Self:
        negatives = self.negatives
        if negatives.paths and self.sampling.mode == "resized":
            message = "[] if sampling.mode is resized, because negative tiles are a share of windows"
            raise _problem("negatives.paths", message, list(negatives.paths))
        if negatives.mine and not negatives.paths:
            raise _problem("negatives.mine", "false without negatives.paths", negatives.mine)
        if negatives.mine and negatives.rounds > self.training.epochs:
            message = f"at most training.epochs ({self.training.epochs}) with negatives.mine"
            raise _problem("negatives.rounds", message, negatives.rounds)
        return self

    def to_yaml(self) -> str:
        """Return all keys, defaults included, as YAML; `load_config` reads back an equal object."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)

    def write(self, path: Path) -> None:
        """Write `to_yaml`."""
        write_text(path, self.to_yaml())

    def digest(self) -> str:
        """Return the SHA-256 of all values as 64 hexadecimal digits, regardless of the layout of the file."""
        values = self.model_dump(mode="json")
        for name in ("split", "negatives", "photometric"):
            # Sections of later versions: earlier configurations keep their digest.
            if getattr(self, name) == RunConfig.model_fields[name].default:
                del values[name]
        if not self.training.start_share:  # a key of later versions
            del values["training"]["start_share"]
        canonical = json.dumps(values, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()


def fields(model: type[BaseModel] = RunConfig, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield every dotted key, sections included, and its field."""
    for name, field in model.model_fields.items():
        yield prefix + name, field
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from fields(field.annotation, f"{prefix}{name}.")


def _problem(key: str, message: str, received: object) -> PydanticCustomError:
    """Build the error of a check over several keys; `key` is relative to the section."""
    return PydanticCustomError(
        "cross_check", "Input should be {message}", {"key": key, "message": message, "input": received}
    )
