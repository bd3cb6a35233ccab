"""Results in object storage: uploaded once, the summary last, never in place of an object of others."""

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import obstore
import pytest
from click.testing import CliRunner

import lim_keras as lk
from lim_keras.cli import main
from lim_keras.inventory import remote_results
from tests.remote.conftest import Bright

pytestmark = [
    pytest.mark.filterwarnings("ignore::lim_keras.errors.DomainWarning"),
    pytest.mark.usefixtures("without_preview"),
]
ENDINGS = ("inventory.gpkg", "inventory.qml", "landslides.tif", "probability.tif", "stac.json")
OUT = "s3://maps/first run/Süd"


def keys(storage: Any) -> list[str]:
    return [one["Key"] for one in storage.list_objects_v2(Bucket="maps").get("Contents", [])]


def names_of(*stems: str) -> list[str]:
    return sorted(f"first run/Süd/{stem}_{ending}" for stem in stems for ending in (*ENDINGS, "summary.json"))


def staged() -> list[Path]:
    cache = Path(os.environ["XDG_CACHE_HOME"]) / "lim-keras"
    return list(cache.iterdir()) if cache.exists() else []


class Killed(BaseException):
    """End of a process."""


class Uploads:
    """Count uploads; `fail` has the number of an upload, from 0, that raises an error, and the error."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.fail: tuple[int, BaseException] | None = None

    def put(self, store: Any, path: str, *arguments: Any, **named: Any) -> Any:
        if self.fail is not None and self.fail[0] == len(self.sent):
            raise self.fail[1]
        self.sent.append(path)
        return PUT(store, path, *arguments, **named)


PUT = obstore.put


@pytest.fixture
def uploads(monkeypatch: pytest.MonkeyPatch) -> Uploads:
    counted = Uploads()
    monkeypatch.setattr(obstore, "put", counted.put)
    return counted


@pytest.mark.parametrize("settings", ["boto3", "gdal", "in parts"])
def test_a_scene_from_s3_to_s3(
    storage: Any,
    write: Callable[..., Path],
    bright: Bright,
    monkeypatch: pytest.MonkeyPatch,
    settings: str,
) -> None:
    scene = write("s3.tif")
    storage.upload_file(str(scene), "maps", "in/Hang 1.tif")
    if settings == "gdal":
        monkeypatch.setenv("AWS_S3_ENDPOINT", os.environ["AWS_ENDPOINT_URL"].removeprefix("http://"))
        monkeypatch.setenv("AWS_HTTPS", "NO")
        monkeypatch.setenv("AWS_VIRTUAL_HOSTING", "FALSE")
        monkeypatch.delenv("AWS_ENDPOINT_URL")
    if settings == "in parts":
        monkeypatch.setattr(remote_results, "_WHOLE_BYTES", 1000)
    result = lk.predict_scene(bright, "s3://maps/in/Hang 1.tif", OUT)
    assert keys(storage) == [*names_of("Hang 1"), "in/Hang 1.tif"]
    assert result.files == () and result.addresses[-1] == f"{OUT}/Hang 1_summary.json"
    assert len(result.inventory) == result.summary["landslides"] == 1
    item = json.loads(storage.get_object(Bucket="maps", Key="first run/Süd/Hang 1_stac.json")["Body"].read())
    assert item["assets"]["scene"]["href"] == "s3://maps/in/Hang 1.tif"
    assert item["links"] == []
    assert staged() == []
    windows = bright.windows
    again = lk.predict_scene(bright, "/vsis3/maps/in/Hang 1.tif", OUT)
    assert again.was_there and again.addresses == result.addresses and bright.windows == windows
    assert staged() == []


def test_a_changed_object_is_noticed(storage: Any, write: Callable[..., Path], bright: Bright) -> None:
    storage.upload_file(str(write("changed.tif")), "maps", "changed.tif")
    lk.predict_scene(bright, "s3://maps/changed.tif", OUT)
    storage.upload_file(str(write("changed.tif", height=210)), "maps", "changed.tif")
    windows = bright.windows
    with pytest.raises(lk.DataError, match=r"changed_summary\.json \(results of other settings, or of a scene that"):
        lk.predict_scene(bright, "s3://maps/changed.tif", OUT)
    assert bright.windows == windows


def test_objects_of_others_are_refused_before_any_work(
    storage: Any, write: Callable[..., Path], bright: Bright
) -> None:
    scenes = [write("one.tif"), write("two.tif")]
    for key, name in (
        ("first run/Süd/two_probability.tif", "two_probability.tif"),
        ("first run/Süd/summary.json", "summary"),
    ):
        storage.put_object(Bucket="maps", Key=key, Body=b"{}")
        with pytest.raises(lk.DataError, match=rf"{OUT}: the results would replace.*{name}.*not written by lim-keras"):
            lk.predict_scenes(bright, scenes, OUT)
        assert keys(storage) == [key]
        storage.delete_object(Bucket="maps", Key=key)
    assert bright.windows == 0 and staged() == []


def test_a_killed_upload_goes_on(storage: Any, write: Callable[..., Path], bright: Bright, uploads: Uploads) -> None:
    scenes = [write("one.tif"), write("two.tif")]
    uploads.fail = (3, Killed())
    with pytest.raises(Killed):
        lk.predict_scenes(bright, scenes, OUT)
    assert len(keys(storage)) == 3 and len(staged()) == 1
    uploads.fail, windows = None, bright.windows
    result = lk.predict_scenes(bright, scenes, OUT)
    assert not result.failures and result.summary == f"{OUT}/summary.json"
    assert keys(storage) == sorted([*names_of("one", "two"), "first run/Süd/summary.json"])
    assert sorted(uploads.sent) == keys(storage)  # what was there is not sent again
    assert uploads.sent[5] == "first run/Süd/one_summary.json" and uploads.sent[-1] == "first run/Süd/summary.json"
    assert bright.windows == 2 * windows and staged() == []  # scene "one" was not predicted again


def test_an_upload_that_fails_keeps_the_work(
    storage: Any, write: Callable[..., Path], bright: Bright, uploads: Uploads
) -> None:
    scenes = [write("one.tif")]
    uploads.fail = (2, obstore.exceptions.GenericError("connection reset"))
    with pytest.warns(lk.LimKerasWarning, match=r"summary\.json: cannot be reached"):
        failures = lk.predict_scenes(bright, scenes, OUT).failures
    assert "cannot be reached (connection reset)" in failures[scenes[0]]
    assert f"The finished files are kept in {staged()[0]}: repeat the command to continue." in failures[scenes[0]]
    uploads.fail, windows = None, bright.windows
    assert not lk.predict_scenes(bright, scenes, OUT).failures
    assert keys(storage) == sorted([*names_of("one"), "first run/Süd/summary.json"])
    assert bright.windows == windows and staged() == []


def test_other_options_after_a_killed_upload(
    storage: Any, write: Callable[..., Path], bright: Bright, uploads: Uploads
) -> None:
    """Objects without a summary are replaced if this machine uploaded them; finished results are not."""
    scene = write("one.tif")
    uploads.fail = (3, Killed())
    with pytest.raises(Killed):
        lk.predict_scene(bright, scene, OUT)
    uploads.fail = None
    result = lk.predict_scene(bright, scene, OUT, probability="float32")
    assert keys(storage) == names_of("one") and result.summary["settings"]["probability"] == "float32"
    with pytest.raises(lk.DataError, match=r"one_summary\.json \(results of other settings"):
        lk.predict_scene(bright, scene, OUT)


def test_an_object_that_appears_meanwhile(
    storage: Any, write: Callable[..., Path], bright: Bright, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = write("one.tif")
    key = "first run/Süd/one_landslides.tif"
    predict = Bright.predict_all

    def slow(model: Bright, images: Any) -> Any:
        storage.put_object(Bucket="maps", Key=key, Body=b"of another program")
        return predict(model, images)

    monkeypatch.setattr(Bright, "predict_all", slow)
    for whole_bytes, threshold in ((2**20, 0.5), (100, 0.6)):  # in one request, and in parts
        monkeypatch.setattr(remote_results, "_WHOLE_BYTES", whole_bytes)
        with pytest.raises(lk.DataError, match=r"one_landslides\.tif \(it appeared meanwhile\).*files are kept in"):
            lk.predict_scene(bright, scene, OUT, threshold=threshold)
        assert storage.get_object(Bucket="maps", Key=key)["Body"].read() == b"of another program"
        assert "first run/Süd/one_summary.json" not in keys(storage)
        storage.delete_object(Bucket="maps", Key=key)


def test_summaries_of_several_calls(storage: Any, write: Callable[..., Path], bright: Bright, tmp_path: Path) -> None:
    """Our own summary.json is replaced, as locally; a bad scene does not stop the others."""
    scenes = [write("one.tif"), write("two.tif")]
    (tmp_path / "bad.tif").write_bytes(b"no raster")
    assert list(lk.predict_scenes(bright, [tmp_path / "bad.tif", scenes[0]], OUT).failures) == [tmp_path / "bad.tif"]
    result = lk.predict_scenes(bright, scenes, OUT)
    assert [one.was_there for one in result.predictions] == [True, False] and staged() == []
    content = json.loads(storage.get_object(Bucket="maps", Key="first run/Süd/summary.json")["Body"].read())
    assert content["scenes"] == 2 and content["failed"] == {}
    storage.put_object(Bucket="maps", Key="first run/Süd/summary.json", Body=b"{}")
    with pytest.warns(lk.LimKerasWarning, match=rf"{OUT}/summary\.json: not replaced \(not written by lim-keras\)"):
        lk.predict_scenes(bright, scenes, OUT)


def test_parts(storage: Any, write: Callable[..., Path], bright: Bright, tmp_path: Path) -> None:
    scene, work = write("part.tif", 500, 400), tmp_path / "shared"
    how: dict[str, Any] = {"tile": 192, "work": work}
    for part in ("1/2", "2/2"):
        assert lk.predict_scene(bright, scene, OUT, part=part, **how).summary["part"] == part
    assert keys(storage) == []
    result = lk.predict_scene(bright, scene, OUT, merge=True, **how)
    assert keys(storage) == names_of("part") and result.summary["landslides"] == 1
    assert list(work.iterdir()) == []
    assert lk.predict_scene(bright, scene, OUT, **how).was_there
    with pytest.raises(lk.ConfigError, match="need `work`"):
        lk.predict_scene(bright, scene, OUT, part="1/2")


def test_credentials_and_addresses(
    storage: Any, write: Callable[..., Path], bright: Bright, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    scene = write("one.tif")
    with pytest.raises(lk.DataError, match=r"s3://absent/maps: not found\. Check the bucket"):
        lk.predict_scene(bright, scene, "s3://absent/maps")
    for name, message in (
        ("maps/absent.tif", "is not there: the store answers"),
        ("maps", "not the address of a file"),
    ):
        with pytest.raises(lk.DataError, match=message):
            lk.predict_scene(bright, f"s3://{name}", tmp_path / "out")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for out in ("s3://maps/x", "gs://maps/x", "az://maps/x"):
        with pytest.raises(lk.DataError, match=rf"{out[:9]}.*Set the variables"):
            lk.predict_scene(bright, scene, out)
    with pytest.raises(lk.DataError, match="credentials"):
        lk.predict_scene(bright, "s3://maps/in.tif", tmp_path / "out")
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    with pytest.raises(lk.ConfigError, match=r"needs the package obstore\. Install it: pip install"):
        lk.predict_scene(bright, scene, OUT)
    assert bright.windows == 0 and not (tmp_path / "out").exists()


@pytest.mark.parametrize("key", ["../x", "a/../b", "./x", "a//b"])
def test_names_that_object_storage_cannot_hold(
    write: Callable[..., Path], storage: Any, bright: Bright, key: str
) -> None:
    named = re.escape(f"s3://maps/{key}") + ".*between its slashes"
    with pytest.raises(lk.DataError, match=named) as refused:
        lk.predict_scene(bright, write("one.tif"), f"s3://maps/{key}")
    assert "\n" not in str(refused.value)
    assert bright.windows == 0 and keys(storage) == []


@pytest.mark.parametrize("out", ["s3:/maps/x", "s3:maps", "gs:///maps/x", "az:/maps", "s3://"])
def test_mistyped_addresses(
    write: Callable[..., Path], bright: Bright, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str
) -> None:
    scene = write("one.tif")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(lk.ConfigError, match=r"^Invalid value for `out`\. Expected a folder, or s3://BUCKET/PREFIX"):
        lk.predict_scene(bright, scene, out)
    refused = CliRunner().invoke(main, ["predict", str(tmp_path), str(scene), "--out", out])
    assert refused.exit_code == 2 and "Invalid value for --out. Expected a folder, or s3://" in refused.output
    assert refused.output.endswith(f"Received: {out!r}.\n")
    assert list(tmp_path.iterdir()) == []


def test_a_file_url_is_a_folder(write: Callable[..., Path], bright: Bright, tmp_path: Path) -> None:
    lk.predict_scene(bright, write("one.tif"), (tmp_path / "my maps").as_uri())
    assert (tmp_path / "my maps/one_summary.json").exists()
    with pytest.raises(lk.ConfigError, match="`work` is for results in object storage only"):
        lk.predict_scene(bright, write("one.tif"), tmp_path, work=tmp_path)


@pytest.mark.parametrize(
    "arguments",
    [
        ["predict", "{bundle}", "{scene}", "--out", "https://host/maps"],
        ["predict", "{bundle}", "{scene}", "--out", "abfs://host/maps"],
        ["evaluate", "{bundle}", "--json", "s3://maps/report.json"],
        ["evaluate", "{bundle}", "--figures", "s3://maps/figures"],
        ["export", "{bundle}", "--tflite", "float16", "--out", "gs://maps/tflite"],
        ["fit", "{scene}", "--data", "{scene}", "--run", "s3://maps/run"],
        ["cv", "{scene}", "--data", "{scene}", "--export", "s3://maps/bundle"],
        ["report", "{bundle}", "--out", "s3://maps/report.html"],
        ["data", "tile", "{scene}", "--labels", "{scene}", "--out", "s3://maps/tiles"],
        ["data", "convert", "{bundle}", "--out", "s3://maps/tiles"],
        ["demo", "--out", "s3://maps/demo"],
    ],
)
def test_other_commands_refuse_addresses(
    write: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [one.format(bundle=tmp_path, scene=write("one.tif")) for one in arguments]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 2
    shown = " ".join(result.output.split())
    assert re.search("expected a path on this machine(, or s3://.*)?. Received: the address", shown)
    assert list(tmp_path.iterdir()) == []
