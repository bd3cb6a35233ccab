"""The configurations that the project ships: they load, and they are what their names and comments say."""

from pathlib import Path

import pytest

from lim_keras.config import RunConfig
from lim_keras.config_file import load_config

CONFIGS = Path(__file__).parents[1] / "configs"
NAMES = (
    "demo",
    "bijie_paper",
    "bijie_fcn_fl",
    "bijie_edge",
    "bijie_student",
    "bijie_fcn",
    "bijie_unet",
    "bijie_segnet",
    "l4s",
)


def load(name: str) -> RunConfig:
    return load_config(CONFIGS / f"{name}.yaml")


def test_every_file_is_listed_here():
    assert sorted(path.stem for path in CONFIGS.iterdir()) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_loads_under_its_own_name_and_says_what_it_is(name):
    assert load(name).name == name
    assert (CONFIGS / f"{name}.yaml").read_text().startswith("# ")


def test_paper_is_the_paper_to_the_letter():
    config = load("bijie_paper")
    assert (config.model.name, config.model.encoder, config.model.encoder_weights) == ("fcn_fl", "vgg16", "imagenet")
    assert (config.loss.landslide_weight, config.loss.background_weight, config.loss.gamma) == (0.75, 0.25, 1.75)
    assert config.loss.dice_weight == 0
    assert (config.sampling.mode, config.sampling.size) == ("resized", 256)
    assert config.augmentation == "paper"
    assert config.folds == 5


@pytest.mark.parametrize(("name", "width"), [("fcn", 96), ("unet", 32), ("segnet", 32)])
def test_baselines_differ_from_fcn_fl_in_the_decoder_only(name, width):
    """The width of U-Net and SegNet is that of the finest stage; the width of FCN and FCN-FL is that of all stages."""
    baseline, ours = load(f"bijie_{name}"), load("bijie_fcn_fl")
    assert (baseline.model.name, baseline.model.decoder_channels) == (name, width)
    decoder = {"name": "fcn_fl", "decoder_channels": ours.model.decoder_channels}
    renamed = {"name": ours.name, "model": baseline.model.model_copy(update=decoder)}
    assert baseline.model_copy(update=renamed) == ours


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("bijie")])
def test_bijie_runs_know_the_ground_sample_distance_that_the_files_do_not_say(name):
    assert load(name).gsd_m == 0.8


def test_edge_learns_on_windows_with_mobilenetv2():
    config = load("bijie_edge")
    assert (config.model.encoder, config.sampling.mode, config.folds) == ("mobilenetv2", "windows", 5)


def test_l4s_learns_at_ten_metres_on_full_resolution():
    config = load("l4s")
    assert (config.model.name, config.model.encoder, config.model.input_reduction) == ("fcn_fl", "mobilenetv2", 1)
    assert (config.gsd_m, config.sampling.mode, config.sampling.size) == (10, "windows", 128)
    assert config.sampling.landslide_share == 1, "nearly all of its tiles show landslides"


def test_demo_needs_no_download_and_ships_with_the_package():
    config = load("demo")
    assert (config.model.encoder, config.model.encoder_weights, config.folds) == ("small", "none", 5)
    assert (CONFIGS / "demo.yaml").resolve().parent.name == "demo"
