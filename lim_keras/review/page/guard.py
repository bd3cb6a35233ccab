"""Guard of the review page: only the browser of this machine that has the link may use it."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' ws://{host}; object-src 'none'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_REFUSED = (
    "403: this page belongs to the person who started `lim-keras review`. Open the whole link that the command printed."
)


class Guard:
    """ASGI application that lets requests of this machine's browser through, and refuses all others with 403.

    A request needs the name of this machine as its host, no foreign origin, and the token: first in the URL, then in a
    cookie that scripts cannot read and that other sites cannot send. WebSockets are checked in the same way.

    Args:
        app: the guarded ASGI application.
        port: port of the server.
        token: secret of this run.
    """

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]], port: int, token: str) -> None:
        self._app, self._token, self._cookie = app, token, f"lim_keras_review_{port}"
        self._hosts = {f"{name}:{port}" for name in ("127.0.0.1", "localhost")}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request, a WebSocket, or the start and the end of the server."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if not self._is_local(headers):
            await _refuse(scope, receive, send)
        elif self._is_same(self._sent_cookie(headers)):
            await self._app(scope, receive, _with_headers(send, headers["host"]))
        elif scope["type"] == "http" and self._is_same(_sent_token(scope)):
            await self._enter(scope, send)
        else:
            await _refuse(scope, receive, send)

    def _is_local(self, headers: MutableMapping[str, str]) -> bool:
        host, origin = headers.get("host", ""), headers.get("origin")
        return host in self._hosts and origin in (None, f"http://{host}")

    def _is_same(self, token: str) -> bool:
        return hmac.compare_digest(token.encode(), self._token.encode())

    def _sent_cookie(self, headers: MutableMapping[str, str]) -> str:
        try:
            found = SimpleCookie(headers.get("cookie", "")).get(self._cookie)
        except CookieError:
            return ""
        return "" if found is None else str(found.value)

    async def _enter(self, scope: Scope, send: Send) -> None:
        """Put the token into a cookie, and send the browser to the page without it."""
        cookie = f"{self._cookie}={self._token}; Path=/; HttpOnly; SameSite=Strict"
        headers = [(b"location", b"/"), (b"set-cookie", cookie.encode()), (b"cache-control", b"no-store")]
        await send({"type": "http.response.start", "status": 303, "headers": headers})
        await send({"type": "http.response.body", "body": b""})


def _sent_token(scope: Scope) -> str:
    query: str = scope.get("query_string", b"").decode("latin-1")
    return parse_qs(query).get("token", [""])[0]


def _with_headers(send: Send, host: str) -> Send:
    """Add headers of security to each response."""
    added = [
        (b"content-security-policy", _POLICY.format(host=host).encode()),
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"no-referrer"),
        (b"cross-origin-resource-policy", b"same-origin"),
    ]

    async def sending(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", []), *added]
        await send(message)

    return sending


async def _refuse(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1008})  # before it is accepted: the server answers 403
        return
    kind = (b"content-type", b"text/plain; charset=utf-8")
    await send({"type": "http.response.start", "status": 403, "headers": [kind]})
    await send({"type": "http.response.body", "body": _REFUSED.encode()})
