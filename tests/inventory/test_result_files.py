"""Results never replace what is the user's, and are known again after a kill."""

import hashlib
import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import lim_keras as lk
from lim_keras.errors import DataError, LimKerasWarning
from lim_keras.inventory import batch
from lim_keras.inventory.batch import predict_scenes
from lim_keras.inventory.options import PredictOptions
from lim_keras.inventory.predict_scene import predict_scene
from lim_keras.inventory.scene_prediction import Execution
from lim_keras.lock import folder_lock
from tests.conftest import largest_file
from tests.inference.conftest import Write
from tests.inventory.test_predict_scene import Bright, meadow

GEOJSON = PredictOptions(formats=("gpkg", "geojson"))
OTHER = PredictOptions(threshold=0.4)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def small(write: Write) -> Path:
    return write("a.tif", meadow(64, 96))


def drawing(act: Callable[..., None]) -> Callable[..., SimpleNamespace]:
    """Return a reader of previews whose pictures call `act` when they are drawn."""
    return lambda *_, **__: SimpleNamespace(draw=act)


def test_the_summary_lists_the_files_with_their_hashes(small: Path, tmp_path: Path) -> None:
    result = predict_scene(Bright(), small, tmp_path / "out")
    digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in result.files[:-1]}
    assert result.summary["sha256"] == digests and list(digests) == result.summary["files"]
    assert json.loads((tmp_path / "out" / "a_summary.json").read_text()) == result.summary


def test_one_error_before_any_work_names_all_files_of_the_user(write: Write, small: Path, tmp_path: Path) -> None:
    out, model = tmp_path / "out", Bright()
    out.mkdir()
    for name in ("a_landslides.tif", "b_inventory.gpkg", "summary.json", "a_notes.txt", "a_inventory.geojson"):
        (out / name).write_text("mine")
    (out / "b_probability.tif").symlink_to(tmp_path / "elsewhere.tif")
    (out / ".b.lim-keras.partial").mkdir()
    (out / ".b.lim-keras.partial" / "notes.txt").write_text("mine")
    before = contents(tmp_path)
    with pytest.raises(DataError) as error:
        predict_scenes(model, [write("c.tif", meadow(64, 64)), small, write("b.tif", meadow(64, 64))], out)
    listed = "summary.json (not written by lim-keras), a_landslides.tif (listed by no summary), b_probability.tif "
    listed += "(a link), b_inventory.gpkg (listed by no summary), .b.lim-keras.partial (not written by lim-keras)"
    assert str(error.value).startswith(f"{out}: the results would replace") and f": {listed}. Nothing" in str(
        error.value
    )
    assert {name: data for name, data in contents(tmp_path).items() if name not in ("b.tif", "c.tif")} == before
    assert model.shapes == [] and not (tmp_path / "elsewhere.tif").exists()


def test_scenes_and_results_of_a_call_never_collide(small: Path, write: Write, tmp_path: Path) -> None:
    scenes = [small, write("a_probability.tif", meadow(64, 64)), write("a_landslides.tif", meadow(64, 64))]
    (tmp_path / "link").symlink_to(tmp_path)
    before, model = contents(tmp_path), Bright()
    both = r"a_probability\.tif \(read by this call\), a_landslides\.tif \(read by this call\)\. Nothing"
    for out in (tmp_path, tmp_path / "link"):
        with pytest.raises(DataError, match=both):
            predict_scenes(model, scenes, out)
    with pytest.raises(DataError, match=r" a_landslides\.tif \(read by this call\)"):
        predict_scene(model, small, tmp_path, PredictOptions(dem=scenes[2]))
    assert contents(tmp_path) == before and model.shapes == []


def test_a_result_of_an_earlier_call_that_is_a_scene_now_is_kept(small: Path, tmp_path: Path) -> None:
    predict_scenes(Bright(), [small], tmp_path / "out")
    result, model = tmp_path / "out" / "a_probability.tif", Bright(bands=1)
    before = result.read_bytes()
    with pytest.raises(DataError, match=r": a_probability\.tif \(read by this call\)"):
        predict_scenes(model, [small, result], tmp_path / "out", OTHER)
    assert result.read_bytes() == before and model.shapes == []


def test_names_that_differ_only_in_case(
    small: Path, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other").mkdir()
    other = write("other/A.tif", meadow(64, 64))
    assert len(predict_scenes(Bright(), [small, other], tmp_path / "out").predictions) == 2
    monkeypatch.setattr(batch, "is_case_insensitive", lambda folder: True)
    with pytest.raises(DataError, match=rf"{other} and {small}: .* ignores upper and lower case"):
        predict_scenes(Bright(), [small, other], tmp_path / "blind")


def test_edited_results_stay_and_are_named(small: Path, tmp_path: Path) -> None:
    out, model = tmp_path / "out", Bright()
    predict_scene(Bright(), small, out)
    for name in ("a_inventory.qml", "a_summary.json"):
        (out / name).write_text((out / name).read_text().replace("landslides", "slides", 1))
    before = contents(out)
    listed = r"a_inventory\.qml \(changed since it was written\), a_summary\.json \(changed since it was written\)\."
    with pytest.warns(LimKerasWarning, match=rf"out: files that changed after the prediction are kept: {listed}"):
        assert predict_scene(model, small, out).was_there
    with pytest.raises(DataError, match=f"reads: {listed} Nothing was replaced"):
        predict_scene(model, small, out, OTHER)
    assert contents(out) == before and model.shapes == []


def test_an_edited_summary_of_all_stays(small: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    predict_scenes(Bright(), [small], out)
    edited = (out / "summary.json").read_text().replace('"scenes": 1', '"scenes": 2')
    (out / "summary.json").write_text(edited)
    with pytest.warns(LimKerasWarning, match=r"summary\.json: not replaced \(changed since it was written\)"):
        assert predict_scenes(Bright(), [small], out).predictions[0].was_there
    with pytest.raises(DataError, match=r"reads: summary\.json \(changed since it was written\)"):
        predict_scenes(Bright(), [small], out, OTHER)
    assert (out / "summary.json").read_text() == edited


@pytest.mark.parametrize("name", ["probability.tif", "inventory.gpkg", "preview.png", "stac.json"])
def test_a_damaged_file_was_not_there_already(small: Path, tmp_path: Path, name: str) -> None:
    from lim_keras.report.preview import read_preview

    out = tmp_path / "out"
    predict_scene(Bright(), small, out, execution=Execution(read_preview=read_preview))
    path = out / f"a_{name}"
    whole = path.read_bytes()
    path.write_bytes(whole[:-60])
    result = predict_scenes(Bright(), [small], out, execution=Execution(read_preview=read_preview))
    assert result.failures[small].startswith(f"{path}: damaged since it was written (")
    assert result.failures[small].endswith("Delete it, and repeat the call.")
    path.unlink()
    assert not predict_scene(Bright(), small, out, execution=Execution(read_preview=read_preview)).was_there
    assert path.read_bytes() == whole or name == "stac.json"


def test_unchanged_copies_of_an_earlier_call_are_deleted(small: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    predict_scene(Bright(), small, out, GEOJSON)
    predict_scene(Bright(), small, out, OTHER)
    assert not (out / "a_inventory.geojson").exists()
    predict_scene(Bright(), small, out, GEOJSON)
    (out / "a_inventory.geojson").write_text("mine")
    predict_scene(Bright(), small, out, OTHER)
    assert (out / "a_inventory.geojson").read_text() == "mine"
    with pytest.raises(DataError, match=r"a_inventory\.geojson \(not written by lim-keras\)"):
        predict_scene(Bright(), small, out, GEOJSON)


@pytest.mark.parametrize("moved", [0, 3, 6])
@pytest.mark.parametrize("options", [GEOJSON, OTHER])
def test_a_call_after_a_kill_knows_its_files(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moved: int, options: PredictOptions
) -> None:
    out = tmp_path / "out"
    predict_scene(Bright(), small, out, PredictOptions(spread=True))
    real, count = Path.replace, [0]

    def killed(path: Path, target: Path) -> Path:
        if target.parent == out:
            count[0] += 1
            if count[0] > moved:
                raise KeyboardInterrupt
        return real(path, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "replace", killed)
        predict_scene(Bright(), small, out, GEOJSON)
    again = predict_scene(Bright(), small, out, options)
    assert {path.name for path in out.iterdir()} == {path.name for path in again.files}
    assert predict_scene(Bright(), small, out, options).was_there


def test_a_full_disk_stops_one_scene_and_keeps_its_work(write: Write, small: Path, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (300, 400, 3), np.uint8)
    large, out, model = write("large.tif", noise), tmp_path / "out", Bright()
    options = PredictOptions(probability="float32")
    with largest_file(200_000):  # the maps of the larger scene take 480,000 bytes
        result = predict_scenes(Bright(), [large, small], out, options)
    assert [one.scene for one in result.predictions] == [small]
    assert "out/.large.lim-keras.partial: cannot be written (File too large)" in result.failures[large]
    with largest_file(490_000):  # its polygons take more
        result = predict_scenes(model, [large, small], out, options)
    assert len(model.shapes) == 1
    assert "The prediction is kept: repeat the command to continue." in result.failures[large]
    assert result.failures[large].startswith(f"{out}/large_inventory.gpkg: cannot be written (")
    assert not [path for path in out.iterdir() if path.name.startswith("large")]
    assert predict_scenes(model, [large, small], out, options).failures == {} and len(model.shapes) == 1


def test_a_second_thread_is_told_who_works_there_or_waits(small: Path, write: Write, tmp_path: Path) -> None:
    out, other = tmp_path / "out", write("b.tif", meadow(64, 64))
    begun, go_on = threading.Event(), threading.Event()

    class Slow(Bright):
        def predict_all(self, images: np.ndarray) -> Any:
            begun.set()
            go_on.wait(60)
            return super().predict_all(images)

    first = threading.Thread(target=lk.predict_scene, args=(Slow(), small, out))
    first.start()
    assert begun.wait(60)
    for scene in (small, other):
        with pytest.raises(DataError, match=r"out: in use by process \d+, another thread of this process .*`wait`"):
            lk.predict_scene(Bright(), scene, out)
        with pytest.raises(DataError, match="in use by process"):
            lk.predict_scenes(Bright(), [scene], out)
    threading.Timer(0.3, go_on.set).start()
    with pytest.warns(LimKerasWarning, match="waiting for the end of process"):
        assert lk.predict_scene(Bright(), small, out, wait=True).was_there
    first.join()
    assert not (out / ".lim-keras.lock").exists()


def test_a_refused_call_leaves_no_folder(small: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected 4 bands"):
        lk.predict_scene(Bright(bands=4), small, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    with folder_lock(tmp_path), pytest.raises(DataError, match="in use by"):
        lk.predict_scene(Bright(), small, tmp_path)


class Acting(Bright):
    """Bright, with an act of the user during the prediction."""

    def __init__(self, act: Callable[[], object]) -> None:
        super().__init__()
        self.act = act

    def predict_all(self, images: np.ndarray) -> Any:
        self.act()
        return super().predict_all(images)


def damage(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize("what", ["pixels", "damage", "sidecar", "dem", "no dem", "removed"])
@pytest.mark.parametrize("when", ["prediction", "preview"])
def test_a_scene_that_changes_while_it_is_read(write: Write, small: Path, tmp_path: Path, what: str, when: str) -> None:
    out, dem = tmp_path / "out", write("dem.tif", meadow(64, 96)[..., :1])
    predict_scene(Bright(), small, out)
    before = contents(out)
    acts: dict[str, Callable[[], object]] = {
        "pixels": lambda: write("a.tif", meadow(64, 96)[::-1]),
        "damage": lambda: damage(small),
        "sidecar": lambda: Path(f"{small}.aux.xml").write_text("<PAMDataset><Metadata>1</Metadata></PAMDataset>"),
        "dem": lambda: write("dem.tif", meadow(64, 96)[..., :1]),
        "no dem": dem.unlink,
        "removed": small.unlink,
    }
    done: list[str] = []

    def act(*_: object, **__: object) -> None:
        if not done:
            acts[what]()
        done.append(what)

    model = Acting(act) if when == "prediction" else Bright()
    changed = dem if "dem" in what else small
    with pytest.raises(DataError, match=rf"^{changed}: changed while it was read\..* Repeat the call\.$"):
        predict_scene(model, small, out, PredictOptions(dem=dem), execution=Execution(read_preview=drawing(act)))
    assert contents(out) == before and not (out / ".a.lim-keras.partial").exists()


@pytest.mark.parametrize("when", ["prediction", "preview"])
@pytest.mark.parametrize("what", ["removed", "moved", "state"])
def test_a_folder_that_is_removed_during_a_call(small: Path, tmp_path: Path, when: str, what: str) -> None:
    out, work = tmp_path / "out", tmp_path / "out" / ".a.lim-keras.partial"
    acts: dict[str, Callable[[], object]] = {
        "removed": lambda: shutil.rmtree(out),
        "moved": lambda: out.rename(tmp_path / "moved"),
        "state": lambda: [path.unlink() for path in work.iterdir()],  # as a deletion that meets a new file
    }
    done: list[str] = []

    def act(*_: object, **__: object) -> None:
        if not done:
            acts[what]()
        done.append(what)

    model = Acting(act) if when == "prediction" else Bright()
    with pytest.raises(DataError, match=rf"^{out}: the folder.* was removed or moved during the call\. Repeat"):
        predict_scene(model, small, out, execution=Execution(read_preview=drawing(act)))
    for folder in (one for one in (out, tmp_path / "moved") if one.exists()):
        (folder / ".a.lim-keras.partial" / "a_stac.json").write_text("left")
        assert predict_scene(Bright(), small, folder).summary["landslides"] == 1
    assert predict_scene(Bright(), small, out).summary["landslides"] == 1


def test_results_of_an_earlier_version_and_without_a_summary(small: Path, tmp_path: Path) -> None:
    out, model = tmp_path / "out", Bright()
    predict_scenes(Bright(), [small], out)
    for name in ("a_summary.json", "summary.json"):
        values = json.loads((out / name).read_text())
        for key in ("sha256", "lim_keras_sha256"):
            values.pop(key, None)
        (out / name).write_text(json.dumps(values, indent=2) + "\n")
    old, unlisted = "(of an earlier version, which records no hashes)", "(listed by no summary)"
    for own in (f"a_summary.json {old}", "a_summary.json (empty)", ""):
        if not own:
            (out / "a_summary.json").unlink()
        elif "empty" in own:
            (out / "a_summary.json").write_text("")
        reason, before = old if old in own else unlisted, contents(out)
        results = (f"a_{ending} {reason}" for ending in ("probability.tif", "landslides.tif", "inventory.gpkg"))
        listed = [f"summary.json {old}", *results, f"a_inventory.qml {reason}", f"a_stac.json {reason}"]
        with pytest.raises(DataError) as error:
            predict_scenes(model, [small], out)
        assert f" reads: {', '.join([*listed, own] if own else listed)}. Nothing" in str(error.value)
        assert contents(out) == before and model.shapes == []
