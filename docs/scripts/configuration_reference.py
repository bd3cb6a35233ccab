"""MkDocs hook: replace `<!-- configuration -->` by tables of the configuration keys."""

import types
from collections.abc import Iterator
from typing import Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from lim_keras.config import RunConfig

MARKER = "<!-- configuration -->"
_SIGNS = {Ge: (">=", "ge"), Gt: (">", "gt"), Le: ("<=", "le"), Lt: ("<", "lt")}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Insert the tables where a page holds the marker; called by MkDocs for each page."""
    return markdown.replace(MARKER, configuration_tables()) if MARKER in markdown else markdown


def configuration_tables() -> str:
    """Return one Markdown section for the top-level keys and one for each section of the configuration."""
    parts = [_section("Top level", "Keys that belong to no section.", "", RunConfig)]
    for name, field in RunConfig.model_fields.items():
        if _is_section(field):
            section = field.annotation
            parts.append(_section(f"`{name}`", section.__doc__ or "", f"{name}.", section))
    return "\n\n".join(parts)


def _section(title: str, text: str, prefix: str, model: type[BaseModel]) -> str:
    rows = ["| key | type | default | description |", "|---|---|---|---|"]
    rows += [_row(prefix + name, field) for name, field in model.model_fields.items() if not _is_section(field)]
    return "\n".join([f"## {title}", "", " ".join(text.split()), "", *rows])


def _row(key: str, field: FieldInfo) -> str:
    limits = ", ".join(_limits(field))
    kind = _type_name(field.annotation) + (f", {limits}" if limits else "")
    default = "required" if field.is_required() else f"`{_yaml(field.default)}`"
    return f"| `{key}` | {kind} | {default} | {(field.description or '').replace('|', ',')} |"


def _limits(field: FieldInfo) -> Iterator[str]:
    for rule in field.metadata:
        for kind, (sign, attribute) in _SIGNS.items():
            if isinstance(rule, kind):
                yield f"{sign} {getattr(rule, attribute)}"


def _type_name(kind: Any) -> str:
    """Return a type as the reader of a YAML file would name it."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join("`null`" if each is type(None) else _type_name(each) for each in arguments)
    if origin in (tuple, list):
        return f"list of {_type_name(arguments[0])}"
    names = {int: "whole number", float: "number", str: "text", bool: "`true` or `false`"}
    return names.get(kind) or getattr(kind, "__name__", str(kind))


def _yaml(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_yaml, value))}]"
    return '""' if value == "" else f"{value:g}" if isinstance(value, float) else str(value)


def _is_section(field: FieldInfo) -> bool:
    return isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
