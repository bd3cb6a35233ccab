"""What a wrong configuration says: the full key, the nearest valid key, what was expected and what came."""

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from lim_keras.errors import ConfigError

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
