"""What REST and gRPC have in common: what a model server is asked, how large that is, and how often it is asked."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from numpy.typing import NDArray

from lim_keras.errors import ServerError

MEBIBYTE = 2**20
INPUT = "image"

_Answer = TypeVar("_Answer")

_QUOTED = 500
"""Characters of a server's words that are shown."""


class UnavailableError(ServerError):
    """The server is away or busy; it may be worth asking again."""


class RefusedError(ServerError):
    """The server says that the request itself is wrong, or that it has no such model; asking again is of no use."""


def shown(words: object) -> str:
    """What a server wrote, as a piece of one line of at most 500 characters.

    A character that is not printable is spelt out, such as \\x1b, so that no server moves the terminal's cursor.
    """
    line = " ".join(str(words)[: 4 * _QUOTED].split())
    spelt = (one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in line)
    return f"{''.join(spelt):.{_QUOTED}}"


@dataclass(frozen=True)
class Tensor:
    """An input or output of a signature. dtype: such as "DT_FLOAT". shape: -1 is any size; None: not known."""

    dtype: str
    shape: tuple[int, ...] | None

    def __str__(self) -> str:
        return f"{self.dtype} {'of unknown shape' if self.shape is None else self.shape}"


@dataclass(frozen=True)
class Served:
    """What a server says of a model. version: that it answers with; None where it does not say."""

    version: int | None
    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]


@dataclass(frozen=True)
class Sizes:
    """Bounds of what a window takes, for each of its pixels.

    message: bytes of the request or of the answer, whichever is larger. answering: bytes of memory while one answer is
    read. waiting: bytes of memory for each request that is under way.
    """

    message: int
    answering: int
    waiting: int


class Transport(Protocol):
    """A way to ask a server about one model. Each call is one attempt, and may be made from several threads.

    Both raise UnavailableError, RefusedError, or ServerError for an answer that makes no sense.
    """

    def describe(self) -> Served:
        """Ask for the model's signature `serving_default`."""
        ...

    def predict(self, images: NDArray[Any]) -> Mapping[str, NDArray[Any]]:
        """Ask for the outputs, by name, of images (n, height, width, bands)."""
        ...

    def close(self) -> None:
        """Give connections back."""
        ...


@dataclass(frozen=True)
class RetryPolicy:
    """How often a server that is away or busy is asked again.

    The pauses double from `first_s` to `longest_s`, in seconds; each is shortened at random by up to a half, so that
    many clients do not come back at the same moment.
    """

    retries: int = 5
    first_s: float = 0.5
    longest_s: float = 30.0
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False)

    def insist(self, ask: Callable[[], _Answer]) -> _Answer:
        """What `ask` returns, at its first success.

        Raises:
            ServerError: it raised another error than UnavailableError, or that one each time.
        """
        for attempt in range(self.retries):
            try:
                return ask()
            except UnavailableError:
                self.sleep(self.pause(attempt))
        try:
            return ask()
        except UnavailableError as error:
            attempts = f"{self.retries + 1} attempts" if self.retries else "one attempt"
            raise ServerError(f"{error} Gave up after {attempts}; --retries sets how many.") from error

    def pause(self, attempt: int) -> float:
        """Seconds before the attempt that follows the one of this number, counted from 0."""
        longest = min(self.longest_s, self.first_s * 2.0 ** min(attempt, 60))
        return longest * random.uniform(0.5, 1)
