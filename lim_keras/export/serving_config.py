"""The text files that TensorFlow Serving is started with: models, batching, monitoring, and a compose file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from lim_keras.errors import BundleError

MODELS_FILE = "models.config"
STABLE, CANARY = "stable", "canary"
CONTAINER_PATH = "/models"

# What YAML, docker compose ($) or its short form of a mount (:) would read otherwise is left out.
_BASE_PATH = re.compile(r"""(/+[^/"'\\#$:][^"'\\#$:]*|[\w+.-]+:///*[^/"'\\#$][^"'\\#$]*)""")

_HEAD = (
    "# Written by `lim-keras export --serving`, which moves versions and labels and keeps what else is added here.\n"
)

BATCHING = """\
# For `--enable_batching --batching_parameters_file=.../batching.config`: requests that wait are computed together.
# Only for clients whose images are all of one height and width: a batch of mixed sizes fails for every request in it,
# and padding (pad_variable_length_inputs) would change the answers. On a CPU one image fills all cores, so that
# batches are small and only bridge a millisecond. A request of more than max_batch_size images is refused.
max_batch_size { value: 4 }
allowed_batch_sizes: 1
allowed_batch_sizes: 2
allowed_batch_sizes: 4
batch_timeout_micros { value: 1000 }
max_enqueued_batches { value: 64 }
num_batch_threads { value: 2 }
pad_variable_length_inputs: false
"""

MONITORING = """\
# For `--monitoring_config_file`: figures for Prometheus at the REST port.
prometheus_config {
  enable: true
  path: "/monitoring/prometheus/metrics"
}
"""

_COMPOSE = """\
# docker compose up -d: TensorFlow Serving with the models of this folder. TF_SERVING_VERSION pins the image.
services:
  tensorflow-serving:
    image: tensorflow/serving:${{TF_SERVING_VERSION:-latest}}
    restart: unless-stopped
    ports:
      - "${{GRPC_PORT:-8500}}:8500"
      - "${{REST_PORT:-8501}}:8501"
    volumes:
      - .:{mount}:ro
    command:
      - --model_config_file={mount}/{models}
      # an export into this folder is picked up while the server runs
      - --model_config_file_poll_wait_seconds=30
      # labels stand in models.config before their versions are loaded
      - --allow_version_labels_for_unavailable_models=true
      - --monitoring_config_file={mount}/monitoring.config
      # Where all clients send images of one size:
      # - --enable_batching=true
      # - --batching_parameters_file={mount}/batching.config
    healthcheck:
      # the image has bash, but no curl
      test:
        - CMD
        - bash
        - -c
        - >-
          exec 3<>/dev/tcp/127.0.0.1/8501 &&
          printf 'GET /v1/models/{name}/labels/stable HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n' >&3 &&
          grep -q '"AVAILABLE"' <&3
      interval: 15s
      timeout: 10s
      retries: 5
      start_period: 120s
"""


@dataclass(frozen=True)
class Served:
    """What a repository serves of a bundle.

    Args:
        stable, canary: the versions with these labels. loaded: versions that the server holds in memory.
        base_path: of the models, as the server sees them.
    """

    stable: int
    canary: int
    loaded: tuple[int, ...]
    base_path: str


def check_base_path(path: str) -> str:
    """A base path without its last slash.

    Raises:
        BundleError: neither an absolute path below / nor an address such as gs://bucket/models, or with characters that
            compose.yaml cannot hold; the server would not start.
    """
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


def compose(model: str, base_path: str) -> str:
    """compose.yaml; `model` is the one whose health is asked for. A folder that is no path is mounted at /models."""
    mount = base_path if base_path.startswith("/") else CONTAINER_PATH
    return _COMPOSE.format(mount=mount, models=MODELS_FILE, name=model)


def serving_messages(name: str) -> Any:
    """A module of tensorflow-serving-api.

    Raises:
        BundleError: it is not installed.
    """
    try:
        return import_module(f"tensorflow_serving.{name}")
    except ImportError as error:
        raise BundleError(
            f"A model repository needs a package that is missing ({error}). Install it with "
            "`pip install 'lim-keras[serving]'`."
        ) from error


def read_models(path: Path, models: Sequence[str]) -> Served | None:
    """What models.config says of these models; None where there is no such file.

    Raises:
        BundleError: the file cannot be read, lacks one of the models, or says other things of one than of another.
    """
    if not path.exists():
        return None
    found = {entry.name: entry for entry in _parse(path).model_config_list.config}
    if set(models) - set(found):
        raise BundleError(
            f"{path}: expected the models {list(models)}, of which a new version is to be added. Received: "
            f"{sorted(found)}. Export another bundle, or one of more or fewer folds, into a folder of its own."
        )
    said = {_served(found[name], path) for name in models}
    if len(said) > 1:
        raise BundleError(
            f"{path}: expected {list(models)} with the same versions, labels and base path, as they are one bundle. "
            f"Received: {sorted(map(str, said))}. Make them equal."
        )
    return said.pop()


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
    """models.config with these models; what the file at `path` says beside them stays."""
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
            f"{path}: expected a ModelServerConfig as text ({error}). Mend it, or export into another folder."
        ) from error
