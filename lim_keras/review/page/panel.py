"""Side panel of the review page: the present landslide, verdicts, tools, order and filter, layers, progress."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from nicegui import ui

from lim_keras.review.orders import Filter, number
from lim_keras.review.page.drawing import HINTS
from lim_keras.review.page.plane import cell_name
from lim_keras.review.page.window import SEARCH_HINT, Window

ORDER_NAMES = {"doubtful": "most doubtful first", "largest": "largest first", "north": "north to south"}
SHOWN_NAMES = {
    "open": "without a verdict",
    "all": "all",
    "accepted": "accepted",
    "rejected": "rejected",
    "unsure": "unsure",
    "changed": "drawn or edited",
}
LAYER_NAMES = {
    "outlines": "Outlines (O)",
    "probability": "Probability (V)",
    "before": "Other date, swipe (B)",
    "hillshade": "Hillshade (H)",
    "cells": "Searched ground (K)",
}
_TOOLS = (
    ("e", "Edit outline", "edit"),
    ("i", "Add area", "add_circle_outline"),
    ("x", "Cut area", "content_cut"),
    ("d", "Draw missed", "draw"),
    ("m", "Merge", "join_full"),
    ("s", "Split", "call_split"),
    ("g", "Searched ground", "grid_on"),
    ("z", "Undo", "undo"),
)
_OPACITIES = {"probability": 0.6, "hillshade": 0.5, "before": 1.0}


class Panel:
    """Widgets beside the map.

    Args:
        window: what they show and change.
        layers: names of the layers that there are, beside the scene.
        send_layer: shows or hides a layer with an opacity.
    """

    def __init__(self, window: Window, layers: list[str], send_layer: Callable[[str, bool, float], None]) -> None:
        self._window, self._send_layer = window, send_layer
        self._layers: dict[str, Any] = {}
        self._opacity: dict[str, float] = dict(_OPACITIES)
        self._filling = False
        self._progress()
        self._landslide()
        self._tools()
        self._arrangement()
        self._layer_switches(layers)
        with ui.expansion("Share accepted by probability", value=True).classes("section").props("dense"):
            self._shares = ui.html(sanitize=False).classes("shares")

    def _progress(self) -> None:
        self.progress_text = ui.label().classes("progress-text")
        self._bar = ui.linear_progress(0, show_value=False).props("rounded color=positive track-color=grey-5 size=8px")
        self._matching = ui.label().classes("quiet matching")

    def _landslide(self) -> None:
        with ui.element("div").classes("card"):
            with ui.element("div").classes("line"):
                self._title = ui.label().classes("title")
                self._status = ui.label().classes("status")
            self._facts = ui.html(sanitize=False).classes("facts")
            with ui.element("div").classes("verdicts"):
                for key, text in (("a", "Accept"), ("r", "Reject"), ("u", "Unsure")):
                    button = ui.button(f"{text} ({key.upper()})", on_click=lambda key=key: self._press(key), color=None)
                    button.props("unelevated dense no-caps").classes(f"verdict-{key}")
            names = {"": "–", **{one: f"{one} ({n})" for n, one in enumerate(self._window.classes, 1)}}  # noqa: RUF001
            self._class_names: dict[str, str] = names
            self._class = ui.select(names, value="", label="Class", on_change=self._set_class).props("dense outlined")
            self._note = ui.input("Note (C)").props("dense outlined").classes("note")
            self._note.on("blur", self._set_note)

    def _tools(self) -> None:
        with ui.element("div").classes("tools"):
            for key, text, icon in _TOOLS:
                button = ui.button(f"{text} ({key.upper()})", icon=icon, on_click=lambda key=key: self._press(key))
                button.props("flat dense no-caps align=left size=sm color=grey-9")

    def _press(self, key: str) -> None:
        self._window.key(key, self._window.walk.current)

    def _arrangement(self) -> None:
        with ui.expansion("Order and filter", value=False).classes("section").props("dense"):
            self._order = ui.select(ORDER_NAMES, value="doubtful", label="Order").props("dense outlined")
            self._shown = ui.select(SHOWN_NAMES, value="open", label="Show").props("dense outlined")
            ui.label("Mean probability").classes("quiet")
            self._range = ui.range(min=0, max=1, step=0.01, value={"min": 0, "max": 1}).props("label dense")
            with ui.element("div").classes("numbers"):
                self._numbers = {
                    name: ui.number(text, min=0).props("dense outlined clearable")
                    for name, text in (
                        ("least_area_m2", "Smallest area, m²"),
                        ("most_agreement", "Largest fold agreement"),
                        ("least_slope_deg", "Smallest slope, °"),
                    )
                }
        for widget in (self._order, self._shown, *self._numbers.values()):
            widget.on_value_change(self._arrange)
        self._range.on("change", self._arrange)

    def _arrange(self) -> None:
        limits = self._range.value
        given: dict[str, Any] = {name: one.value for name, one in self._numbers.items() if one.value is not None}
        chosen = Filter(shown=self._shown.value, probability=(limits["min"], limits["max"]))
        self._window.arrange(self._order.value, replace(chosen, **given))
        _leave_field()

    def _layer_switches(self, layers: list[str]) -> None:
        with ui.expansion("Layers", value=True).classes("section").props("dense"):
            for name in ("outlines", *layers, "cells"):
                with ui.element("div").classes("layer"):
                    switch = ui.switch(LAYER_NAMES[name], value=name == "outlines").props("dense size=sm")
                    switch.on_value_change(lambda name=name: self._show_layer(name))
                    self._layers[name] = switch
                    if name in ("probability", "hillshade"):
                        slider = ui.slider(min=0.1, max=1, step=0.05, value=self._opacity[name]).props("dense")
                        slider.on_value_change(lambda event, name=name: self._set_opacity(name, event.value))

    def _show_layer(self, name: str) -> None:
        self._send_layer(name, bool(self._layers[name].value), self._opacity.get(name, 1.0))

    def _set_opacity(self, name: str, value: float) -> None:
        self._opacity[name] = value
        self._layers[name].value = True
        self._show_layer(name)

    def switch(self, layer: str) -> None:
        """Show or hide a layer."""
        if layer in self._layers:
            self._layers[layer].value = not self._layers[layer].value

    def focus_note(self) -> None:
        """Put the cursor into the note."""
        self._note.run_method("focus")

    def _set_class(self, event: Any) -> None:
        if not self._filling:
            self._window.classify(event.value or "")
            _leave_field()

    def _set_note(self) -> None:
        self._window.annotate(self._note.value or "")

    # Display

    def refresh(self) -> None:
        """Show the present landslide and mode."""
        window = self._window
        key = window.walk.current
        row = {} if key is None else window.session.rows.get(key, {})
        self._filling = True
        self._title.text = f"Landslide {row.get('id') or key}" if row else "No landslide"
        status = row.get("status") or ("no verdict" if row else "")
        self._status.text = status
        self._status.classes(replace=f"status is-{(row.get('status') or 'open') if row else 'none'}")
        self._facts.content = _facts(row)
        name = row.get("class") or ""
        if name not in self._class_names:  # of another program
            self._class_names[name] = name
            self._class.set_options(self._class_names)
        self._class.value = name
        self._note.value = row.get("note") or ""
        self._filling = False

    def refresh_progress(self) -> None:
        """Show how far the review is."""
        session, walk = self._window.session, self._window.walk
        done, count = session.reviewed, len(session.rows)
        minutes = session.minutes_left(count - done)
        left = "" if minutes is None or done == count else f", about {_duration(minutes)} left"
        self.progress_text.text = f"{done} of {count} reviewed{left}"
        self._bar.value = done / count if count else 0
        noun = "landslide fits" if walk.matching == 1 else "landslides fit"
        cells = session.plane.cells[0] * session.plane.cells[1]
        self._matching.text = f"{walk.matching} {noun} the filter · {len(session.searched)} of {cells} cells searched"
        self._shares.content = _shares(session.accepted_shares())

    def hint(self) -> str:
        """Return the text of the present mode; "" if there is none."""
        window = self._window
        if window.mode:
            return HINTS[window.mode]
        if window.cell is None:
            return ""
        state = "searched" if window.cell in window.session.searched else "not yet searched"
        return f"Cell {cell_name(window.cell)}, {state}. {SEARCH_HINT}"


def _leave_field() -> None:
    """Take the cursor out of a field, so that keys are verdicts again."""
    ui.run_javascript("document.activeElement?.blur()")


def _facts(row: Mapping[str, Any]) -> str:
    facts = [
        ("Area", _with_unit(number(row, "area_m2"), "m²", 0)),
        ("Mean probability", _with_unit(number(row, "probability_mean"), "", 2)),
        ("Fold agreement", _with_unit(number(row, "fold_agreement"), "", 2)),
        ("Mean slope", _with_unit(number(row, "slope_mean_deg"), "°", 0)),
        ("Lowest elevation", _with_unit(number(row, "elevation_min_m"), "m", 0)),
        ("Outline", "" if row.get("origin") in (None, "model") and not row.get("edited") else _origin(row)),
        ("Verdict by", _signature(row)),
    ]
    cells = "".join(f"<dt>{name}</dt><dd>{_escaped(value)}</dd>" for name, value in facts if value)
    return f"<dl>{cells}</dl>"


def _origin(row: Mapping[str, Any]) -> str:
    origin = str(row.get("origin") or "")
    return "edited" if origin == "model" else origin


def _signature(row: Mapping[str, Any]) -> str:
    time = str(row.get("reviewed") or "")
    return f"{row['reviewer']}, {time[:16].replace('T', ' ')} UTC" if row.get("reviewer") and time else ""


def _with_unit(value: float, unit: str, digits: int) -> str:
    if math.isnan(value):
        return ""
    return f"{value:,.{digits}f} {unit}".rstrip() if unit != "°" else f"{value:.{digits}f}°"


def _shares(shares: list[tuple[str, int, int]]) -> str:
    if not shares:
        return '<span class="quiet">No landslide of the model is accepted or rejected yet.</span>'
    rows = "".join(
        f"<tr><td>{name}</td><td><div><i style='width:{100 * accepted / count:.0f}%'></i></div></td>"
        f"<td>{accepted} of {count}</td></tr>"
        for name, accepted, count in shares
    )
    return f"<table>{rows}</table>"


def _duration(minutes: int) -> str:
    minutes = max(minutes, 1)
    hours, rest = divmod(minutes, 60)
    return f"{minutes} minute{'s' * (minutes > 1)}" if not hours else f"{hours} h {rest} min"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
