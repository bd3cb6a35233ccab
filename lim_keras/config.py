"""Configuration of a run: the schema, its defaults, and reading it from YAML."""

import difflib
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticCustomError

from lim_keras.errors import ConfigError
from lim_keras.files import write_text

# PyYAML follows YAML 1.1, where 1e-3 (no dot) is text; people write learning rates like that.
_EXPONENT_FLOAT = re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$")


class _ConfigLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice, where the second would silently win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        first_line: dict[str, int] = {}
        for key_node, _ in node.value:
            key, mark = key_node.value, key_node.start_mark
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(problem="a key must be a word", problem_mark=mark)
            if key in first_line:
                problem = f"the key `{key}` is given twice, first on line {first_line[key]}"
                raise yaml.constructor.ConstructorError(problem=problem, problem_mark=mark)
            first_line[key] = mark.line + 1
        return super().construct_mapping(node, deep)


_ConfigLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_ConfigLoader.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT_FLOAT, list("-+0123456789"))


def parse_yaml(text: str, source: str) -> Any:
    """The value of one YAML document; source names the file or option in errors.

    Raises ConfigError with source and line for bad syntax and for repeated keys.
    """
    try:
        return yaml.load(text, Loader=_ConfigLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{source}, line {mark.line + 1}, column {mark.column + 1}" if mark else source
        raise ConfigError(f"{place}: {error.problem or error.context}.") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{source}: not valid YAML: {error}.") from None


_TYPE_NAMES = {"integer": "a whole number", "number": "a number", "string": "text", "boolean": "true or false"}

_LIMITS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}


def describe_problems(error: ValidationError, model: type[BaseModel], source: str, sources: Mapping[str, str]) -> str:
    """One line for each problem of a validation, in the order of the keys.

    source: the file that was read. sources: where single keys or sections came from instead (`--set loss.gamma=2`).
    """
    lines = []
    for problem in error.errors(include_url=False):
        key = _dotted_key(problem, model)
        section = key.rpartition(".")[0]
        origin = sources.get(key) or sources.get(section) or source
        lines.append(f"{origin}: {_describe(problem, key, model)}")
    return "\n".join(lines)


def refuse_unknown_key(key: str, model: type[BaseModel], source: str) -> None:
    """Raise ConfigError unless the dotted key exists."""
    if key not in dict(fields(model)):
        raise ConfigError(f"{source}: {_unknown(key, model)}")


def fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every valid dotted key, sections included, with its declaration."""
    for name, field in model.model_fields.items():
        yield prefix + name, field
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from fields(field.annotation, f"{prefix}{name}.")


def _dotted_key(problem: ErrorDetails, model: type[BaseModel]) -> str:
    """The configuration key of a problem; an element of a list belongs to the key of its list."""
    parts = [str(part) for part in problem["loc"] if not isinstance(part, int)]
    if problem["type"] == "cross_check":
        parts.append(problem["ctx"]["key"])
    return ".".join(parts)


def _describe(problem: ErrorDetails, key: str, model: type[BaseModel]) -> str:
    if not key:
        return f"{problem['msg']}."
    if problem["type"] == "extra_forbidden":
        return _unknown(key, model)
    if problem["type"] == "missing" and isinstance(problem["loc"][-1], str):
        return f"Missing key `{key}`. Expected {_expected(key, model)}."
    if problem["type"] == "cross_check":
        context = problem["ctx"]
        return _invalid(key, context["expected"], context["received"])
    return _invalid(key, _expected(key, model), problem["input"])


def _invalid(key: str, expected: str, received: object) -> str:
    return f"Invalid value for key `{key}`. Expected {expected}. Received: {received!r}."


def _unknown(key: str, model: type[BaseModel]) -> str:
    """Nearest by the whole dotted key, else by its last word: a key in the wrong section is found too."""
    valid = [name for name, _ in fields(model)]
    nearest = difflib.get_close_matches(key, valid, n=1, cutoff=0.75)
    if not nearest:
        by_leaf = {name.rpartition(".")[2]: name for name in reversed(valid)}
        nearest = [by_leaf[leaf] for leaf in difflib.get_close_matches(key.rpartition(".")[2], by_leaf, n=1)]
    if nearest:
        return f"Unknown key `{key}`. Did you mean `{nearest[0]}`?"
    section = key.rpartition(".")[0]
    names = [name for name in valid if name.rpartition(".")[0] == section]
    return f"Unknown key `{key}`. Expected one of: {', '.join(names)}."


def _expected(key: str, model: type[BaseModel]) -> str:
    """Type, limits and meaning of a key, as declared."""
    schema = model.model_json_schema()
    node = schema
    for part in key.split("."):
        node = node["properties"][part]
        if "$ref" in node:
            node = schema["$defs"][node["$ref"].rpartition("/")[2]]
    words = _expected_value(node)
    explained = "properties" in node or "enum" in node
    return words if explained else f"{words} ({node['description']})"


def _expected_value(node: Mapping[str, Any]) -> str:
    if "properties" in node:
        return f"a section with keys from: {', '.join(node['properties'])}"
    if "anyOf" in node:
        return " or ".join(_expected_value(option) for option in node["anyOf"])
    if "enum" in node:
        return f"one of {', '.join(str(value) for value in node['enum'])}"
    if node["type"] == "null":
        return "null"
    if node["type"] == "array":
        return f"a list of {len(node['prefixItems'])} numbers"
    limits = " and ".join(f"{sign} {node[name]:.10g}" for name, sign in _LIMITS.items() if name in node)
    name = "letters, digits, '.', '_' and '-'" if "pattern" in node else _TYPE_NAMES[node["type"]]
    return f"{name} {limits}" if limits else name


ModelName = Literal["fcn", "fcn_fl", "unet", "segnet"]

EncoderName = Literal["vgg16", "mobilenetv2", "small"]

SamplingMode = Literal["windows", "resized"]

Augmentation = Literal["paper", "dihedral", "none"]

Optimizer = Literal["adamw", "sgd"]

Schedule = Literal["cosine", "plateau", "constant"]

Precision = Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"]

Cache = Literal["memory", "disk", "none"]

ENCODER_STRIDE = 32
"""Every encoder ends at 1/32 of what it is given."""


class Section(BaseModel):
    """What every part of a configuration shares: unknown keys are refused, values are neither coerced nor changed."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True)


class ModelSection(Section):
    """The network (`lim_keras.models.build_model`)."""

    name: ModelName = Field("fcn_fl", description="decoder: fcn (FCN-8s), fcn_fl (five scales, added), unet or segnet")
    encoder: EncoderName = Field(
        "vgg16", description="vgg16 (the paper's), mobilenetv2 (edge devices) or small (tests)"
    )
    encoder_weights: str = Field(
        "imagenet", min_length=1, description="imagenet (Keras downloads), none, or a weights file"
    )
    decoder_channels: int = Field(32, ge=1, description="channels of every decoder stage")
    input_reduction: Literal[1, 2, 4] = Field(1, description="the image is shrunk by this factor inside the graph")
    dropout: float = Field(0.0, ge=0, lt=1, description="share of decoder features dropped while training")

    @property
    def stride(self) -> int:
        """Pixels of input for one cell of the coarsest feature map; examples are a multiple of it wide and high."""
        return ENCODER_STRIDE * self.input_reduction


class LossSection(Section):
    """The focal loss of Eq. 5 with weights named by class, and an optional soft Dice term."""

    landslide_weight: float = Field(0.75, gt=0, description="weight of landslide pixels")
    background_weight: float = Field(0.25, gt=0, description="weight of background pixels")
    gamma: float = Field(1.75, ge=0, description="focusing exponent; 0 is weighted cross-entropy")
    dice_weight: float = Field(0.0, ge=0, description="weight of the soft Dice loss that is added; 0 leaves it out")


class SamplingSection(Section):
    """What one training example shows."""

    mode: SamplingMode = Field("windows", description="windows anywhere at one scale, or whole tiles resized")
    size: int = Field(256, ge=ENCODER_STRIDE, description="height and width of an example, pixels")
    gsd_m: float | None = Field(
        None, gt=0, description="ground sample distance of windows, metres; null keeps the tiles' own"
    )
    scale_jitter: tuple[float, float] = Field(
        (0.7, 1.4), strict=False, description="lowest and highest random magnification of a window"
    )
    landslide_share: float = Field(0.5, ge=0, le=1, description="share of examples drawn from landslide tiles")
    paste: float = Field(1.0, ge=0, le=1, description="share of windows whose surroundings come from other tiles")

    @model_validator(mode="after")
    def _check_scale_jitter(self) -> Self:
        low, high = self.scale_jitter
        if not 0 < low <= high:
            raise _problem("scale_jitter", "[lowest, highest] with 0 < lowest <= highest", list(self.scale_jitter))
        return self

    @model_validator(mode="after")
    def _check_gsd_has_windows(self) -> Self:
        if self.mode == "resized" and self.gsd_m is not None:
            raise _problem("gsd_m", "null when sampling.mode is resized (tiles then have no common scale)", self.gsd_m)
        return self


class TrainingSection(Section):
    """How the weights are found."""

    epochs: int = Field(30, ge=1, description="passes; an epoch is steps_per_epoch batches")
    steps_per_epoch: int | None = Field(
        None, ge=1, description="batches an epoch; null shows every training tile about once"
    )
    batch_size: int = Field(8, ge=1, description="examples a batch")
    optimizer: Optimizer = Field("adamw", description="adamw or sgd (with momentum)")
    learning_rate: float = Field(1e-3, gt=0, description="highest learning rate of the decoder")
    weight_decay: float = Field(1e-4, ge=0, description="decoupled weight decay")
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum of sgd; adamw does not use it")
    schedule: Schedule = Field(
        "cosine", description="cosine to zero, plateau (lowered when validation F1 stalls) or constant"
    )
    warmup_steps: int = Field(0, ge=0, description="steps over which the learning rate rises from zero")
    encoder_learning_rate_factor: float = Field(
        1.0, gt=0, description="the encoder learns at this multiple of learning_rate"
    )
    freeze_encoder_epochs: int = Field(0, ge=0, description="first epochs in which the encoder does not learn")
    frozen_encoder_scales: int = Field(
        0, ge=0, le=5, description="scales of the encoder, finest first, that never learn: a step costs less"
    )
    precision: Precision = Field(
        "float32",
        description="Keras dtype policy of the network; auto is mixed_bfloat16 where a measurement finds it faster",
    )
    early_stopping: int | None = Field(None, ge=1, description="epochs without a better validation F1 before stopping")
    cache: Cache = Field("memory", description="where decoded tiles are kept between epochs")
    validation_fraction: float = Field(
        0.2, gt=0, le=0.5, description="share of tiles that fit holds out for validation where none are named"
    )
    tensorboard: bool = Field(True, description="write TensorBoard logs into the run folder")
    deterministic: bool = Field(False, description="ask TensorFlow for bit-equal repeats, at some cost in speed")

    @model_validator(mode="after")
    def _check_freezing_ends(self) -> Self:
        if self.freeze_encoder_epochs > self.epochs:
            expected = f"at most training.epochs ({self.epochs})"
            raise _problem("freeze_encoder_epochs", expected, self.freeze_encoder_epochs)
        return self


class DistillationSection(Section):
    """What a student learns from its teacher (`lim-keras distill`); other commands do not look at it."""

    teacher_weight: float = Field(
        0.5, gt=0, le=1, description="share of the target that the teacher's probability has; the mask has the rest"
    )
    symmetries: bool = Field(False, description="average the teacher's probability over the eight symmetries")


class ExportSection(Section):
    """How the models are written."""

    half_size: bool = Field(False, description="SavedModels keep kernels as float16, in half the space")


class EvaluationSection(Section):
    """How the result is judged."""

    windows: int = Field(400, ge=1, description="seeded random windows of the windows protocol")
    bootstrap: int = Field(1000, ge=1, description="resamples of groups behind every 95 % interval")


class RunConfig(Section):
    """Everything that decides a run apart from the data and the folders given on the command line."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="name of the run folder and of the exported bundle"
    )
    seed: int = Field(2022, ge=0, lt=2**32, description="seed of every random draw")
    gsd_m: float | None = Field(
        None, gt=0, description="ground sample distance, metres, of tiles whose files do not say"
    )
    model: ModelSection = ModelSection()
    loss: LossSection = LossSection()
    sampling: SamplingSection = SamplingSection()
    augmentation: Augmentation = Field(
        "dihedral", description="paper (Fig. 6), dihedral (8 symmetries, colour) or none"
    )
    colour_jitter: float = Field(1.0, ge=0, description="strength of dihedral's changes of colour; 0: symmetries only")
    training: TrainingSection = TrainingSection()
    folds: int = Field(5, ge=2, description="folds of cross-validation")
    evaluation: EvaluationSection = EvaluationSection()
    distillation: DistillationSection = DistillationSection()
    export: ExportSection = ExportSection()
    data_terms: str = Field("", description="what the training data allow, in a sentence; the model card repeats it")
    data_link: str = Field(
        "", pattern=r"^(https?://\S+)?$", description="web page of the training data; model card and STAC item link it"
    )

    @model_validator(mode="after")
    def _check_size_fits_stride(self) -> Self:
        if self.sampling.size % self.model.stride:
            expected = f"a multiple of {self.model.stride} (32 x model.input_reduction)"
            raise _problem("sampling.size", expected, self.sampling.size)
        return self

    def write(self, path: Path) -> None:
        """Write every key, defaults included, as YAML that `load_config` reads back to an equal object."""
        text = yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        write_text(path, text)

    def digest(self) -> str:
        """SHA-256 (64 hexadecimal digits) of the resolved values; the order and layout of the file do not matter."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()


def load_config(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a YAML run configuration and apply overrides to it.

    path: the file. overrides: `key=value` each, a dotted key and a value in YAML, the last of one key wins
    (`training.epochs=3`, `sampling.scale_jitter=[0.8, 1.2]`).

    Raises ConfigError, naming every wrong key, what was expected and what came.
    """
    values = _read_mapping(path)
    sources: dict[str, str] = {}
    for override in overrides:
        key = _apply_override(values, override)
        sources[key] = f"--set {override}"
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(describe_problems(error, RunConfig, str(path), sources)) from None


def _problem(key: str, expected: str, received: object) -> PydanticCustomError:
    """A failed check over more than one key, as `describe_problems` reports it; key is relative to its section."""
    return PydanticCustomError("cross_check", "{expected}", {"key": key, "expected": expected, "received": received})


def _read_mapping(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError(f"Cannot read the configuration {path}: {reason}.") from error
    values = parse_yaml(text, str(path))
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected keys with values, such as `name: my_run`. Received: {values!r}.")
    return values


def _apply_override(values: dict[str, Any], override: str) -> str:
    """Set one `key=value` in nested `values` (in place) and return its key."""
    source = f"--set {override}"
    key, equals, text = override.partition("=")
    key = key.strip()
    if not equals or not key:
        raise ConfigError(f"{source}: expected key=value, such as training.epochs=3. Received: {override!r}.")
    refuse_unknown_key(key, RunConfig, source)
    section, _, leaf = key.rpartition(".")
    target = values.setdefault(section, {}) if section else values
    if not isinstance(target, dict):
        raise ConfigError(f"{source}: `{section}` has no keys to set, the file gives it the value {target!r}.")
    target[leaf] = parse_yaml(text, source)
    return key
