"""Requests that do not come from the browser window of the reviewer."""

import asyncio
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from lim_keras.review.page.guard import Guard

HANDSHAKE = {
    "connection": "Upgrade",
    "upgrade": "websocket",
    "sec-websocket-version": "13",
    "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
}
SOCKET = "/_nicegui_ws/socket.io/?EIO=4&transport=websocket"


@pytest.fixture
def entered(server):
    """Return a client with the cookie of the page."""
    with httpx.Client(base_url=server.link.partition("/?")[0]) as client:
        answer = client.get(f"/?{urlsplit(server.link).query}")
        assert answer.status_code == 303
        assert answer.headers["location"] == "/"
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        yield client


def test_the_page_needs_the_token(server, entered):
    base, token = server.link.partition("/?")[0], parse_qs(urlsplit(server.link).query)["token"][0]
    page = entered.get("/")
    assert page.status_code == 200
    assert token not in page.text
    assert "default-src 'self'" in page.headers["content-security-policy"]
    for address in ("/", "/?token=guess", "/review.js", "/scene/0/outlines/0/0/0/9/9", "/scene/0/tiles/scene/0/0/0"):
        assert httpx.get(base + address).status_code == 403
        assert entered.get(address.partition("?")[0]).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://example.org"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:1"},
        {"host": "example.org"},
        {"host": "127.0.0.1"},
        {"host": "127.0.0.1.example.org"},
    ],
)
def test_foreign_origins_and_hosts_are_refused(entered, headers):
    answer = entered.get("/", headers=headers)
    assert answer.status_code == 403
    assert "Open the whole link" in answer.text
    assert entered.get(SOCKET, headers=HANDSHAKE | headers).status_code == 403
    query = entered.post("/_nicegui_ws/socket.io/?EIO=4&transport=polling", content="x", headers=headers)
    assert query.status_code == 403


def test_a_websocket_needs_the_cookie(server, entered):
    with httpx.Client(base_url=str(entered.base_url)) as stranger:
        assert stranger.get(SOCKET, headers=HANDSHAKE).status_code == 403
    with entered.stream("GET", SOCKET, headers=HANDSHAKE) as answer:
        assert answer.status_code == 101


@pytest.mark.parametrize(
    "cookie", ["lim_keras_review_80=\xff", "lim_keras_review_80", 'x="; lim_keras_review_80=t', ""]
)
def test_damaged_cookies_are_refused(cookie):
    sent = []

    async def send(message):
        sent.append(message)

    async def never(*_):
        raise AssertionError("the page was reached")

    headers = [(b"host", b"127.0.0.1:80"), (b"cookie", cookie.encode("latin-1"))]
    scope = {"type": "http", "headers": headers, "query_string": b""}
    asyncio.run(Guard(never, 80, "secret")(scope, never, send))
    assert sent[0]["status"] == 403


def test_outlines_and_tiles_outside_the_scene(entered):
    assert entered.get("/scene/99/outlines/0/0/0/9/9").status_code == 404
    assert entered.get("/scene/0/tiles/dem/0/0/0").status_code == 404
    assert entered.get("/scene/0/tiles/scene/3/0/0").status_code == 404
    outside = entered.get("/scene/0/tiles/scene/0/-5/99")
    assert outside.status_code == 200
    assert outside.headers["content-type"] == "image/webp"
    assert entered.get("/scene/0/outlines/0/0/0/nan/9").json()["keys"] == []
