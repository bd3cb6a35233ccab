"""Addresses of Ray clusters."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

from lim_keras.errors import ClusterError, ConfigError

AUTO = "auto"

_SCHEME = "ray://"
_ENVIRONMENT = "RAY_ADDRESS"
_TIMEOUT_S = 10.0
_LOCAL = ("", "local")


@dataclass(frozen=True)
class ClusterAddress:
    """Address of a cluster.

    Attributes:
        ray: address as Ray takes it; "local": start Ray on this machine.
        source: text that errors name.
        host: host name; "" if only Ray knows it.
        port: port at the host.
    """

    ray: str
    source: str
    host: str = ""
    port: int = 0

    @property
    def is_local(self) -> bool:
        """Tell whether Ray is to be started on this machine."""
        return self.ray == "local"

    @property
    def is_client(self) -> bool:
        """Tell whether the address is that of a Ray Client server, `ray://`."""
        return self.ray.startswith(_SCHEME)

    def check_reachable(self) -> None:
        """Check that something listens at the address. Ray itself tries for minutes.

        Raises:
            ClusterError: nothing does.
        """
        if not self.host:
            return
        try:
            socket.create_connection((self.host, self.port), timeout=_TIMEOUT_S).close()
        except (OSError, UnicodeError) as error:
            reason = " ".join(str(getattr(error, "strerror", None) or error).split())
            raise ClusterError(
                f"{self.source}: the cluster cannot be reached ({reason}). Check host and port, that Ray runs there, "
                "and that no firewall lies between. The default port of ray:// is 10001."
            ) from error


def parse_address(text: object) -> ClusterAddress:
    """Parse the argument `workers`.

    Args:
        text: `ray://HOST:PORT` or `auto`.

    Raises:
        ConfigError: it is neither, or RAY_ADDRESS holds no address.
    """
    if text == AUTO:
        return _from_environment()
    if isinstance(text, str) and text.startswith(_SCHEME) and (found := _host_and_port(text)) is not None:
        return ClusterAddress(text, text, *found)
    raise ConfigError(
        f"Invalid value for `workers`. Expected ray://HOST:PORT, such as ray://head:10001, or auto. Received: {text!r}."
    )


def _from_environment() -> ClusterAddress:
    value = os.environ.get(_ENVIRONMENT, "").strip()
    if value in _LOCAL:
        return ClusterAddress("local", AUTO)
    source = f"{_ENVIRONMENT}={value}"
    if value == AUTO:  # the Ray that `ray start` started on this machine; only Ray knows its port
        return ClusterAddress(value, source)
    found = _host_and_port(value if "://" in value else f"//{value}")
    if found is None or ("://" in value and not value.startswith(_SCHEME)):
        raise ConfigError(
            f"The environment variable {_ENVIRONMENT} holds no address. Expected ray://HOST:PORT or HOST:PORT. "
            f"Received: {value!r}. Correct it, or give ray://HOST:PORT as `workers`."
        )
    return ClusterAddress(value, source, *found)


def _host_and_port(url: str) -> tuple[str, int] | None:
    """Return host and port of a URL that has nothing else; None for other texts."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if not host or not port or parts.path or parts.query or parts.fragment or parts.username is not None:
        return None
    return host, port
