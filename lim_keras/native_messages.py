"""Messages that C++ libraries write to standard error, where Python cannot intercept them."""

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

LITERT_GREETING = re.compile(rb"INFO: Created TensorFlow Lite XNNPACK delegate[^\n]*\n?")
"""Line that LiteRT writes when it loads a network."""


@contextmanager
def without_messages(pattern: re.Pattern[bytes]) -> Iterator[None]:
    """Hold standard error back, and write it at the end without what matches `pattern`."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as held_back:
        standard_error = os.dup(2)
        os.dup2(held_back.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(standard_error, 2)
            os.close(standard_error)
            held_back.seek(0)
            os.write(2, pattern.sub(b"", held_back.read()))
