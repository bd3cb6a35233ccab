"""A bundle with a network that finds what is bright, through the real command."""

import json
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
import rasterio
from click.testing import CliRunner, Result

from lim_keras.bundle.info import ModelFacts
from lim_keras.cli import main
from lim_keras.data.tiles import TileSet
from lim_keras.errors import BundleError, ConfigError
from lim_keras.evaluation.bundle_report import evaluate_bundle
from lim_keras.export.bundle import write_bundle
from tests.conftest import model_facts

WriteScene = Callable[[float], tuple[Path, Path]]


def facts(**changes: object) -> ModelFacts:
    tiles = {"training_tiles": ("t0", "t1", "t4"), "test_tiles": ("t2", "t5")}
    return model_facts(**{"name": "bright", "sampling": {"mode": "windows", "size": 32}} | tiles | changes)


def bright(bands: int = 3) -> keras.Model:
    """Logit (mean of the bands - 105) / 10."""
    image = keras.Input((None, None, bands))
    kernel, bias = (keras.initializers.Constant(value) for value in (0.1 / bands, -10.5))
    return keras.Model(image, keras.layers.Conv2D(1, 1, kernel_initializer=kernel, bias_initializer=bias)(image))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported_models") / "bright"
    write_bundle(path, facts(), [bright()])
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["evaluate", *map(str, arguments)])


def figures_of_detections(stored: Path) -> list[int]:
    scores = json.loads(stored.read_text())["detections"]["iou_50"]["all"]
    return [scores[name] for name in ("truth", "found", "predicted", "right")]


def test_a_scene_alone(bundle: Path, scene: WriteScene) -> None:
    image, labels = scene(0.8)
    done = run(bundle, "--scene", image, "--truth", labels, "--bootstrap", 5)
    assert done.exit_code == 0, done.output
    assert "Landslides as polygons" in done.output and "tiles" not in done.output


def test_negatives_are_read_before_anything_is_evaluated(
    bundle: Path,
    scene: WriteScene,
    tmp_path: Path,
    write_picture: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_picture(tmp_path / "fields" / "field_1.png", np.full((40, 50, 3), 20, np.uint8))
    done = run(bundle, "--negatives", tmp_path / "fields")
    assert done.exit_code == 0, done.output
    assert "false alarms on images without landslides" in " ".join(done.output.split())

    def too_early(*_: object) -> None:
        raise AssertionError

    image, labels = scene(0.8)
    write_picture(tmp_path / "fields" / "field_2.png", np.full((40, 50), 20, np.uint8))
    monkeypatch.setattr("lim_keras.evaluation.bundle_report.bundle_evaluator", too_early)
    refused = run(bundle, "--scene", image, "--truth", labels, "--negatives", tmp_path / "fields")
    assert refused.exit_code == 1 and "field_2.png: 1 band(s) of uint8" in refused.stderr


def test_a_scene_is_read_as_predict_reads_it(bundle: Path, scene: WriteScene, tmp_path: Path) -> None:
    image, labels = scene(0.8)
    with rasterio.open(image) as file:
        pixels, profile = file.read(), file.profile
    # Reflectance that grows as the picture does, behind a band that says the opposite.
    reflectance = np.concatenate([2550 - 10 * pixels[:1].astype(np.uint16), 10 * pixels.astype(np.uint16)])
    with rasterio.open(tmp_path / "many.tif", "w", **profile | {"count": 4, "dtype": "uint16"}) as file:
        file.write(reflectance)
    arguments = [bundle, "--scene", tmp_path / "many.tif", "--truth", labels, "--bootstrap", 5]
    refused = run(*arguments)
    assert refused.exit_code == 1 and "--bands 1,2,3" in refused.stderr
    refused = run(*arguments, "--bands", "2,3,4")
    assert refused.exit_code == 1 and "--scale" in refused.stderr
    stored = tmp_path / "figures.json"
    reading = ["--bands", "2,3,4", "--scale", "0,2550", "--tile", 64, "--memory", "2G", "--gsd", 0.8]
    done = run(*arguments, *reading, "--json", stored)
    assert done.exit_code == 0, done.output
    assert figures_of_detections(stored) == [1, 1, 1, 1]


def test_how_a_scene_is_read_needs_a_scene(bundle: Path, tiles: TileSet) -> None:
    done = run(bundle, "--data", tiles.root, "--bands", "3,2,1", "--resample", "--tta")
    assert done.exit_code == 2
    assert "--bands, --resample: only with --scene" in done.stderr


def test_symmetries_hold_for_every_protocol(tiles: TileSet, scene: WriteScene, tmp_path: Path) -> None:
    # A network that looks to the left alone: only where both neighbours are bright is the mean over symmetries sure.
    image = keras.Input((None, None, 3))
    kernel = np.zeros((1, 3, 3, 1), np.float32)
    kernel[0, 0] = 0.1 / 3
    sided = keras.layers.Conv2D(1, (1, 3), padding="same", kernel_initializer=keras.initializers.Constant(kernel))
    write_bundle(tmp_path / "sided", facts(name="sided"), [keras.Model(image, sided(image))])
    picture, labels = scene(0.8)
    figures = {}
    for name, option in (("plain", []), ("tta", ["--tta"])):
        stored = tmp_path / f"{name}.json"
        arguments = ["--data", tiles.root, "--scene", picture, "--truth", labels, "--windows", 3, "--bootstrap", 3]
        done = run(tmp_path / "sided", *arguments, "--json", stored, *option)
        assert done.exit_code == 0, done.output
        figures[name] = json.loads(stored.read_text())["protocols"]
    for protocol in ("tiles", "windows", "scene"):
        plain, tta = (figures[name][protocol]["subsets"]["all"]["average_precision"] for name in ("plain", "tta"))
        assert plain != tta, protocol


def test_nothing_to_evaluate_on(bundle: Path) -> None:
    done = run(bundle)
    assert done.exit_code == 2 and "Give --data, --negatives, or --scene and --truth" in done.stderr


def test_three_protocols_printed_stored_and_drawn(
    bundle: Path, tiles: TileSet, scene: WriteScene, tmp_path: Path
) -> None:
    image, labels = scene(0.8)
    stored, pictures = tmp_path / "out" / "figures.json", tmp_path / "pictures"
    options = ["--windows", 6, "--bootstrap", 20, "--json", stored, "--figures", pictures]
    done = run(bundle, "--data", tiles.root, "--scene", image, "--labels", labels, *options)
    assert done.exit_code == 0, done.output
    assert figures_of_detections(stored) == [1, 1, 1, 1]
    for said in (
        "Landslides as polygons",
        "bright",
        "landslide tiles",
        "all windows",
        "scene",
        "F1",
        "1.000",
        "blind F1",
        str(stored),
    ):
        assert said in done.output
    figures = json.loads(stored.read_text())
    assert (figures["bundle"], figures["threshold"]) == ("bright", 0.5)
    assert list(figures["protocols"]) == ["tiles", "windows", "scene"]
    assert [sample["name"] for sample in figures["protocols"]["tiles"]["samples"]] == ["t2", "t5"]  # the test tiles
    assert figures["protocols"]["scene"]["subsets"]["all"]["model"]["f1"] == {"value": 1.0, "low": None, "high": None}
    assert figures["protocols"]["windows"]["bootstrap"]["draws"] == 20
    assert len(figures["protocols"]["windows"]["samples"]) == 6
    drawn = {path.name for path in pictures.iterdir()}
    assert {"scene_best.png", "tiles_best.png", "reliability.png"} <= drawn
    assert not any("worst" in name for name in drawn)  # nothing is wrong anywhere


def test_a_list_of_tiles_and_training_tiles_among_them(bundle: Path, tiles: TileSet, tmp_path: Path) -> None:
    wanted = tmp_path / "wanted.txt"
    wanted.write_text("t0\nt6\n")
    done = run(bundle, "--data", tiles.root, "--tiles", wanted, "--windows", 2)
    assert done.exit_code == 0, done.output
    assert "Warning: 1 of 2 tiles were used in training, such as t0: their scores are too high" in done.stderr


@pytest.mark.parametrize("option", ["--scene", "--truth"])
def test_scene_and_truth_belong_together(bundle: Path, tiles: TileSet, scene: WriteScene, option: str) -> None:
    done = run(bundle, "--data", tiles.root, option, scene(0.8)[0])
    assert done.exit_code == 2
    assert "--scene and --truth belong together" in done.stderr


def test_other_bands_are_refused(tiles: TileSet, tmp_path: Path) -> None:
    write_bundle(tmp_path / "four", facts(name="four", bands=4), [bright(4)])
    done = run(tmp_path / "four", "--data", tiles.root)
    assert done.exit_code == 1
    assert "expected tiles of 4 bands of uint8" in done.stderr and "Received: 3 bands" in done.stderr


def test_a_folder_that_is_no_bundle_is_named(tiles: TileSet) -> None:
    done = run(tiles.root, "--data", tiles.root)
    assert done.exit_code == 1
    assert "model.json" in done.stderr


def test_settings_of_another_make_are_named(bundle: Path, tiles: TileSet, tmp_path: Path) -> None:
    write_bundle(tmp_path / "odd", facts(name="odd", sampling={"mode": "spirals"}), [bright()])
    with pytest.raises(BundleError, match="`sampling`"):
        evaluate_bundle(tmp_path / "odd", tiles.root)
    with pytest.raises(ConfigError, match="both or neither"):
        evaluate_bundle(bundle, tiles.root, scene=tmp_path / "scene.tif")
