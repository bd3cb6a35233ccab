"""Calls of jobs in worker processes, and their outcome as bytes."""

from __future__ import annotations

import pickle
import socket
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lim_keras import __version__
from lim_keras.errors import ClusterError, LimKerasError, LimKerasWarning


@dataclass(frozen=True)
class Outcome:
    """Result or error of a job, and the warnings that it gave.

    Attributes:
        result: what the function returned.
        error: error that it raised; None if it raised none.
        warnings: its warnings.
    """

    result: Any = None
    error: LimKerasError | None = None
    warnings: tuple[LimKerasWarning, ...] = ()


Call = Callable[[bytes, dict[str, str]], bytes]


def remote_call() -> Call:
    """Make the function that Ray runs. It is sent by value, so that it runs where lim_keras is missing, too."""

    def call(payload: bytes, environment: dict[str, str]) -> bytes:
        import os
        import socket

        os.environ.update(environment)
        try:
            from lim_keras.workers.call import call_job
        except ImportError as error:
            return f"{socket.gethostname()}: {error}".encode()
        return call_job(payload)

    return call


def call_job(payload: bytes) -> bytes:
    """Run a pickled (version, (function, job)); return a pickled Outcome."""
    version, pickled = pickle.loads(payload)
    if version != __version__:
        return pickle.dumps(Outcome(error=ClusterError(_other_version(version))))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", LimKerasWarning)
        outcome = _outcome(pickled)
    given = tuple(one.message for one in caught if isinstance(one.message, LimKerasWarning))
    return pickle.dumps(Outcome(outcome.result, outcome.error, given))


def read_outcome(answer: bytes) -> Outcome:
    """Read what `remote_call` returned."""
    if not answer.startswith(b"\x80"):  # first byte of every pickle
        return Outcome(error=ClusterError(f"{answer.decode()}. {INSTALL}"))
    outcome = pickle.loads(answer)
    if not isinstance(outcome, Outcome):
        raise TypeError(f"Expected an Outcome. Received: {type(outcome).__name__}")
    return outcome


INSTALL = f"Install lim-keras {__version__} on every machine of the cluster, with the same extras."
"""Cure of machines without lim_keras, or with another version."""


def _other_version(version: str) -> str:
    return f"{socket.gethostname()}: lim-keras {__version__} is installed there, and {version} here. {INSTALL}"


def _outcome(pickled: bytes) -> Outcome:
    try:
        function, job = pickle.loads(pickled)
        outcome = Outcome(function(job))
        pickle.dumps(outcome)
    except LimKerasError as error:
        return Outcome(error=_picklable(error))
    except (Exception, SystemExit) as error:
        reason = " ".join(str(error).split())[:300]
        return Outcome(error=ClusterError(f"{type(error).__name__} on {socket.gethostname()}: {reason}"))
    return outcome


def _picklable(error: LimKerasError) -> LimKerasError:
    """Return the error, or one of the nearest class of the package that can be sent, with the same message."""
    for cls in type(error).__mro__:
        plain = error if cls is type(error) else cls(str(error))
        try:
            if str(pickle.loads(pickle.dumps(plain))) == str(error):
                return plain
        except Exception:
            continue
    return LimKerasError(str(error))
