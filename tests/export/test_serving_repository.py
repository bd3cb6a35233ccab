"""Model repositories for TensorFlow Serving: versions, labels, files that its own messages parse, warm-up requests."""

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import yaml
from google.protobuf import text_format
from rich.console import Console
from tensorflow_serving.apis import prediction_log_pb2
from tensorflow_serving.config import model_server_config_pb2

from lim_keras.bundle.info import BandStatistics
from lim_keras.bundle.saved_model import verify_bundle
from lim_keras.errors import BundleError, LimKerasWarning
from lim_keras.export import serving_repository as serving
from lim_keras.export import serving_repository as serving_config
from lim_keras.export.bundle import write_bundle
from lim_keras.export.serving_repository import MODELS_FILE, export_serving, write_warmup
from lim_keras.report.bundle_tables import serving_table
from tests.export.conftest import constant, facts
from tests.export.serving_protos import MESSAGES

MODELS = ["tiny_ensemble", "tiny_fold_0", "tiny_fold_1"]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two trainings of one name, with other thresholds."""
    paths = [tmp_path_factory.mktemp(f"run_{number}") / "tiny" for number in range(2)]
    for number, path in enumerate(paths):
        write_bundle(path, facts(threshold=0.4 + number / 10), [constant(number + 0.5), constant(number + 1.5)])
    return paths


@pytest.fixture(scope="module")
def repository(bundles: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Version 1: read only."""
    folder = tmp_path_factory.mktemp("serving") / "deep" / "repository"
    export_serving(bundles[0], folder)
    return folder


@pytest.fixture
def copied(repository: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(repository, tmp_path / "repository"))


def config(folder: Path) -> dict[str, Any]:
    """models.config as the server's own message, by model."""
    text = (folder / "models.config").read_text()
    parsed = text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
    return {entry.name: entry for entry in parsed.model_config_list.config}


def labels(folder: Path) -> tuple[dict[str, int], list[int]]:
    """Labels and loaded versions, which are those of every model."""
    said = {
        (tuple(sorted(entry.version_labels.items())), tuple(entry.model_version_policy.specific.versions))
        for entry in config(folder).values()
    }
    ((named, loaded),) = said
    return dict(named), list(loaded)


def versions(folder: Path) -> list[str]:
    """Folders of versions, which are those of every model."""
    (names,) = {tuple(sorted(path.name for path in (folder / model).iterdir())) for model in MODELS}
    return list(names)


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_first_export(repository: Path, bundles: list[Path]) -> None:
    files = ["batching.config", "compose.yaml", "model.json", "models.config", "monitoring.config"]
    assert sorted(path.name for path in repository.iterdir()) == sorted([*files, *MODELS])
    assert versions(repository) == ["1"]
    assert labels(repository) == ({"stable": 1, "canary": 1}, [1])
    entries = config(repository)
    assert {name: entry.base_path for name, entry in entries.items()} == {name: f"/models/{name}" for name in MODELS}
    assert {entry.model_platform for entry in entries.values()} == {"tensorflow"}
    assert (repository / "model.json").read_text() == (bundles[0] / "model.json").read_text()


def test_models_are_those_of_the_bundle(repository: Path, bundles: list[Path]) -> None:
    for model in MODELS:
        source, place = bundles[0] / model.removeprefix("tiny_") / "1", repository / model / "1"
        assert {path.name for path in (place / "assets.extra").iterdir()} == {
            "model.json",
            "tf_serving_warmup_requests",
        }
        files = snapshot(source)
        assert {name: content for name, content in snapshot(place).items() if "assets.extra" not in name} == files
        assert (place / "saved_model.pb").samefile(source / "saved_model.pb")


def test_single_model(tmp_path: Path) -> None:
    write_bundle(tmp_path / "one", facts(name="one"), [constant(0.5)])
    result = export_serving(tmp_path / "one", tmp_path / "out", "gs://bucket/models/")
    assert result.models == ("one",)
    assert config(tmp_path / "out")["one"].base_path == "gs://bucket/models/one"
    # What is no path cannot be mounted: the configuration is then read from where the image looks.
    assert ".:/models:ro" in (tmp_path / "out" / "compose.yaml").read_text()


def test_versions_and_labels(copied: Path, bundles: list[Path]) -> None:
    (copied / "batching.config").write_text("max_batch_size { value: 2 }\n")
    assert export_serving(bundles[1], copied).added == 2
    assert versions(copied) == ["1", "2"]
    assert labels(copied) == ({"stable": 1, "canary": 2}, [1, 2])
    # Clients of the stable version need its threshold, not that of the newest.
    assert json.loads((copied / "model.json").read_text())["threshold"] == 0.4
    assert (copied / "batching.config").read_text() == "max_batch_size { value: 2 }\n"

    moved = export_serving(bundles[1], copied, promote=True)
    assert moved.added is None and versions(copied) == ["1", "2"]
    assert labels(copied) == ({"stable": 2, "canary": 2}, [2])
    assert json.loads((copied / "model.json").read_text())["threshold"] == 0.5

    # Another bundle, promoted at once: the server still holds the old one while the new one loads.
    assert export_serving(bundles[0], copied, promote=True).added == 3
    assert labels(copied) == ({"stable": 3, "canary": 3}, [2, 3])
    assert export_serving(bundles[0], copied).added == 4
    assert labels(copied) == ({"stable": 3, "canary": 4}, [3, 4])
    assert versions(copied) == ["1", "2", "3", "4"]


def test_what_others_added_to_models_config_stays(copied: Path, bundles: list[Path]) -> None:
    file = copied / "models.config"
    other = 'config { name: "roads" base_path: "/models/roads" model_platform: "tensorflow" }'
    file.write_text(file.read_text().rstrip().removesuffix("}") + other + " }\n")
    export_serving(bundles[1], copied)
    entries = config(copied)
    assert set(entries) == {*MODELS, "roads"} and not entries["roads"].version_labels
    assert entries["tiny_ensemble"].version_labels["canary"] == 2


def test_comments_of_others_in_models_config_stay(copied: Path, bundles: list[Path]) -> None:
    file = copied / "models.config"
    file.write_text(f'# ask Li before you change this\n{file.read_text()}  # "last" line\n')
    for _ in range(2):
        export_serving(bundles[1], copied)
    text = file.read_text()
    assert [line for line in text.splitlines() if line.startswith("#")] == [
        file.read_text().splitlines()[0],
        "# ask Li before you change this",
        '# "last" line',
    ]
    assert labels(copied)[0] == {"stable": 1, "canary": 3}


def test_a_description_of_the_user_is_not_replaced(copied: Path, bundles: list[Path]) -> None:
    description = copied / "model.json"
    for text in ("{}", description.read_text().replace('"threshold": 0.4', '"threshold": 0.3')):
        description.write_text(text)
        before = snapshot(copied)
        with pytest.raises(BundleError, match=r"model\.json \(not written by lim-keras\)"):
            export_serving(bundles[1], copied, promote=True)
        assert snapshot(copied) == before
    description.unlink()  # the cure
    export_serving(bundles[1], copied)


@pytest.mark.parametrize("function", ["models_text", "_replace_files", "write_warmup"])
def test_export_that_fails_leaves_everything_as_it_was(
    copied: Path, bundles: list[Path], monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    before, calls = snapshot(copied), []

    def fail(*_: object) -> None:
        calls.append(1)
        raise OSError("disk full")

    monkeypatch.setattr(serving, function, fail)
    with pytest.raises(BundleError, match=rf"{copied}: cannot be used as a model repository \(disk full\)"):
        export_serving(bundles[1], copied)
    assert calls and snapshot(copied) == before and versions(copied) == ["1"]
    with pytest.raises(BundleError, match="disk full"):
        export_serving(bundles[1], copied / "new")
    assert not list((copied / "new").rglob("*"))


def test_models_config_never_names_what_a_failure_took_away(copied: Path, bundles: list[Path]) -> None:
    (copied / "model.json").unlink()
    (copied / "model.json").mkdir()
    with pytest.raises(BundleError, match=r"cannot be used as a model repository .*model\.json"):
        export_serving(bundles[1], copied, promote=True)
    assert labels(copied) == ({"stable": 1, "canary": 1}, [1]) and versions(copied) == ["1"]
    assert not list(copied.glob(".*"))


def test_folders_that_cannot_be_made(bundles: list[Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    for name in ("file/repository", "circle/repository", "x" * 300):
        with pytest.raises(BundleError, match=rf"{name}: cannot be used as a model repository .*another folder"):
            export_serving(bundles[0], tmp_path / name)
    assert (tmp_path / "file").read_text() == "mine" and len(list(tmp_path.iterdir())) == 2


def test_a_file_where_the_folder_of_a_model_belongs(bundles: list[Path], tmp_path: Path) -> None:
    (tmp_path / "tiny_fold_1").write_text("mine")
    with pytest.raises(BundleError, match=r"tiny_fold_1: expected a folder with the versions.*Received: a file"):
        export_serving(bundles[0], tmp_path)
    assert snapshot(tmp_path) == {"tiny_fold_1": b"mine"} and len(list(tmp_path.iterdir())) == 1


def test_warm_up_requests_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"tf_serving_warmup_requests: cannot be written \(.*No such file"):
        write_warmup(tmp_path / "absent", facts(), "tiny")


@pytest.mark.parametrize("place", [".", "serving", "fold_0/1/assets", "../link", "../link/deep/serving"])
def test_a_repository_inside_a_bundle(bundles: list[Path], tmp_path: Path, place: str) -> None:
    bundle = Path(shutil.copytree(bundles[0], tmp_path / "tiny"))
    (tmp_path / "link").symlink_to(bundle)
    for source in (bundle, tmp_path / "link", bundles[1]):  # the last would spoil another bundle
        with pytest.raises(BundleError, match=rf"which is or lies in the bundle {bundle}\. Export into another"):
            export_serving(source, bundle / place)
    assert verify_bundle(bundle) == []


def test_a_repository_whose_versions_would_lie_in_a_bundle(tmp_path: Path) -> None:
    write_bundle(tmp_path / "one", facts(name="one"), [constant(0.5)])
    with pytest.raises(BundleError, match="one, which is or lies in the bundle"):
        export_serving(tmp_path / "one", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["one"] and verify_bundle(tmp_path / "one") == []


def test_a_deleted_version_is_not_written_anew(copied: Path, bundles: list[Path]) -> None:
    export_serving(bundles[1], copied, promote=True)
    for model in MODELS:
        shutil.rmtree(copied / model / "2")
    known = (copied / "model.json").read_text()
    with pytest.warns(LimKerasWarning, match=r"tiny_ensemble/2: not found .* labels this version stable.*`promote`"):
        assert export_serving(bundles[0], copied).added == 3
    assert labels(copied) == ({"stable": 2, "canary": 3}, [2, 3])
    assert (copied / "model.json").read_text() == known


def test_a_deleted_version_is_not_promoted(copied: Path, bundles: list[Path]) -> None:
    export_serving(bundles[1], copied)
    shutil.rmtree(copied / "tiny_fold_1" / "2")
    assert export_serving(bundles[1], copied, promote=True).added == 3
    assert labels(copied) == ({"stable": 3, "canary": 3}, [1, 3])


def test_folders_that_look_like_markup(bundles: list[Path], tmp_path: Path) -> None:
    result = export_serving(bundles[0], tmp_path / "[" / "b]r")
    console = Console(width=300, record=True, file=StringIO())
    console.print(serving_table(result.folder / MODELS_FILE, result.models, stable=1, canary=1, loaded=(1,)))
    said = "".join(console.export_text().split())  # a title is broken where the table ends
    assert "/[/b]r/models.config" in said and "tiny_ensemble│1│1│1" in said


def test_what_a_killed_export_left_is_neither_served_nor_overwritten(
    copied: Path, bundles: list[Path], ended: int
) -> None:
    left, mine = copied / f".version.{ended}.77.partial", copied / ".version.partial"
    for folder in (left, mine):
        (folder / "tiny_ensemble").mkdir(parents=True)
    (copied / "tiny_ensemble" / "2").mkdir()  # moved there, and killed before the other models and models.config
    assert export_serving(bundles[1], copied).added == 3
    assert labels(copied) == ({"stable": 1, "canary": 3}, [1, 3])
    assert (mine / "tiny_ensemble").is_dir()
    assert [path.name for path in copied.glob(".*")] == [mine.name]


def test_other_disks_get_copies(bundles: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    export_serving(bundles[0], tmp_path)
    copy, source = (path / "saved_model.pb" for path in (tmp_path / "tiny_fold_1" / "1", bundles[0] / "fold_1" / "1"))
    assert copy.read_bytes() == source.read_bytes() and not copy.samefile(source)


def test_the_bundle_is_not_changed(repository: Path, bundles: list[Path]) -> None:
    assert verify_bundle(bundles[0]) == []


def test_the_model_card_names_both_ways(bundles: list[Path]) -> None:
    card = (bundles[0] / "README.md").read_text()
    assert "lim-keras export tiny --serving DIR" in card and "`encoded` takes PNG and JPEG files: `image_bytes`" in card


def test_damaged_bundle(bundles: list[Path], tmp_path: Path) -> None:
    shutil.copytree(bundles[0], tmp_path / "tiny")
    (tmp_path / "tiny" / "fold_1" / "1" / "saved_model.pb").write_bytes(b"")
    with pytest.raises(BundleError, match=r"saved_model\.pb: expected \d+ bytes"):
        export_serving(tmp_path / "tiny", tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: "model_config_list {", "expected a ModelServerConfig as text"),
        (lambda text: text.replace("tiny_fold_1", "other"), "expected the models .*tiny_fold_1.*folder of its own"),
        (lambda text: text.replace('"canary"', '"blue"', 1), "tiny_ensemble: expected labels stable and canary"),
        (lambda text: text.replace("versions: 1", "versions: 7", 1), "labels .* of versions that the policy loads"),
        (
            lambda text: text.replace("/models/tiny_fold_0", "/srv/tiny_fold_0"),
            "the same versions, labels and base path",
        ),
        (lambda text: text.replace("/models/tiny_fold_0", "/models/0"), "a base path that ends so"),
        # as `--base-path /` wrote it once
        (lambda text: text.replace("/models/", "/"), "a base path that ends so, such as /models/tiny_"),
    ],
)
def test_models_config_that_cannot_be_continued(
    copied: Path, bundles: list[Path], change: Callable[[str], str], said: str
) -> None:
    file = copied / "models.config"
    changed = change(file.read_text())
    assert changed != file.read_text()
    file.write_text(changed)
    with pytest.raises(BundleError, match=rf"(?s)models\.config: .*{said}"):
        export_serving(bundles[1], copied)
    assert versions(copied) == ["1"]


@pytest.mark.parametrize(
    ("base", "said"), [("models", r"`base_path`.*absolute.*'models'"), ("/srv", "expected base path /models")]
)
def test_wrong_base_path(copied: Path, bundles: list[Path], base: str, said: str) -> None:
    with pytest.raises(BundleError, match=said):
        export_serving(bundles[1], copied, base)


NOWHERE = ("/", "//", "/.", "/models/..", "", "://", "gs://")
MISREAD = (
    "/a\nb",
    "/a\tb",
    '/a"b',
    "/a'b",
    "/a: b",
    "/a:b",
    "/a #b",
    "/$HOME",
    "/a\\b",
    "/a\x85b",
    "/a\udcff",
    "gs://a\nb",
)


@pytest.mark.parametrize("base", [*NOWHERE, *MISREAD])
def test_base_paths_at_which_no_server_would_find_models(bundles: list[Path], tmp_path: Path, base: str) -> None:
    with pytest.raises(BundleError, match=r"`base_path`\. Expected an absolute path below /") as caught:
        export_serving(bundles[0], tmp_path, base)
    assert repr(base) in str(caught.value) and not list(tmp_path.iterdir())


@pytest.mark.parametrize("base", ["/srv/my models", "/srv/{a}[b],&c*!|>%@`-?~", "/srv/é/模型", "/-", "/a//b"])
def test_base_paths_that_compose_and_server_read_alike(base: str, tmp_path: Path) -> None:
    assert serving_config.check_base_path(f"{base}/") == base
    (tmp_path / "compose.yaml").write_text(serving_config.templates("tiny", base)["compose.yaml"], encoding="utf-8")
    assert service(tmp_path)["volumes"] == [f".:{base}:ro"]
    assert f"--model_config_file={base}/models.config" in service(tmp_path)["command"]


@pytest.mark.parametrize("base", ["gs://bucket", "s3://host:9000/bucket/models", "hdfs:///models"])
def test_base_paths_that_are_addresses(base: str) -> None:
    assert serving_config.check_base_path(f"{base}/") == base


def test_without_the_package(bundles: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(serving_config, "import_module", missing)
    with pytest.raises(BundleError, match=r"pip install 'lim-keras\[serving\]'"):
        export_serving(bundles[0], tmp_path)
    assert not list(tmp_path.iterdir())


def test_batching_and_monitoring_parse(repository: Path) -> None:
    batching = text_format.Parse((repository / "batching.config").read_text(), MESSAGES["BatchingParameters"]())
    # The server demands that the allowed sizes grow and end at the largest.
    assert list(batching.allowed_batch_sizes) == [1, 2, 4] and batching.max_batch_size.value == 4
    assert batching.pad_variable_length_inputs is False and batching.num_batch_threads.value > 0
    monitoring = text_format.Parse((repository / "monitoring.config").read_text(), MESSAGES["MonitoringConfig"]())
    assert monitoring.prometheus_config.enable
    assert monitoring.prometheus_config.path == "/monitoring/prometheus/metrics"


def service(folder: Path) -> dict[str, Any]:
    (one,) = yaml.safe_load((folder / "compose.yaml").read_text())["services"].values()
    return dict(one)


def test_compose(repository: Path, bundles: list[Path], tmp_path: Path) -> None:
    one = service(repository)
    assert one["ports"] == ["${GRPC_PORT:-8500}:8500", "${REST_PORT:-8501}:8501"]
    assert one["image"].startswith("tensorflow/serving:") and one["volumes"] == [".:/models:ro"]
    # `--batching_parameters_file` without `--enable_batching` stops the server: both are comments.
    assert [flag.partition("=")[0] for flag in one["command"]] == [
        "--model_config_file",
        "--model_config_file_poll_wait_seconds",
        "--allow_version_labels_for_unavailable_models",
        "--monitoring_config_file",
    ]
    export_serving(bundles[0], tmp_path, "/srv/landslides/")
    assert service(tmp_path)["volumes"] == [".:/srv/landslides:ro"]
    assert "--model_config_file=/srv/landslides/models.config" in service(tmp_path)["command"]
    assert config(tmp_path)["tiny_fold_0"].base_path == "/srv/landslides/tiny_fold_0"


@pytest.mark.parametrize(("state", "healthy"), [("AVAILABLE", True), ("LOADING", False), ("UNAVAILABLE", False)])
def test_health_check(repository: Path, state: str, healthy: bool) -> None:
    asked = []

    class Status(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"model_version_status": [{"version": "1", "state": state}]}).encode())

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Status) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        kind, *command = service(repository)["healthcheck"]["test"]
        here = [part.replace("/8501", f"/{server.server_port}") for part in command]
        ran = subprocess.run(here, timeout=30, check=False)
        thread.join()
    assert kind == "CMD" and asked == ["/v1/models/tiny_ensemble/labels/stable"]
    assert (ran.returncode == 0) is healthy


def requests(folder: Path) -> list[Any]:
    file = folder / "assets.extra" / "tf_serving_warmup_requests"
    logs = [prediction_log_pb2.PredictionLog.FromString(one.numpy()) for one in tf.data.TFRecordDataset(str(file))]
    assert {log.WhichOneof("log_type") for log in logs} == {"predict_log"}
    return [log.predict_log.request for log in logs]


def test_warm_up_requests_are_answered(repository: Path) -> None:
    for model in MODELS:
        asked = requests(repository / model / "1")
        assert [(one.model_spec.name, one.model_spec.signature_name) for one in asked] == [
            (model, "serving_default"),
            (model, "encoded"),
        ]
        loaded = tf.saved_model.load(str(repository / model / "1"))
        inputs = [{name: tf.constant(tf.make_ndarray(value)) for name, value in one.inputs.items()} for one in asked]
        plain, encoded = (
            loaded.signatures[one.model_spec.signature_name](**given) for one, given in zip(asked, inputs, strict=True)
        )
        # windows of 64 px, as the bundle was trained on; the PNG holds the same pixels
        assert plain["probability"].shape == (1, 64, 64, 1)
        np.testing.assert_array_equal(plain["probability"], encoded["probability"])


@pytest.mark.parametrize(("size", "side"), [(96, 96), (512, 256), (None, 256)])
def test_warm_up_image_is_as_large_as_a_window(tmp_path: Path, size: int | None, side: int) -> None:
    statistics = (BandStatistics(mean=100.0, std=40.0, min=20.0, max=180.0),) * 2
    sampling = {} if size is None else {"size": size}
    known = facts(name="two", bands=2, dtype="uint16", statistics=statistics, sampling=sampling)
    write_bundle(tmp_path / "two", known, [constant(0.5, 2)])
    export_serving(tmp_path / "two", tmp_path / "out")
    (request,) = requests(tmp_path / "out" / "two" / "1")
    image = tf.make_ndarray(request.inputs["image"])
    assert image.shape == (1, side, side, 2) and image.dtype == np.float32
    assert image.std() > 10 and 20 <= image.min() < image.max() <= 180


@pytest.mark.slow
def test_tensorflows_own_tool_runs_what_is_served(repository: Path, tmp_path: Path) -> None:
    place, (request, _) = repository / "tiny_ensemble" / "1", requests(repository / "tiny_ensemble" / "1")
    np.save(tmp_path / "image.npy", tf.make_ndarray(request.inputs["image"]))
    tool = [sys.executable, "-m", "tensorflow.python.tools.saved_model_cli"]
    run = ["run", "--dir", str(place), "--tag_set", "serve", "--signature_def", "serving_default"]
    run += ["--inputs", f"image={tmp_path / 'image.npy'}", "--outdir", str(tmp_path)]
    subprocess.run([*tool, *run], capture_output=True, text=True, check=True)
    # (sigmoid(0.5 / 1.7) + sigmoid(1.5 / 1.7)) / 2 = (0.573004 + 0.707310) / 2 = 0.640157
    np.testing.assert_allclose(np.load(tmp_path / "probability.npy"), 0.640157, atol=1e-5)
    assert np.load(tmp_path / "votes.npy").min() == 2
