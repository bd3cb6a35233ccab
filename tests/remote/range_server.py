"""A web server that serves parts of files and counts what it sends, in a process of its own.

rasterio holds the interpreter's lock while it waits for an answer, so that a thread could not serve.
"""

import http.server
import json
import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any, ClassVar, Self
from urllib.parse import parse_qs, unquote, urlsplit


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    sent: ClassVar[list[tuple[str, str, int]]] = []
    folder: Path

    def do_GET(self) -> None:
        """Serve a file, or a part of it. ?signature=: only for GET and "open-sesame"; ?sleep=: seconds to wait."""
        url = urlsplit(self.path)
        query = {key: value[0] for key, value in parse_qs(url.query).items()}
        if url.path == "/sent":
            self._answer(200, json.dumps(self.sent).encode(), {})
            return
        time.sleep(float(query.get("sleep", 0)))
        file = self.folder / unquote(url.path).lstrip("/")
        if "signature" in query and (query["signature"] != "open-sesame" or self.command == "HEAD"):
            self._answer(403, b"", {})
        elif not file.is_file():
            self._answer(404, b"", {})
        else:
            self._serve(file)

    do_HEAD = do_GET  # noqa: N815  http.server finds it by this name

    def _serve(self, file: Path) -> None:
        content = file.read_bytes()
        kind = "application/geo+json" if file.suffix in ("", ".json") else "application/octet-stream"
        headers = {"ETag": f'"{hash(content)}"', "Accept-Ranges": "bytes", "Content-Type": kind}
        part = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if part is None:
            self._answer(200, content, headers)
            return
        first, last = int(part[1]), min(int(part[2] or len(content)), len(content) - 1)
        headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
        self._answer(206, content[first : last + 1], headers)

    def _answer(self, code: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(code)
        for key, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        self.sent.append((self.command, self.path, len(content) if self.command == "GET" else 0))
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


class RangeServer:
    """Running server of the files of a folder; a context manager.

    Attributes:
        address: URL of the folder.
    """

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, __file__, str(folder)]
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )  # it tells of connections that GDAL closes
        assert self._process.stdout is not None
        self.address = f"http://127.0.0.1:{self._process.stdout.readline().strip()}"
        self._before = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def sent(self) -> list[tuple[str, str, int]]:
        """Return method, path and bytes of the answers since the last call."""
        with urllib.request.urlopen(f"{self.address}/sent") as answer:
            every = json.load(answer)
        new, self._before = every[self._before :], len(every) + 1  # with this one
        return [(method, path, size) for method, path, size in new]

    def bytes_sent(self) -> int:
        """Return the bytes of the answers since the last call of this method or of `sent`."""
        return sum(size for _, _, size in self.sent())


class _Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128  # GDAL opens many connections at once


if __name__ == "__main__":
    _Handler.folder = Path(sys.argv[1])
    with _Server(("127.0.0.1", 0), _Handler) as _server:
        print(_server.server_port, flush=True)
        _server.serve_forever()
