"""Server of the review page on this machine."""

from __future__ import annotations

import asyncio
import json
import secrets
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

import uvicorn
from fastapi import FastAPI
from nicegui import app as pages
from nicegui import ui
from starlette.requests import Request
from starlette.responses import Response

from lim_keras.errors import ConfigError, LimKerasError, LimKerasWarning
from lim_keras.files import StrPath
from lim_keras.raster.opening import gdal_settings
from lim_keras.raster.reader import RasterReader
from lim_keras.review.page.guard import Guard
from lim_keras.review.page.layers import HillshadeLayer, ProbabilityLayer, SceneLayer
from lim_keras.review.page.page import SCRIPT_URL, OpenScene, Page
from lim_keras.review.page.plane import Plane
from lim_keras.review.page.session import Session
from lim_keras.review.page.tiles import Layer, media_type
from lim_keras.review.scenes import MappedScene

HOST = "127.0.0.1"
_THREADS = 3
_POLL_S, _ALIVE_S = 1.0, 30.0
_THRESHOLD = 0.5
_LEAST_ZOOM, _MOST_ZOOM, _FAR_ZOOM = -16, 8, -8
_AFTER_START_S = 2.0


@dataclass(frozen=True)
class ReviewOptions:
    """Options of a review, see `lim_keras.api.review`."""

    reviewer: str
    port: int
    dem: StrPath | None = None
    before: StrPath | None = None
    scene: StrPath | None = None
    classes: Sequence[str] = ()


@dataclass
class _Shown:
    """An open scene, and the pages that show it."""

    scene: OpenScene
    pages: list[Page] = field(default_factory=list)
    is_prepared: bool = False


class ReviewServer:
    """Server of the review pages of some scenes.

    Args:
        scenes: scenes of a folder of maps.
        options: options of the review.

    Raises:
        ConfigError: the port is taken.
        DataError: the first scene, its review, or another raster cannot be read.
    """

    def __init__(self, scenes: Sequence[MappedScene], options: ReviewOptions) -> None:
        self._scenes, self._options = list(scenes), options
        self._open: dict[int, _Shown] = {}
        self._stack = ExitStack()
        # Tiles of a far view may wait for an overview; other threads go on with the rest.
        self._near, self._far = ThreadPoolExecutor(_THREADS), ThreadPoolExecutor(_THREADS)
        self._socket = _bound(options.port)
        self.port = int(self._socket.getsockname()[1])
        self._token = secrets.token_urlsafe(24)
        self._stack.enter_context(gdal_settings())
        try:
            for path in (options.scene, options.dem, options.before):
                if path is not None:
                    RasterReader(path).close()
            for notice in self._show(0).scene.notices:
                warnings.warn(notice, LimKerasWarning, stacklevel=3)
        except BaseException:
            self.close()
            raise

    @property
    def link(self) -> str:
        """Link that opens the page, with the secret of this run."""
        return f"http://{HOST}:{self.port}/?token={self._token}"

    def close(self) -> None:
        """Close all files."""
        for threads in (self._near, self._far):
            threads.shutdown(wait=True, cancel_futures=True)
        self._stack.close()
        self._socket.close()

    def run(self, ready: Callable[[str], None]) -> None:
        """Serve until Ctrl-C or SIGTERM; `ready` is called with the link."""
        app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
        self._add_routes(app)
        ui.run_with(
            app,
            title="Review of landslides",
            show_welcome_message=False,
            tailwind=False,
            reconnect_timeout=10,
            gzip_middleware_factory=None,
        )
        pages.timer(_POLL_S, self._poll)
        pages.timer(_ALIVE_S, self._meet)
        pages.on_startup(lambda: ready(self.link))
        how: dict[str, Any] = {
            "log_level": "error",
            "access_log": False,
            "lifespan": "on",
            "timeout_graceful_shutdown": 1,
        }
        server = uvicorn.Server(uvicorn.Config(Guard(app, self.port, self._token), **how))
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # uvicorn raises the signal again at its end
        with suppress(KeyboardInterrupt):
            server.run([self._socket])

    # Scenes

    def _show(self, number: int) -> _Shown:
        """Return an open scene; open it first."""
        if number not in self._open:
            mapped = self._scenes[number]
            with ExitStack() as opened:
                store = mapped.open_review(self._options.reviewer, classes=self._options.classes)
                opened.callback(store.close)
                plane = _plane(mapped, self._options.scene)
                session = Session(store, plane, _THRESHOLD if mapped.threshold is None else mapped.threshold)
                layers, notices = self._layers(mapped, plane, opened)
                self._stack.push(opened.pop_all())
            scene = OpenScene(mapped.name, f"/scene/{number}", session, layers, tuple(notices))
            self._open[number] = _Shown(scene)
            session.outlines.prepare(0)
        return self._open[number]

    def _layers(self, mapped: MappedScene, plane: Plane, opened: ExitStack) -> tuple[dict[str, Layer], list[str]]:
        """Open the layers of a scene; also return why others cannot be shown.

        A raster that the user named is an error, unless there are several scenes, and it does not fit this one.
        """
        options, layers, notices = self._options, dict[str, Layer](), list[str]()
        settings = mapped.summary.get("settings", {})
        reading = {"bands": settings.get("bands"), "nodata": settings.get("nodata", "file")}
        named = {"scene": options.scene, "hillshade": options.dem, "before": options.before}
        wanted: dict[str, Callable[[], Layer]] = {}
        image, probability = options.scene if options.scene is not None else mapped.image, mapped.probability
        if image is not None:
            wanted["scene"] = lambda: SceneLayer(plane, image, **reading)
        if probability is not None:
            wanted["probability"] = lambda: ProbabilityLayer(plane, probability)
        if (dem := options.dem) is not None:
            wanted["hillshade"] = lambda: HillshadeLayer(plane, dem, mapped.inventory)
        if (before := options.before) is not None:
            wanted["before"] = lambda: SceneLayer(plane, before)
        for name, make in wanted.items():
            try:
                layers[name] = make()
            except LimKerasError as error:
                if named.get(name) is not None and len(self._scenes) == 1:
                    raise
                hint = "Give its path as `scene`." if name == "scene" and options.scene is None else ""
                notices.append(f"{error} The page shows {mapped.name} without this layer. {hint}".rstrip())
            else:
                opened.callback(layers[name].close)
        return layers, notices

    def _poll(self) -> None:
        for shown in self._open.values():
            with suppress(LimKerasError):  # such as a file that another program locks for long
                shown.scene.session.poll()

    def _meet(self) -> None:
        for shown in self._open.values():
            with suppress(LimKerasError):
                names = _names(shown)
                for page in shown.pages:
                    page.tell_others(names)

    # Routes

    def _add_routes(self, app: FastAPI) -> None:
        script = (files("lim_keras.review.page") / "review.js").read_text(encoding="utf-8")

        @app.get(SCRIPT_URL)
        def _script() -> Response:
            return Response(script, media_type="text/javascript", headers={"cache-control": "no-cache"})

        @app.get("/scene/{number}/tiles/{name}/{zoom}/{column}/{row}")
        async def _tile(number: int, name: str, zoom: int, column: int, row: int) -> Response:
            layer = self._open[number].scene.layers.get(name) if number in self._open else None
            if layer is None or not _LEAST_ZOOM <= zoom <= 0:
                return Response(status_code=404)
            threads = self._far if -zoom >= max(layer.overview_level, 1) else self._near
            content = await _in_thread(threads, lambda: layer.tile(zoom, column, row))
            kept = {"cache-control": "private, max-age=600"}
            return Response(content, media_type=media_type(content), headers=kept)

        @app.get("/scene/{number}/outlines/{zoom}/{left}/{top}/{right}/{bottom}")
        async def _outlines(number: int, zoom: int, left: float, top: float, right: float, bottom: float) -> Response:
            if number not in self._open or not _LEAST_ZOOM <= zoom <= _MOST_ZOOM:
                return Response(status_code=404)
            found = self._open[number].scene.session.outlines
            content = await _in_thread(self._near, lambda: json.dumps(found.in_view(zoom, (left, top, right, bottom))))
            return Response(content, media_type="application/json", headers={"cache-control": "no-store"})

        @ui.page("/")
        def _page(request: Request, scene: int = 0) -> None:
            self._page(scene if 0 <= scene < len(self._scenes) else 0)

    def _page(self, number: int) -> None:
        try:
            shown = self._show(number)
        except LimKerasError as error:
            ui.label(str(error))
            return
        page = Page(shown.scene, [one.name for one in self._scenes], lambda: len(shown.pages))

        def enter() -> None:
            shown.pages.append(page)
            page.tell_others(_names(shown))
            if not shown.is_prepared:
                shown.is_prepared = True
                work = (shown.scene.session, list(shown.scene.layers.values()))
                timer = threading.Timer(_AFTER_START_S, _prepare_far_views, work)
                timer.daemon = True
                timer.start()

        def leave() -> None:
            page.close()
            with suppress(ValueError):
                shown.pages.remove(page)

        ui.context.client.on_delete(leave)
        ui.context.client.on_connect(enter)


async def _in_thread(threads: ThreadPoolExecutor, work: Callable[[], Any]) -> Any:
    return await asyncio.get_running_loop().run_in_executor(threads, work)


def _names(shown: _Shown) -> list[str]:
    """Return who else works on a review."""
    return [f"{one.name} ({one.place})" for one in shown.scene.session.store.others()]


def _plane(mapped: MappedScene, scene: StrPath | None) -> Plane:
    """Return the grid of a scene's maps, or of the scene itself where there is no map."""
    mask = mapped.folder / f"{mapped.name}_landslides.tif"
    maps: Iterable[StrPath | None] = (mapped.probability, mask if mask.is_file() else None, scene, mapped.image)
    for source in maps:
        if source is not None:
            with RasterReader(source) as reader:
                return Plane.of(reader.info)
    raise ConfigError(
        f"{mapped.folder}: expected {mapped.name}_probability.tif beside {mapped.inventory.name}, or the scene as "
        "`scene`. Received: neither. Give the folder that `lim-keras predict` wrote."
    )


def _prepare_far_views(session: Session, layers: Sequence[Layer]) -> None:
    """Prepare what views of the whole scene need, before somebody asks for it."""
    with suppress(Exception):  # a view that needs it reports the error
        for zoom in range(-1, _FAR_ZOOM, -1):
            session.outlines.prepare(zoom)
        for layer in layers:
            layer.overview()


def _bound(port: int) -> socket.socket:
    """Return a socket that is bound to a port of this machine."""
    found = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((HOST, port))
    except (OSError, OverflowError) as error:
        found.close()
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"Invalid value for `port`. Expected a free port of this machine. Received: {port} ({reason}). Give "
            "another one, or 0 for any."
        ) from error
    return found
