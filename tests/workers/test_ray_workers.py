"""Jobs on a real cluster: results, errors, killed processes, machines that do not fit."""

import csv
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import rasterio
from click.testing import CliRunner

import lim_keras as lk
from lim_keras.cli import main
from lim_keras.config_file import load_config
from lim_keras.data.layouts import read_tiles
from lim_keras.errors import ClusterError, ConfigError, DataError, LimKerasWarning, TrainingError
from lim_keras.inventory import scene_workers
from lim_keras.inventory.scene_workers import predict_part
from lim_keras.training import folds_on_workers
from lim_keras.training.cross_validation import is_finished
from lim_keras.training.folds_on_workers import train_folds_on_workers
from lim_keras.training.run import Run
from lim_keras.workers import open_workers, ray_workers
from lim_keras.workers.address import parse_address
from lim_keras.workers.machines import LIBRARIES, Machine, check_versions, facts_of_machine, share_cores
from lim_keras.workers.shared_files import SharedFiles, shared_files, unseen
from tests.inference.conftest import write_scene
from tests.workers.conftest import PACKAGE, family

TILE = 320  # the network's halo is 127 px


def wait_until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return value


def job():
    """Do what a job says; sent by value, because the cluster does not see this module."""

    def work(job):
        import os
        import signal
        import time
        import warnings
        from pathlib import Path

        from lim_keras.errors import DataError, LimKerasWarning

        word, _, rest = job.partition(" ")
        if word == "data":
            raise DataError("tile 7: no band 4")
        if word == "system":
            raise OSError(28, "No space left on device", "maps.tif")
        if word == "exit":
            raise SystemExit(3)
        if word == "die":
            marks = Path(rest)
            (marks / f"{time.monotonic_ns()}").touch()
            if len(list(marks.iterdir())) <= int(marks.name):
                os.kill(os.getpid(), signal.SIGKILL)
        if word == "warn":
            warnings.warn("pixels are dark", LimKerasWarning, stacklevel=1)
        if word == "sleep":
            Path(rest).write_text(str(os.getpid()))
            time.sleep(600)
        return os.getpid(), os.environ["TF_NUM_INTRAOP_THREADS"]

    return work


@pytest.fixture(scope="module")
def workers(cluster):
    with open_workers(cluster.address) as opened:
        yield opened


def test_results_and_errors_arrive_as_they_are(workers):
    jobs = ["plain", "data", "system", "exit", "plain"]
    ended = dict(workers.run(job(), jobs))
    assert sorted(ended) == [0, 1, 2, 3, 4]
    assert ended[0][0] != os.getpid() and ended[0][1] == "1"  # a node has one core
    assert type(ended[1]) is DataError and str(ended[1]) == "tile 7: no band 4"
    host = os.uname().nodename
    assert type(ended[2]) is ClusterError
    assert str(ended[2]) == f"OSError on {host}: [Errno 28] No space left on device: 'maps.tif'"
    assert str(ended[3]) == f"SystemExit on {host}: 3"


def test_a_job_whose_process_is_killed_runs_again(workers, tmp_path):
    marks = tmp_path / "1"  # the first try dies
    marks.mkdir()
    with pytest.warns(LimKerasWarning, match=r"die .*: its process died\. It runs again \(2 of 5 times\)\."):
        ended = dict(workers.run(job(), [f"die {marks}", "plain"]))
    assert len(list(marks.iterdir())) == 2
    assert ended[0][1] == ended[1][1] == "1"


def test_a_job_that_kills_its_process_each_time_is_given_up(workers, tmp_path):
    marks = tmp_path / "9"
    marks.mkdir()
    with pytest.warns(LimKerasWarning):
        (ended,) = workers.run(job(), [f"die {marks}"])
    assert len(list(marks.iterdir())) == 5
    assert type(ended[1]) is ClusterError
    assert str(ended[1]).startswith(f"die {marks}: failed 5 times; the last time, its process died. If memory ran out")


def test_warnings_of_jobs_arrive_once(workers):
    with pytest.warns(LimKerasWarning, match="^pixels are dark$") as caught:
        assert len(list(workers.run(job(), ["warn"]))) == 1
    assert len(caught) == 1


def test_each_job_has_a_process_of_its_own_if_asked(workers):
    again = [result[0] for _, result in workers.run(job(), ["plain"] * 4)]
    once = [result[0] for _, result in workers.run(job(), ["plain"] * 4, once=True)]
    assert len(set(again)) < 4 and len(set(once)) == 4


def test_closing_the_iterator_kills_running_jobs(workers, tmp_path):
    told = tmp_path / "process"
    ended = workers.run(job(), ["plain", f"sleep {told}"])
    assert next(ended)[0] == 0
    process = int(wait_until(lambda: told.exists() and told.read_text()))
    ended.close()
    wait_until(lambda: not psutil.pid_exists(process) or psutil.Process(process).status() == "zombie")


def test_machines_must_see_the_folder(workers, tmp_path, monkeypatch):
    workers.check_files("run", folders=[tmp_path], files=[Path(__file__)])
    assert not list(tmp_path.iterdir())
    elsewhere = SharedFiles(((f"{tmp_path}/other/probe", "1"),), ())
    monkeypatch.setattr(ray_workers, "shared_files", lambda folders, files: nullcontext(elsewhere))
    with pytest.raises(ClusterError) as caught:
        workers.check_files("run", folders=[tmp_path])
    assert f"{os.uname().nodename} does not see the folder {tmp_path}/other. All machines must" in str(caught.value)


def test_what_a_machine_sees(tmp_path):
    file = tmp_path / "scene.tif"
    file.write_bytes(b"12345")
    with shared_files([tmp_path], [file]) as expected:
        assert unseen(expected) == ""
        file.write_bytes(b"123")  # the file of this name is another one there
        assert unseen(expected) == f"does not see the file {file}"
        next(path for path in tmp_path.iterdir() if path != file).write_text("another folder of this name")
        assert unseen(replace(expected, files=())) == f"does not see the folder {tmp_path}"
    assert list(tmp_path.iterdir()) == [file]


# Scenes.


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """90 x 600 px with a hole without data, so that its valid cells are found, too."""
    pixels = np.random.default_rng(3).integers(1, 255, (600, 90, 3), np.uint8)
    pixels[360:450, 20:80] = 0
    return write_scene(tmp_path_factory.mktemp("scene") / "scène 1.tif", pixels, nodata=0)


@pytest.fixture
def on_cluster(workers, monkeypatch):
    """Let commands use the connection of this process, because Ray allows one."""
    for module in (scene_workers, folds_on_workers):
        monkeypatch.setattr(module, "open_workers", lambda text: nullcontext(workers))


def held(function, folder):
    """Make a job that begins, tells its process to a file in `folder`, and goes on when that holds the file `go`."""

    def hold(job):
        import os
        import time
        from pathlib import Path

        (Path(folder) / f"{os.getpid()}.{time.monotonic_ns()}").touch()
        while not (Path(folder) / "go").exists():
            time.sleep(0.02)
        return function(job)

    return hold


def results(folder):
    """Bytes of the results, without documents, which hold times; none of the working folder is left."""
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]
    found = {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".json"}
    assert len(found) == 5
    return found


def predict(bundle, scene, out, *more):
    command = [
        "predict",
        str(bundle),
        str(scene),
        "--out",
        str(out),
        "--tile",
        str(TILE),
        "--probability",
        "float32",
        *more,
    ]
    done = CliRunner().invoke(main, [*command, "--runtime", "openvino"])
    assert done.exit_code == 0, done.output
    return done


@pytest.mark.slow
def test_a_scene_has_the_same_bytes_though_a_process_and_a_machine_are_lost(
    cluster, on_cluster, bundle_path, scene, tmp_path, monkeypatch
):
    predict(bundle_path, scene, tmp_path / "one")
    held_jobs = tmp_path / "held"
    held_jobs.mkdir()
    monkeypatch.setattr(scene_workers, "predict_part", held(predict_part, held_jobs))
    cluster.add(1)
    cluster.wait_for(4)
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(predict, bundle_path, scene, tmp_path / "many", "--workers", "ray://head:10001")
        wait_until(lambda: done.done() or len(list(held_jobs.iterdir())) == 3)  # one on each machine
        assert not done.done(), done.result().output
        killed, lost = [int(path.stem) for path in held_jobs.iterdir()], cluster.nodes[-1]
        on_lost = {process.pid for process in family(lost.pid)}
        assert on_lost & {*killed}
        psutil.Process(next(process for process in killed if process not in on_lost)).kill()
        cluster.remove(lost)
        (held_jobs / "go").touch()
        output = done.result(timeout=120).output
    assert "scène 1.tif, strip" in output
    assert "its process died. It runs again (2 of 5 times)." in output
    assert "its machine was lost. It runs again (2 of 5 times)." in output
    assert results(tmp_path / "many") == results(tmp_path / "one")


class Recorder:
    """Receiver of progress: what began, and all counts."""

    def __init__(self):
        self.begun, self.counts = [], []

    @contextmanager
    def begin(self, label, total, done=0, *, unit=""):
        self.begun.append((total, done, unit))
        yield

    def advance(self, count=1, note=""):
        self.counts.append(count)


@pytest.mark.slow
def test_the_ray_that_a_command_starts_leaves_nothing_behind(bundle_path, scene, tmp_path):
    predict(bundle_path, scene, tmp_path / "one")
    options = ["--tile", str(TILE), "--probability", "float32", "--runtime", "openvino", "--workers", "auto"]
    command = [
        sys.executable,
        "-m",
        "lim_keras",
        "predict",
        str(bundle_path),
        scene.name,
        "--out",
        str(tmp_path / "many"),
    ]
    with tempfile.TemporaryDirectory(prefix="lk-") as temporary:
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
        environment = os.environ | {"PYTHONPATH": PACKAGE, "TMPDIR": temporary, "RAY_ADDRESS": ""} | token
        done = subprocess.run(
            [*command, *options], cwd=scene.parent, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "\x1b" not in done.stdout and "raylet" not in done.stdout  # Ray prints nothing of its own
        assert not list(Path(temporary).iterdir())
        running = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]
        assert not [command for command in running if any(temporary in word for word in command)]
    assert results(tmp_path / "many") == results(tmp_path / "one")


def test_finished_parts_are_kept_when_another_fails(on_cluster, bundle_path, scene, tmp_path, monkeypatch):
    def failing(job):
        from lim_keras.errors import DataError
        from lim_keras.inventory.scene_workers import predict_part

        if job.strips.first == 2:
            raise DataError("the disk is full")
        return predict_part(job)

    progress, options = Recorder(), {"tile": TILE, "runtime": "openvino", "workers": "auto"}
    with monkeypatch.context() as patched:
        patched.setattr(scene_workers, "predict_part", failing)
        with pytest.raises(DataError, match=r"^the disk is full$"):
            lk.predict_scene(bundle_path, scene, tmp_path, **options)
    parts = list((tmp_path / ".scène 1.lim-keras.partial" / "parts").glob("*.tif"))
    assert parts
    result = lk.predict_scene(bundle_path, scene, tmp_path, progress=progress, **options)
    ((total, done, unit),) = progress.begun
    assert unit == "px" and done > 0 and done + sum(progress.counts) == total == result.summary["windows"]["pixels"]
    assert not result.was_there and lk.predict_scene(bundle_path, scene, tmp_path, **options).was_there


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"part": "1/2"}, "`workers` excludes `part` and `merge`"),
        ({"merge": True}, "`workers` excludes `part` and `merge`"),
        ({"memory": "2G"}, "`workers` and `memory` exclude each other"),
        ({"workers": "head:10001"}, "Invalid value for `workers`"),
    ],
)
def test_options_that_workers_exclude(scene, tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        lk.predict_scene(tmp_path, scene, tmp_path / "out", **{"workers": "auto"} | options)
    assert not (tmp_path / "out").exists()


def test_open_scenes_are_not_for_workers(scene, tmp_path):
    with rasterio.open(scene) as file, pytest.raises(ConfigError, match="needs the path or the URL of the scene"):
        lk.predict_scene(tmp_path, file, tmp_path / "out", workers="auto")


# Folds.


SETTINGS = """
name: tiny
model: {name: fcn, encoder: small, encoder_weights: none, decoder_channels: 4}
sampling: {size: 32}
training: {epochs: 4, steps_per_epoch: 2, batch_size: 2, tensorboard: false, precision: float32, deterministic: true}
folds: 2
evaluation: {windows: 4, bootstrap: 20}
"""


@pytest.fixture
def run(tmp_path, bijie_folder):
    """run(name): a run whose fold 1 is finished."""
    tiles = read_tiles(bijie_folder(tmp_path / "data", 4, 4))
    (tmp_path / "tiny.yaml").write_text(SETTINGS)

    def begin(name):
        folds = {tile: int(tile[-1]) % 2 for tile in tiles.ids}
        begun = Run.open(tmp_path / name, load_config(tmp_path / "tiny.yaml"), tiles, folds)
        (begun.fold_folder(1) / "out_of_fold").mkdir(parents=True)
        return begun

    return begin


def history(run):
    with (run.fold_folder(0) / "history.csv").open() as file:
        return [{name: value for name, value in row.items() if name != "seconds"} for row in csv.DictReader(file)]


@pytest.mark.slow
def test_a_fold_whose_process_is_killed_has_the_history_of_an_unbroken_one(on_cluster, run, capsys, monkeypatch):
    def told(job):
        import os
        from pathlib import Path

        from lim_keras.training.folds_on_workers import train_on_machine

        (Path(job.folder) / "process").write_text(str(os.getpid()))
        train_on_machine(job)

    monkeypatch.setattr(folds_on_workers, "train_on_machine", told)
    unbroken, killed = run("unbroken"), run("killed")
    dies = pytest.warns(LimKerasWarning, match=r"fold 0: its process died\. It runs again")
    with ThreadPoolExecutor(2) as pool, dies:
        done = [pool.submit(train_folds_on_workers, one, "auto") for one in (unbroken, killed)]
        wait_until((killed.fold_folder(0) / "checkpoints" / "state.json").exists)
        psutil.Process(int((killed.folder / "process").read_text())).kill()
        for one in done:
            one.result(timeout=120)
    assert history(killed) == history(unbroken) and len(history(killed)) == 4
    assert is_finished(killed, 0)
    lines = sorted(line.split("  ")[0] for line in capsys.readouterr().err.splitlines())
    epochs = [f"fold 0: epoch {epoch}/4" for epoch in range(1, 5) for _ in range(2)]  # of both runs, each once
    assert lines == ["finished before: fold 1"] * 2 + epochs


def test_a_fold_that_fails_is_named(on_cluster, run, capsys, monkeypatch):
    def failing(job):
        from lim_keras.errors import TrainingError

        raise TrainingError("the training has diverged")

    monkeypatch.setattr(folds_on_workers, "train_on_machine", failing)
    with pytest.raises(TrainingError, match=r"fold 0 failed, see above\. The same command trains only what is not fin"):
        train_folds_on_workers(run("failing"), "auto")
    assert capsys.readouterr().err == "finished before: fold 1\nfold 0: the training has diverged\n"


def test_jobs_and_workers_exclude_each_other(tmp_path):
    (tmp_path / "tiny.yaml").write_text(SETTINGS)
    with pytest.raises(ConfigError, match="`jobs` and `workers` exclude each other"):
        lk.cross_validate(tmp_path / "tiny.yaml", tmp_path, jobs=2, workers="auto")


# Addresses, versions and cores.


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ray://127.0.0.1:1", "cannot be reached (Connection refused)"),
        ("ray://no.such.host.invalid:10001", "cannot be reached ("),
    ],
)
def test_a_cluster_that_is_not_there_is_named(text, message):
    with pytest.raises(ClusterError) as caught:
        open_workers(text)
    assert str(caught.value).startswith(f"{text}: the cluster ") and message in str(caught.value)


@pytest.mark.parametrize(
    "text", ["", "AUTO", "ray://", "ray://head", "ray://head:x", "ray://head:10001/x", "http://head:10001", None, 3]
)
def test_texts_that_are_no_address_are_refused(text):
    with pytest.raises(ConfigError, match=r"Invalid value for `workers`\. Expected ray://HOST:PORT, such as"):
        open_workers(text)


@pytest.mark.parametrize(
    ("value", "ray"),
    [
        ("", "local"),
        ("local", "local"),
        ("auto", "auto"),
        ("ray://a:1", "ray://a:1"),
        ("10.0.0.1:6379", "10.0.0.1:6379"),
    ],
)
def test_auto_takes_the_cluster_of_the_environment(monkeypatch, value, ray):
    monkeypatch.setenv("RAY_ADDRESS", value)
    assert parse_address("auto").ray == ray
    monkeypatch.setenv("RAY_ADDRESS", "http://a:1")
    with pytest.raises(ConfigError, match="RAY_ADDRESS holds no address"):
        parse_address("auto")


@pytest.mark.parametrize(
    ("cores", "jobs", "each"),
    [
        ([1, 1], 5, 1),
        ([2], 5, 2),  # one job after another
        ([64], 5, 12),  # 5 x 12 = 60
        ([64, 64], 5, 21),  # three on one machine, two on the other
        ([64, 8], 1000, 4),
        ([64, 8], 2, 8),  # one that the small machine can take, too
        ([8, 8], 2, 8),
        ([], 3, 1),
    ],
)
def test_jobs_share_the_cores(cores, jobs, each):
    machines = [Machine(str(number), "", count, 0) for number, count in enumerate(cores)]
    assert share_cores(machines, jobs) == each


def test_jobs_with_gpus_share_the_cores_beside_them():
    machines = [Machine("a", "", 64, 4), Machine("b", "", 128, 0), Machine("c", "", 12, 1)]
    assert share_cores(machines, 5, gpus=1) == 12  # 64 / 4 = 16, 12 / 1 = 12


def test_other_versions_are_named():
    machine, ours = Machine("a", "node7", 1, 0), facts_of_machine()(LIBRARIES)
    check_versions([(machine, ours)], "ray://head:10001")
    with pytest.raises(ClusterError, match=r"is not installed on 1 of 1 machines, such as node7 \(No module"):
        check_versions([(machine, ours | {"version": None, "error": "No module named 'lim_keras'"})], "ray://head:1")
    with pytest.raises(ClusterError, match=r"node7 has lim-keras 0\.0\.1, and this process "):
        check_versions([(machine, ours | {"version": "0.0.1"})], "ray://head:1")
    other = ours | {"libraries": ours["libraries"] | {"numpy": "1.0"}}
    with pytest.warns(LimKerasWarning, match=r"numpy 1\.0 on node7 \("):
        check_versions([(machine, other)], "ray://head:1")
