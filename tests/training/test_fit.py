"""Training of one model: its files, every mode, resuming."""

import csv
import io
import re
import shutil
from dataclasses import replace

import keras
import numpy as np
import pytest
from rich.console import Console

from lim_keras.config import LossSection, RunConfig
from lim_keras.data.sampling import ResizedSampler, WindowSampler
from lim_keras.data.tiles import TileStore
from lim_keras.losses import BinaryFocalLoss, FocalDiceLoss
from lim_keras.metrics.calibration import Calibration
from lim_keras.models import build_model
from lim_keras.report.progress import ProgressBar
from lim_keras.training.callbacks import TrainingProgress
from lim_keras.training.fit import Predictor, build_loss, build_sampler, train_model
from lim_keras.training.run import Run


def train(run, console=None):
    """Train fold 0."""
    return train_model(run, 0, progress=ProgressBar(console or Console(quiet=True)))


def history(folder):
    with (folder / "history.csv").open() as file:
        return [{k: float(v) for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def interrupt_in_epoch(monkeypatch, number):
    """Ctrl-C at the end of that epoch (from 0), before its checkpoint is written."""

    def on_epoch_end(self, epoch, logs=None):
        if epoch == number:
            raise KeyboardInterrupt

    monkeypatch.setattr(TrainingProgress, "on_epoch_end", on_epoch_end)


# What a training leaves.


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiles):
    """The folder of a training of three epochs, and what it printed; to be copied, not changed."""
    training = {"epochs": 3, "steps_per_epoch": 2, "batch_size": 2}
    model = {"name": "fcn", "encoder": "small", "encoder_weights": "none", "decoder_channels": 4}
    config = RunConfig.model_validate({"name": "t", "model": model, "sampling": {"size": 32}, "training": training})
    folds = {name: int(name[-1]) % 2 for name in tiles.ids}
    run = Run.open(tmp_path_factory.mktemp("trained") / "run", config, tiles, folds)
    text = io.StringIO()
    train(run, console=Console(file=text, width=200))
    return run, text.getvalue()


@pytest.fixture
def copied(trained, tmp_path):
    """`trained`, for this test alone."""
    shutil.copytree(trained[0].folder, tmp_path / "copied")
    return Run.load(tmp_path / "copied")


def test_a_training_leaves_model_history_and_checkpoints(trained):
    folder = trained[0].fold_folder(0)
    names = sorted(entry.name for entry in folder.iterdir())
    assert names == ["checkpoints", "history.csv", "model.keras", "tensorboard"]
    epochs = history(folder)
    assert [row["epoch"] for row in epochs] == [1, 2, 3]
    assert {"loss", "f1", "miou", "val_loss", "val_f1", "val_threshold", "val_average_precision"} <= set(epochs[0])
    assert all(np.isfinite(list(row.values())).all() for row in epochs)
    model = keras.saving.load_model(folder / "model.keras", compile=False)
    assert model(np.zeros((1, 5, 7, 3), np.float32)).shape == (1, 5, 7, 1)
    assert list((folder / "tensorboard").rglob("events.out.*"))


def test_a_training_says_a_line_an_epoch(trained):
    lines = trained[1].splitlines()
    pattern = r"fold 0: epoch (\d)/3  loss [\d.]+  val F1 [\d.]+ at [\d.]+  average precision [\d.]+"
    assert [re.fullmatch(pattern, line)[1] for line in lines] == ["1", "2", "3"]


def test_the_best_weights_are_kept(trained):
    folder = trained[0].fold_folder(0)
    best = int(np.argmax([row["val_f1"] for row in history(folder)]))
    (file,) = (folder / "checkpoints").glob("best_*.h5")
    assert file.name == f"best_{best:04d}.weights.h5"
    model = keras.saving.load_model(folder / "model.keras", compile=False)
    kept = [np.asarray(w) for w in model.weights]
    model.load_weights(file)
    for ours, theirs in zip(model.weights, kept, strict=True):
        np.testing.assert_array_equal(np.asarray(ours), theirs)


def test_a_finished_training_is_left_alone(copied):
    files = [path for path in copied.fold_folder(0).rglob("*") if path.is_file()]
    before = [path.stat().st_mtime_ns for path in files]
    train(copied)
    assert [path.stat().st_mtime_ns for path in files] == before


def test_a_training_killed_before_its_model_was_written_writes_it(copied):
    path = copied.fold_folder(0) / "model.keras"
    wanted = [np.asarray(w) for w in keras.saving.load_model(path, compile=False).weights]
    path.rename(path.with_name("partial_model.keras"))
    again = keras.saving.load_model(train(copied), compile=False)
    for ours, theirs in zip(again.weights, wanted, strict=True):
        np.testing.assert_array_equal(np.asarray(ours), theirs)
    assert len(history(copied.fold_folder(0))) == 3


# Going on, in every kind of state that there is. (Bit for bit, through the command line: test_resume.py.)


@pytest.mark.parametrize(
    "changes",
    [
        {"model.dropout": 0.5, "training.schedule": "plateau", "training.optimizer": "sgd"},
        {"training.precision": "mixed_float16", "sampling.mode": "resized", "augmentation": "paper"},
    ],
    ids=["dropout-plateau-sgd", "float16-resized-paper"],
)
def test_an_interrupted_training_ends_as_an_unbroken_one(run, monkeypatch, changes):
    begun = run(**{"training.epochs": 3, **changes})
    unbroken = replace(begun, folder=begun.folder / "unbroken")
    train(unbroken)
    with monkeypatch.context() as patch:
        interrupt_in_epoch(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            train(begun)
    assert len(history(begun.fold_folder(0))) == 1
    train(begun)
    whole, continued = history(unbroken.fold_folder(0)), history(begun.fold_folder(0))
    assert len(continued) == 3
    for row, wanted in zip(continued, whole, strict=True):
        assert row == pytest.approx(wanted, rel=1e-3, abs=1e-4)


def test_models_are_float32_whatever_they_were_trained_in(run):
    begun = run(**{"training.precision": "mixed_bfloat16", "training.epochs": 1})
    model = keras.saving.load_model(train(begun), compile=False)
    assert {layer.compute_dtype for layer in model.layers} == {"float32"}
    assert keras.config.dtype_policy().name == "float32"


def test_early_stopping_ends_a_training(run):
    begun = run(**{"training.epochs": 30, "training.early_stopping": 1, "training.learning_rate": 1e-12})
    train(begun)
    # with next to no learning, the second F1 cannot be better for long
    assert 2 <= len(history(begun.fold_folder(0))) < 30


def test_a_frozen_encoder_keeps_its_weights(run):
    begun = run(**{"training.freeze_encoder_epochs": 1, "training.epochs": 1})
    trained = keras.saving.load_model(train(begun), compile=False)
    keras.utils.set_random_seed(begun.config.seed)
    fresh = build_model("fcn", "small", encoder_weights="none", decoder_channels=4)
    for name, same in (("encoder", True), ("score", False)):
        pairs = zip(*(model.get_layer(name).trainable_variables for model in (trained, fresh)), strict=True)
        assert all(np.array_equal(np.asarray(ours), np.asarray(theirs)) for ours, theirs in pairs) == same


@pytest.mark.parametrize("mode", ["windows", "resized"])
def test_frozen_scales_keep_their_weights_and_statistics(run, mode):
    begun = run(**{"training.frozen_encoder_scales": 2, "training.epochs": 1, "sampling.mode": mode})
    trained = keras.saving.load_model(train(begun), compile=False)
    keras.utils.set_random_seed(begun.config.seed)
    fresh = build_model("fcn", "small", encoder_weights="none", decoder_channels=4)
    for block in range(1, 6):
        for layer in (f"block{block}_conv", f"block{block}_bn"):
            ours, theirs = (model.get_layer("encoder").get_layer(layer).get_weights() for model in (trained, fresh))
            same = [np.array_equal(one, other) for one, other in zip(ours, theirs, strict=True)]
            assert same == [block <= 2] * len(same), layer


# Parts.


def test_windows_an_epoch(run):
    begun = run(**{"training.steps_per_epoch": None, "training.batch_size": 4})
    sampler, steps = build_sampler(begun.config, TileStore(begun.training_tiles(0)), begun.statistics)
    # four training tiles of fold 0: one batch of four shows about every tile once
    assert isinstance(sampler, WindowSampler) and (steps, len(sampler)) == (1, 4)


def test_resized_tiles_an_epoch(run):
    settings = {"training.steps_per_epoch": None, "sampling.mode": "resized", "augmentation": "paper"}
    begun = run(**settings)
    sampler, steps = build_sampler(begun.config, TileStore(begun.training_tiles(0)), begun.statistics)
    # two landslide tiles four times, two others once: 10 examples, 5 batches of 2
    assert isinstance(sampler, ResizedSampler) and (len(sampler), steps) == (10, 5)


def test_steps_that_were_asked_for(run):
    begun = run(**{"training.steps_per_epoch": 9})
    assert build_sampler(begun.config, TileStore(begun.training_tiles(0)), begun.statistics)[1] == 9


def test_loss_of_the_configuration():
    focal = build_loss(LossSection(landslide_weight=0.6, background_weight=0.3, gamma=2.0))
    assert type(focal) is BinaryFocalLoss
    assert (focal.landslide_weight, focal.background_weight, focal.gamma) == (0.6, 0.3, 2.0)
    dice = build_loss(LossSection(landslide_weight=0.6, background_weight=0.3, gamma=2.0, dice_weight=0.4))
    assert isinstance(dice, FocalDiceLoss)
    assert (dice.landslide_weight, dice.background_weight, dice.gamma, dice.dice_weight) == (0.6, 0.3, 2.0, 0.4)


def test_predictor_gives_calibrated_probabilities_of_any_size(brightness):
    predict = Predictor(brightness(), Calibration(temperature=2.0, bias=0.0))
    for size in [(1, 1), (5, 9), (31, 2)]:
        images = np.full((2, *size, 3), 190, np.uint8)
        got = predict(images)
        # logit (190 - 150) / 20 = 2, over temperature 2 is 1: 1 / (1 + 1 / e) = .731
        assert got.shape == (2, *size) and got.dtype == np.float32
        np.testing.assert_allclose(got, 0.731059, rtol=1e-4)
