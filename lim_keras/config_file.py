"""Read the configuration of a run from YAML."""

from __future__ import annotations

import difflib
import os
import re
import reprlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from lim_keras.config import RunConfig, fields
from lim_keras.errors import ConfigError, DataError
from lim_keras.files import read_input

_CONFIG_BYTES = 2**20  # largest configuration that is read

_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother = 3, 200, 200


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
