"""Configuration of a run: schema, defaults, and reading it from YAML."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
import reprlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticCustomError

from lim_keras.errors import ConfigError, DataError
from lim_keras.files import read_input, write_text

ModelName = Literal["fcn", "fcn_fl", "unet", "segnet"]  # keys of `models.decoders.DECODERS`

EncoderName = Literal["vgg16", "mobilenetv2", "small"]  # keys of `models.encoders.ENCODERS`

SamplingMode = Literal["windows", "resized"]

Augmentation = Literal["paper", "dihedral", "none"]

SplitMethod = Literal["random", "spatial"]

Optimizer = Literal["adamw", "sgd"]

Schedule = Literal["cosine", "plateau", "constant"]

Precision = Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"]

Cache = Literal["memory", "disk", "none"]

ENCODER_STRIDE = 32
"""Pixels of the encoder's input for one cell of its coarsest feature map."""

_CONFIG_BYTES = 2**20  # largest configuration that is read

LARGEST_BUFFER_M = 50_000  # regions of tiles are projected on their own, and lie farther apart

_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother = 3, 200, 200


class Section(BaseModel):
    """Base of all sections: unknown keys are refused, values are neither converted nor changed."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True)


class ModelSection(Section):
    """The network (`lim_keras.models.build_model`)."""

    name: ModelName = Field("fcn_fl", description="decoder: fcn (FCN-8s), fcn_fl (adds five scales), unet or segnet")
    encoder: EncoderName = Field(
        "vgg16", description="vgg16 (the paper's), mobilenetv2 (edge devices) or small (tests)"
    )
    encoder_weights: str = Field(
        "imagenet", min_length=1, description="imagenet (downloaded by Keras), none, or a weights file"
    )
    decoder_channels: int = Field(32, ge=1, description="channels of every decoder stage")
    input_reduction: Literal[1, 2, 4] = Field(1, description="factor by which the network reduces the image")
    dropout: float = Field(0.0, ge=0, lt=1, description="share of decoder channels dropped during training")

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
    augmentation: Augmentation = Field(
        "dihedral", description="paper (Fig. 6), dihedral (eight symmetries and colour) or none"
    )
    colour_jitter: float = Field(1.0, ge=0, description="strength of dihedral's colour changes; 0: symmetries only")
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

    def to_yaml(self) -> str:
        """Return all keys, defaults included, as YAML; `load_config` reads back an equal object."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)

    def write(self, path: Path) -> None:
        """Write `to_yaml`."""
        write_text(path, self.to_yaml())

    def digest(self) -> str:
        """Return the SHA-256 of all values as 64 hexadecimal digits, regardless of the layout of the file."""
        values = self.model_dump(mode="json")
        if self.split == SplitSection():  # a section of later versions: earlier configurations keep their digest
            del values["split"]
        canonical = json.dumps(values, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()


def load_config(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> RunConfig:
    """Read a run configuration from YAML and apply overrides.

    Args:
        path: the file.
        overrides: `key=value` each, a dotted key and a YAML value, such as "sampling.scale_jitter=[0.8, 1.2]"; the
            last override of a key counts.

    Raises:
        ConfigError: one line for each problem, with its source, key, expected value and received value.
    """
    values = _read_mapping(Path(path))
    origins = {_apply_override(values, override): f"override {override}" for override in overrides}
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        problems = [(_key_of(problem), problem) for problem in error.errors(include_url=False)]
    lines = []
    for key, problem in problems:
        origin = origins.get(key) or origins.get(key.rpartition(".")[0]) or str(path)
        lines.append(f"{origin}: {_describe(key, problem)}")
    raise ConfigError("\n".join(lines))


def fields(model: type[BaseModel] = RunConfig, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield every dotted key, sections included, and its field."""
    for name, field in model.model_fields.items():
        yield prefix + name, field
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from fields(field.annotation, f"{prefix}{name}.")


class _ConfigLoader(yaml.SafeLoader):
    """SafeLoader that refuses repeated keys and reads 1e-3 as a number; YAML 1.1 reads it as text."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        lines: dict[str, int] = {}
        for key, _ in node.value:
            line = lines.setdefault(str(key.value), key.start_mark.line + 1)
            if line != key.start_mark.line + 1:
                problem = f"the key `{key.value}` is given twice, first on line {line}"
                raise yaml.constructor.ConstructorError(problem=problem, problem_mark=key.start_mark)
        return super().construct_mapping(node, deep)


_ConfigLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def _parse_yaml(text: str, source: str) -> Any:
    try:
        return yaml.load(text, Loader=_ConfigLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{source}, line {mark.line + 1}, column {mark.column + 1}" if mark else source
        raise ConfigError(f"{place}: {error.problem or error.context}.") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split()) or "nested too deeply"
        raise ConfigError(f"{source}: not valid YAML: {reason}.") from None


def _read_mapping(path: Path) -> dict[str, Any]:
    try:
        text = read_input(path, _CONFIG_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"Cannot read the configuration {path}: not UTF-8 text.") from error
    except DataError as error:
        raise ConfigError(f"Cannot read the configuration {error}") from error
    values = _parse_yaml(text, str(path))
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected keys with values, such as `name: my_run`. Received: {_shown(values)}.")
    return values


def _apply_override(values: dict[str, Any], override: str) -> str:
    """Set one `key=value` in nested `values`, in place, and return its key."""
    source = f"override {override}"
    key, equals, text = override.partition("=")
    key = key.strip()
    if not equals or not key:
        raise ConfigError(f"{source}: expected key=value, such as training.epochs=3. Received: {_shown(override)}.")
    if key not in dict(fields()):
        raise ConfigError(f"{source}: {_unknown(key)}")
    section, _, leaf = key.rpartition(".")
    target = values.setdefault(section, {}) if section else values
    if not isinstance(target, dict):
        raise ConfigError(
            f"{source}: expected a section of keys at `{section}` in the file. Received: {_shown(target)}."
        )
    target[leaf] = _parse_yaml(text, source)
    return key


def _problem(key: str, message: str, received: object) -> PydanticCustomError:
    """Build the error of a check over several keys; `key` is relative to the section."""
    return PydanticCustomError(
        "cross_check", "Input should be {message}", {"key": key, "message": message, "input": received}
    )


def _key_of(problem: ErrorDetails) -> str:
    """Return the dotted key of a problem; a list element belongs to the key of the list."""
    parts = [str(part) for part in problem["loc"] if not isinstance(part, int)]
    return ".".join([*parts, problem["ctx"]["key"]] if problem["type"] == "cross_check" else parts)


def _describe(key: str, problem: ErrorDetails) -> str:
    """Return one line: the key, what pydantic expected, the description of the key, and what came."""
    kind, message, received = problem["type"], problem["msg"], problem["input"]
    if kind == "extra_forbidden":
        return _unknown(key)
    field = dict(fields()).get(key)
    if field is None:
        return f"{message}."
    meaning = f" ({field.description})" if field.description else ""
    if kind == "missing" and not isinstance(problem["loc"][-1], int):
        return f"Missing key `{key}`{meaning}."
    if kind == "cross_check":
        received = problem["ctx"]["input"]
    elif kind == "model_type":
        message = f"Input should be a section with keys {', '.join(_keys_in(key))}"
    elif kind in ("missing", "too_long", "tuple_type"):
        message = "Input should be a list of two numbers"
    noun = " a number" if kind.startswith(("greater_than", "less_than")) else ""
    expected = message.replace("Input should be", f"Expected{noun}", 1)
    return f"Invalid value for key `{key}`. {expected}{meaning}. Received: {_shown(received)}."


def _shown(value: object) -> str:
    """Show a value in at most some 200 characters: repeated YAML anchors can hold more than the memory."""
    return _SHORT.repr(value)


def _unknown(key: str) -> str:
    """Suggest the key of the nearest dotted name, else of the nearest last word in any section."""
    valid = [name for name, _ in fields()]
    nearest = difflib.get_close_matches(key, valid, n=1, cutoff=0.75)
    if not nearest:
        by_leaf = {name.rpartition(".")[2]: name for name in reversed(valid)}
        nearest = [by_leaf[leaf] for leaf in difflib.get_close_matches(key.rpartition(".")[2], by_leaf, n=1)]
    if nearest:
        return f"Unknown key `{key}`. Did you mean `{nearest[0]}`?"
    return f"Unknown key `{key}`. Expected one of: {', '.join(_keys_in(key.rpartition('.')[0]))}."


def _keys_in(section: str) -> list[str]:
    return [name for name, _ in fields() if name.rpartition(".")[0] == section]
