"""Jobs on a real cluster: results, errors, killed processes, machines that do not fit."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from lim_keras.errors import ClusterError, ConfigError, DataError, LimKerasWarning
from lim_keras.workers import open_workers, ray_workers
from lim_keras.workers.address import parse_address
from lim_keras.workers.machines import LIBRARIES, Machine, check_versions, facts_of_machine, share_cores
from lim_keras.workers.shared_files import SharedFiles, shared_files, unseen
from tests.workers.conftest import family


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
        if word == "hold":
            (Path(rest) / f"{os.getpid()}.{time.monotonic_ns()}").touch()
            while not (Path(rest) / "go").exists():
                time.sleep(0.05)
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


def test_a_machine_that_is_lost_gives_its_jobs_to_others(cluster, workers, tmp_path):
    cluster.add(1)
    cluster.wait_for(4)
    jobs = [f"hold {tmp_path}"] * 3
    with ThreadPoolExecutor(1) as pool, pytest.warns(LimKerasWarning, match=r"its machine was lost\. It runs again"):
        ended = pool.submit(lambda: dict(workers.run(job(), jobs)))
        wait_until(lambda: len(list(tmp_path.iterdir())) == 3)  # each on a machine of its own
        lost = cluster.nodes[-1]
        assert {int(path.stem) for path in tmp_path.iterdir()} & {process.pid for process in family(lost.pid)}
        cluster.remove(lost)
        (tmp_path / "go").touch()
        assert sorted(ended.result(timeout=120)) == [0, 1, 2]
    assert len(list(tmp_path.iterdir())) == 5  # four calls, and the file that lets them go


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
