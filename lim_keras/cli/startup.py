"""Loading TensorFlow without its greeting."""

import importlib
import os
import re
import sys
import tempfile

# TensorFlow 2.21 prints these while it is imported, whatever TF_CPP_MIN_LOG_LEVEL says.
_GREETING = re.compile(rb"(I0000 |WARNING: All log messages before absl)[^\n]*\n?")


def load_tensorflow() -> None:
    """Import TensorFlow, and drop the informational lines that its C++ part writes to standard error meanwhile.

    Call it after options and configuration are checked: it takes seconds. Anything else that was written is passed on.
    """
    if "tensorflow" in sys.modules:
        return
    sys.stderr.flush()
    with tempfile.TemporaryFile() as held_back:
        standard_error = os.dup(2)
        os.dup2(held_back.fileno(), 2)
        try:
            importlib.import_module("tensorflow")
        finally:
            sys.stderr.flush()
            os.dup2(standard_error, 2)
            os.close(standard_error)
            held_back.seek(0)
            os.write(2, _GREETING.sub(b"", held_back.read()))
