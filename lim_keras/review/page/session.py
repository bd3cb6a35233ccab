"""State of a review that all windows share, and the way of one window through its landslides."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import pairwise
from statistics import median
from typing import Any

import shapely

from lim_keras.review.entries import Entry
from lim_keras.review.orders import Filter, Order, number, ordered
from lim_keras.review.page.outlines import Outlines
from lim_keras.review.page.plane import Plane, cell_name, cell_of_name
from lim_keras.review.rows import KEY, Row
from lim_keras.review.store import ReviewStore
from lim_keras.tiling.review_labels import LANDSLIDES, SEARCHED

_LONGEST_PAUSE_S, _RECENT, _ENOUGH = 120.0, 50, 5
_CLASSES = 10
_CELL_MARGIN_PX = 0.01

Cell = tuple[int, int]


@dataclass(frozen=True)
class Update:
    """Landslides that changed.

    Attributes:
        changed: their keys.
        redrawn: an outline was changed, added or removed.
        cells: cells of searched ground changed.
        others: number of actions by name of another reviewer.
    """

    changed: tuple[int, ...] = ()
    redrawn: bool = False
    cells: bool = False
    others: Mapping[str, int] = field(default_factory=dict)


class Session:
    """Landslides of a review in memory, in step with the file.

    Args:
        store: the review file.
        plane: grid of the maps.
        threshold: smallest probability of landslide of the map.
    """

    def __init__(self, store: ReviewStore, plane: Plane, threshold: float) -> None:
        self.store, self.plane, self.threshold = store, plane, threshold
        self.listeners: list[Callable[[Update], None]] = []
        self._version, self._seen = store.version, _last_number(store)
        self.rows = {int(row[KEY]): row for row in store.landslides()}
        self.outlines = Outlines(self._in_pixels(self.rows.values()))
        self.searched: set[Cell] = set()
        self._read_cells()

    def _in_pixels(self, rows: Iterable[Row]) -> dict[int, Any]:
        found = list(rows)
        return dict(
            zip((int(row[KEY]) for row in found), self.plane.to_pixels([row["geometry"] for row in found]), strict=True)
        )

    def act(self, action: Callable[[], Entry | None]) -> Entry | None:
        """Do an action of the store, and tell all windows what changed; None if there was nothing to do."""
        entry = action()
        if entry is None:
            return None
        self._seen = max(self._seen, entry.number)
        if entry.change.layer == SEARCHED:
            self._read_cells()
            self._tell(Update(cells=True))
        else:
            self._tell(self._reread(entry.change.keys))
        return entry

    def _tell(self, update: Update) -> None:
        for listener in list(self.listeners):
            listener(update)

    def _reread(self, keys: Sequence[int]) -> Update:
        rows = {int(row[KEY]): row for row in self.store.landslides(keys)}
        moved = {key: row for key, row in rows.items() if not _same_outline(self.rows.get(key), row)}
        gone = [key for key in keys if key in self.rows and key not in rows]
        self.rows = {key: row for key, row in self.rows.items() if key not in gone} | rows
        self.outlines.change(self._in_pixels(moved.values()), gone)
        return Update(tuple(keys), redrawn=bool(moved or gone))

    def _read_cells(self) -> None:
        rows = self.store.searched()
        self._cells = {str(row["cell"]): int(row[KEY]) for row in rows}
        named = {cell for row in rows if (cell := cell_of_name(row["cell"])) is not None}
        others = [row["geometry"] for row in rows if cell_of_name(row["cell"]) is None and row["geometry"] is not None]
        if others:  # drawn in another program
            ground = shapely.union_all(self.plane.to_pixels(others))
            named |= {cell for cell in self.plane.cell_walk() if ground.covers(self._core(cell))}
        self.searched = named

    def _core(self, cell: Cell) -> Any:
        left, top, right, bottom = self.plane.cell_bounds(cell)
        margin = _CELL_MARGIN_PX
        return shapely.box(left + margin, top + margin, right - margin, bottom - margin)

    def mark(self, cell: Cell, searched: bool) -> None:
        """Mark a cell as searched, or take the mark back."""
        name = cell_name(cell)
        if searched and cell not in self.searched:
            self.act(lambda: self.store.mark_searched({name: self.plane.cell_outline(cell)}))
        elif not searched and name in self._cells:
            self.act(lambda: self.store.unmark_searched([self._cells[name]]))

    def poll(self) -> None:
        """Read what other programs changed in the file, and tell all windows."""
        version = self.store.version
        if version == self._version:
            return
        self._version = version
        entries = self.store.log(self._seen)
        if not entries:
            return  # such as a sign of life
        self.store.measure_missing()
        self._seen = entries[-1].number
        update = self._reread(
            sorted({key for one in entries if one.change.layer == LANDSLIDES for key in one.change.keys})
        )
        cells = any(one.change.layer == SEARCHED for one in entries)
        if cells:
            self._read_cells()
        names = [entry.reviewer for entry in entries]
        counts = {name: names.count(name) for name in dict.fromkeys(names)}
        self._tell(replace(update, cells=cells, others=counts))

    # Progress

    @property
    def reviewed(self) -> int:
        """Number of landslides with a verdict."""
        return sum(1 for row in self.rows.values() if row["status"])

    def minutes_left(self, remaining: int) -> int | None:
        """Estimate the minutes for some landslides, by the usual time between the last verdicts; None if unknown."""
        times = sorted(str(row["reviewed"]) for row in self.rows.values() if row["reviewed"] and row["status"])
        moments = [moment for text in times[-_RECENT:] if (moment := _moment(text)) is not None]
        gaps = [(later - earlier).total_seconds() for earlier, later in pairwise(moments)]
        usual = [gap for gap in gaps if 0 < gap <= _LONGEST_PAUSE_S]
        return round(remaining * median(usual) / 60) if len(usual) >= _ENOUGH else None

    def accepted_shares(self) -> list[tuple[str, int, int]]:
        """Return, by class of mean probability from the top, its limits, accepted, and accepted or rejected.

        Only landslides of the model count.
        """
        counts: dict[int, list[int]] = {}
        for row in self.rows.values():
            if row["status"] not in ("accepted", "rejected") or row["origin"] != "model":
                continue
            probability = number(row, "probability_mean")
            if not math.isnan(probability):
                count = counts.setdefault(min(int(probability * _CLASSES), _CLASSES - 1), [0, 0])
                count[0] += row["status"] == "accepted"
                count[1] += 1
        shares = []
        for one in sorted(counts, reverse=True):
            accepted, judged = counts[one]
            shares.append((f"{one / _CLASSES:.1f}–{(one + 1) / _CLASSES:.1f}", accepted, judged))  # noqa: RUF001
        return shares


class Walk:
    """Way of one window through the landslides, in an order and with a filter.

    Attributes:
        current: key of the landslide that is shown; None if there is none.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self.order: Order = "doubtful"
        self.filter = Filter()
        self.current: int | None = None
        self._history: list[int] = []
        self._queue: list[int] = []
        self.arrange(self.order, self.filter)

    def arrange(self, order: Order, filter_: Filter) -> None:
        """Set the order and the filter."""
        self.order, self.filter = order, filter_
        rows = [row for row in self._session.rows.values() if filter_.measures_match(row)]
        self._queue = ordered(rows, order, self._session.threshold)

    def go(self, key: int | None) -> None:
        """Show a landslide."""
        if self.current is not None and self.current != key:
            self._history.append(self.current)
        self.current = key

    def next(self, after: int | None) -> int | None:
        """Return the next landslide that the filter lets through, from the start again after the end."""
        rows, queue = self._session.rows, self._queue
        start = queue.index(after) + 1 if after in queue else 0
        for key in (*queue[start:], *queue[:start]):
            if key != after and key in rows and self.filter.has_status(rows[key]):
                return key
        return None

    def back(self) -> int | None:
        """Leave the present landslide for the one that was shown before it; None if there is none."""
        while self._history:
            key = self._history.pop()
            if key in self._session.rows and key != self.current:
                self.current = key
                return key
        return None

    @property
    def matching(self) -> int:
        """Number of landslides that the filter lets through."""
        rows = self._session.rows
        return sum(1 for key in self._queue if key in rows and self.filter.has_status(rows[key]))


def _same_outline(one: Row | None, other: Row | None) -> bool:
    if one is None or other is None:
        return one is other
    return bool(one["geometry"] == other["geometry"])


def _last_number(store: ReviewStore) -> int:
    return max((entry.number for entry in store.log()), default=0)


def _moment(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None
