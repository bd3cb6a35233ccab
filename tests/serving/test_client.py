"""Scenes through a model server, by both protocols: the local run's maps, whatever the server does meanwhile."""

import gzip
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import rasterio

from lim_keras.bundle.info import ModelFacts
from lim_keras.bundle.protocol import RemoteModel, SceneModel
from lim_keras.bundle.saved_model import load_bundle
from lim_keras.errors import BundleError, ConfigError, ServerError
from lim_keras.export.bundle import write_bundle
from lim_keras.inventory.options import PredictOptions
from lim_keras.inventory.predict_scene import predict_scene
from lim_keras.serving import RetryPolicy, ServerModel, ServerOptions, connect
from tests.inference.conftest import describe, network, texture, write_scene

from .model_server import ModelServer, Outputs, ServedError, dripping

WAYS = ["rest", "grpc"]
QUICK = RetryPolicy(retries=3, first_s=0.01)


def brightness(bands: int) -> keras.Model:
    """Logit (mean of the bands - 120) / 20 of each pixel by itself."""
    image = keras.Input((None, None, bands))
    kernel, bias = (keras.initializers.Constant(value) for value in (0.05 / bands, -6.0))
    return keras.Model(image, keras.layers.Conv2D(1, 1, kernel_initializer=kernel, bias_initializer=bias)(image))


def export(path: Path, models: list[keras.Model], stride: int) -> Path:
    info = describe(models, stride, name=path.name)
    write_bundle(
        path, ModelFacts.model_validate({name: getattr(info, name) for name in ModelFacts.model_fields}), models
    )
    return path


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """net: three folds of a small FCN-FL, halo 127. bright, four: single models of 3 and 4 bands, halo 0."""
    folder = tmp_path_factory.mktemp("exported_models")
    export(folder / "net", [network(seed=seed) for seed in range(3)], 32)
    export(folder / "bright", [brightness(3)], 1)
    export(folder / "four", [brightness(4)], 1)
    return folder


@pytest.fixture(scope="module")
def running(bundles: Path) -> Iterator[ModelServer]:
    net, bright, four = (bundles / name for name in ("net", "bright", "four"))
    models = {
        "net": {1: net / "ensemble/1"},
        "fold": {1: net / "fold_0/1"},
        "bright": dict.fromkeys((1, 3, 4), bright / "fold_0/1"),
        "four": {1: four / "fold_0/1"},
    }
    with ModelServer(models, {("bright", "canary"): 3}) as server:
        yield server


@pytest.fixture
def server(running: ModelServer) -> ModelServer:
    running.reset()
    return running


def address(server: ModelServer, way: str, model: str) -> str:
    return server.grpc(model) if way == "grpc" else server.rest(model)


def served(server: ModelServer, way: str, bundles: Path, model: str = "bright", **options: object) -> ServerModel:
    name = model.split("/")[0]
    found = connect(bundles / name, address(server, way, model), options=ServerOptions(**options))  # type: ignore[arg-type]
    return replace(found, retry=QUICK)


def files(model: SceneModel, scene: Path, out: Path, **options: object) -> dict[str, np.ndarray]:
    """Rasters by the ends of their names."""
    asked = PredictOptions(probability="float32", spread=True, **options)  # type: ignore[arg-type]
    predict_scene(model, scene, out, asked)
    found = {}
    for name in ("probability", "landslides"):
        with rasterio.open(out / f"{scene.stem}_{name}.tif") as file:
            found[name] = file.read()
    return found


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    image = texture(330, 250)
    valid = np.ones(image.shape[:2], bool)
    valid[300:, :90] = False
    return write_scene(tmp_path_factory.mktemp("scenes") / "scene.tif", image, valid=valid)


@pytest.fixture(scope="module")
def local(bundles: Path, scene: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    return files(load_bundle(bundles / "net"), scene, tmp_path_factory.mktemp("local"), tile=320)


@pytest.mark.parametrize("way", WAYS)
def test_a_scene_through_a_server_is_the_local_one(
    server: ModelServer, bundles: Path, scene: Path, local: dict[str, np.ndarray], tmp_path: Path, way: str
) -> None:
    with served(server, way, bundles, "net") as model:
        assert isinstance(model, RemoteModel)
        remote = files(model, scene, tmp_path, tile=320)
    # cores of 192 and 138 rows
    assert server.seen.predictions == 2
    assert (remote["landslides"] == local["landslides"]).all()
    assert (remote["landslides"] == 255).sum() == 30 * 90 and 0.2 < (remote["landslides"] == 1).mean() < 0.8
    assert np.abs(remote["probability"] - local["probability"]).max() <= 1e-6
    assert local["probability"][1].max() > 0.1  # the folds differ


@pytest.mark.parametrize("way", WAYS)
def test_a_single_model_has_votes_and_no_spread(server: ModelServer, bundles: Path, way: str) -> None:
    image = texture(70, 90)[np.newaxis]
    expected = load_bundle(bundles / "bright").predict_all(image)
    found = served(server, way, bundles).predict_all(image)
    assert np.abs(found.probability - expected.probability).max() <= 1e-6
    assert (found.votes == expected.votes).all() and 0 < found.votes.mean() < 1
    assert found.spread.shape == (1, 70, 90) and not found.spread.any()
    assert (served(server, way, bundles).predict(image) == found.probability).all()


@pytest.mark.parametrize("way", WAYS)
def test_several_images_in_one_request(server: ModelServer, bundles: Path, way: str) -> None:
    images = np.stack([texture(40, 30, seed=seed) for seed in range(3)])
    found = served(server, way, bundles, "net").predict_all(images)
    expected = load_bundle(bundles / "net").predict_all(images)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == theirs.dtype and np.abs(ours - theirs).max() <= 1e-6
    assert server.seen.predictions == 1


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("place", "version"), [("", 4), ("/versions/1", 1), ("/labels/canary", 3)])
def test_versions_and_labels(server: ModelServer, bundles: Path, way: str, place: str, version: int) -> None:
    served(server, way, bundles, f"bright{place}").predict_all(texture(8, 8)[np.newaxis])
    assert server.seen.versions == [version]


@pytest.mark.parametrize("way", WAYS)
def test_a_version_that_is_rolled_out_meanwhile_is_not_mixed_in(bundles: Path, way: str) -> None:
    path = bundles / "bright" / "fold_0/1"
    with ModelServer({"bright": {1: path, 2: path}}) as server:
        model = served(server, way, bundles)
        server.drop("bright", 2)
        with pytest.raises(ServerError, match="Could not find version 2 of model bright"):
            model.predict_all(texture(8, 8)[np.newaxis])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("nobody", "Could not find any versions of model nobody"),
        ("bright/versions/9", "Could not find version 9 of model bright"),
        ("bright/labels/nightly", "Unrecognized servable version label: nightly"),
    ],
)
def test_a_model_that_is_not_there(server: ModelServer, bundles: Path, way: str, place: str, said: str) -> None:
    with pytest.raises(BundleError, match=rf"{said}.*Expected the model of bright; check"):
        connect(bundles / "bright", address(server, way, place))


@pytest.mark.parametrize("way", WAYS)
def test_a_model_of_other_bands(server: ModelServer, bundles: Path, way: str) -> None:
    with pytest.raises(
        BundleError, match=r"image DT_FLOAT \(-1, -1, -1, 3\) .*Rec.*'image': 'DT_FLOAT \(-1, -1, -1, 4\)'"
    ):
        connect(bundles / "bright", address(server, way, "four"))


@pytest.mark.parametrize("way", WAYS)
def test_a_fold_in_place_of_the_ensemble(server: ModelServer, bundles: Path, way: str) -> None:
    with pytest.raises(
        BundleError, match=r"model of net: .* to probability, spread, votes\. Received: .* to .'probability': .*ensem"
    ):
        connect(bundles / "net", address(server, way, "fold"))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("code", ["UNAVAILABLE", "RESOURCE_EXHAUSTED"])
def test_a_server_that_is_busy_is_asked_again(server: ModelServer, bundles: Path, way: str, code: str) -> None:
    model = served(server, way, bundles)
    server.faults.fail, server.faults.times = code, 3
    assert model.predict_all(texture(8, 8)[np.newaxis]).probability.shape == (1, 8, 8)
    assert server.seen.predictions == 4


@pytest.mark.parametrize("way", WAYS)
def test_a_server_that_stays_busy_is_given_up(server: ModelServer, bundles: Path, way: str) -> None:
    model = served(server, way, bundles)
    server.faults.times = 100
    with pytest.raises(ServerError, match=r"the test asks for UNAVAILABLE.*Gave up after 4 attempts"):
        model.predict_all(texture(8, 8)[np.newaxis])
    assert server.seen.predictions == 4


@pytest.mark.parametrize("way", WAYS)
def test_what_is_refused_is_quoted_and_not_asked_again(server: ModelServer, bundles: Path, way: str) -> None:
    model = served(server, way, bundles)
    server.faults.fail, server.faults.times = "INVALID_ARGUMENT", 100
    with pytest.raises(ServerError, match=r"bright/versions/4: .* (400|INVALID_ARGUMENT): the test asks for INVALID"):
        model.predict_all(texture(8, 8)[np.newaxis])
    assert server.seen.predictions == 1


@pytest.mark.parametrize("way", WAYS)
def test_a_server_that_is_too_slow(server: ModelServer, bundles: Path, way: str) -> None:
    model = replace(served(server, way, bundles, timeout_s=0.3), retry=RetryPolicy(retries=1, first_s=0.01))
    server.faults.slow_s = 1.0
    with pytest.raises(ServerError, match=r"(timed out|DEADLINE_EXCEEDED).*Gave up after 2 attempts"):
        model.predict_all(texture(8, 8)[np.newaxis])


@pytest.mark.parametrize(
    ("start", "scheme"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", "http"),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", "http"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "http"),
        (b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 100000\r\n\r\n", "http"),
        (b"HTTP/1.1 200 OK\r\nX-Header:", "http"),
        (b"\x16\x03\x03\x40\x00", "https"),  # a TLS record of 16 KiB
    ],
    ids=["body", "body without length", "chunks", "error", "headers", "handshake"],
)
def test_a_server_that_drips(bundles: Path, start: bytes, scheme: str) -> None:
    with dripping(start, scheme=scheme) as (place, calls):
        begun = time.monotonic()
        with pytest.raises(
            ServerError, match=r"no answer \((timed out after 0\.4 s|ConnectTimeout)\).*Gave up after 2 att"
        ):
            connect(bundles / "bright", place, options=ServerOptions(retries=1, timeout_s=0.4))
        # two requests of 0.4 s, and a pause of at most 0.5 s between
        assert time.monotonic() - begun < 2.5
    assert len(calls) == 2 and calls[1] - calls[0] >= (0.2 if scheme == "https" else 0.4)  # half of it to connect


def test_a_kept_connection_that_drips(server: ModelServer, bundles: Path) -> None:
    model = replace(served(server, "rest", bundles, timeout_s=1.0, in_flight=1), retry=RetryPolicy(retries=0))
    image = texture(8, 8)[np.newaxis]
    for _ in range(2):  # the time of one request is not that of the next
        server.faults.slow_s = 0.6
        model.predict_all(image)
    server.faults.slow_s = 1.5
    with pytest.raises(ServerError, match="timed out"):
        model.predict_all(image)
    server.faults.slow_s = 0.0
    assert model.predict_all(image).votes.shape == (1, 8, 8)


@pytest.mark.parametrize("way", WAYS)
def test_a_server_that_is_away(bundles: Path, way: str) -> None:
    with ModelServer({}) as server:
        gone = address(server, way, "bright")
    with pytest.raises(
        ServerError, match=r"127\.0\.0\.1.*(connection attempts failed|UNAVAILABLE).*Gave up after 2 attempts"
    ):
        connect(bundles / "bright", gone, options=ServerOptions(retries=1))


def test_a_host_that_cannot_be(bundles: Path) -> None:
    with pytest.raises(ServerError, match=r"/v1/models/bright: no answer \(Invalid IDNA hostname.*\)\.$"):
        connect(bundles / "bright", f"http://{'é' * 70}/v1/models/bright")


def test_a_server_without_tls_is_not_asked_again(server: ModelServer, bundles: Path) -> None:
    with pytest.raises(ServerError, match=r"no answer \(\[SSL: .*\)\.$"):
        connect(bundles / "bright", server.rest("bright").replace("http:", "https:"))


def nan(outputs: Outputs) -> Outputs:
    values = outputs["probability"].copy()
    values[0, 1, 1, 0] = np.nan
    return outputs | {"probability": values}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (nan, r"`probability` within 0\.\.1"),
        (lambda outputs: outputs | {"probability": outputs["probability"][:, :-1]}, r"of shape \(1, 9, 8, 1\)"),
        (lambda outputs: outputs | {"probability": outputs["probability"] + 2}, r"within 0\.\.1"),
        (lambda outputs: outputs | {"votes": outputs["votes"] + 4}, r"`votes` within 0\.\.3"),
        (
            lambda outputs: {"probability": outputs["probability"], "votes": outputs["votes"]},
            "outputs probability, spread, votes.*Received: .'probability': 'float",
        ),
        (
            lambda outputs: outputs | {"votes": outputs["votes"].astype(np.float32)},
            "votes as integers.*'votes': 'float",
        ),
    ],
)
def test_answers_that_make_no_sense(server: ModelServer, bundles: Path, way: str, spoil: object, said: str) -> None:
    model = served(server, way, bundles, "net")
    server.faults.spoil = spoil  # type: ignore[assignment]
    with pytest.raises(ServerError, match=said):
        model.predict_all(texture(9, 8)[np.newaxis])
    assert server.seen.predictions == 1


@pytest.mark.parametrize(
    "body",
    [
        b"<html>busy</html>",
        b'{"outputs": [[[[0.5]]]]}',
        b'{"predictions": []}',
        b'{"predictions": [{"a": 1}, {"b": 2}]}',
        b'{"predictions": [[1, 2], [3]]}',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"predictions": [[[[0.5], [1' + b"0" * 400 + b"]]]]}",
        b'{"predictions": [[[[1' + b"0" * 30 + b"]]]]}",
        b'{"predictions": [[[["0.5"]]]]}',
        b'{"predictions": [[[[true]]]]}',
        b'{"predictions": [[[[null]]]]}',
        # as one NumPy array of text: 100,000 times 4 MB
        b'{"predictions": ["' + b"a" * 10**6 + b'"' + b", 1" * 10**5 + b"]}",
    ],
)
def test_json_that_is_no_prediction(server: ModelServer, bundles: Path, body: bytes) -> None:
    model = served(server, "rest", bundles)
    server.faults.body = body
    with pytest.raises(
        ServerError, match=r"bright/versions/4:predict: expected JSON with `predictions`.*Rec"
    ) as caught:
        model.predict_all(texture(9, 8)[np.newaxis])
    assert len(str(caught.value)) < 1000 and server.seen.predictions == 1


@pytest.mark.parametrize("headers", [{}, {"Content-Encoding": "gzip"}])
def test_an_answer_without_end(server: ModelServer, bundles: Path, headers: dict[str, str]) -> None:
    model = served(server, "rest", bundles, request_mb=0.5)
    server.faults.body, server.faults.headers = b" " * 2**20, headers
    if headers:
        server.faults.body = gzip.compress(bytes(2**26))
    with pytest.raises(ServerError, match=r"at most 524288 bytes.*`request_mb`"):
        model.predict_all(texture(9, 8)[np.newaxis])
    server.reset()
    assert model.predict_all(texture(9, 8)[np.newaxis]).votes.shape == (1, 9, 8)  # the connection is not confused


def about(**changes: Any) -> bytes:
    """REST metadata of `bright`. version: of the model. size: of an axis. dtype: of the image. name: of the input."""
    said = {"version": "4", "size": "-1", "dtype": "DT_FLOAT", "name": "image"} | changes
    axes = [{"size": size} for size in ("-1", said["size"], "-1", "3")]
    image = {"dtype": said["dtype"], "tensor_shape": {"dim": axes}}
    signature = {"inputs": {said["name"]: image}, "outputs": {"probability": image}}
    wrapped = {"signature_def": {"signature_def": {"serving_default": signature}}}
    text = json.dumps({"model_spec": {"version": said["version"]}, "metadata": wrapped})
    return text.replace("Infinity", "1e400").encode()


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"[" * 100_000, "RecursionError"),
        (about(version=float("inf")), "OverflowError"),
        (about(size=float("inf")), "OverflowError"),
        (about(size=float("nan")), "ValueError"),
    ],
    ids=["nested", "version 1e400", "size 1e400", "size NaN"],
)
def test_rest_metadata_that_make_no_sense(server: ModelServer, bundles: Path, body: bytes, why: str) -> None:
    server.faults.about = about()
    assert connect(bundles / "bright", server.rest("bright")).info.name == "bright"
    server.faults.about = body
    with pytest.raises(ServerError, match=rf"/metadata: expected the description of a .* '.{{0,100}}' \({why}"):
        connect(bundles / "bright", server.rest("bright"))


@pytest.mark.parametrize("version", ["-4", str(2**63)])
def test_versions_in_rest_metadata_that_cannot_be(server: ModelServer, bundles: Path, version: str) -> None:
    server.faults.about = about(version=version)
    with pytest.raises(ServerError, match=rf"bright/versions/{version}: expected a version of 0"):
        connect(bundles / "bright", server.rest("bright"))


@pytest.mark.parametrize(
    "wrong",
    [{"name": "\x1b]0;x\x07image"}, {"dtype": "\x1b]0;x\x07DT_FLOAT"}, {"name": "\ud800\x1b]0;x\x07" + "i" * 9999}],
)
def test_names_in_rest_metadata_are_fit_for_a_terminal(
    server: ModelServer, bundles: Path, wrong: dict[str, str]
) -> None:
    server.faults.about = about(**wrong)
    with pytest.raises(BundleError, match=r"model of bright.*Received: .*\\x1b\]0;x\\x07") as caught:
        connect(bundles / "bright", server.rest("bright"))
    assert str(caught.value).isprintable() and len(str(caught.value)) < 1000


def unreadable(packed: Any) -> None:
    packed.value = b"\x0a\xff\xff"


def unknown_dtype(packed: Any) -> None:
    # of the image: DT_FLOAT, field 2 of TensorInfo, becomes 99
    assert packed.value.count(b"\x10\x01\x1a") == 2
    packed.value = packed.value.replace(b"\x10\x01\x1a", b"\x10\x63\x1a")


@pytest.mark.parametrize(
    ("spoil", "kind", "said"),
    [
        (unreadable, ServerError, r"bright: expected the description of a model.*Received: DecodeError\("),
        (unknown_dtype, BundleError, r"Received: .'image': 'data type 99 \(-1, -1, -1, 3\)'"),
    ],
)
def test_grpc_metadata_that_make_no_sense(
    server: ModelServer, bundles: Path, spoil: Callable[[Any], None], kind: type[Exception], said: str
) -> None:
    server.faults.metadata = spoil
    with pytest.raises(kind, match=said):
        connect(bundles / "bright", server.grpc("bright"))


def declare(*shape: int, dtype: int = 1, content: bytes = b"", values: tuple[float, ...] = ()) -> Callable[[Any], None]:
    """A gRPC answer that says this of its probability. dtype: DT_FLOAT is 1."""

    def change(answer: Any) -> None:
        answer.Clear()
        output = answer.outputs["probability"]
        output.dtype, output.tensor_content = dtype, content
        output.float_val.extend(values)
        for size in shape:
            output.tensor_shape.dim.add(size=size)

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (declare(1, 10**6, 10**6, 1, values=(0.5,)), r"DT_FLOAT \(1, 1000000, 1000000, 1\) with 1$"),
        (declare(1, 10**6, 10**6, 1), r"DT_FLOAT \(1, 1000000, 1000000, 1\) with 0$"),
        (declare(1, -1, 8, 1, values=(0.5,)), r"DT_FLOAT \(1, -1, 8, 1\) with 1$"),
        (declare(1, 9, 8, 1, content=bytes(4 * 71)), r"DT_FLOAT \(1, 9, 8, 1\) with 71$"),
        (declare(1, 9, 8, 1, content=bytes(4 * 72 + 2)), r"DT_FLOAT \(1, 9, 8, 1\) with 72\.5$"),
        (declare(1, 9, 8, 1, values=(0.5,)), r"DT_FLOAT \(1, 9, 8, 1\) with 1$"),
        (declare(1, 9, 8, 1, values=(0.5,) * 73), r"DT_FLOAT \(1, 9, 8, 1\) with 73$"),
        (declare(1, 9, 8, 1, dtype=7), r"DT_STRING \(1, 9, 8, 1\) with 0$"),
        (declare(1, 9, 8, 1, dtype=99, values=(0.5,) * 72), r"data type 99 \(1, 9, 8, 1\) with 72$"),
        (declare(*[1] * 5000), r"DT_FLOAT \(1, 1, [1, ]{0,500} with 0$"),
    ],
)
def test_grpc_tensors_that_are_not_what_they_declare(
    server: ModelServer, bundles: Path, change: Callable[[Any], None], said: str
) -> None:
    model = served(server, "grpc", bundles)
    server.faults.message = change
    expected = r"bright/versions/4: expected output `probability` of shape \(1, 9, 8, 1\)"
    with pytest.raises(ServerError, match=f"{expected}.*Received: {said}"):
        model.predict_all(texture(9, 8)[np.newaxis])


def test_grpc_tensors_by_content(server: ModelServer, bundles: Path) -> None:
    model = served(server, "grpc", bundles)
    server.faults.message = declare(1, 2, 1, 1, content=np.array([0.25, 0.75], "<f4").tobytes())
    assert model.predict_all(texture(2, 1)[np.newaxis]).probability.tolist() == [[[0.25], [0.75]]]


@pytest.mark.parametrize("way", WAYS)
def test_a_server_s_words_are_fit_for_a_terminal(server: ModelServer, bundles: Path, way: str) -> None:
    model = served(server, way, bundles)

    def refuse(outputs: Outputs) -> Outputs:
        raise ServedError("INVALID_ARGUMENT", "\x1b]0;x\x07\x1b[2J no\nsuch \u202eé " + "a" * 5000)

    server.faults.spoil = refuse
    with pytest.raises(ServerError, match=r": \\x1b\]0;x\\x07\\x1b\[2J no such \\u202eé aaa") as caught:
        model.predict_all(texture(9, 8)[np.newaxis])
    assert str(caught.value).isprintable() and len(str(caught.value)) < 700


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"\x1b[2J<html>\x9b1m\r\n oh</html>", r"500: \\x1b\[2J<html>\ufffd1m oh</html>$"),
        (b'{"error": {"a": 1}}', r'500: \{"error": \{"a": 1\}\}$'),
        (b'{"error": "\\ud800"}', r"500: \\ud800$"),
        (b'{"error": ' + b"[" * 900 + b"]" * 900 + b"}", r'500: \{"error": \[+$'),
        (b"", "500: without a message$"),
        (b"a" * 2**24, "500: a{500}$"),
    ],
    ids=["html", "object", "surrogate", "nested", "nothing", "long"],
)
def test_errors_of_any_kind_are_quoted(server: ModelServer, bundles: Path, body: bytes, said: str) -> None:
    model = served(server, "rest", bundles)
    server.faults.status, server.faults.body = 500, body
    with pytest.raises(ServerError, match=said):
        model.predict_all(texture(9, 8)[np.newaxis])
    server.reset()
    assert model.predict_all(texture(9, 8)[np.newaxis]).votes.shape == (1, 9, 8)


def test_an_answer_that_is_compressed(server: ModelServer, bundles: Path) -> None:
    model = served(server, "rest", bundles)
    server.faults.body, server.faults.headers = (
        gzip.compress(b'{"predictions": [[[[0.5]]]]}'),
        {"Content-Encoding": "gzip"},
    )
    assert model.predict_all(texture(1, 1)[np.newaxis]).probability.tolist() == [[[0.5]]]
    server.faults.body = b"not gzip"
    with pytest.raises(ServerError, match=r"no answer \(.*header"):
        model.predict_all(texture(1, 1)[np.newaxis])


def test_a_redirection_is_not_followed(server: ModelServer, bundles: Path) -> None:
    model = served(server, "rest", bundles)
    with dripping(b"HTTP/1.1 200 OK\r\n\r\n") as (elsewhere, calls):
        server.faults.status, server.faults.headers = 307, {"Location": f"{elsewhere}:predict"}
        with pytest.raises(ServerError, match="the server answers 307"):
            model.predict_all(texture(9, 8)[np.newaxis])
        assert not calls


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["net", "bright"])
def test_messages_are_as_large_as_was_said(server: ModelServer, bundles: Path, way: str, name: str) -> None:
    model = served(server, way, bundles, name)
    # Numbers that take all their digits.
    image = np.full((1, 64, 128, 3), 255, np.uint8)
    longest = np.random.default_rng(1).uniform(1e-4, 1.1e-4, (1, 64, 128, 1)).astype(np.float32)
    server.faults.spoil = lambda outputs: outputs | {key: longest for key in outputs if key != "votes"}
    model.predict_all(image)
    largest = max(server.seen.largest_request, server.seen.largest_answer)
    assert 0.8 * 64 * 128 * model.transport.message_bytes < largest <= 64 * 128 * model.transport.message_bytes + 4096


@pytest.mark.parametrize(("way", "smaller"), [("rest", "gRPC"), ("grpc", "")])
def test_a_limit_below_an_exact_window_says_which_would_do(
    server: ModelServer, bundles: Path, way: str, smaller: str
) -> None:
    model = served(server, way, bundles, "net", request_mb=1)
    with pytest.raises(
        ConfigError, match=rf"halos of 127 px\. Received: 1 MiB.*`request_mb` to [\d.]+.*{smaller}"
    ) as caught:
        model.choose_window(5000, 5000, 10**11, 64, 127)
    enough = float(str(caught.value).partition("`request_mb` to ")[2].split(" ")[0].rstrip(".,"))
    enough_for = served(server, way, bundles, "net", request_mb=enough)
    assert enough_for.choose_window(5000, 5000, 10**11, 64, 127) == (320, 320)
    # a scene that fits as a whole needs no halo
    assert model.choose_window(64, 60, 10**11, 64, 127) == (64, 64)
    with pytest.raises(ConfigError, match=r"1 windows of 600 x 600 px.*`request_mb`"):
        model.predict_all(np.zeros((1, 600, 600, 3), np.uint8))
    assert server.seen.predictions == 0


def test_windows_fill_the_messages_and_the_memory(server: ModelServer, bundles: Path) -> None:
    model = served(server, "rest", bundles, "net")
    rows, columns = model.choose_window(5000, 5000, 10**11, 64, 127)
    assert 0.8 * model.window_pixels < rows * columns <= model.window_pixels
    little = model.choose_window(5000, 5000, int(0.7e9), 64, 127)
    assert 320 * 320 <= little[0] * little[1] < rows * columns
    with pytest.raises(ConfigError, match=r"at least \d+ MiB of memory for 4 windows.*`in_flight`"):
        model.choose_window(5000, 5000, int(0.4e9), 64, 127)


def test_a_message_beyond_grpc_s_own_limit(server: ModelServer, bundles: Path) -> None:
    image = texture(640, 640)[np.newaxis]  # 4.9 MB out, 1.6 MB back
    assert served(server, "grpc", bundles).predict_all(image).probability.shape == (1, 640, 640)
    four = np.concatenate([image] * 2, axis=1)
    with ModelServer({"bright": {1: bundles / "bright/fold_0/1"}}, message_bytes=2**20) as small:
        with pytest.raises(ServerError, match=r"larger than max.*`request_mb`") as caught:
            served(small, "grpc", bundles).predict_all(four)
        assert "Gave up" not in str(caught.value)


@pytest.mark.parametrize(("way", "in_flight"), [("rest", 4), ("grpc", 3), ("rest", 1)])
def test_requests_overlap_and_keep_their_order(
    server: ModelServer, bundles: Path, tmp_path: Path, way: str, in_flight: int
) -> None:
    scene = write_scene(tmp_path / "wide.tif", texture(128, 640))
    alone = files(load_bundle(bundles / "bright"), scene, tmp_path / "local", tile=64)
    server.faults.slow_s = 0.1
    remote = files(served(server, way, bundles, in_flight=in_flight), scene, tmp_path / "remote", tile=64)
    assert server.seen.predictions == 20
    assert server.seen.most == in_flight
    assert (remote["landslides"] == alone["landslides"]).all()
    assert np.abs(remote["probability"] - alone["probability"]).max() <= 1e-6


def test_what_was_cut_off_goes_on_through_another_address(server: ModelServer, bundles: Path, tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "tall.tif", texture(640, 128))
    alone = files(load_bundle(bundles / "bright"), scene, tmp_path / "local", tile=64)
    answered = iter(range(9))

    def crash(outputs: Outputs) -> Outputs:
        if next(answered, None) is None:
            raise ServedError("INTERNAL", "out of memory")
        return outputs

    server.faults.spoil = crash
    with pytest.raises(ServerError, match=r"(500|INTERNAL): out of memory"):
        files(served(server, "rest", bundles, in_flight=2), scene, tmp_path / "remote", tile=64)
    server.reset()
    resumed = files(served(server, "grpc", bundles, "bright/labels/canary"), scene, tmp_path / "remote", tile=64)
    # rows of two windows; nine answers are at least three rows that were written
    assert 2 <= server.seen.predictions <= 14
    assert (resumed["landslides"] == alone["landslides"]).all()
    before = server.seen.predictions
    files(served(server, "rest", bundles), scene, tmp_path / "remote", tile=64)
    assert server.seen.predictions == before  # it is there already, wherever it was computed


@pytest.mark.parametrize("damage", ["missing", "no json", "another name"])
def test_model_json_is_enough_and_needed(server: ModelServer, bundles: Path, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "model.json"
    path.write_bytes((bundles / "bright/model.json").read_bytes())
    for given in (path, tmp_path):
        assert connect(given, server.rest("bright")).info.name == "bright"
    if damage == "missing":
        path.unlink()
    elif damage == "no json":
        path.write_text("{")
    else:
        path = path.rename(tmp_path / "bright.json")
    with pytest.raises(BundleError, match=rf"{path.name}: (not found|damaged|expected the folder)"):
        connect(path, server.rest("bright"))


def test_grpc_that_is_not_installed(server: ModelServer, bundles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> object:
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr("lim_keras.serving.grpc.import_module", absent)
    with pytest.raises(ServerError, match=r"pip install 'lim-keras\[serving\]'.*REST"):
        connect(bundles / "bright", server.grpc("bright"))
