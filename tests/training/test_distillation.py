"""Distillation: which fold predicts a tile, predictions that move with the pixels, refused leaks."""

import dataclasses

import numpy as np
import pytest

from lim_keras.bundle.info import BandStatistics, ModelFacts
from lim_keras.config import RunConfig
from lim_keras.data.negatives import read_negatives
from lim_keras.data.sampling import NegativePool, WindowSampler
from lim_keras.data.tiles import read_tile
from lim_keras.errors import BundleError, ConfigError, LeakError
from lim_keras.export.bundle import write_bundle
from lim_keras.training.distillation import (
    Distillation,
    DistillationSampler,
    DistillationStore,
    MaskScores,
    NegativeStore,
    prepare_distillation,
)
from lim_keras.training.fit import build_sampler
from lim_keras.training.run import Run

OFFSETS = {0: 0.0, 1: -1.0}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory, brightness, tiles):
    """teacher(**changes): a bundle of two folds, even and odd tiles held out; fold 1 is less often sure. Read only."""
    written = {}

    def make(**changes):
        key = repr(changes)
        if key not in written:
            written[key] = write(tmp_path_factory.mktemp("exported_models") / "teacher", changes)
        return written[key]

    def write(path, changes):
        known = [name for name in tiles.ids if not name.endswith("5")]
        facts = {
            "name": "teacher",
            "model": {"name": "fcn"},
            "sampling": {"size": 32},
            "bands": 3,
            "dtype": "uint8",
            "gsd_m": None,
            "stride": 1,
            "statistics": (BandStatistics(mean=100.0, std=50.0, min=0.0, max=255.0),) * 3,
            "threshold": 0.5,
            "temperature": 1.0,
            "metrics": {},
            "config_hash": "0" * 64,
            "training_tiles": tuple(known),
            "test_tiles": ("ls_5", "nls_5"),
            "held_out": {name: int(name[-1]) % 2 for name in known},
        } | changes
        write_bundle(path, ModelFacts(**facts), [brightness(offset) for offset in OFFSETS.values()])
        return path

    return make


@pytest.fixture
def student(tmp_path, tiles, config):
    """student(**changes): a run of one model that validates on ls_4 and nls_4 and leaves the fives for testing."""

    def begin(**changes):
        folds = {"ls_4": 0, "nls_4": 0, "ls_5": -1, "nls_5": -1}
        return Run.open(tmp_path / "student", config(**changes), tiles, folds)

    return begin


def sure(image, offset):
    return 255 / (1 + np.exp(-(image.astype(np.float64).mean(-1) / 20 - 7.5 + offset)))


def test_each_tile_is_answered_by_the_fold_that_has_not_seen_it(teacher, student):
    run = student()
    distillation = prepare_distillation(run, teacher())
    assert distillation == Distillation(run.folder / "teacher", 0.5)
    assert {path.stem for path in distillation.folder.glob("*.npy")} == set(run.training_tiles(0).ids)
    for name in run.training_tiles(0).ids:
        image, mask = read_tile(run.tiles[name])
        got = np.load(distillation.folder / f"{name}.npy")
        assert got.shape == mask.shape and got.dtype == np.uint8
        np.testing.assert_allclose(got, sure(image, OFFSETS[int(name[-1]) % 2]), atol=0.51)


def test_tiles_that_no_fold_was_fitted_to_are_answered_by_all(teacher, student):
    run = student()
    bundle = teacher(training_tiles=("ls_0",), held_out={"ls_0": 0})
    distillation = prepare_distillation(run, bundle)
    image, _ = read_tile(run.tiles["ls_3"])
    expected = np.mean([sure(image, offset) for offset in OFFSETS.values()], axis=0)
    np.testing.assert_allclose(np.load(distillation.folder / "ls_3.npy"), expected, atol=0.51)


def test_over_symmetries_a_model_of_single_pixels_says_the_same(teacher, student):
    run = student(distillation={"tta": True})
    distillation = prepare_distillation(run, teacher())
    image, _ = read_tile(run.tiles["ls_1"])
    np.testing.assert_allclose(np.load(distillation.folder / "ls_1.npy"), sure(image, OFFSETS[1]), atol=0.51)


def test_answers_that_are_there_are_kept(teacher, student):
    run, bundle = student(), teacher()
    folder = prepare_distillation(run, bundle).folder
    np.save(folder / "ls_0.npy", np.uint8([[7]]))
    assert np.load(prepare_distillation(run, bundle).folder / "ls_0.npy").tolist() == [[7]]


def test_a_teacher_that_has_seen_the_test_tiles_is_refused(teacher, student, tiles):
    bundle = teacher(training_tiles=tiles.ids, held_out=dict.fromkeys(tiles.ids, 0), test_tiles=())
    with pytest.raises(LeakError, match=r"trained on 2 test tiles, such as ls_5, nls_5; .*the same `test_ids`"):
        prepare_distillation(student(), bundle)


def test_a_teacher_that_only_repeats_masks_is_refused(teacher, student):
    with pytest.raises(BundleError, match=r"the bundle of a cross-validation.*Received: 2 fold\(s\), 8 tiles"):
        prepare_distillation(student(), teacher(held_out={}))


def test_a_teacher_of_other_images_is_refused(teacher, student):
    with pytest.raises(BundleError, match=r"3 bands of uint8\. Received: 3 bands of uint16"):
        prepare_distillation(student(), teacher(dtype="uint16"))


@pytest.mark.parametrize("changes", [{"sampling.mode": "resized"}, {"augmentation": "paper"}])
def test_only_windows_can_be_taught(teacher, student, changes):
    with pytest.raises(ConfigError, match="Distillation needs windows"):
        prepare_distillation(student(**changes), teacher())


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_answers_go_where_the_pixels_go(tmp_path, tiles, monkeypatch, dtype):
    """The answer of every pixel is its mask here, so in every window both planes must agree."""
    landslides = tiles.of_kind("landslide")
    masks = {tile.tile_id: read_tile(tile)[1] for tile in landslides}
    for name, mask in masks.items():
        np.save(tmp_path / f"{name}.npy", (mask * 255).astype(np.uint8))

    def typed(tile):
        image, mask = read_tile(tile)
        return (image / 255).astype(dtype) if dtype == "float32" else image.astype(dtype), mask

    monkeypatch.setattr("lim_keras.data.tiles.read_tile", typed)
    store = DistillationStore(landslides, Distillation(tmp_path, 0.5))
    sampler = DistillationSampler(WindowSampler(store, 32, 8, 1))
    assert len(sampler) == 8 and sampler.size == 32
    for position in range(8):
        image, labels = sampler.example(0, position)
        assert image.shape == (32, 32, 3) and image.dtype == dtype
        assert labels.shape == (32, 32, 2) and labels.dtype == np.uint8
        np.testing.assert_array_equal(labels[..., 0] * 255, labels[..., 1])
    assert any((sampler.example(0, position)[1] > 0).any() for position in range(8))


def test_turned_and_recoloured_windows_keep_the_answers(tmp_path, tiles, student):
    landslides = tiles.of_kind("landslide")
    for tile in landslides:
        np.save(tmp_path / f"{tile.tile_id}.npy", (read_tile(tile)[1] * 255).astype(np.uint8))
    run = student(augmentation="dihedral", **{"sampling.scale_jitter": [1.0, 1.0], "sampling.landslide_share": 1.0})
    sampler, _ = build_sampler(run.config, DistillationStore(landslides, Distillation(tmp_path, 0.5)), run.statistics)
    for position in range(4):
        _, labels = DistillationSampler(sampler).example(0, position)
        np.testing.assert_array_equal(labels[..., 0] * 255, labels[..., 1])


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_negative_pixels_have_the_target_zero_beside_taught_ones(tmp_path, tiles, monkeypatch, write_picture, dtype):
    """The teacher is sure of a landslide everywhere. Negative pixels are 255, a value that no pixel of a tile has."""
    for tile in tiles:
        np.save(tmp_path / f"{tile.tile_id}.npy", np.full((tile.height, tile.width), 255, np.uint8))
    write_picture(tmp_path / "n" / "bare.png", np.full((30, 26, 3), 255, np.uint8))
    negatives = read_negatives(tmp_path / "n")

    def typed(tile):
        image, mask = read_tile(tile)
        return (image / 255).astype(dtype) if dtype == "float32" else image.astype(dtype), mask

    monkeypatch.setattr("lim_keras.data.tiles.read_tile", typed)
    pool = NegativePool(NegativeStore(negatives), 0.5)
    sampler = DistillationSampler(
        WindowSampler(DistillationStore(tiles, Distillation(tmp_path, 0.5)), 32, 8, 1, negatives=pool)
    )
    shares = []
    for position in range(8):
        image, labels = sampler.example(0, position)
        assert image.shape == (32, 32, 3) and image.dtype == dtype
        bare = (image == (1 if dtype == "float32" else 255)).all(axis=-1)
        np.testing.assert_array_equal(labels[..., 1], np.where(bare, 0, 255))
        assert not labels[bare, 0].any()
        shares.append(bare.mean())
    assert any(0 < share < 1 for share in shares)


def test_answers_are_resampled_with_the_tile(tmp_path, tiles):
    tile = dataclasses.replace(tiles["ls_0"], gsd_m=1.0)
    np.save(tmp_path / "ls_0.npy", np.full((10, 12), 51, np.uint8))
    store = DistillationStore(dataclasses.replace(tiles, tiles=(tile,)), Distillation(tmp_path, 0.5), 2.0)
    image, mask = store.get(0)
    assert image.shape == (10, 12, 4) and mask.shape == (10, 12)
    assert (image[..., 3] == 51).all()


def test_scores_are_those_of_the_mask():
    labels = np.stack([np.array([[[1, 0, 255]]]), np.array([[[0, 255, 0]]])], axis=-1)
    scores = MaskScores()
    scores.update_state(labels, np.float32([[[[5], [-5], [5]]]]))
    assert float(scores.result()["f1"]) == 1.0


def test_the_defaults_of_the_configuration():
    config = RunConfig(name="x")
    assert (config.distillation.teacher_weight, config.distillation.tta) == (0.5, False)
    assert not config.export.half_size and config.data_terms == ""
