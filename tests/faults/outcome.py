"""Rules for the end of a call: the right result, or one clear error."""

import re
import signal

_KNOWN = re.compile(
    r"Error: |Warning: |Usage: |Try |Difference: |failed |  |$"
    r"|run\.yaml[:,] |fit: epoch |INFO: |libpng |Premature end of JPEG|Corrupt JPEG"
    r"|WARNING:tensorflow:AutoGraph |Please report this to the TensorFlow team|Cause: |To silence this warning"
)
"""Beginnings of lines of standard error: lines of a list are indented, or name the configuration; LiteRT names its
kernels, and the decoders of PNG and JPEG print what they find before the package says it. TensorFlow warns where it
cannot write the temporary files in which it keeps the code of its own functions."""


def check_error(code: int | None, stdout: str, stderr: str) -> None:
    """Check that a call that failed did so with one clear error.

    It has an exit code and no traceback; one line begins with `Error: `, or every scene that failed has one line
    `failed ...` on standard output; standard error holds nothing that other libraries printed.
    """
    assert code not in (None, 0, -signal.SIGKILL, -signal.SIGSEGV, -signal.SIGXFSZ), (code, stderr[-2000:])
    assert code in (1, 2), f"exit code {code}: {stderr[-2000:]}"
    assert "Traceback" not in stdout + stderr, stderr[-3000:]
    errors = [line for line in stderr.splitlines() if line.startswith("Error: ")]
    failures = [line for line in stdout.splitlines() if line.startswith("failed ")]
    differences = [line for line in stderr.splitlines() if line.startswith("Difference: ")]
    assert len(errors) == 1 or (not errors and (failures or differences)), (stdout[-1000:], stderr[-2000:])
    for line in (*errors, *failures, *differences):
        assert len(line) > 25 and "None" not in line[:15], line
        assert not re.search(r"0x[0-9a-f]{6,}|<class |object at ", line), line
    strange = [line for line in stderr.splitlines() if not _KNOWN.match(line)]
    assert strange == [], strange[:5]
