"""Addresses, options, retries and JSON: parts of the client that need no server."""

import json
import time

import numpy as np
import pytest

from lim_keras.errors import ConfigError, DataError, ServerError
from lim_keras.serving import RetryPolicy, ServerAddress, ServerOptions
from lim_keras.serving.rest import decode, encode
from lim_keras.serving.transport import RefusedError, UnavailableError


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("http://host:8501/v1/models/m", (False, "m", None, None)),
        ("http://host:8501/v1/models/m/versions/3", (False, "m", 3, None)),
        ("https://host/maps/v1/models/m.b-1/labels/canary", (False, "m.b-1", None, "canary")),
        ("http://[::1]:8501/v1/models/m", (False, "m", None, None)),
        ("grpc://host:8500/m", (True, "m", None, None)),
        ("grpc://10.0.0.2:9/m/versions/12", (True, "m", 12, None)),
        ("grpc://[::1]:9/m/labels/stable", (True, "m", None, "stable")),
    ],
)
def test_addresses(text: str, parts: tuple[object, ...]) -> None:
    address = ServerAddress.parse(text)
    assert (address.is_grpc, address.name, address.version, address.label) == parts
    assert str(address) == text


def test_addresses_are_completed() -> None:
    assert str(ServerAddress.parse("GRPC://host/m/")) == "grpc://host:8500/m"
    assert str(ServerAddress.parse("grpc://[::1]/m")) == "grpc://[::1]:8500/m"
    assert str(ServerAddress.parse("HTTP://host/v1/models/m/")) == "http://host/v1/models/m"


@pytest.mark.parametrize(
    "text",
    [
        "host:8501",
        "ftp://host/v1/models/m",
        "http://host:8501/m",
        "http://host:8501/v1/models/",
        "http://host:8501/v1/models/m:predict",
        "http://host:8501/v1/models/m/versions/one",
        f"http://host:8501/v1/models/m/versions/{'9' * 5000}",
        "http://host:8501/v1/models/m?x=1",
        "http://host:8501/v1/models/m#x",
        "http://me:secret@host/v1/models/m",
        "http://no host:1/v1/models/m",
        "http://\x1b[2J:1/v1/models/m",
        "grpc://host:8500",
        "grpc://host:8500/v1/models/m",
        "grpc:///m",
        "http://host:port/v1/models/m",
        "http://[::1/v1/models/m",
    ],
)
def test_no_addresses(text: str) -> None:
    with pytest.raises(ServerError, match="Expected http://host:8501/v1/models/NAME or grpc://"):
        ServerAddress.parse(text)


def test_a_version_that_no_server_has() -> None:
    with pytest.raises(ServerError, match=r"expected a version of 0 to 2\^63 - 1"):
        ServerAddress.parse("grpc://host:8500/m/versions/9223372036854775808")


def test_images_as_json() -> None:
    image = np.array([[[1, 2], [30, 4]], [[5, 6], [7, 255]]], np.uint8)[np.newaxis]
    assert encode(image) == b'{"instances":[{"image":[[[1,2],[30,4]],[[5,6],[7,255]]]}]}'
    two = np.arange(2, dtype=np.uint16).reshape(2, 1, 1, 1)
    assert encode(two) == b'{"instances":[{"image":[[[0]]]},{"image":[[[1]]]}]}'


@pytest.mark.parametrize("scale", [1e-38, 1e-3, 1.0, 1e7, 1e30])
def test_floats_come_back_to_the_last_bit(scale: float) -> None:
    values = (np.random.default_rng(0).normal(size=(1, 40, 30, 3)) * scale).astype(np.float32)
    values[0, 0, 0, 0] = np.float32(scale)  # a whole number, where the scale is one
    body = encode(values)
    back = np.array(json.loads(body)["instances"][0]["image"])
    assert (back.astype(np.float32) == values[0]).all()
    # TensorFlow Serving takes an integer for a float32 only up to 2^24 - 1
    numbers = body.decode().replace("[", ",").replace("]", ",").split(",")
    assert all(abs(int(text)) < 2**24 for text in numbers if text.lstrip("-").isdigit())


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_json_has_not(bad: float) -> None:
    with pytest.raises(DataError, match="finite"):
        encode(np.full((1, 2, 2, 1), bad, np.float32))


def test_predictions_from_json() -> None:
    found = decode(b'{"predictions": [{"probability": [[[0.25], [NaN]]], "votes": [[[1], [2]]]}]}')
    assert found["probability"].shape == (1, 1, 2, 1) and found["votes"].dtype.kind == "i"
    assert found["probability"][0, 0, 0, 0] == 0.25 and np.isnan(found["probability"][0, 0, 1, 0])
    assert decode(b'{"predictions": [{"votes": [[[1]]]}, {"votes": [[[2]]]}]}')["votes"].tolist() == [[[[1]]], [[[2]]]]
    # the only output of a model has no name
    assert decode(b'{"predictions": [[[[0.5]]]]}')["probability"].tolist() == [[[[0.5]]]]


class Request:
    """Fails with these errors, then answers."""

    def __init__(self, *errors: Exception) -> None:
        self.errors, self.calls = list(errors), 0

    def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "answer"


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that were slept, without sleeping."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    return slept


def test_retries(pauses: list[float]) -> None:
    request = Request(*[UnavailableError("away")] * 4)
    assert RetryPolicy(retries=4, first_s=1.0, longest_s=3.0).call(request) == "answer" and request.calls == 5
    # 1, 2, 4 and 8 s, at most 3 s, each shortened by up to a half
    assert all(low <= pause <= 2 * low for pause, low in zip(pauses, (0.5, 1, 1.5, 1.5), strict=True))


def test_retries_end(pauses: list[float]) -> None:
    request = Request(*[UnavailableError("away.")] * 9)
    with pytest.raises(ServerError, match=r"away\. Gave up after 3 attempts; raise `retries`") as caught:
        RetryPolicy(retries=2).call(request)
    assert request.calls == 3 and type(caught.value) is ServerError
    with pytest.raises(ServerError, match="after one attempt"):
        RetryPolicy(retries=0).call(Request(UnavailableError("away.")))
    assert len(pauses) == 2


def test_pauses_are_bounded_and_not_all_the_same(pauses: list[float]) -> None:
    RetryPolicy(retries=2000, longest_s=30.0).call(Request(*[UnavailableError("away")] * 2000))
    assert max(pauses) <= 30 and len(set(pauses[-20:])) > 10


def test_what_is_refused_is_not_asked_again(pauses: list[float]) -> None:
    request = Request(RefusedError("wrong shape"))
    with pytest.raises(RefusedError, match="wrong shape"):
        RetryPolicy().call(request)
    assert request.calls == 1 and not pauses


@pytest.mark.parametrize(
    "wrong",
    [
        {"retries": -1},
        {"in_flight": 0},
        {"timeout_s": 0},
        {"timeout_s": 1e10},
        {"request_mb": float("nan")},
        {"request_mb": 2048},
    ],
)
def test_options_that_make_no_sense(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"`{next(iter(wrong))}`"):
        ServerOptions(**wrong)  # type: ignore[arg-type]
