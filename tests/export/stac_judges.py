"""Validate STAC items with four validators, none of which fetches anything.

core      STAC 1.1's own JSON schemas, which pystac ships
authors   the models of MLM 1.5 by which the extension's authors validate `properties` (package stac-model)
schema    mlm_v1_5.schema.json: fields, types, values, and what assets owe. The extension's own file is in no package:
          this one is ours, after its tables of fields. The authors' models do not look at assets
bands     that every band named by an input or output is described, which JSON Schema cannot say
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jsonschema import Draft7Validator
from pydantic import ValidationError
from pystac.validation.local_validator import get_local_schema_cache
from referencing import Registry, Resource
from stac_model.schema import MLModelProperties

_ITEM = "https://schemas.stacspec.org/v1.1.0/item-spec/json-schema/item.json"
_MLM = Path(__file__).with_name("mlm_v1_5.schema.json")

Item = dict[str, Any]


def problems(item: Item) -> list[str]:
    """Return all errors that the validators find in the item of a model."""
    return [f"{name}: {problem}" for name, judge in JUDGES.items() for problem in judge(item)]


def core_problems(item: Item) -> list[str]:
    """Return the errors of an item by the schema of STAC 1.1."""
    schemas = get_local_schema_cache()
    # A registry that cannot retrieve: a schema that pystac does not ship is an error, not a download.
    registry = Registry().with_resources((uri, Resource.from_contents(schema)) for uri, schema in schemas.items())
    return _errors(Draft7Validator(schemas[_ITEM], registry=registry), item)


def _schema_problems(item: Item) -> list[str]:
    schema = json.loads(_MLM.read_text(encoding="utf-8"))
    Draft7Validator.check_schema(schema)
    return _errors(Draft7Validator(schema), item)


def _authors_problems(item: Item) -> list[str]:
    try:
        MLModelProperties.model_validate(item["properties"])
    except ValidationError as error:
        return [f"{problem['loc']}: {problem['msg']}" for problem in error.errors()]
    return []


def _band_problems(item: Item) -> list[str]:
    assets = [asset for asset in item.get("assets", {}).values() if "mlm:model" in asset.get("roles", ())]
    described = [{band["name"] for band in holder.get("bands", ())} for holder in (item["properties"], *assets)]
    tensors = item["properties"].get("mlm:input", []) + item["properties"].get("mlm:output", [])
    named = {name for tensor in tensors for name in tensor.get("bands", ())}
    return [f"{sorted(named - bands)} not described" for bands in described if not named <= bands]


def _errors(validator: Any, item: Item) -> list[str]:
    plain = json.loads(json.dumps(item, allow_nan=False))  # tuples are arrays to JSON only
    return [f"{error.json_path}: {error.message[:200]}" for error in validator.iter_errors(plain)]


JUDGES: dict[str, Callable[[Item], list[str]]] = {
    "core": core_problems,
    "authors": _authors_problems,
    "schema": _schema_problems,
    "bands": _band_problems,
}
