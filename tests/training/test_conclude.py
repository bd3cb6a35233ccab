"""From finished folds to threshold, figures, bundle and tables."""

import json
import math

import numpy as np
import pytest
from rich.console import Console

from lim_keras.errors import DataError
from lim_keras.evaluation.calibration import ProbabilityHistogram, best_threshold, fit_calibration
from lim_keras.export.bundle import load_bundle
from lim_keras.export.bundle_info import BundleInfo
from lim_keras.training.conclude import conclude, read_history
from lim_keras.training.held_out import kept_predictions, predict_held_out
from lim_keras.training.run import Run

HISTORY = "epoch,loss,f1,val_loss,val_f1,seconds\n1,0.5,0.2,0.6,0.3,1.0\n2,0.4,0.3,0.5,0.35,1.0\n"


@pytest.fixture
def finish(brightness):
    """Give every fold of a run a model, a history and its out-of-fold predictions."""

    def add(run):
        for fold in run.held_out_folds:
            run.fold_folder(fold).mkdir()
            brightness(0.4 * fold).save(run.fold_folder(fold) / "model.keras")
            (run.fold_folder(fold) / "history.csv").write_text(HISTORY)
            predict_held_out(run, fold)
        return run

    return add


def printed(parts):
    console = Console(record=True, width=200, quiet=True)
    console.quiet = False
    with console.capture() as capture:
        for part in parts:
            console.print(part)
    return capture.get()


def test_two_folds(run, finish, tmp_path):
    begun = finish(run())
    text = printed(conclude(begun, tmp_path / "bundle"))
    summary = json.loads((begun.folder / "cv.json").read_text())
    info = BundleInfo.read(tmp_path / "bundle")

    # threshold and calibration come from the out-of-fold predictions of both folds together, and from nothing else
    histogram = ProbabilityHistogram()
    for fold in (0, 1):
        for prediction in kept_predictions(begun, fold):
            histogram.add(prediction.probability, prediction.place.mask)
    calibration = fit_calibration(histogram)
    threshold, f1 = best_threshold(histogram, calibration)
    assert (summary["threshold"], summary["temperature"]) == (threshold, calibration.temperature)
    assert (info.threshold, info.temperature, info.bias) == (threshold, calibration.temperature, calibration.bias)
    pooled = summary["pooled_out_of_fold"]
    assert pooled["subsets"]["all"]["model"]["f1"]["value"] == pytest.approx(f1, abs=0.02)  # float16 and bins

    # every tile once, judged by the fold that had not seen it; each fold alone on the test tiles
    assert sorted(place["name"] for place in pooled["places"]) == sorted(begun.seen_tiles.ids)
    assert set(summary["out_of_fold"]) == set(summary["test_folds"]) == {"0", "1"}
    for figures in (summary["test"], *summary["test_folds"].values()):
        assert sorted(place["name"] for place in figures["tiles"]["places"]) == ["ls_5", "nls_5"]
        assert len(figures["windows"]["places"]) == 4

    assert set(info.training_tiles) == set(begun.seen_tiles.ids) and info.test_tiles == ("ls_5", "nls_5")
    assert (info.folds, info.bands, info.dtype, info.stride) == (2, 3, "uint8", 32)
    assert info.config_hash == summary["config_hash"] == begun.config.digest()
    assert set(info.metrics) == {"out_of_fold", "test_tiles", "test_windows"}
    assert (begun.folder / "curves.png").stat().st_size > 1000
    for piece in (
        "out-of-fold tiles",
        "fold 1",
        "mean of the folds",
        "pooled",
        "ensemble",
        f"threshold {threshold:.3f}",
    ):
        assert piece in text
    assert f"bundle: {tmp_path / 'bundle'}" in text


def test_the_bundle_says_what_the_models_say(run, finish, tmp_path):
    begun = finish(run())
    conclude(begun, tmp_path / "bundle")
    bundle = load_bundle(tmp_path / "bundle")
    image = np.random.default_rng(0).integers(0, 255, (1, 9, 7, 3)).astype(np.float32)
    logit = image.astype(np.float64).mean(-1) / 20 - 7.5
    scaled = [(logit + offset) / bundle.info.temperature for offset in (0.0, 0.4)]
    # the form of the bias is the calibration's own; without one the mean of the two sigmoids is left
    if math.isclose(bundle.info.bias, 0.0):
        np.testing.assert_allclose(bundle.predict(image), np.mean([1 / (1 + np.exp(-x)) for x in scaled], 0), atol=1e-5)
    assert bundle.predict(image).shape == (1, 9, 7) and bundle.baseline() is not None


def test_one_model_without_test_tiles(tmp_path, tiles, config, finish):
    held_out = {"ls_0": 0, "ls_1": 0, "nls_0": 0}
    begun = finish(Run.open(tmp_path / "one", config(), tiles, held_out))
    text = printed(conclude(begun, tmp_path / "bundle"))
    summary = json.loads((begun.folder / "fit.json").read_text())
    assert summary["test"] == summary["test_folds"] == {}
    assert sorted(place["name"] for place in summary["pooled_out_of_fold"]["places"]) == ["ls_0", "ls_1", "nls_0"]
    info = BundleInfo.read(tmp_path / "bundle")
    assert set(info.training_tiles) == set(tiles.ids) - set(held_out) and info.test_tiles == ()
    assert "validation tiles" in text and "pooled" not in text and "ensemble" not in text


def test_bundles_land_under_the_name_of_the_run(run, finish, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    conclude(finish(run()))
    assert (tmp_path / "exported_models" / "tiny" / "model.json").exists()


def test_summary_is_strict_json(run, finish, tmp_path):
    begun = finish(run())
    conclude(begun, tmp_path / "bundle")

    def refuse(constant):
        raise AssertionError(constant)

    json.loads((begun.folder / "cv.json").read_text(), parse_constant=refuse)


def test_histories_are_read_by_column(run):
    begun = run()
    begun.fold_folder(0).mkdir()
    (begun.fold_folder(0) / "history.csv").write_text(HISTORY)
    assert read_history(begun, 0)["val_f1"] == [0.3, 0.35]


def test_held_out_tiles_without_landslides(tmp_path, tiles, config, finish):
    begun = finish(Run.open(tmp_path / "one", config(), tiles, {"nls_0": 0, "nls_1": 0}))
    with pytest.raises(DataError, match="hold no landslide pixel"):
        conclude(begun, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()
