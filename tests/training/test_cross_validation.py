"""Which folds are trained, how many at a time, and what is said of those that fail. The real processes: tests/cli."""

import io
import itertools

import pytest
from rich.console import Console

from lim_keras.errors import TrainingError
from lim_keras.training import cross_validation
from lim_keras.training.cross_validation import is_finished, train_folds
from lim_keras.training.run import Run


class Process:
    """A process that is over when it has been asked for the third time."""

    def __init__(self, run, fold, code):
        self.run, self.fold, self.exitcode, self.terminated = run, fold, None, False
        self._code, self._asked = code, itertools.count(1)

    def is_alive(self):
        if self.exitcode is None and next(self._asked) >= 3:
            self.exitcode = self._code
            if not self._code:
                (self.run.fold_folder(self.fold) / "out_of_fold").mkdir(parents=True)
        return self.exitcode is None

    def terminate(self):
        self.terminated = True

    def join(self):
        self.exitcode = -15


@pytest.fixture
def five(tmp_path, tiles, config):
    """A run of five folds."""
    folds = {name: int(name[-1]) for name in tiles.ids if not name.endswith("5")}
    return Run.open(tmp_path / "five", config(), tiles, folds)


@pytest.fixture
def started(monkeypatch, five):
    """Processes that were started, in order; `failing` holds the exit codes of the folds that will fail."""
    monkeypatch.setattr(cross_validation.time, "sleep", lambda seconds: None)
    processes, failing = [], {}

    def start(folder, fold, encoder_weights, jobs, sharing):
        start.sharing.append(sharing)
        processes.append(Process(five, fold, failing.get(fold, 0)))
        start.most = max(start.most, sum(process.exitcode is None for process in processes))
        return processes[-1]

    start.most, start.failing, start.processes, start.sharing = 0, failing, processes, []
    monkeypatch.setattr(cross_validation, "_start", start)
    return start


def quiet():
    return Console(file=io.StringIO(), width=200)


@pytest.mark.parametrize("jobs", [1, 2, 9])
def test_every_fold_is_trained_and_no_more_at_a_time_than_allowed(five, started, jobs):
    train_folds(five, jobs=jobs, console=quiet())
    assert [process.fold for process in started.processes] == [0, 1, 2, 3, 4]
    assert started.most == min(jobs, 5)
    assert all(is_finished(five, fold) for fold in range(5))


@pytest.mark.parametrize(
    ("jobs", "sharing"), [(1, [1] * 5), (2, [2, 2, 2, 2, 1]), (3, [3, 3, 3, 2, 2]), (5, [5] * 5), (9, [5] * 5)]
)
def test_the_last_folds_have_the_cores_that_the_others_left(five, started, jobs, sharing):
    train_folds(five, jobs=jobs, console=quiet())
    assert started.sharing == sharing


def test_finished_folds_are_not_trained_again(five, started):
    for fold in (0, 3):
        (five.fold_folder(fold) / "out_of_fold").mkdir(parents=True)
    console = quiet()
    train_folds(five, console=console)
    assert [process.fold for process in started.processes] == [1, 2, 4]
    assert console.file.getvalue() == "finished before: fold 0, fold 3\n"


def test_a_model_without_its_predictions_is_not_finished(five):
    five.fold_folder(0).mkdir()
    (five.fold_folder(0) / "model.keras").write_bytes(b"")
    (five.fold_folder(0) / "out_of_fold.partial").mkdir()
    assert not is_finished(five, 0)


def test_failing_folds_are_named_and_the_others_finish(five, started):
    started.failing |= {1: 1, 4: 1}
    with pytest.raises(TrainingError, match=r"five: fold 1, fold 4 failed, see above\. The same command trains only"):
        train_folds(five, jobs=2, console=quiet())
    assert [fold for fold in range(5) if is_finished(five, fold)] == [0, 2, 3]
    started.processes.clear()
    started.failing.clear()
    train_folds(five, console=quiet())
    assert [process.fold for process in started.processes] == [1, 4]


def test_a_killed_fold_is_said_to_be_killed(five, started):
    started.failing[2] = -9
    console = quiet()
    with pytest.raises(TrainingError, match="fold 2 failed"):
        train_folds(five, console=console)
    assert console.file.getvalue().startswith("fold 2: ended by signal 9. If that is 9, memory may have run out")


def test_an_interruption_ends_what_is_running(five, started, monkeypatch):
    def interrupt(running):
        raise KeyboardInterrupt

    monkeypatch.setattr(cross_validation, "_ended", interrupt)
    with pytest.raises(KeyboardInterrupt):
        train_folds(five, jobs=2, console=quiet())
    assert [process.terminated for process in started.processes] == [True, True]
