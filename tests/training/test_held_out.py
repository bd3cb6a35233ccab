"""Out-of-fold probabilities: every held-out tile once, at the size that it is judged in, kept whole or not at all."""

import numpy as np
import pytest

from lim_keras.data.tile import read_tile
from lim_keras.metrics.calibration import Calibration
from lim_keras.training.cross_validation import predict_out_of_fold, read_out_of_fold


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
    kept = {prediction.place.name: prediction for prediction in read_out_of_fold(run, 1)}
    assert set(kept) == {"ls_1", "ls_3", "nls_1", "nls_3"}
    for name, prediction in kept.items():
        image, mask = read_tile(run.tiles[name])
        np.testing.assert_array_equal(prediction.place.mask, mask)
        assert prediction.place.kind == run.tiles[name].kind
        # float16 keeps a logit to 1 part in 2048
        expected = 1 / (1 + np.exp(1.0 - logits(image)))
        np.testing.assert_allclose(prediction.probability, expected, atol=2e-3)
        assert prediction.probability.dtype == np.float32


def test_models_of_resized_tiles_predict_resized_tiles(finished):
    run = finished(**{"sampling.mode": "resized", "augmentation": "none"})
    predict_out_of_fold(run, 0)
    for prediction in read_out_of_fold(run, 0):
        assert prediction.probability.shape == prediction.place.mask.shape == (32, 32)


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


def test_what_a_killed_process_left_is_cleared(finished):
    run = finished()
    partial = run.fold_folder(0) / "out_of_fold.partial"
    partial.mkdir()
    (partial / "stranger.npz").write_bytes(b"?")
    predict_out_of_fold(run, 0)
    assert not partial.exists()
    names = sorted(path.name for path in (run.fold_folder(0) / "out_of_fold").iterdir())
    assert names == ["ls_0.npz", "ls_2.npz", "ls_4.npz", "nls_0.npz", "nls_2.npz", "nls_4.npz"]
