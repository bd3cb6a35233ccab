"""Scenes through a model server, by both protocols: the local run's maps, whatever the server does meanwhile."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
import rasterio

from lim_keras.errors import BundleError, DataError, ServerError
from lim_keras.export.bundle import load_bundle, write_bundle
from lim_keras.export.bundle_info import ModelFacts
from lim_keras.inference.options import PredictOptions
from lim_keras.inference.outputs import RemoteModel, SceneModel
from lim_keras.inference.predict import predict_scene
from lim_keras.inference.server import ServerModel, ServerOptions, connect
from lim_keras.inference.server_transport import Patience

from .conftest import describe, network, texture, write_scene
from .model_server import ModelServer, Outputs, ServedError

WAYS = ["column", "row", "grpc"]
QUICK = Patience(retries=3, first_s=0.01)


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
    if way != "grpc":
        options["rest_format"] = way
    name = model.split("/")[0]
    found = connect(bundles / name, address(server, way, model), ServerOptions(**options))  # type: ignore[arg-type]
    return replace(found, patience=QUICK)


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


@pytest.mark.parametrize("way", WAYS)
def test_several_images_in_one_request(server: ModelServer, bundles: Path, way: str) -> None:
    images = np.stack([texture(40, 30, seed=seed) for seed in range(3)])
    found = served(server, way, bundles, "net").predict_all(images)
    expected = load_bundle(bundles / "net").predict_all(images)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == theirs.dtype and np.abs(ours - theirs).max() <= 1e-6
    assert server.seen.predictions == 1


@pytest.mark.parametrize("way", ["column", "grpc"])
@pytest.mark.parametrize(("place", "version"), [("", 4), ("/versions/1", 1), ("/labels/canary", 3)])
def test_versions_and_labels(server: ModelServer, bundles: Path, way: str, place: str, version: int) -> None:
    served(server, way, bundles, f"bright{place}").predict_all(texture(8, 8)[np.newaxis])
    assert server.seen.versions == [version]


@pytest.mark.parametrize("way", ["column", "grpc"])
def test_a_version_that_is_rolled_out_meanwhile_is_not_mixed_in(bundles: Path, way: str) -> None:
    path = bundles / "bright" / "fold_0/1"
    with ModelServer({"bright": {1: path, 2: path}}) as server:
        model = served(server, way, bundles)
        server.drop("bright", 2)
        with pytest.raises(ServerError, match="Could not find version 2 of model bright"):
            model.predict_all(texture(8, 8)[np.newaxis])


@pytest.mark.parametrize("way", ["column", "grpc"])
@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("nobody", "Could not find any versions of model nobody"),
        ("bright/versions/9", "Could not find version 9 of model bright"),
        ("bright/labels/nightly", "Unrecognized servable version label: nightly"),
    ],
)
def test_a_model_that_is_not_there(server: ModelServer, bundles: Path, way: str, place: str, said: str) -> None:
    with pytest.raises(BundleError, match=rf"{said}.*Expected the model of bright there"):
        connect(bundles / "bright", address(server, way, place))


@pytest.mark.parametrize("way", ["column", "grpc"])
def test_a_model_of_other_bands(server: ModelServer, bundles: Path, way: str) -> None:
    with pytest.raises(BundleError, match=r"images of 3 bands.*Received: `image` DT_FLOAT \(-1, -1, -1, 4\)"):
        connect(bundles / "bright", address(server, way, "four"))


@pytest.mark.parametrize("way", ["column", "grpc"])
def test_a_fold_in_place_of_the_ensemble(server: ModelServer, bundles: Path, way: str) -> None:
    with pytest.raises(
        BundleError, match=r"outputs probability, spread, votes of net\. Received: `probability` .*ensem"
    ):
        connect(bundles / "net", address(server, way, "fold"))


@pytest.mark.parametrize("way", ["column", "grpc"])
@pytest.mark.parametrize("code", ["UNAVAILABLE", "RESOURCE_EXHAUSTED"])
def test_a_server_that_is_busy_is_asked_again(server: ModelServer, bundles: Path, way: str, code: str) -> None:
    model = served(server, way, bundles)
    server.faults.fail, server.faults.times = code, 3
    assert model.predict_all(texture(8, 8)[np.newaxis]).probability.shape == (1, 8, 8)
    assert server.seen.predictions == 4


@pytest.mark.parametrize("way", ["column", "grpc"])
def test_a_server_that_stays_busy_is_given_up(server: ModelServer, bundles: Path, way: str) -> None:
    model = served(server, way, bundles)
    server.faults.times = 100
    with pytest.raises(ServerError, match=r"the test asks for UNAVAILABLE.*Gave up after 4 attempts"):
        model.predict_all(texture(8, 8)[np.newaxis])
    assert server.seen.predictions == 4


@pytest.mark.parametrize("way", ["column", "grpc"])
def test_what_is_refused_is_quoted_and_not_asked_again(server: ModelServer, bundles: Path, way: str) -> None:
    model = served(server, way, bundles)
    server.faults.fail, server.faults.times = "INVALID_ARGUMENT", 100
    with pytest.raises(ServerError, match=r"bright/versions/4: .* (400|INVALID_ARGUMENT): the test asks for INVALID"):
        model.predict_all(texture(8, 8)[np.newaxis])
    assert server.seen.predictions == 1


@pytest.mark.parametrize("way", ["column", "grpc"])
def test_a_server_that_is_too_slow(server: ModelServer, bundles: Path, way: str) -> None:
    model = replace(served(server, way, bundles, timeout_s=0.3), patience=Patience(retries=1, first_s=0.01))
    server.faults.slow_s = 1.0
    with pytest.raises(ServerError, match=r"(timed out|DEADLINE_EXCEEDED).*Gave up after 2 attempts"):
        model.predict_all(texture(8, 8)[np.newaxis])


@pytest.mark.parametrize("way", ["column", "grpc"])
def test_a_server_that_is_away(bundles: Path, way: str) -> None:
    with ModelServer({}) as server:
        gone = address(server, way, "bright")
    with pytest.raises(ServerError, match=r"127\.0\.0\.1.*([Rr]efused|UNAVAILABLE).*Gave up after 2 attempts"):
        connect(bundles / "bright", gone, ServerOptions(retries=1))


def nan(outputs: Outputs) -> Outputs:
    values = outputs["probability"].copy()
    values[0, 1, 1, 0] = np.nan
    return outputs | {"probability": values}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (nan, r"`probability` beyond 0\.\.1"),
        (lambda outputs: outputs | {"probability": outputs["probability"][:, :-1]}, r"of shape \(1, 9, 8, 1\)"),
        (lambda outputs: outputs | {"probability": outputs["probability"] + 2}, r"beyond 0\.\.1"),
        (lambda outputs: outputs | {"votes": outputs["votes"] + 4}, r"`votes` beyond 0\.\.3"),
        (lambda outputs: {"probability": outputs["probability"], "votes": outputs["votes"]}, "without `spread`"),
        (lambda outputs: outputs | {"votes": outputs["votes"].astype(np.float32)}, "`votes`.*float"),
    ],
)
def test_answers_that_make_no_sense(server: ModelServer, bundles: Path, way: str, spoil: object, said: str) -> None:
    model = served(server, way, bundles, "net")
    server.faults.spoil = spoil  # type: ignore[assignment]
    with pytest.raises(ServerError, match=said):
        model.predict_all(texture(9, 8)[np.newaxis])
    assert server.seen.predictions == 1


def test_an_answer_that_is_no_json_and_one_without_end(server: ModelServer, bundles: Path) -> None:
    model = served(server, "column", bundles, request_mb=0.5)
    server.faults.body = b"<html>hello</html>"
    with pytest.raises(ServerError, match=r"bright/versions/4: expected JSON with `outputs`.*<html>hello"):
        model.predict_all(texture(9, 8)[np.newaxis])
    server.faults.body = b" " * 2**20
    with pytest.raises(ServerError, match=r"at most 524288 bytes.*--request-mb"):
        model.predict_all(texture(9, 8)[np.newaxis])
    server.faults.body = None
    assert model.predict_all(texture(9, 8)[np.newaxis]).votes.shape == (1, 9, 8)  # the connection is not confused


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
    assert 0.8 * 64 * 128 * model.sizes.message < largest <= 64 * 128 * model.sizes.message + 4096


@pytest.mark.parametrize(("way", "smaller"), [("column", "--rest-format row"), ("row", "gRPC"), ("grpc", "")])
def test_a_limit_below_an_exact_window_says_which_would_do(
    server: ModelServer, bundles: Path, way: str, smaller: str
) -> None:
    model = served(server, way, bundles, "net", request_mb=1)
    with pytest.raises(
        DataError, match=rf"halos of 127 px\. Received: 1 MiB.*--request-mb [\d.]+.*{smaller}"
    ) as caught:
        model.choose_tile(5000, 5000, 10**11, 64)
    enough = float(str(caught.value).partition("--request-mb ")[2].split(" ")[0].rstrip(".,"))
    assert served(server, way, bundles, "net", request_mb=enough).choose_tile(5000, 5000, 10**11, 64) == (320, 320)
    # a scene that fits as a whole needs no halo
    assert model.choose_tile(64, 60, 10**11, 64) == (64, 64)
    with pytest.raises(DataError, match=r"a window of 600 x 600 px.*--request-mb"):
        model.predict_all(np.zeros((1, 600, 600, 3), np.uint8))
    assert server.seen.predictions == 0


def test_windows_fill_the_messages_and_the_memory(server: ModelServer, bundles: Path) -> None:
    model = served(server, "row", bundles, "net")
    rows, columns = model.choose_tile(5000, 5000, 10**11, 64)
    assert rows == columns and rows**2 <= model.window_pixels < (rows + 64) ** 2
    little = model.choose_tile(5000, 5000, int(0.7e9), 64)
    assert 320 <= little[0] < rows
    with pytest.raises(DataError, match=r"at least \d+ MiB of memory for 4 windows.*--in-flight"):
        model.choose_tile(5000, 5000, int(0.4e9), 64)


def test_a_message_beyond_grpc_s_own_limit(server: ModelServer, bundles: Path) -> None:
    image = texture(640, 640)[np.newaxis]  # 4.9 MB out, 1.6 MB back
    assert served(server, "grpc", bundles).predict_all(image).probability.shape == (1, 640, 640)
    four = np.concatenate([image] * 2, axis=1)
    with ModelServer({"bright": {1: bundles / "bright/fold_0/1"}}, message_bytes=2**20) as small:
        with pytest.raises(ServerError, match=r"larger than max.*--request-mb") as caught:
            served(small, "grpc", bundles).predict_all(four)
        assert "Gave up" not in str(caught.value)


@pytest.mark.parametrize(("way", "in_flight"), [("row", 4), ("grpc", 3), ("row", 1)])
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
        files(served(server, "row", bundles, in_flight=2), scene, tmp_path / "remote", tile=64)
    server.reset()
    resumed = files(served(server, "grpc", bundles, "bright/labels/canary"), scene, tmp_path / "remote", tile=64)
    # rows of two windows; nine answers are at least three rows that were written
    assert 2 <= server.seen.predictions <= 14
    assert (resumed["landslides"] == alone["landslides"]).all()
    before = server.seen.predictions
    files(served(server, "row", bundles), scene, tmp_path / "remote", tile=64)
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

    monkeypatch.setattr("lim_keras.inference.server_grpc.import_module", absent)
    with pytest.raises(ServerError, match=r"pip install 'lim-keras\[serving\]'.*REST"):
        connect(bundles / "bright", server.grpc("bright"))
