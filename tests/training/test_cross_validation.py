"""Cross-validation: processes of the folds, failures, threads, out-of-fold predictions. Commands: tests/cli."""

import csv
import itertools
import shutil
from contextlib import contextmanager
from dataclasses import replace

import keras
import numpy as np
import pytest

import lim_keras.models  # noqa: F401  registers the layers of stored models
from lim_keras.data.tiles import read_tile
from lim_keras.errors import ConfigError, TrainingError
from lim_keras.metrics.calibration import Calibration
from lim_keras.training import cross_validation, processes
from lim_keras.training.cross_validation import is_finished, predict_out_of_fold, read_out_of_fold, train_folds
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
    monkeypatch.setattr(processes.time, "sleep", lambda seconds: None)
    begun, failing = [], {}

    def start(run, fold, encoder_weights, threads, bars):
        start.threads.append(threads)
        begun.append(Process(five, fold, failing.get(fold, 0)))
        start.most = max(start.most, sum(process.exitcode is None for process in begun))
        return begun[-1]

    start.most, start.failing, start.processes, start.threads = 0, failing, begun, []
    monkeypatch.setattr(cross_validation, "_start", start)
    return start


@pytest.mark.parametrize("jobs", [1, 2, 9])
def test_every_fold_is_trained_and_no_more_at_a_time_than_allowed(five, started, jobs):
    train_folds(five, jobs=jobs)
    assert [process.fold for process in started.processes] == [0, 1, 2, 3, 4]
    assert started.most == min(jobs, 5)
    assert all(is_finished(five, fold) for fold in range(5))


@pytest.mark.parametrize(
    ("deterministic", "jobs", "threads"),
    [
        (False, 1, [0] * 5),  # TensorFlow's own choice
        (False, 2, [30, 30, 30, 30, 0]),
        (False, 3, [20, 20, 20, 30, 30]),
        (False, 9, [12] * 5),
        (True, 1, [0] * 5),
        (True, 2, [30] * 5),
        (True, 3, [20] * 5),
        (True, 9, [12] * 5),
    ],
)
def test_folds_share_the_cores(five, started, monkeypatch, deterministic, jobs, threads):
    monkeypatch.setattr(processes.os, "cpu_count", lambda: 60)
    training = five.config.training.model_copy(update={"deterministic": deterministic})
    run = replace(five, config=five.config.model_copy(update={"training": training}))
    train_folds(run, jobs=jobs)
    assert started.threads == threads


def test_a_callback_counts_finished_folds(five, started, capsys):
    (five.fold_folder(3) / "out_of_fold").mkdir(parents=True)
    started.failing[2] = 1
    calls = []

    class Recorder:
        @contextmanager
        def begin(self, label, total, done=0, *, unit=""):
            calls.append((label, total, done, unit))
            yield

        def advance(self, count=1, note=""):
            calls.append(count)

    with pytest.raises(TrainingError, match="fold 2 failed"):
        train_folds(five, progress=Recorder())
    assert calls == [("folds", 5, 1, "folds"), 1, 1, 1]
    assert capsys.readouterr().err == ""


def test_jobs_below_one_are_refused(five):
    with pytest.raises(ConfigError, match=r"`jobs`\. Expected a whole number >= 1\. Received: 0"):
        train_folds(five, jobs=0)


def test_finished_folds_are_not_trained_again(five, started, capsys):
    for fold in (0, 3):
        (five.fold_folder(fold) / "out_of_fold").mkdir(parents=True)
    train_folds(five)
    assert [process.fold for process in started.processes] == [1, 2, 4]
    assert capsys.readouterr().err == "finished before: fold 0, fold 3\n"


def test_a_model_without_its_predictions_is_not_finished(five):
    five.fold_folder(0).mkdir()
    (five.fold_folder(0) / "model.keras").write_bytes(b"")
    (five.fold_folder(0) / "out_of_fold.partial").mkdir()
    assert not is_finished(five, 0)


def test_failing_folds_are_named_and_the_others_finish(five, started):
    started.failing |= {1: 1, 4: 1}
    with pytest.raises(TrainingError, match=r"five: fold 1, fold 4 failed, see above\. The same command trains only"):
        train_folds(five, jobs=2)
    assert [fold for fold in range(5) if is_finished(five, fold)] == [0, 2, 3]
    started.processes.clear()
    started.failing.clear()
    train_folds(five)
    assert [process.fold for process in started.processes] == [1, 4]


def test_a_killed_fold_is_said_to_be_killed(five, started, capsys):
    started.failing[2] = -9
    with pytest.raises(TrainingError, match="fold 2 failed"):
        train_folds(five)
    assert capsys.readouterr().err.startswith("fold 2: ended by signal 9. If that is 9, memory may have run out")


def test_an_interruption_ends_what_is_running(five, started, monkeypatch):
    def interrupt(running, watch):
        raise KeyboardInterrupt

    monkeypatch.setattr(processes, "wait_for_end", interrupt)
    with pytest.raises(KeyboardInterrupt):
        train_folds(five, jobs=2)
    assert [process.terminated for process in started.processes] == [True, True]


# Out-of-fold predictions.


@pytest.fixture
def finished(run, brightness):
    """finished(**changes): a run whose folds have a model; fold 1's says less often "landslide"."""

    def make(**changes):
        begun = run(**changes)
        for fold, offset in ((0, 0.0), (1, -1.0)):
            begun.fold_folder(fold).mkdir()
            brightness(offset).save(begun.fold_folder(fold) / "model.keras")
        return begun

    return make


def logits(image):
    return image.astype(np.float64).mean(-1) / 20 - 7.5


def test_every_held_out_tile_is_predicted_at_its_own_size(finished):
    run = finished()
    predict_out_of_fold(run, 1)
    kept = {prediction.sample.name: prediction for prediction in read_out_of_fold(run, 1)}
    assert set(kept) == {"ls_1", "ls_3", "nls_1", "nls_3"}
    for name, prediction in kept.items():
        image, mask = read_tile(run.tiles[name])
        np.testing.assert_array_equal(prediction.sample.mask, mask)
        assert prediction.sample.kind == run.tiles[name].kind
        # float16 keeps a logit to 1 part in 2048
        expected = 1 / (1 + np.exp(1.0 - logits(image)))
        np.testing.assert_allclose(prediction.probability, expected, atol=2e-3)
        assert prediction.probability.dtype == np.float32


def test_models_of_resized_tiles_predict_resized_tiles(finished):
    run = finished(**{"sampling.mode": "resized", "augmentation": "none"})
    predict_out_of_fold(run, 0)
    for prediction in read_out_of_fold(run, 0):
        assert prediction.probability.shape == prediction.sample.mask.shape == (32, 32)


def test_kept_predictions_are_calibrated_when_read(finished):
    run = finished()
    predict_out_of_fold(run, 0)
    plain, changed = (
        next(read_out_of_fold(run, 0, c)).probability for c in (Calibration(1.0, 0.0), Calibration(2.0, 0.5))
    )
    logit = np.log(plain / (1 - plain.astype(np.float64)))
    np.testing.assert_allclose(changed, 1 / (1 + np.exp(-Calibration(2.0, 0.5).logit(logit))), atol=1e-3)


def test_certain_predictions_stay_finite(finished, brightness):
    run = finished()
    brightness(offset=200.0).save(run.fold_folder(0) / "model.keras")
    predict_out_of_fold(run, 0)
    for prediction in read_out_of_fold(run, 0, Calibration(0.05, 0.0)):
        assert np.isfinite(prediction.probability).all() and (prediction.probability > 0.999).all()


def test_what_is_kept_is_not_made_again(finished):
    run = finished()
    predict_out_of_fold(run, 0)
    before = {path.name: path.stat().st_mtime_ns for path in (run.fold_folder(0) / "out_of_fold").iterdir()}
    (run.fold_folder(0) / "model.keras").unlink()
    predict_out_of_fold(run, 0)
    assert {path.name: path.stat().st_mtime_ns for path in (run.fold_folder(0) / "out_of_fold").iterdir()} == before


def test_what_a_killed_process_left_is_cleared(finished, ended):
    run = finished()
    partial = run.fold_folder(0) / f".out_of_fold.{ended}.77.partial"
    partial.mkdir()
    (partial / "stranger.npz").write_bytes(b"?")
    predict_out_of_fold(run, 0)
    assert not partial.exists()
    names = sorted(path.name for path in (run.fold_folder(0) / "out_of_fold").iterdir())
    assert names == ["ls_0.npz", "ls_2.npz", "ls_4.npz", "nls_0.npz", "nls_2.npz", "nls_4.npz"]


@pytest.mark.slow
def test_a_deterministic_fold_does_not_depend_on_what_runs_beside_it(tmp_path, tiles, config):
    settings = {"training.deterministic": True, "training.epochs": 1, "sampling.size": 64}
    folds = {name: int(name[-1]) % 3 for name in tiles.ids}
    histories, weights = [], []
    for name, finished in (("alone", (0, 1)), ("beside", (0,))):
        run = Run.open(tmp_path / name, config(**settings), tiles, folds)
        for fold in finished:
            (run.fold_folder(fold) / "out_of_fold").mkdir(parents=True)
        train_folds(run, jobs=2)
        with (run.fold_folder(2) / "history.csv").open() as file:
            histories.append([{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)])
        weights.append(keras.saving.load_model(run.fold_folder(2) / "model.keras", compile=False).get_weights())
    assert histories[0] == histories[1]
    for alone, beside in zip(*weights, strict=True):  # the last bits depend on the number of threads
        np.testing.assert_array_equal(alone, beside)


@pytest.mark.parametrize("length", [0, 40, -30])
def test_a_truncated_prediction_is_never_used(finished, length):
    run = finished()
    predict_out_of_fold(run, 0)
    path = run.fold_folder(0) / "out_of_fold" / "ls_0.npz"
    whole = path.read_bytes()
    path.write_bytes(whole[:length])
    with pytest.raises(TrainingError, match=r"ls_0\.npz: the stored prediction cannot be read .*Remove the folder"):
        list(read_out_of_fold(run, 0))
    shutil.rmtree(path.parent)  # the cure
    predict_out_of_fold(run, 0)
    assert len(list(read_out_of_fold(run, 0))) == len(run.held_out_tiles(0))
