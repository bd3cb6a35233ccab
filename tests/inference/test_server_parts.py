"""Addresses, JSON and its size, patience: what needs no server, with the expected text written out."""

import json

import numpy as np
import pytest

from lim_keras.errors import DataError, ServerError
from lim_keras.inference.server import ServerOptions
from lim_keras.inference.server_address import ServerAddress
from lim_keras.inference.server_json import JsonFormat, decode, encode, message_bytes, output_digits
from lim_keras.inference.server_transport import RefusedError, RetryPolicy, UnavailableError


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("http://host:8501/v1/models/m", ("http", "host:8501", "", "m", None, None)),
        ("http://host:8501/v1/models/m/versions/3", ("http", "host:8501", "", "m", 3, None)),
        ("https://host/maps/v1/models/m.b-1/labels/canary", ("https", "host", "/maps", "m.b-1", None, "canary")),
        ("http://[::1]:8501/v1/models/m", ("http", "[::1]:8501", "", "m", None, None)),
        ("grpc://host:8500/m", ("grpc", "host:8500", "", "m", None, None)),
        ("grpc://10.0.0.2:9/m/versions/12", ("grpc", "10.0.0.2:9", "", "m", 12, None)),
        ("grpc://host:8500/m/labels/stable", ("grpc", "host:8500", "", "m", None, "stable")),
    ],
)
def test_addresses(text: str, parts: tuple[object, ...]) -> None:
    address = ServerAddress.parse(text)
    found = (address.scheme, address.host, address.prefix, address.name, address.version, address.label)
    assert found == parts
    assert str(address) == text


def test_an_address_in_another_way() -> None:
    assert str(ServerAddress.parse("GRPC://host/m/")) == "grpc://host:8500/m"
    pinned = ServerAddress.parse("http://host:1/v1/models/m/labels/canary").at_version(7)
    assert str(pinned) == "http://host:1/v1/models/m/versions/7"


@pytest.mark.parametrize(
    "text",
    [
        "host:8501",
        "ftp://host/v1/models/m",
        "http://host:8501/m",
        "http://host:8501/v1/models/",
        "http://host:8501/v1/models/m:predict",
        "http://host:8501/v1/models/m/versions/one",
        "grpc://host:8500/m/versions/9223372036854775808",
        f"http://host:8501/v1/models/m/versions/{'9' * 5000}",
        "http://host:8501/v1/models/m?x=1",
        "http://me:secret@host/v1/models/m",
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


def test_images_as_json() -> None:
    image = np.array([[[1, 2], [30, 4]], [[5, 6], [7, 255]]], np.uint8)[np.newaxis]
    assert encode(image, "column") == b'{"inputs":{"image":[[[[1,2],[30,4]],[[5,6],[7,255]]]]}}'
    assert encode(image, "row") == b'{"instances":[{"image":[[[1,2],[30,4]],[[5,6],[7,255]]]}]}'
    two = np.arange(2, dtype=np.uint16).reshape(2, 1, 1, 1)
    assert encode(two, "row") == b'{"instances":[{"image":[[[0]]]},{"image":[[[1]]]}]}'


@pytest.mark.parametrize("scale", [1e-38, 1e-3, 1.0, 1e7, 1e30])
def test_floats_come_back_to_the_last_bit(scale: float) -> None:
    values = (np.random.default_rng(0).normal(size=(1, 40, 30, 3)) * scale).astype(np.float32)
    values[0, 0, 0, 0] = np.float32(scale)  # a whole number, where the scale is one
    body = encode(values, "column")
    back = np.array(json.loads(body)["inputs"]["image"])
    assert (back.astype(np.float32) == values).all()
    # TensorFlow Serving takes an integer for a float32 only up to 2^24 - 1
    assert all(
        abs(int(text)) < 2**24
        for text in body.decode().replace("[", ",").replace("]", ",").split(",")
        if text.lstrip("-").isdigit()
    )


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_json_has_not(bad: float) -> None:
    with pytest.raises(DataError, match="finite"):
        encode(np.full((1, 2, 2, 1), bad, np.float32), "column")


def test_predictions_from_json() -> None:
    column = b'{"outputs": {"probability": [[[[0.25], [NaN]]]], "votes": [[[[1], [2]]]]}}'
    found = decode(column, "column")
    assert found["probability"].shape == (1, 1, 2, 1) and found["votes"].dtype.kind == "i"
    assert found["probability"][0, 0, 0, 0] == 0.25 and np.isnan(found["probability"][0, 0, 1, 0])
    row = b'{"predictions": [{"votes": [[[1]]]}, {"votes": [[[2]]]}]}'
    assert decode(row, "row")["votes"].tolist() == [[[[1]]], [[[2]]]]
    # the only output of a model has no name
    assert decode(b'{"outputs": [[[[0.5]]]]}', "column")["probability"].tolist() == [[[[0.5]]]]
    assert decode(b'{"predictions": [[[[0.5]]]]}', "row")["probability"].tolist() == [[[[0.5]]]]


@pytest.mark.parametrize(
    ("body", "form"),
    [
        (b"<html>busy</html>", "column"),
        (b'{"predictions": [1]}', "column"),
        (b'{"predictions": []}', "row"),
        (b'{"predictions": [{"a": 1}, {"b": 2}]}', "row"),
        (b'{"outputs": [[1, 2], [3]]}', "column"),
        (b"\xff\xfe", "column"),
        (b"[" * 100_000, "column"),
        (b'{"outputs": [[[[0.5], [1' + b"0" * 400 + b"]]]]}", "column"),
        (b'{"outputs": [[[[1' + b"0" * 30 + b"]]]]}", "column"),
        (b'{"outputs": [[[["0.5"]]]]}', "column"),
        (b'{"outputs": [[[[true]]]]}', "column"),
        (b'{"outputs": [[[[null]]]]}', "column"),
        # as one NumPy array of text: 100,000 times 4 MB
        (b'{"predictions": ["' + b"a" * 10**6 + b'"' + b", 1" * 10**5 + b"]}", "row"),
    ],
)
def test_json_that_is_no_prediction(body: bytes, form: JsonFormat) -> None:
    with pytest.raises(ServerError, match="expected JSON with"):
        decode(body, form)


def test_size_of_a_message() -> None:
    single, all_three = ("probability",), ("probability", "spread", "votes")
    # uint8, 3 bands: "[255,255,255]," is 14 bytes, counted with 1 more for its row. Row answers:
    # "[0.123456789e-10], " counted as 14 digits + 4 + 1 for its row
    assert message_bytes("uint8", 3, output_digits(single, 1), "row") == 19
    assert message_bytes("uint8", 3, output_digits(all_three, 5), "row") == 19 + 19 + 6
    # float32, 4 bands: 4 x (15 + 1) + 3 exceeds the answer's 44
    assert message_bytes("float32", 4, output_digits(all_three, 5), "row") == 67
    # column, three outputs, depth 6: lines indented by 20, 24 and 20, with 6 more bytes, the digits and 1 for the row
    assert message_bytes("uint8", 3, output_digits(all_three, 12), "column") == (71 + 14) * 2 + 71 + 2


class LiteRtOptions:
    """Fails with these errors, then answers."""

    def __init__(self, *errors: Exception) -> None:
        self.errors, self.calls = list(errors), 0

    def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "answer"


def test_patience() -> None:
    pauses: list[float] = []
    patience = RetryPolicy(retries=4, first_s=1.0, longest_s=3.0, sleep=pauses.append)
    asked = LiteRtOptions(*[UnavailableError("away")] * 4)
    assert patience.insist(asked) == "answer" and asked.calls == 5
    # 1, 2, 4 and 8 s, at most 3 s, each shortened by up to a half
    assert all(low <= pause <= 2 * low for pause, low in zip(pauses, (0.5, 1, 1.5, 1.5), strict=True))


def test_patience_ends() -> None:
    asked = LiteRtOptions(*[UnavailableError("away.")] * 9)
    with pytest.raises(ServerError, match=r"away\. Gave up after 3 attempts; --retries") as caught:
        RetryPolicy(retries=2, sleep=lambda pause: None).insist(asked)
    assert asked.calls == 3 and type(caught.value) is ServerError
    with pytest.raises(ServerError, match="after one attempt"):
        RetryPolicy(retries=0).insist(LiteRtOptions(UnavailableError("away.")))


def test_pauses_are_bounded_and_not_all_the_same() -> None:
    patience = RetryPolicy(first_s=0.5, longest_s=30.0)
    assert len({patience.pause(3) for _ in range(20)}) > 10
    assert max(patience.pause(5000) for _ in range(100)) <= 30


def test_what_is_refused_is_not_asked_again() -> None:
    asked = LiteRtOptions(RefusedError("wrong shape"))
    with pytest.raises(RefusedError, match="wrong shape"):
        RetryPolicy(sleep=lambda pause: None).insist(asked)
    assert asked.calls == 1


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
    with pytest.raises(DataError, match=f"`{next(iter(wrong))}`"):
        ServerOptions(**wrong)  # type: ignore[arg-type]
