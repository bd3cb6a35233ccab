"""One window of the review page: what its keys, clicks and drawn shapes do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal, Protocol

import shapely

from lim_keras.errors import LimKerasError
from lim_keras.review.orders import Filter, Order
from lim_keras.review.page.drawing import (
    MODES,
    Mode,
    changed_outline,
    drawing_problem,
    polygon_of,
    rings_to_edit,
    with_few_corners,
    within_scene,
)
from lim_keras.review.page.plane import CELL_PX, cell_name
from lim_keras.review.page.session import Cell, Session, Update, Walk
from lim_keras.review.store import Status
from lim_keras.tiling.review_labels import SEARCHED

VERDICTS: Mapping[str, Status] = {"a": "accepted", "r": "rejected", "u": "unsure"}
"""Verdict of each key."""

SEARCH_HINT = (
    "Searched ground: G marks the cell and goes to the next, or removes the mark of a marked one. N and P move, D "
    "draws, Esc leaves."
)

_CLICK_REACH_PX = 6.0


class Shown(Protocol):
    """View of a window in the browser."""

    def send(self, message: Mapping[str, Any]) -> None:
        """Send a message to the script in the browser."""

    def say(self, text: str, kind: Literal["info", "warning", "negative"] = "info") -> None:
        """Show a text for some seconds."""

    def refresh(self, window: Window) -> None:
        """Show the present landslide, mode and progress."""

    def switch(self, layer: str) -> None:
        """Show or hide a layer."""

    def focus_note(self) -> None:
        """Put the cursor into the note."""

    def show_keys(self) -> None:
        """Show what each key does."""


class Window:
    """One window of the review page.

    Args:
        session: the review, shared with other windows.
        shown: widgets of the window.
        classes: classes of landslides, in the order of the keys 1, 2, ...
    """

    def __init__(self, session: Session, shown: Shown, classes: Sequence[str]) -> None:
        self.session, self.walk, self.classes = session, Walk(session), tuple(classes)
        self.mode: Mode = ""
        self.cell: Cell | None = None
        self._shown = shown
        self._chosen: list[int] = []
        self._edited: Any = None
        session.listeners.append(self._on_update)

    def close(self) -> None:
        """Forget the window."""
        with suppress(ValueError):
            self.session.listeners.remove(self._on_update)

    def first_bounds(self) -> list[float]:
        """Go to the first landslide, and return the bounds of what is seen first; pixels."""
        first = self.walk.next(None)
        self.walk.go(first if first is not None else next(iter(self.session.rows), None))
        plane, key = self.session.plane, self.walk.current
        bounds = None if key is None else self.session.outlines.bounds(key)
        return [0.0, 0.0, float(plane.width), float(plane.height)] if bounds is None else bounds

    def start(self) -> None:
        """Show the first landslide."""
        self._present(move=False)
        if not self.session.rows:
            self._shown.say("The inventory holds no landslide. G goes through the ground, D draws.")

    def key(self, key: str, current: int | None) -> None:
        """Handle a key. `current`: the landslide that was on the screen when it was pressed."""
        try:
            self._key(key, current)
        except LimKerasError as error:
            self._shown.say(str(error), "negative")

    def _key(self, key: str, current: int | None) -> None:
        if key == "escape":
            self._cancel()
        elif self.mode == "merge" and key in ("m", "enter"):
            self._merge()
        elif self.mode:
            self._shown.say("Finish the drawing first: Enter saves it, Esc cancels it.")
        elif self.cell is not None and key in ("g", "n", "p"):
            self._search(key)
        elif key in VERDICTS:
            self.judge(VERDICTS[key], current)
        elif key in MODES:
            self._begin(MODES[key])
        elif key.isdecimal() and 1 <= int(key) <= len(self.classes):
            self.classify(self.classes[int(key) - 1])
        else:
            self._other(key)

    def _other(self, key: str) -> None:
        actions: dict[str, Callable[[], None]] = {
            "n": lambda: self.show(self.walk.next(self.walk.current), moved=True),
            "p": self._back,
            "z": self.undo,
            "g": self._begin_search,
            "c": self._shown.focus_note,
            "delete": self._delete,
            "?": self._shown.show_keys,
            **{key: lambda layer=layer: self._shown.switch(layer) for key, layer in _LAYER_KEYS.items()},  # type: ignore[misc]
        }
        if key in actions:
            actions[key]()

    def click(self, column: float, row: float, zoom: float) -> None:
        """Handle a click at a point of the plane."""
        if self.cell is not None and not self.mode:
            left, top = int(column // CELL_PX), int(row // CELL_PX)
            rows, columns = self.session.plane.cells
            if 0 <= top < rows and 0 <= left < columns:
                self._show_cell((top, left), move=False)
            return
        key = self.session.outlines.at(column, row, _CLICK_REACH_PX / 2.0**zoom)
        if key is None:
            return
        if self.mode == "merge":
            kept = [one for one in self._chosen if one != key]
            self._chosen = kept if len(kept) < len(self._chosen) and key != self.walk.current else [*kept, key]
            self._shown.send({"chosen": self._chosen})
        elif not self.mode:
            self.walk.go(key)
            self._present(move=False)

    # Landslides

    def show(self, key: int | None, *, moved: bool = False) -> None:
        """Show a landslide; say so if there is none."""
        if key is None:
            text = "No other landslide fits the filter." if moved else "All landslides of this filter are reviewed."
            self._shown.say(text)
        else:
            self.walk.go(key)
        self._present()

    def _present(self, *, move: bool = True) -> None:
        key = self.walk.current
        bounds = None if key is None else self.session.outlines.bounds(key)
        message = {"current": key, "bounds": bounds if move else None, "chosen": []}
        if move and (following := self.walk.next(key)) is not None:
            message["ahead"] = self.session.outlines.bounds(following)
        self._shown.send(message)
        self._shown.refresh(self)

    def _back(self) -> None:
        if self.walk.back() is None:
            self._shown.say("There is no landslide before this one.")
            return
        self._present()

    def judge(self, status: Status, current: int | None = None) -> None:
        """Give the landslide on the screen a verdict, and go to the next one."""
        key = self.walk.current if current is None else current
        if self.cell is not None:
            self._shown.say("Press Esc to leave the searched ground, then give verdicts.")
            return
        if key is None or key not in self.session.rows:
            self._shown.say("No landslide is chosen.")
            return
        if self.session.rows[key]["status"] != status:
            self.session.act(lambda: self.session.store.judge([key], status))
        if key == self.walk.current:
            self.show(self.walk.next(key))

    def classify(self, name: str) -> None:
        """Give the landslide a class; an empty text removes it."""
        key = self.walk.current
        if key is not None and (self.session.rows[key]["class"] or "") != name:
            self.session.act(lambda: self.session.store.classify([key], name))

    def annotate(self, note: str) -> None:
        """Write a note to the landslide; an empty text removes it."""
        key = self.walk.current
        if key is not None and (self.session.rows[key]["note"] or "") != note.strip():
            self.session.act(lambda: self.session.store.annotate([key], note.strip()))

    def undo(self) -> None:
        """Undo the last action, and show its landslide."""
        entry = self.session.act(self.session.store.undo)
        if entry is None:
            self._shown.say("There is nothing to undo.")
            return
        if entry.change.layer == SEARCHED:
            self._shown.refresh(self)
            return
        there = [key for key in entry.change.keys if key in self.session.rows]
        self.cell = None
        self._shown.send({"cell": None})
        if there:
            self.walk.go(there[0])
        self._present()

    def _delete(self) -> None:
        key = self.walk.current
        if key is not None:
            self.session.act(lambda: self.session.store.remove(key))
            self.show(self.walk.next(key))

    def arrange(self, order: Order, filter_: Filter) -> None:
        """Set order and filter; go to the first landslide if the present one does not fit."""
        self.walk.arrange(order, filter_)
        key = self.walk.current
        if key is None or key not in self.session.rows or not filter_.matches(self.session.rows[key]):
            self.show(self.walk.next(None), moved=True)
        else:
            self._shown.refresh(self)

    # Drawing

    def _begin(self, mode: Mode) -> None:
        """Begin a mode; the script in the browser lets the user draw."""
        key = self.walk.current
        if mode != "draw" and (key is None or self.cell is not None):
            self._shown.say("Choose a landslide first.")
            return
        if key is not None and (problem := drawing_problem(mode, self.session.outlines.outline(key))):
            self._shown.say(problem)
            return
        message: dict[str, Any] = {"mode": mode}
        if mode == "edit" and key is not None:
            self._edited = with_few_corners(self.session.outlines.outline(key))
            message["rings"] = rings_to_edit(self._edited)
        if mode == "merge" and key is not None:
            self._chosen = [key]
            message["chosen"] = self._chosen
        self.mode = mode
        self._shown.send(message)
        self._shown.refresh(self)

    def _cancel(self) -> None:
        if not self.mode and self.cell is not None:
            self.cell = None
            self._shown.send({"cell": None})
            self._present()
            return
        self._end()

    def _end(self) -> None:
        self.mode, self._chosen, self._edited = "", [], None
        self._shown.send({"mode": "", "chosen": []})
        self._shown.refresh(self)

    def shape(self, rings: Sequence[Sequence[Sequence[float]]]) -> None:
        """Handle the shape that was drawn or edited, in pixels: rings of a polygon, or one line."""
        mode = self.mode
        try:
            self._shape(mode, rings)
        except (LimKerasError, shapely.errors.GEOSException, ValueError) as error:
            self._shown.say(str(error), "negative")
        self._end()

    def _shape(self, mode: Mode, rings: Sequence[Sequence[Sequence[float]]]) -> None:
        store, key, plane = self.session.store, self.walk.current, self.session.plane
        if mode == "split" and key is not None:
            line = plane.to_ground(shapely.LineString(rings[0]))
            self.session.act(lambda: store.split(key, line))
            return
        drawn = polygon_of(rings)
        if mode == "draw":
            outline = plane.to_ground(within_scene(drawn, plane))
            entry = self.session.act(lambda: store.draw(outline))
            if entry is not None and self.cell is None:
                self.walk.go(entry.change.keys[0])
                self._present(move=False)
        elif key is not None and mode in ("edit", "add", "cut"):
            if mode == "edit" and shapely.equals_exact(drawn, self._edited, tolerance=1e-6, normalize=True):
                return  # nothing was moved, so the outline keeps its points
            outline = plane.to_ground(changed_outline(mode, self.session.outlines.outline(key), drawn, plane))
            self.session.act(lambda: store.reshape(key, outline))

    def _merge(self) -> None:
        chosen = self._chosen
        self._end()
        if len(chosen) < 2:
            self._shown.say("Nothing was merged: click at least one other landslide first.")
            return
        self.session.act(lambda: self.session.store.merge(chosen))
        self.walk.go(chosen[0])
        self._present(move=False)

    # Searched ground

    def _begin_search(self) -> None:
        cells = list(self.session.plane.cell_walk())
        open_cells = [cell for cell in cells if cell not in self.session.searched]
        if not open_cells:
            self._shown.say("All ground is searched.")
        self._show_cell((open_cells or cells)[0])

    def _search(self, key: str) -> None:
        cells = list(self.session.plane.cell_walk())
        cell = self.cell or cells[0]
        place = cells.index(cell)
        if key == "p":
            self._show_cell(cells[place - 1])
            return
        if key == "n":
            self._show_cell(cells[(place + 1) % len(cells)])
            return
        if cell in self.session.searched:
            self.session.mark(cell, False)
            self._shown.say(f"Cell {cell_name(cell)} is no longer marked.")
            return
        self.session.mark(cell, True)
        rest = [one for one in (*cells[place:], *cells[:place]) if one not in self.session.searched]
        if not rest:
            self._shown.say("All ground is searched.")
        self._show_cell(rest[0] if rest else cell)

    def _show_cell(self, cell: Cell, *, move: bool = True) -> None:
        self.cell = cell
        bounds = list(self.session.plane.cell_bounds(cell))
        self._shown.send({"cell": bounds, "bounds": bounds if move else None, "fit": True})
        self._shown.refresh(self)

    # News

    def _on_update(self, update: Update) -> None:
        rows = self.session.rows
        statuses = [[key, rows[key]["status"] or ""] for key in update.changed if key in rows]
        message: dict[str, Any] = {"statuses": statuses, "reload": update.redrawn}
        if update.cells:
            message["searched"] = self.searched_bounds()
        self._shown.send(message)
        for name, count in update.others.items():
            noun = "action" if count == 1 else "actions"
            self._shown.say(f"{name} works on this review, too: {count} {noun} just now.", "warning")
        if self.walk.current is not None and self.walk.current not in rows:
            self.walk.current = None
            self._present()
        if update.redrawn:
            self.walk.arrange(self.walk.order, self.walk.filter)
        self._shown.refresh(self)

    def searched_bounds(self) -> list[list[int]]:
        """Return the bounds of all searched cells, pixels."""
        rows, columns = self.session.plane.cells
        inside = [cell for cell in self.session.searched if cell[0] < rows and cell[1] < columns]
        return [list(self.session.plane.cell_bounds(cell)) for cell in sorted(inside)]


_LAYER_KEYS = {"o": "outlines", "v": "probability", "h": "hillshade", "b": "before", "k": "cells"}
