"""Warm start: the weights of a bundle in a run with the same network and other test tiles."""

from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from lim_keras.bundle.info import BundleInfo
from lim_keras.bundle.saved_model import load_bundle
from lim_keras.errors import BundleError, ConfigError, LeakError, TrainingError
from lim_keras.export.bundle import FoldGraph, write_bundle
from lim_keras.metrics.calibration import Calibration
from lim_keras.models import build_model
from lim_keras.training.cross_validation import train_fold
from lim_keras.training.finalize import finalize
from lim_keras.training.record import Sources
from lim_keras.training.run import Run
from lim_keras.training.warm_start import START, WarmStart, prepare_warm_start, warm_start_weights
from tests.conftest import model_facts

SHIPPED = Path(__file__).parents[2] / "exported_models" / "bijie_edge"
NETWORK = {"name": "fcn", "encoder": "small", "encoder_weights": "none", "decoder_channels": 4, "input_reduction": 1}


def network(seed=1):
    """Weights that no fresh network has, the statistics of batch normalisation too."""
    keras.utils.set_random_seed(seed)
    model = build_model("fcn", "small", encoder_weights="none", decoder_channels=4)
    rng = np.random.default_rng(seed)
    model.set_weights([weight + rng.uniform(0.01, 0.1, weight.shape) for weight in model.get_weights()])
    return model


def with_share(config, share):
    return config.model_copy(update={"training": config.training.model_copy(update={"start_share": share})})


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """bundle(models=1, seed=1, half=False, **facts): the path of one; read only."""
    written = {}

    def write(path, models=1, seed=1, half=False, **facts):
        described = model_facts(name="before", **{"model": NETWORK, "training_tiles": ("elsewhere_1",), **facts})
        write_bundle(path, described, [network(seed + number) for number in range(models)], half=half)
        return path

    def make(**wanted):
        key = repr(wanted)
        if key not in written:
            written[key] = write(tmp_path_factory.mktemp("exported_models") / "before", **wanted)
        return written[key]

    return make


@pytest.fixture
def fit(tmp_path, tiles, config):
    """fit(**changes): a run of one model; ls_1 and nls_1 are validation tiles, ls_5 and nls_5 test tiles."""

    def begin(**changes):
        folds = {"ls_1": 0, "nls_1": 0, "ls_5": -1, "nls_5": -1}
        return Run.open(tmp_path / "fit", config(**changes), tiles, folds)

    return begin


def test_a_model_starts_at_the_bundles_weights(fit, bundle):
    # the encoder's own weights are not asked for: nobody has them
    run = fit(**{"training.epochs": 1, "training.learning_rate": 1e-12, "model.encoder_weights": "nowhere.h5"})
    prepare_warm_start(run, bundle())
    train_fold(run, 0)
    trained = keras.saving.load_model(run.fold_folder(0) / "model.keras", compile=False)
    for ours, theirs in zip(trained.trainable_variables, network().trainable_variables, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    info = BundleInfo.read(finalize(run, run.folder / "bundle").bundle)
    # tiles of the first model are training tiles of the second as well
    assert set(info.training_tiles) == {"elsewhere_1"} | {f"{kind}_{n}" for kind in ("ls", "nls") for n in (0, 2, 3, 4)}
    assert info.started_from.startswith("before (")
    assert f"started from the weights of {info.started_from}" in (run.folder / "bundle" / "README.md").read_text()


def test_a_share_of_the_first_weights_stays(fit, bundle):
    run = fit(**{"training.epochs": 1, "training.learning_rate": 0.01})
    prepare_warm_start(run, bundle())
    train_fold(run, 0)
    trained = keras.saving.load_model(run.fold_folder(0) / "model.keras", compile=False).get_weights()
    (run.fold_folder(0) / "model.keras").unlink()
    shared = replace(run, config=with_share(run.config, 0.25))
    train_fold(shared, 0)  # from the checkpoint of the finished epoch
    averaged = keras.saving.load_model(run.fold_folder(0) / "model.keras", compile=False).get_weights()
    changed = 0.0
    for before, after, mean in zip(network().get_weights(), trained, averaged, strict=True):
        np.testing.assert_allclose(mean, 0.25 * before + 0.75 * after, atol=1e-6)
        changed = max(changed, float(np.abs(mean - after).max()))
    assert changed > 1e-3


def test_a_share_of_no_weights_is_refused(config):
    with pytest.raises(ConfigError, match=r"training\.start_share: expected 0 without `start_from`.*Received: 0\.25"):
        Sources.read(config(**{"training.start_share": 0.25}))


def test_half_size_weights(fit, bundle):
    run = fit()
    prepare_warm_start(run, bundle(half=True))
    for ours, theirs in zip(warm_start_weights(run.folder), network().get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-3)


def test_the_model_that_ships_can_be_trained_on(fit):
    """Its tiles have other names than these; the network that starts from it says what it says."""
    info = BundleInfo.read(SHIPPED)
    run = fit(
        **{f"model.{key}": value for key, value in info.model.items() if key != "dropout"}, **{"sampling.size": 64}
    )
    prepare_warm_start(run, SHIPPED)
    model = build_model(**{**info.model, "encoder_weights": "none"})
    model.set_weights(warm_start_weights(run.folder))
    image = np.random.default_rng(0).integers(0, 256, (1, 512, 512, 3)).astype(np.float32)
    calibration = Calibration(info.temperature, info.bias)
    ours = FoldGraph(model, calibration).probability(image)["probability"][0, ..., 0]
    theirs = load_bundle(SHIPPED).predict(image.astype(np.uint8))[0]
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("content", ['{"name"', "[]", "null", "{}"])
def test_a_damaged_record_of_the_start(content, fit, bundle):
    run = fit()
    prepare_warm_start(run, bundle())
    (run.folder / "start" / "start.json").write_text(content)
    with pytest.raises(TrainingError, match=r"start\.json: is damaged"):
        WarmStart.of(run)


def test_without_a_start(fit):
    run = fit()
    assert WarmStart.of(run) is None and warm_start_weights(run.folder) is None


def test_the_same_start_again_and_another(fit, bundle):
    run, path = fit(), bundle()
    prepare_warm_start(run, path)
    written = (run.folder / START / "weights.npz").stat().st_mtime_ns
    run.fold_folder(0).mkdir()
    prepare_warm_start(run, path)
    assert (run.folder / START / "weights.npz").stat().st_mtime_ns == written
    with pytest.raises(TrainingError, match=r"started from before .*Give another folder as `run`"):
        prepare_warm_start(run, bundle(config_hash="f" * 64))


def test_a_model_trained_again_is_another_start(fit, bundle):
    run = fit()
    prepare_warm_start(run, bundle())
    with pytest.raises(TrainingError, match=r"started from before .*Received: .*before"):
        prepare_warm_start(run, bundle(seed=2))


def test_a_run_that_was_begun_without(fit, bundle):
    run = fit()
    run.fold_folder(0).mkdir()
    with pytest.raises(TrainingError, match="started without `start_from`"):
        prepare_warm_start(run, bundle())
    assert not (run.folder / START).exists()


@pytest.mark.parametrize(
    ("settings", "facts", "message"),
    [
        ({"model.decoder_channels": 6}, {}, r"Expected: decoder_channels 4\. Received: decoder_channels 6"),
        ({}, {"dtype": "uint16"}, r"Expected: dtype uint16\. Received: dtype uint8"),
        ({}, {"models": 2}, r"one model.* Received: 2 models"),
    ],
)
def test_another_network(fit, bundle, settings, facts, message):
    run = fit(**settings)
    with pytest.raises(BundleError, match=message):
        prepare_warm_start(run, bundle(**facts))
    assert not (run.folder / START).exists()


@pytest.mark.parametrize("seen", ["ls_1", "nls_5"])
def test_tiles_that_the_first_model_was_fitted_to_judge_nothing(fit, bundle, seen):
    with pytest.raises(LeakError, match=rf"trained on 1 tiles .* such as {seen}\..*`validation_ids`"):
        prepare_warm_start(fit(), bundle(training_tiles=(seen, "ls_0")))


def test_every_fold_of_a_cross_validation_is_judged(run, bundle):
    with pytest.raises(LeakError, match="such as ls_0"):
        prepare_warm_start(run(), bundle(training_tiles=("ls_0",)))
    prepare_warm_start(run(), bundle())
