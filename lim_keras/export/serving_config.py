"""Text files of a TensorFlow Serving repository: models.config, and templates that an export writes once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Any

from lim_keras.errors import BundleError

MODELS_FILE = "models.config"
STABLE, CANARY = "stable", "canary"
CONTAINER_PATH = "/models"

_TEMPLATES = ("batching.config", "monitoring.config", "compose.yaml")

# No characters that YAML, docker compose ($) or its short mount syntax (:) interpret.
_BASE_PATH = re.compile(r"""(/+[^/"'\\#$:][^"'\\#$:]*|[\w+.-]+:///*[^/"'\\#$][^"'\\#$]*)""")

_HEAD = "# Written by `lim-keras export --serving`, which moves versions and labels and keeps all other entries.\n"


@dataclass(frozen=True)
class Served:
    """Labelled and loaded versions of a bundle in a repository, and the repository's folder as the server sees it."""

    stable: int
    canary: int
    loaded: tuple[int, ...]
    base_path: str


def check_base_path(path: str) -> str:
    """Return a base path without its last slash, if compose.yaml can hold it; raise BundleError otherwise."""
    base = path.rstrip("/")
    if not _is_base_path(base):
        raise BundleError(
            "Invalid value for argument `base_path`. Expected an absolute path below /, or an address such as "
            "gs://bucket/models, as the server sees it, without `..`, quotes, backslashes, control characters, # and "
            f"$, and in a path no colon. Received: {path!r}"
        )
    return base


def _is_base_path(base: str) -> bool:
    return base.isprintable() and _BASE_PATH.fullmatch(base) is not None and not {".", ".."} & set(base.split("/"))


def templates(model: str, base_path: str) -> dict[str, str]:
    """Return the files that users may edit, by name: an export writes them only if they are missing.

    `model`: name of the model whose health compose.yaml checks. `base_path`: mount point of the repository; an address
    is replaced by `/models`.
    """
    folder = files("lim_keras.export") / "templates"
    texts = {name: (folder / name).read_text(encoding="utf-8") for name in _TEMPLATES}
    mount = base_path if base_path.startswith("/") else CONTAINER_PATH
    texts["compose.yaml"] = texts["compose.yaml"].format(mount=mount, models=MODELS_FILE, name=model)
    return texts


def serving_messages(name: str) -> Any:
    """Import a module of tensorflow-serving-api; raise BundleError if that is not installed."""
    try:
        return import_module(f"tensorflow_serving.{name}")
    except ImportError as error:
        raise BundleError(
            f"A model repository needs a package that is missing ({error}). Install it with "
            "`pip install 'lim-keras[serving]'`."
        ) from error


def read_models(path: Path, models: Sequence[str]) -> Served | None:
    """Read the common entry of a bundle's models in models.config; None if there is no such file."""
    if not path.exists():
        return None
    found = {entry.name: entry for entry in _parse(path).model_config_list.config}
    if set(models) - set(found):
        raise BundleError(
            f"{path}: expected the models {list(models)}, of which a new version is to be added. Received: "
            f"{sorted(found)}. Export another bundle, or one of more or fewer folds, into a folder of its own."
        )
    entries = {_served(found[name], path) for name in models}
    if len(entries) > 1:
        raise BundleError(
            f"{path}: expected {list(models)} with the same versions, labels and base path, as one bundle. "
            f"Received: {sorted(map(str, entries))}. Make them equal."
        )
    return entries.pop()


def _served(entry: Any, path: Path) -> Served:
    labels, loaded = dict(entry.version_labels), tuple(entry.model_version_policy.specific.versions)
    base_path, _, folder = entry.base_path.rstrip("/").rpartition("/")
    if not {STABLE, CANARY} <= set(labels) or not {labels[STABLE], labels[CANARY]} <= set(loaded):
        raise BundleError(
            f"{path}: {entry.name}: expected labels {STABLE} and {CANARY} of versions that the policy loads. "
            f"Received: labels {labels}, versions {list(loaded)}"
        )
    if folder != entry.name or not _is_base_path(base_path):
        raise BundleError(
            f"{path}: {entry.name}: expected a base path that ends so, such as {CONTAINER_PATH}/{entry.name}. "
            f"Received: {entry.base_path!r}"
        )
    return Served(labels[STABLE], labels[CANARY], loaded, base_path)


def models_text(path: Path, models: Sequence[str], served: Served) -> str:
    """Return models.config with these models and all other entries of the file at `path`."""
    config = _parse(path) if path.exists() else serving_messages("config.model_server_config_pb2").ModelServerConfig()
    entries = {entry.name: entry for entry in config.model_config_list.config}
    for name in models:
        entry = entries[name] if name in entries else config.model_config_list.config.add(name=name)
        entry.base_path, entry.model_platform = f"{served.base_path}/{name}", "tensorflow"
        entry.model_version_policy.specific.versions[:] = served.loaded
        entry.version_labels.update({STABLE: served.stable, CANARY: served.canary})
    return _HEAD + str(import_module("google.protobuf.text_format").MessageToString(config))


def _parse(path: Path) -> Any:
    config = serving_messages("config.model_server_config_pb2").ModelServerConfig()
    text_format = import_module("google.protobuf.text_format")
    try:
        return text_format.Parse(path.read_text(encoding="utf-8"), config)
    except (OSError, ValueError, text_format.ParseError) as error:
        raise BundleError(
            f"{path}: expected a ModelServerConfig as text ({error}). Correct it, or export into another folder."
        ) from error
