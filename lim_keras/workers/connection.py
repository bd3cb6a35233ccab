"""Connections to Ray clusters."""

from __future__ import annotations

import importlib.util
import os
import re
import secrets
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from lim_keras.errors import ClusterError
from lim_keras.workers.address import ClusterAddress
from lim_keras.workers.cores import usable_cores

_OBJECT_STORE_BYTES = 80 * 2**20  # jobs and results are small; Ray refuses less than 75 MiB

_TRIES = 3

_LONGEST_FOLDER = 40  # characters; the path of a socket in Ray's folder may have about 100

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # silences a hint about GPUs
    "RAY_worker_niceness": "0",
}
"""Settings of a Ray that is started here: it sends no statistics, and its workers run at normal priority."""

_INSTALL = "Install it with `pip install 'lim-keras[scale]'`."

_TOKEN = "set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH to the file that holds it."

_ONLY_THERE = "HOST:PORT is for machines of the cluster. On others give ray://HOST:10001."

_VERSIONS = re.compile(r"Ray: (\S+)\s+Python: (\S+)")


def connect(address: ClusterAddress) -> Callable[[], None]:
    """Connect this process to a cluster, or start one on this machine.

    Returns:
        Function that closes the connection and ends what was started. It does nothing if this process was connected
        before.

    Raises:
        ClusterError: Ray is not installed, or the cluster cannot be used.
    """
    _use_token()
    ray = load_ray()
    if address.is_client:
        address.check_reachable()
    if ray.is_initialized():
        if address.is_client:
            raise ClusterError(
                f"{address.source}: this process is already connected to a Ray cluster. Call ray.shutdown() first, or "
                "give auto as `workers`."
            )
        return lambda: None
    if address.is_local:
        return _start(ray, address)
    address.check_reachable()
    _init(ray, address, {"address": address.ray})
    return _silenced(ray, lambda: _shut_down(ray))


def _use_token() -> None:
    """Send the user's token where there is one, as Ray does for all addresses but ray://."""
    there = any(os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
    if there or Path("~/.ray/auth_token").expanduser().is_file():
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    loaded: Any = sys.modules.get("ray")
    if loaded is not None:  # it read the variables when it was imported
        with suppress(AttributeError):
            loaded._raylet.Config.initialize("")
            loaded._raylet.AuthenticationTokenLoader.instance().reset_cache()


def load_ray() -> ModuleType:
    """Import Ray, whose messages on usage statistics and GPUs stay silent.

    Raises:
        ClusterError: it is not installed.
    """
    with _environment(_ENVIRONMENT):
        try:
            import ray
        except ImportError as error:
            raise ClusterError(f"Ray is not installed ({error}). {_INSTALL}") from error
    return ray


def _start(ray: ModuleType, address: ClusterAddress) -> Callable[[], None]:
    """Start Ray in a folder of its own, so that no other program takes it for the Ray of this machine."""
    folder = _short_folder()
    if not os.access(Path.home(), os.W_OK):  # else Ray keeps a token of its own there
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))

    def close() -> None:
        _shut_down(ray)
        shutil.rmtree(folder, ignore_errors=True)

    settings = {
        "address": "local",
        "num_cpus": usable_cores(),
        "include_dashboard": False,
        "object_store_memory": _OBJECT_STORE_BYTES,
        "_temp_dir": folder,
    }
    try:
        with _environment(_ENVIRONMENT):
            _init(ray, address, settings)
    except BaseException:
        close()
        raise
    return _silenced(ray, close)


def _silenced(ray: ModuleType, close: Callable[[], None]) -> Callable[[], None]:
    """Keep Ray from printing its reports of lost processes on standard output; jobs are reported by warnings.

    Ray has no setting for it. Returns a function that undoes this and calls `close`.
    """
    worker, name = ray._private.worker, "print_to_stdstream"
    printed = getattr(worker, name, None)
    setattr(worker, name, lambda *arguments, **named: None)

    def end() -> None:
        close()
        if printed is not None:
            setattr(worker, name, printed)

    return end


def _short_folder() -> str:
    parent = tempfile.gettempdir()
    if len(parent) > _LONGEST_FOLDER and os.access("/tmp", os.W_OK):
        parent = "/tmp"
    return tempfile.mkdtemp(prefix="lk-ray-", dir=parent)


def _init(ray: ModuleType, address: ClusterAddress, settings: Mapping[str, Any]) -> None:
    if address.is_client and importlib.util.find_spec("grpc") is None:
        raise ClusterError(f"gRPC is not installed, and ray:// needs it. {_INSTALL}")
    for left in reversed(range(_TRIES)):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Ray repeats its errors as warnings
                ray.init(**settings, log_to_driver=False, logging_level="ERROR")
            return
        except (Exception, SystemExit) as error:  # Ray ends the process after minutes without an answer
            with suppress(Exception):
                ray.shutdown()
            if left and "client server failed" in str(error):  # its process crashes now and then at its start
                continue
            raise ClusterError(_reason(address, error)) from error


def _reason(address: ClusterAddress, error: BaseException) -> str:
    text = " ".join(str(error).split())
    if "Version mismatch" in text and len(found := _VERSIONS.findall(text)) == 2:
        (ray, python), (our_ray, our_python) = found
        return (
            f"{address.source}: the cluster runs Ray {ray} on Python {python}, and this process Ray {our_ray} on "
            f"Python {our_python}. Install the same versions on all machines."
        )
    if "authentication" in text.lower() or "UNAUTHENTICATED" in text:
        return f"{address.source}: the cluster asks for its token, or for another one. For the token, {_TOKEN}"
    if isinstance(error, SystemExit) or "connection timeout" in text:
        return (
            f"{address.source}: what listens there does not answer as a Ray cluster. Give the port of its Ray Client "
            f"server, 10001 by default, as ray://HOST:PORT. If the cluster asks for a token, {_TOKEN}"
        )
    advice = "" if address.is_client or address.is_local else f" {_ONLY_THERE}"
    return f"{address.source}: Ray cannot be used ({text[:300] or type(error).__name__}).{advice}"


def _shut_down(ray: ModuleType) -> None:
    with suppress(Exception):  # the cluster may be gone
        ray.shutdown()


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables that are not set while the block runs."""
    added = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
