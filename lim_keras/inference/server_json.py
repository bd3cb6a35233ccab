"""Images as JSON and predictions from it, as TensorFlow Serving's REST API writes both, and how long such text may be.

The API has two formats (https://www.tensorflow.org/tfx/serving/api_rest). In `column`, all images are one tensor; the
server writes each number of its answer on a line of its own, indented by its depth. In `row`, each image is an object;
the server writes arrays on one line, which makes the same answer four times shorter. Both hold the same numbers:
TensorFlow Serving writes a float with as many digits as are needed to read it back, 9 at most.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lim_keras.bundle.protocol import PROBABILITY, VOTES
from lim_keras.errors import DataError, ServerError
from lim_keras.inference.server_transport import INPUT, shown

JsonFormat = Literal["column", "row"]

_DIGITS = {"uint8": 3, "uint16": 5, "float32": 15}
"""Characters of a number at most; -1.23456789e-38 is the longest float32."""

_ANSWER_DIGITS = 14
_LARGEST_INTEGER = 2**24
"""TensorFlow Serving refuses an integer from here on where a float32 is expected: not all of them can be one."""

_INDENT = 4


def encode(images: NDArray[Any], form: JsonFormat) -> bytes:
    """The body of a request for images (n, height, width, bands), as short as exact numbers can be.

    Raises:
        DataError: a number is not finite; JSON has none such.
    """
    values = images if images.dtype.name in ("uint8", "uint16") else images.astype(np.float32)
    number = _number_format(values)
    tensors = [_image_text(image, number) for image in values]
    if form == "row":
        body = ",".join(f'{{"{INPUT}":{tensor}}}' for tensor in tensors)
        return f'{{"instances":[{body}]}}'.encode("ascii")
    return f'{{"inputs":{{"{INPUT}":[{",".join(tensors)}]}}}}'.encode("ascii")


def _number_format(values: NDArray[Any]) -> str:
    if values.dtype.kind == "u":
        return "%d"
    if not np.isfinite(values).all():
        raise DataError("Invalid value for argument `images`. Expected finite numbers. Received: NaN or infinity")
    return "%.8e" if np.abs(values).max() >= _LARGEST_INTEGER else "%.9g"


def _image_text(image: NDArray[Any], number: str) -> str:
    """(height, width, bands) as nested lists."""
    _, width, bands = image.shape
    pixel = f"[{','.join([number] * bands)}]"
    row = f"[{','.join([pixel] * width)}]"
    return f"[{','.join(row % tuple(line.ravel().tolist()) for line in image)}]"


def decode(body: bytes, form: JsonFormat) -> dict[str, NDArray[Any]]:
    """The outputs by name of an answer; a tensor that the server did not name is the probability.

    Raises:
        ServerError: not such an answer.
    """
    key = "predictions" if form == "row" else "outputs"
    try:
        found = json.loads(body)[key]
        if form == "row" and isinstance(found[0], Mapping):
            found = {name: [one[name] for one in found] for name in found[0]}
        named = found if isinstance(found, Mapping) else {PROBABILITY: found}
        return {str(name): _numbers(values) for name, values in named.items()}
    except (ValueError, KeyError, IndexError, TypeError, OverflowError, RecursionError) as error:
        start = body[:100].decode("utf-8", "replace")
        raise ServerError(
            f"expected JSON with `{key}`, lists of one shape. Received: {start!r} ({shown(error)})."
        ) from error


def _numbers(values: Any) -> NDArray[Any]:
    """Nested lists as int64 or float64; as text, NumPy would make each element as long as the longest one is."""
    objects = np.array(values, dtype=object)
    kinds = set(map(type, objects.flat))
    if not kinds <= {int, float}:
        raise ValueError(f"expected numbers, came {', '.join(sorted(kind.__name__ for kind in kinds))}")
    return objects.astype(np.float64 if float in kinds else np.int64)


def message_bytes(dtype: str, bands: int, outputs: Mapping[str, int], form: JsonFormat) -> int:
    """Bytes for each pixel that a request or its answer takes at most, whichever is larger.

    Args:
        dtype: of the images. bands: of the images.
        outputs: digits of each output, see `output_digits`.
        form: of both.

    What a row of pixels adds, at most 40 bytes an output, counts as one byte for each pixel of a window 64 px wide.
    """
    request = bands * (_DIGITS[dtype] + 1) + 3
    # [0.123456789], and one space between
    around = 4
    if form == "column":
        depth = 6 if len(outputs) > 1 else 5
        # A line each for [, the number and ]: three line ends, two brackets and a comma, and what they are indented by.
        around = 3 + 2 + 1 + _INDENT * ((depth - 1) + depth + (depth - 1))
    return max(request, sum(digits + around + 1 for digits in outputs.values()))


def output_digits(names: tuple[str, ...], folds: int) -> dict[str, int]:
    """Characters that a number of each output takes at most."""
    return {name: len(str(folds)) if name == VOTES else _ANSWER_DIGITS for name in names}
