"""Review page: the map, the panel beside it, and what connects them with a window."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal

from nicegui import ui

from lim_keras.review.page.panel import Panel
from lim_keras.review.page.plane import CELL_PX
from lim_keras.review.page.session import Session
from lim_keras.review.page.tiles import Layer
from lim_keras.review.page.window import Window
from lim_keras.review.style import STATUS_COLOURS

SCRIPT_URL = "/review.js"
_CLOSEST_ZOOM, _CLOSE_ZOOM, _FURTHEST_ZOOM = 4, 2, -8
_ORDERS = {"scene": 200, "before": 220, "hillshade": 240, "probability": 260}
_STYLE = (files("lim_keras.review.page") / "review.css").read_text(encoding="utf-8")
_HELP = (
    ("A R U", "accept, reject, unsure; the next landslide follows"),
    ("N P", "next landslide; back to the one before"),
    ("Z", "undo, any number of times"),
    ("E", "edit the outline; Enter saves"),
    ("I X", "add to or cut from the outline by a drawn polygon"),
    ("D", "draw a missed landslide"),
    ("M S", "merge with others; split by a line"),
    ("1 2 3 …", "class"),
    ("C", "note; Enter ends it"),
    ("Delete", "delete a drawn landslide"),
    ("G", "searched ground: mark cells, one after the other"),
    ("V H B O K", "probability, hillshade, other date, outlines, searched ground on and off"),
    ("+ − arrows F", "zoom, move, whole scene"),  # noqa: RUF001
    ("Esc", "cancel, or leave the searched ground"),
)


@dataclass(frozen=True)
class OpenScene:
    """A scene that windows show.

    Attributes:
        name: name of the scene.
        address: address of its tiles and outlines on the server.
        session: its review.
        layers: its layers by name.
        notices: why other layers cannot be shown.
    """

    name: str
    address: str
    session: Session
    layers: Mapping[str, Layer]
    notices: tuple[str, ...] = ()


class Page:
    """Content of one browser window.

    Args:
        scene: scene that it shows.
        names: names of all scenes, to change to.
        count: returns the number of windows that show this scene.
    """

    def __init__(self, scene: OpenScene, names: Sequence[str], count: Callable[[], int]) -> None:
        self._scene, self._count = scene, count
        self._stale, self._others = True, ""
        ui.add_css(_STYLE)
        ui.page_title(f"Review: {scene.name}")
        self.window = Window(scene.session, self, scene.session.store.classes)
        with ui.element("div").classes("page"):
            with ui.element("div").classes("map-side"):
                self._map = _map()
                self._hint = ui.label().classes("hint")
                self._hint.visible = False
            with ui.element("div").classes("panel"):
                self._head(names)
                self.panel = Panel(
                    self.window, [name for name in _ORDERS if name in scene.layers and name != "scene"], self._layer
                )
        ui.on("review_key", lambda event: self.window.key(str(event.args[0]), _key(event.args[1])))
        ui.on("review_click", lambda event: self.window.click(*map(float, event.args)))
        ui.on("review_shape", lambda event: self.window.shape(event.args))
        self._map.on("init", self._start)
        ui.timer(0.3, self._refresh_progress)
        ui.timer(2.0, self._refresh_others)

    def _head(self, names: Sequence[str]) -> None:
        with ui.element("div").classes("line head"):
            if len(names) > 1:
                choice = ui.select(list(names), value=self._scene.name).props("dense outlined").classes("scene")
                choice.on_value_change(lambda event: ui.navigate.to(f"/?scene={names.index(event.value)}"))
            else:
                ui.label(self._scene.name).classes("scene-name")
            ui.button(icon="help_outline", on_click=self.show_keys).props("flat round dense").tooltip("Keys (?)")
        self._people = ui.label().classes("quiet people")
        with ui.dialog() as self._help, ui.card():
            ui.label("Keys").classes("title")
            rows = "".join(f"<tr><td>{keys}</td><td>{text}</td></tr>" for keys, text in _HELP)
            ui.html(f"<table class='keys'>{rows}</table>", sanitize=False)

    def _start(self) -> None:
        session = self._scene.session
        plane, rows = session.plane, session.rows
        settings = {
            "url": self._scene.address,
            "width": plane.width,
            "height": plane.height,
            "cell": CELL_PX,
            "gsd": plane.gsd_m,
            "layers": {name: order for name, order in _ORDERS.items() if name in self._scene.layers},
            "minZoom": max(_FURTHEST_ZOOM, -max(plane.width, plane.height).bit_length() + 8),
            "maxZoom": _CLOSEST_ZOOM,
            "closeZoom": _CLOSE_ZOOM,
            "bounds": self.window.first_bounds(),
            "colours": {status or "": colour for status, colour in STATUS_COLOURS.items()},
            "statuses": [[key, row["status"] or ""] for key, row in rows.items()],
        }
        code = json.dumps(settings)
        ui.run_javascript(f"review.start(getElement({self._map.id}).map, {code})")
        self._layer("scene", True, 1.0)
        self._layer("cells", False, 1.0)
        self.send({"searched": self.window.searched_bounds()})
        self.window.start()
        for notice in self._scene.notices:
            self.say(notice, "negative")

    def _layer(self, name: str, shown: bool, opacity: float) -> None:
        with self._map:
            ui.run_javascript(f"review.layer({json.dumps(name)}, {json.dumps(shown)}, {opacity})")

    # What a window shows its user through

    def send(self, message: Mapping[str, Any]) -> None:
        """Send a message to the script in the browser."""
        with self._map:
            ui.run_javascript(f"review.update({json.dumps(message)})")

    def say(self, text: str, kind: Literal["info", "warning", "negative"] = "info") -> None:
        """Show a text for some seconds."""
        with self._map:
            ui.notify(text, type=kind, position="bottom", timeout=8000 if kind == "negative" else 3500)

    def refresh(self, window: Window) -> None:
        """Show the present landslide, mode and progress."""
        if window is not self.__dict__.get("window") or not hasattr(self, "panel"):
            return
        self.panel.refresh()
        hint = self.panel.hint()
        self._hint.text, self._hint.visible = hint, bool(hint)
        self._stale = True

    def switch(self, layer: str) -> None:
        """Show or hide a layer."""
        self.panel.switch(layer)

    def focus_note(self) -> None:
        """Put the cursor into the note."""
        self.panel.focus_note()

    def show_keys(self) -> None:
        """Show what each key does."""
        self._help.open()

    def _refresh_progress(self) -> None:
        if self._stale:
            self._stale = False
            self.panel.refresh_progress()

    def _refresh_others(self) -> None:
        windows = self._count()
        same = "" if windows < 2 else f" · open in {windows} windows"
        self._people.text = f"Reviewer: {self._scene.session.store.reviewer}{same}{self._others}"

    def tell_others(self, names: Sequence[str]) -> None:
        """Show who else works on the review."""
        text = f" · also here: {', '.join(names)}" if names else ""
        if text and text != self._others:
            self.say(f"Also on this review: {', '.join(names)}. You see each other's verdicts.", "warning")
        self._others = text
        self._refresh_others()

    def close(self) -> None:
        """Forget the window."""
        with suppress(KeyError):
            self.window.close()


def _map() -> Any:
    leaflet = ui.leaflet(
        center=(0, 0),
        zoom=0,
        options={"minZoom": _FURTHEST_ZOOM, "maxZoom": _CLOSEST_ZOOM},
        draw_control={"draw": False, "edit": False},
        hide_drawn_items=True,
        additional_resources=[SCRIPT_URL],
    )
    leaflet.clear_layers()  # the first layer would ask a server on the internet
    return leaflet.classes("map")


def _key(value: object) -> int | None:
    return int(value) if isinstance(value, int | float) else None
