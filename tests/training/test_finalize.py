"""Finalizing a run: threshold, calibration, scores, bundle and tables."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from lim_keras.bundle.info import BundleInfo, FileRecord
from lim_keras.bundle.saved_model import load_bundle
from lim_keras.config import RunConfig
from lim_keras.data.tiles import TileSet
from lim_keras.errors import BundleError, DataError, LimKerasWarning, TrainingError
from lim_keras.metrics.calibration import Calibration, ProbabilityHistogram, best_threshold, fit_calibration
from lim_keras.report.tables import run_tables
from lim_keras.training.cross_validation import predict_out_of_fold, read_out_of_fold, stored_maps
from lim_keras.training.finalize import finalize, read_history
from lim_keras.training.run import TEST, Run
from tests.conftest import fitted_rule

HISTORY = "epoch,loss,f1,val_loss,val_f1,seconds\n1,0.5,0.2,0.6,0.3,1.0\n2,0.4,0.3,0.5,0.35,1.0\n"


def finish(run, brightness):
    """Give every fold of a run a model, a history and its out-of-fold predictions."""
    for fold in run.held_out_folds:
        run.fold_folder(fold).mkdir()
        brightness(0.4 * fold).save(run.fold_folder(fold) / "model.keras")
        (run.fold_folder(fold) / "history.csv").write_text(HISTORY)
        predict_out_of_fold(run, fold)
    return run


def printed(result):
    console = Console(width=200, color_system=None)
    with console.capture() as capture:
        for part in run_tables(result.evaluation):
            console.print(part)
    return capture.get()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("finalized")


@pytest.fixture(scope="module")
def finalized(place, tiles, brightness):
    """A run of two folds and two test tiles, exported to its default folder, and its result."""
    config = RunConfig.model_validate(
        {
            "name": "tiny",
            "model": {"encoder": "small"},
            "sampling": {"size": 32},
            "evaluation": {"windows": 4, "bootstrap": 20},
        }
    )
    folds = {name: -1 if name.endswith("5") else int(name[-1]) % 2 for name in tiles.ids}
    run = finish(Run.open(place / "run", config, tiles, folds), brightness)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        return run, finalize(run)


@pytest.fixture
def summary(finalized):
    return json.loads((finalized[0].folder / "cv.json").read_text())


@pytest.fixture
def info(finalized, place):
    return BundleInfo.read(place / "exported_models" / "tiny")


def test_threshold_and_calibration_come_from_the_held_out_tiles_of_all_folds(finalized, summary, info):
    histogram = ProbabilityHistogram()
    for fold in (0, 1):
        for prediction in read_out_of_fold(finalized[0], fold):
            histogram.add(prediction.probability, prediction.sample.mask)
    histogram = histogram.at_share(finalized[0].landslide_share)
    calibration = fit_calibration(histogram)
    threshold, f1 = best_threshold(histogram, calibration)
    for stored in (summary, info.model_dump()):
        assert stored["threshold"] == threshold
        assert (stored["temperature"], stored["bias"]) == (calibration.temperature, calibration.bias)
    pooled = summary["pooled_out_of_fold"]["subsets"]["all"]["model"]
    assert pooled["f1"]["value"] == pytest.approx(f1, abs=0.02)  # the histogram has bins


def test_the_object_rule_is_fitted_to_the_sheets_of_every_fold(finalized, summary, info):
    run, rule = finalized[0], info.object_rule
    assert rule.source == "out_of_fold" and rule.tiles == len(run.seen_tiles)
    assert summary["object_rule"] == json.loads(rule.model_dump_json())
    assert rule.without.threshold == info.threshold and rule.area_km2 is None  # the tiles have no scale
    calibration = Calibration(info.temperature, info.bias)
    maps = list(stored_maps(run, calibration))
    tiles = {
        prediction.sample.name: prediction for fold in (0, 1) for prediction in read_out_of_fold(run, fold, calibration)
    }
    assert len(maps) == 2 and sum(len(one.groups) for one in maps) == len(tiles)
    # Every labelled pixel of a tile lies on a sheet, with its probability.
    found = np.sort(np.concatenate([one.probability[one.mask == 1] for one in maps]))
    expected = np.sort(np.concatenate([one.probability[one.sample.mask == 1] for one in tiles.values()]))
    assert np.array_equal(found, expected)


def test_every_tile_is_judged_by_the_fold_that_had_not_seen_it(finalized, summary):
    samples = summary["pooled_out_of_fold"]["samples"]
    assert sorted(one["name"] for one in samples) == sorted(finalized[0].seen_tiles.ids)
    for fold in (0, 1):
        names = {one["name"] for one in summary["out_of_fold"][str(fold)]["samples"]}
        assert names == set(finalized[0].held_out_tiles(fold).ids)


def test_test_tiles_are_judged_by_the_ensemble_and_by_each_fold(summary):
    assert set(summary["out_of_fold"]) == set(summary["test_folds"]) == {"0", "1"}
    for figures in (summary["test"], *summary["test_folds"].values()):
        assert sorted(one["name"] for one in figures["tiles"]["samples"]) == ["ls_5", "nls_5"]
        assert len(figures["windows"]["samples"]) == 4


def test_the_bundle_knows_its_training(finalized, summary, info):
    run = finalized[0]
    assert set(info.training_tiles) == set(run.seen_tiles.ids) and info.test_tiles == ("ls_5", "nls_5")
    assert (info.folds, info.bands, info.dtype, info.stride) == (2, 3, "uint8", 32)
    assert info.config_hash == summary["config_hash"] == run.config.digest()
    assert set(info.metrics) == {"out_of_fold", "test_tiles", "test_windows"}
    assert info.model["name"] == "fcn_fl" and info.sampling["size"] == 32


def test_the_bundle_says_what_the_models_say(place, info):
    bundle = load_bundle(place / "exported_models" / "tiny")
    image = np.random.default_rng(0).integers(0, 255, (1, 9, 7, 3)).astype(np.float32)
    calibration = Calibration(info.temperature, info.bias)
    logits = [image.astype(np.float64).mean(-1) / 20 - 7.5 + offset for offset in (0.0, 0.4)]
    expected = np.mean([1 / (1 + np.exp(-calibration.logit(logit))) for logit in logits], axis=0)
    np.testing.assert_allclose(bundle.predict(image), expected, atol=1e-5)
    assert bundle.baseline() is not None


def test_tables_and_curves(finalized, summary):
    run, result = finalized
    text = printed(result)
    assert (run.folder / "curves.png").stat().st_size > 1000
    threshold = f"threshold {summary['threshold']:.3f}"
    for piece in ("out-of-fold tiles", "fold 1", "mean of the folds", "pooled", "ensemble", threshold, "blind F1"):
        assert piece in text
    assert (result.run, result.bundle) == (run.folder, Path("exported_models/tiny"))


def test_the_report_on_runs_reads_what_was_recorded(finalized):
    from lim_keras.comparison.comparison import RunComparison

    (run,) = RunComparison.read([finalized[0].folder]).runs
    assert run.state == "finished" and set(run.scores.evaluations) == {"out_of_fold", "tiles", "windows"}
    assert {"lim_keras", "tensorflow", "keras"} <= set(run.scores.versions)
    assert run.scores.out_of_fold.precision_recall[0].recall == 1


def test_the_summary_is_strict_json(finalized):
    def refuse(constant):
        raise AssertionError(constant)

    json.loads((finalized[0].folder / "cv.json").read_text(), parse_constant=refuse)


def test_one_model_without_test_tiles(tmp_path, tiles, config, brightness):
    held_out = {"ls_0": 0, "ls_1": 0, "nls_0": 0}
    begun = finish(Run.open(tmp_path / "one", config(), tiles, held_out), brightness)
    text = printed(finalize(begun, tmp_path / "bundle"))
    summary = json.loads((begun.folder / "fit.json").read_text())
    assert summary["test"] == summary["test_folds"] == {}
    assert sorted(place["name"] for place in summary["pooled_out_of_fold"]["samples"]) == ["ls_0", "ls_1", "nls_0"]
    info = BundleInfo.read(tmp_path / "bundle")
    assert set(info.training_tiles) == set(tiles.ids) - set(held_out) and info.test_tiles == ()
    assert "validation tiles" in text and "pooled" not in text and "ensemble" not in text


def test_a_second_call_keeps_the_bundle_and_what_was_added_to_it(tmp_path, tiles, config, brightness):
    begun = finish(Run.open(tmp_path / "one", config(), tiles, {"ls_0": 0, "ls_1": 0, "nls_0": 0}), brightness)
    bundle = finalize(begun, tmp_path / "bundle").bundle
    (bundle / "fold.tflite").write_bytes(b"as export writes it")
    info = BundleInfo.read(bundle)
    listed = info.files | {"fold.tflite": FileRecord.of(bundle / "fold.tflite")}
    rule = fitted_rule(balanced=(0.6, 0.8, 150))  # fitted later, to other tiles
    info.model_copy(update={"files": listed, "object_rule": rule}).write(bundle)
    before = {path: path.stat().st_ino for path in bundle.rglob("*")}
    finalize(begun, bundle)
    assert {path: path.stat().st_ino for path in bundle.rglob("*")} == before
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lim_keras.export.bundle.__version__", "9.9")
        finalize(begun, bundle)
    assert not (bundle / "fold.tflite").exists()


def test_a_network_without_familiarity_is_exported(tmp_path, run, brightness, monkeypatch):
    def fails(*_):
        raise BundleError("The features of the network cannot be converted to LiteRT.")

    monkeypatch.setattr("lim_keras.training.finalize.familiarity_of", fails)
    begun = finish(run(), brightness)
    with pytest.warns(LimKerasWarning, match="bundle: has no familiarity. The features of the network cannot"):
        finalize(begun, tmp_path / "bundle")
    assert BundleInfo.read(tmp_path / "bundle").familiarity is None


def test_histories_are_read_by_column(run):
    begun = run()
    begun.fold_folder(0).mkdir()
    (begun.fold_folder(0) / "history.csv").write_text(HISTORY)
    assert read_history(begun, 0)["val_f1"] == [0.3, 0.35]


def test_the_share_of_landslides_is_that_of_all_tiles_but_the_test_tiles(tmp_path, tiles, config):
    windows = Run.open(tmp_path / "windows", config(), tiles, {"nls_0": 0, "ls_0": TEST})
    seen = [tile for tile in tiles if tile.tile_id != "ls_0"]
    by_hand = sum(tile.landslide_px for tile in seen) / sum(tile.valid_px for tile in seen)
    assert windows.landslide_share == pytest.approx(by_hand)
    larger = [replace(tile, gsd_m=2.0) if tile.kind == "landslide" else replace(tile, gsd_m=1.0) for tile in seen]
    scaled = replace(windows, tiles=TileSet(tiles.root, tuple(larger), tiles.bands, tiles.dtype), folds={"nls_0": 0})
    assert scaled.landslide_share > windows.landslide_share


def test_held_out_tiles_without_landslides(tmp_path, tiles, config, brightness):
    begun = finish(Run.open(tmp_path / "one", config(), tiles, {"nls_0": 0, "nls_1": 0}), brightness)
    with pytest.raises(DataError, match="hold no landslide pixel"):
        finalize(begun, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_tiles_that_changed_while_the_run_trained(tmp_path, run, brightness):
    begun = finish(run(), brightness)
    record = begun.folder / "run.json"
    values = json.loads(record.read_text())
    values["tiles"]["ls_0"]["mask"] = "0" * 64  # as if the mask had been another when the run began
    record.write_text(json.dumps(values))
    with pytest.raises(TrainingError, match=r"Changed since it began: .*mask/ls_0\.png\. Give another folder"):
        finalize(begun, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists() and not (begun.folder / "cv.json").exists()
