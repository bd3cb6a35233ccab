"""The time that an HTTP request may take as a whole, from its connection to the last byte of its answer.

A socket's own timeout starts anew with each byte, so a server that sends one now and then would hold a request for
ever.
"""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Any, Self

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import TimeoutError as ExpiredError


class Deadline:
    """Cuts the connection of a request when its time is over; a context manager around the request.

    Args:
        seconds: that the request may take.

    Raises:
        urllib3.exceptions.TimeoutError: on leaving, if the time is over, whatever else went wrong.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True
        self._lock = threading.Lock()
        self._watched: socket.socket | None = None
        self._passed = False

    def __enter__(self) -> Self:
        self._token: Token[Deadline] = _CURRENT.set(self)
        self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        _CURRENT.reset(self._token)
        with self._lock:
            self._forget()
        if self._passed and (kind is None or issubclass(kind, Exception)):
            raise ExpiredError(f"timed out after {self.seconds:g} s") from error

    def watch(self, opened: socket.socket) -> None:
        """Cut this connection when the time is over, in place of one that was watched before."""
        with self._lock:
            self._forget()
            # A descriptor of its own: TLS takes over the first, and http.client may close it before the answer is read.
            self._watched = socket.fromfd(opened.fileno(), opened.family, opened.type)
            if self._passed:
                self._cut()

    def _end(self) -> None:
        with self._lock:
            self._passed = True
            self._cut()

    def _cut(self) -> None:
        if self._watched is not None:
            with suppress(OSError):
                self._watched.shutdown(socket.SHUT_RDWR)

    def _forget(self) -> None:
        if self._watched is not None:
            self._watched.close()
            self._watched = None


_CURRENT: ContextVar[Deadline] = ContextVar("deadline")


class WatchedHttp(HTTPConnection):
    """A connection that the deadline around its request cuts."""

    def _new_conn(self) -> socket.socket:
        opened = super()._new_conn()
        deadline = _CURRENT.get()
        deadline.watch(opened)
        opened.settimeout(deadline.seconds)  # not the shorter one of connecting, which a long request outlasts
        return opened

    def request(self, *args: Any, **options: Any) -> None:
        if self.sock is not None:
            _CURRENT.get().watch(self.sock)
        super().request(*args, **options)


class WatchedHttps(WatchedHttp, HTTPSConnection):
    """The same with TLS."""
