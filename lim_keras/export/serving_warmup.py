"""Requests that TensorFlow Serving answers while it loads a model, so that the first client does not wait.

They lie in `<version>/assets.extra/tf_serving_warmup_requests`, a TFRecord of PredictionLog messages.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lim_keras.errors import BundleError
from lim_keras.export.bundle_info import ModelFacts
from lim_keras.export.serving_config import serving_messages
from lim_keras.export.signatures import ENCODED, PICTURES, SIGNATURE, signature_names
from lim_keras.export.verify import made_up_image

EXTRA = "assets.extra"
WARMUP_FILE = "tf_serving_warmup_requests"

_LARGEST = 256
"""Pixels a side at most: larger images prepare nothing more, and a request is read at every start."""


def write_warmup(folder: Path, facts: ModelFacts, model: str) -> Path:
    """Write one request for each signature into `folder`, which must be there.

    Args:
        folder: `<version>/assets.extra`.
        facts: of the bundle; the image is as large as its training windows.
        model: its name on the server.

    Raises:
        BundleError: the file cannot be written.
    """
    logs = serving_messages("apis.prediction_log_pb2")
    path = folder / WARMUP_FILE
    image = _image(facts)
    requests = [_request(image, model, signature) for signature in signature_names(facts.bands, facts.dtype)]
    try:
        with tf.io.TFRecordWriter(str(path)) as records:
            for request in requests:
                records.write(logs.PredictionLog(predict_log=logs.PredictLog(request=request)).SerializeToString())
    except tf.errors.OpError as error:
        raise BundleError(f"{path}: cannot be written ({error.message}). Give another folder.") from error
    return path


def _image(facts: ModelFacts) -> NDArray[Any]:
    size = facts.sampling.get("size")
    side = min(size, _LARGEST) if isinstance(size, int) and size > 0 else _LARGEST
    image = made_up_image(facts)
    rows, columns = (np.arange(side) % length for length in image.shape[:2])
    repeated: NDArray[Any] = image[np.ix_(rows, columns)]
    return repeated


def _request(image: NDArray[Any], model: str, signature: str) -> Any:
    request = serving_messages("apis.predict_pb2").PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = model, signature
    if signature == ENCODED:
        request.inputs[PICTURES].CopyFrom(tf.make_tensor_proto([tf.io.encode_png(image).numpy()], tf.string))
    if signature == SIGNATURE:
        request.inputs["image"].CopyFrom(tf.make_tensor_proto(image[np.newaxis].astype(np.float32)))
    return request
