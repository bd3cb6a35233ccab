"""Callbacks: validation, checkpoints, resuming, progress."""

import io
import json
import os
from contextlib import contextmanager
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from rich.console import Console

from lim_keras.config import TrainingSection
from lim_keras.errors import DataError, TrainingError
from lim_keras.files import write_text
from lim_keras.losses import BinaryFocalLoss
from lim_keras.report.progress import ProgressBar
from lim_keras.training.callbacks import Checkpoints, Progress, TrainingProgress, Validation, history_csv


def network(rate: float = 0.5, dropout: float = 0.0) -> keras.Model:
    image = keras.Input((4,))
    x = keras.layers.Dropout(dropout)(keras.layers.Dense(3)(image))
    model = keras.Model(image, keras.layers.Dense(1)(x))
    model.compile(optimizer=keras.optimizers.Adam(rate), loss="mse")
    model.optimizer.build(model.trainable_variables)
    return model


def checkpoints(folder: Path, model: keras.Model, **arguments: object) -> Checkpoints:
    made = Checkpoints(folder / "checkpoints", **arguments)
    made.set_model(model)
    return made


def epochs(callback: Checkpoints, *f1: float, first: int = 0) -> None:
    """Train a step, then end the epoch with that validation F1."""
    for epoch, value in enumerate(f1, start=first):
        callback.on_epoch_begin(epoch)
        callback.model.train_on_batch(np.ones((2, 4), np.float32), np.zeros((2, 1), np.float32))
        callback.on_epoch_end(epoch, {"loss": 1.0 / (epoch + 1), "val_f1": value})


def state(model: keras.Model) -> list[np.ndarray]:
    return [np.asarray(v) for v in (*model.weights, *model.optimizer.variables)]


# Checkpoints.


def test_a_run_goes_on_where_it_stood(tmp_path):
    first = network(dropout=0.5)
    kept = checkpoints(tmp_path, first)
    epochs(kept, 0.2, 0.4, 0.3)
    again = network(dropout=0.5)
    restored = checkpoints(tmp_path, again)
    assert restored.restore() == 3
    assert restored.progress == kept.progress
    assert (restored.progress.best_epoch, restored.progress.best_f1) == (1, 0.4)
    for ours, theirs in zip(state(again), state(first), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    # dropout goes on with the same random numbers
    images = np.ones((8, 4), np.float32)
    np.testing.assert_array_equal(again(images, training=True), first(images, training=True))


def test_a_new_run_starts_at_zero(tmp_path):
    assert checkpoints(tmp_path, network()).restore() == 0


def test_only_the_latest_and_the_best_weights_stay(tmp_path):
    model = network()
    kept = checkpoints(tmp_path, model)
    epochs(kept, 0.2, 0.4)
    at_best = state(model)[0]
    epochs(kept, 0.3, 0.1, first=2)
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["best_0001.weights.h5", "latest_0004.weights.h5", "state.json"]
    assert kept.best_weights.name == "best_0001.weights.h5"
    model.load_weights(kept.best_weights)
    np.testing.assert_array_equal(state(model)[0], at_best)


def test_the_history_is_a_line_an_epoch(tmp_path):
    epochs(checkpoints(tmp_path, network()), 0.25, 0.5)
    header, *lines = (tmp_path / "history.csv").read_text().splitlines()
    assert header == "epoch,loss,val_f1,seconds"
    assert [line.rsplit(",", 1)[0] for line in lines] == ["1,1.0,0.25", "2,0.5,0.5"]


def test_a_kill_before_the_state_was_written_loses_that_epoch_only(tmp_path):
    first = network()
    epochs(checkpoints(tmp_path, first), 0.2, 0.4)
    wanted = state(first)
    # the third epoch got as far as its weights, cut short
    (tmp_path / "checkpoints" / "latest_0003.weights.h5").write_bytes(b"\x89HDF")
    (tmp_path / "checkpoints" / "state.json.partial").write_text('{"epoch": 3')
    again = network()
    restored = checkpoints(tmp_path, again)
    assert restored.restore() == 2
    for ours, theirs in zip(state(again), wanted, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    epochs(restored, 0.5, first=2)
    assert sorted(path.name for path in (tmp_path / "checkpoints").glob("*.h5")) == [
        "best_0002.weights.h5",
        "latest_0003.weights.h5",
    ]


def test_a_kill_between_state_and_history(tmp_path):
    epochs(checkpoints(tmp_path, network()), 0.2, 0.4)
    history = tmp_path / "history.csv"
    whole = history.read_text()
    history.write_text("".join(whole.splitlines(keepends=True)[:2]))
    checkpoints(tmp_path, network()).restore()
    assert history.read_text() == whole


@pytest.mark.parametrize("damage", ["{", '{"epoch": 2, "tempo": 3}', "[]"])
def test_a_damaged_state_names_its_folder(tmp_path, damage):
    epochs(checkpoints(tmp_path, network()), 0.2)
    (tmp_path / "checkpoints" / "state.json").write_text(damage)
    with pytest.raises(TrainingError, match=r"checkpoints: the checkpoint cannot be read .*Remove that folder"):
        checkpoints(tmp_path, network()).restore()


def test_missing_weights_name_their_folder(tmp_path):
    epochs(checkpoints(tmp_path, network()), 0.2)
    (tmp_path / "checkpoints" / "latest_0001.weights.h5").unlink()
    with pytest.raises(TrainingError, match=r"checkpoints: the checkpoint cannot be read"):
        checkpoints(tmp_path, network()).restore()


@pytest.mark.parametrize("name", ["latest_0002.weights.h5", "best_0000.weights.h5"])
def test_weights_that_are_not_what_was_saved(tmp_path, name):
    epochs(checkpoints(tmp_path, network()), 0.4, 0.2)
    path = tmp_path / "checkpoints" / name
    content = bytearray(path.read_bytes())
    content[-200] ^= 1
    path.write_bytes(content)
    again = checkpoints(tmp_path, network())
    with pytest.raises(TrainingError, match=r"the checkpoint cannot be read \(.*SHA-256 differs\)\. Remove "):
        again.restore()
        again.restore_best()


def test_files_of_the_user_beside_the_checkpoints_stay(tmp_path):
    kept = checkpoints(tmp_path, network())
    epochs(kept, 0.2)
    for name in ("mine.weights.h5", "latest.weights.h5", ".notes.partial"):
        (tmp_path / "checkpoints" / name).write_text("mine")
    # Of a thread of this process that has ended: another process with a fixed number may be there.
    draft = tmp_path / "checkpoints" / f".latest_0002.weights.{os.getpid()}.34.partial.weights.h5"
    draft.write_text("of a killed call")
    again = checkpoints(tmp_path, network())
    epochs(again, 0.3, first=again.restore())
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {
        *("mine.weights.h5", "latest.weights.h5", ".notes.partial"),
        *("state.json", "latest_0002.weights.h5", "best_0001.weights.h5"),
    }


# Early stopping and plateaus.


def test_early_stopping_counts_epochs_without_a_better_f1(tmp_path):
    model = network()
    kept = checkpoints(tmp_path, model, patience=2)
    model.stop_training = False
    epochs(kept, 0.3, 0.4, 0.4)  # as good is not better
    assert not kept.stops and not model.stop_training
    epochs(kept, 0.1, first=3)
    assert kept.stops and model.stop_training


def test_early_stopping_survives_a_kill(tmp_path):
    epochs(checkpoints(tmp_path, network(), patience=2), 0.4, 0.3)
    restored = checkpoints(tmp_path, network(), patience=2)
    restored.restore()
    assert not restored.stops
    epochs(restored, 0.2, first=2)
    assert restored.stops
    ended = checkpoints(tmp_path, network(), patience=2)
    ended.restore()
    assert ended.stops


def test_a_plateau_lowers_the_rate_every_third_epoch_and_survives_a_kill(tmp_path):
    model = network(rate=1.0)
    kept = checkpoints(tmp_path, model, plateau=True)
    rates = []
    for epoch, f1 in enumerate([0.5, 0.4, 0.4, 0.4]):
        epochs(kept, f1, first=epoch)
        rates.append(float(model.optimizer.learning_rate))
    # best in epoch 0; the third epoch after it is epoch 3
    np.testing.assert_allclose(rates, [1, 1, 1, 0.3])
    again = network(rate=1.0)
    restored = checkpoints(tmp_path, again, plateau=True)
    restored.restore()
    np.testing.assert_allclose(float(again.optimizer.learning_rate), 0.3)
    epochs(restored, 0.4, 0.4, 0.4, first=4)
    np.testing.assert_allclose(float(again.optimizer.learning_rate), 0.09)
    epochs(restored, 0.9, 0.8, 0.8, first=7)
    np.testing.assert_allclose(float(again.optimizer.learning_rate), 0.09)


def test_no_plateau_no_change(tmp_path):
    model = network(rate=1.0)
    epochs(checkpoints(tmp_path, model), 0.5, *[0.1] * 6)
    assert float(model.optimizer.learning_rate) == 1


def test_progress_of_a_run_without_an_epoch():
    assert Progress().epochs_since_best == 0
    assert history_csv([]) == ""


def test_texts_are_replaced_whole(tmp_path):
    path = tmp_path / "state.json"
    write_text(path, "old")
    write_text(path, "new")
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


# Validation.


def identity() -> keras.Model:
    """Logits are the image."""
    image = keras.Input((None, None, 1))
    return keras.Model(image, keras.layers.Activation("linear")(image))


def validate(*batches: tuple[list[float], list[int]], weight: float = 1.0) -> dict[str, float]:
    """Batches of one image of one row: logits, labels."""

    def pairs():
        for logits, labels in batches:
            yield np.float32(logits)[None, None, :, None], np.uint8(labels)[None, None, :, None]

    signature = tf.TensorSpec((1, 1, None, 1), tf.float32), tf.TensorSpec((1, 1, None, 1), tf.uint8)
    loss = BinaryFocalLoss(landslide_weight=weight, background_weight=weight, gamma=0.0)
    callback = Validation(tf.data.Dataset.from_generator(pairs, output_signature=signature), loss)
    callback.set_model(identity())
    logs: dict[str, float] = {"loss": 1.0}
    callback.on_epoch_end(0, logs)
    return logs


def test_f1_is_of_all_pixels_together_at_the_best_threshold():
    # pixels by logit: -2 (background), -1 (landslide), 0 (background), 1 (landslide), 3 (landslide).
    # from 1 up: 2 right, 0 wrong, 1 missed, F1 4/5; from -1 up: 3 right, 1 wrong, 0 missed, F1 6/7
    logs = validate(([-2, -1], [0, 1]), ([0, 1, 3], [0, 1, 1]))
    assert logs["val_f1"] == pytest.approx(6 / 7)
    assert 1 / (1 + np.exp(2)) < logs["val_threshold"] < 1 / (1 + np.exp(1))
    assert logs["loss"] == 1.0


def test_loss_weighs_labelled_pixels_alike():
    # cross entropy at logit 0 is log 2, whatever the label; at logit 2 with label 1 it is log(1 + exp(-2)) = .1269.
    # the second batch has one labelled pixel of three
    logs = validate(([0, 0], [0, 1]), ([2, 50, -50], [1, 255, 255]))
    assert logs["val_loss"] == pytest.approx((2 * np.log(2) + 0.126928) / 3, rel=1e-4)


def test_average_precision_of_a_perfect_order():
    assert validate(([-1, 0, 1, 2], [0, 0, 1, 1]))["val_average_precision"] == pytest.approx(1.0)


def test_a_diverged_training_is_said_to_have_diverged():
    with pytest.raises(TrainingError, match=r"Epoch 1: expected a finite validation loss\. Received: nan.*diverged"):
        validate(([0, np.nan], [0, 1]))


def test_validation_without_landslides():
    with pytest.raises(DataError, match="Predictions hold no landslide pixel"):
        validate(([0, 1], [0, 0]))


def test_state_is_plain_json(tmp_path):
    epochs(checkpoints(tmp_path, network(dropout=0.5)), 0.2)
    written = json.loads((tmp_path / "checkpoints" / "state.json").read_text())
    assert set(written) == {"epoch", "best_f1", "best_epoch", "seeds", "files", "history"}
    assert len(written["seeds"]) == 1


# Progress.

SETTINGS = TrainingSection(epochs=3, batch_size=8)
FIGURES = {"loss": 0.5, "val_f1": 0.625, "val_threshold": 0.4, "val_average_precision": 0.7}


def shown(terminal: bool) -> tuple[TrainingProgress, io.StringIO]:
    """Progress of three epochs of two batches of eight images."""
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=120, color_system=None)
    return TrainingProgress("fold 2", SETTINGS, 2, ProgressBar(console)), text


def test_a_log_gets_a_line_an_epoch():
    progress, text = shown(terminal=False)
    with progress.task(0):
        progress.on_train_batch_end(0, {"loss": 0.7})
        progress.on_epoch_end(0, FIGURES)
    assert text.getvalue() == "fold 2: epoch 1/3  loss 0.5000  val F1 0.625 at 0.40  average precision 0.700\n"


@pytest.mark.parametrize("terminal", [True, False])
def test_a_resumed_training_says_so(terminal):
    progress, text = shown(terminal)
    with progress.task(2):
        pass
    assert "fold 2: continuing after epoch 2 of 3\n" in text.getvalue()
    assert ("32/48" in text.getvalue()) == terminal


def test_a_terminal_gets_a_bar():
    progress, text = shown(terminal=True)
    with progress.task(0):
        for epoch in range(3):
            for step in range(2):
                progress.on_train_batch_end(step, {"loss": 0.25})
            progress.on_epoch_end(epoch, FIGURES)
    for piece in ("48/48", "loss 0.2500", "images/s", "val F1 0.625"):
        assert piece in text.getvalue()


def test_any_callback_receives_the_images_seen():
    calls = []

    class Recorder:
        @contextmanager
        def begin(self, label, total, done=0, *, unit=""):
            calls.append((label, total, done, unit))
            yield

        def advance(self, count=1, note=""):
            calls.append((count, note))

    progress = TrainingProgress("fold 2", SETTINGS, 2, Recorder())
    with progress.task(1):
        progress.on_train_batch_end(0, {"loss": 0.25})
        progress.on_epoch_end(1, FIGURES)
        progress.on_train_batch_end(1, {"loss": 0.125})
    assert calls == [
        ("fold 2", 48, 16, "images"),
        (8, "loss 0.2500"),
        (8, "loss 0.1250  val F1 0.625"),
    ]
