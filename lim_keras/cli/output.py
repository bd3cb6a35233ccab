"""Standard output of the commands. A failure of it never stops their work."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import click

_FAILURE = f"{__name__}.failure"


def show(parts: Sequence[Any]) -> None:
    """Print tables and lines. After a failure, which is kept for `report_failure`, nothing more is printed."""
    from lim_keras.report.tables import print_result

    meta = click.get_current_context().meta
    if _FAILURE in meta:
        return
    try:
        print_result(parts)
    except (OSError, UnicodeEncodeError, SystemExit) as error:  # rich raises SystemExit after a closed pipe
        meta[_FAILURE] = error
        discard()


def report_failure(context: click.Context) -> bool:
    """Return whether printing failed; name the reason on standard error, except for a closed pipe."""
    error = context.meta.get(_FAILURE)
    if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
        _complain(error.strerror or str(error))
    if isinstance(error, UnicodeEncodeError):
        _complain(f"its encoding {error.encoding} lacks the character {error.object[error.start]!a}")
    return error is not None


def _complain(reason: str) -> None:
    missing = "Lines are missing there; result files are not affected."
    with suppress(OSError):
        click.echo(f"Error: standard output: cannot be written ({reason}). {missing}", err=True)


def discard() -> None:
    """Send the rest of standard output nowhere, so that the interpreter does not fail on it at the end."""
    with suppress(OSError, ValueError):
        output, nowhere = sys.stdout.fileno(), os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, output)
        os.close(nowhere)
