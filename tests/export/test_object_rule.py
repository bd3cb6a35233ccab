"""`lim-keras export --object-rule`: fitted to held-out tiles only, and written everywhere."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import pytest
from click.testing import CliRunner, Result

from lim_keras.bundle.info import BundleInfo
from lim_keras.bundle.litert import LiteRtIndex
from lim_keras.bundle.saved_model import verify_bundle
from lim_keras.cli import main
from lim_keras.data.layouts import read_tiles
from lim_keras.data.manifest import write_manifest
from lim_keras.export.bundle import write_bundle
from tests.export.conftest import facts

HELD_OUT, TRAINED, TEST = ("ls_0", "ls_1", "nls_0"), ("ls_2", "nls_1"), ("ls_3", "nls_2")


def bright(bias: float) -> keras.Model:
    """Logit (mean of the bands + bias) / 10."""
    image = keras.Input((None, None, 3))
    weights = [keras.initializers.Constant(value) for value in (0.1 / 3, bias / 10)]
    layer = keras.layers.Conv2D(1, 1, kernel_initializer=weights[0], bias_initializer=weights[1])
    return keras.Model(image, layer(image))


Bundle = Callable[..., tuple[Path, Path]]


@pytest.fixture
def bundle(tmp_path: Path, bijie_folder: Callable[..., Path]) -> Bundle:
    """bundle(folds=1, **facts): a bundle without a rule, and the tiles of its training."""
    tiles = bijie_folder(tmp_path / "tiles", 4, 3)

    def make(folds: int = 1, **changes: Any) -> tuple[Path, Path]:
        known = {"training_tiles": TRAINED, "test_tiles": TEST, "held_out": dict.fromkeys(HELD_OUT, 0)} | changes
        write_bundle(tmp_path / "net", facts(gsd_m=0.8, **known), [bright(-150 - 5 * fold) for fold in range(folds)])
        return tmp_path / "net", tiles

    return make


def fit(path: Path, tiles: Path, *names: str) -> Result:
    ids = path.parent / "ids.txt"
    ids.write_text("\n".join(names) + "\n")
    return CliRunner().invoke(main, ["export", str(path), "--object-rule", str(ids), "--data", str(tiles)])


def test_the_rule_is_written_everywhere(bundle: Bundle) -> None:
    path, tiles = bundle()
    assert CliRunner().invoke(main, ["export", str(path), "--tflite", "float32"]).exit_code == 0
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    done = fit(path, tiles, *HELD_OUT)
    assert done.exit_code == 0, done.output
    assert "balanced" in done.output and "all regions" in done.output and "3 held-out tiles" in done.output
    changed = {file.name for file, content in before.items() if file.read_bytes() != content}
    assert changed == {"model.json", "README.md", "tflite.json"}
    assert {file for file in path.rglob("*") if file.is_file()} == set(before) and verify_bundle(path) == []
    rule = BundleInfo.read(path).object_rule
    assert rule is not None and (rule.source, rule.tiles) == ("held_out", 3) and rule.landslides >= 2
    assert LiteRtIndex.read(path / "tflite").model.object_rule == rule
    card = (path / "README.md").read_text()
    assert "## Working points" in card and f"| balanced | {rule.working_points['balanced'].threshold:.3g} |" in card
    shown = CliRunner().invoke(main, ["info", str(path)]).output
    assert "Object rule" in shown and "sensitive" in shown
    again = fit(path, tiles, *HELD_OUT)  # the same tiles give the same rule
    assert again.exit_code == 0 and BundleInfo.read(path).object_rule == rule


def test_tiles_of_an_ensemble_are_predicted_by_the_fold_that_was_not_trained_on_them(bundle: Bundle) -> None:
    ids = ("ls_0", "ls_1", "nls_0", "nls_1")
    path, tiles = bundle(folds=2, training_tiles=ids, held_out={name: k % 2 for k, name in enumerate(ids)})
    assert fit(path, tiles, *ids).exit_code == 0
    rule = BundleInfo.read(path).object_rule
    assert rule is not None and (rule.source, rule.tiles) == ("out_of_fold", 4)
    refused = fit(path, tiles, "ls_0", "ls_3")
    assert refused.exit_code == 1 and "1 test tiles" in refused.output


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("ls_0", "ls_2"), "1 tiles that the model was trained on, such as ls_2. Leave them out"),
        (("ls_0", "ls_3", "nls_2"), "2 test tiles, which choose nothing, such as ls_3"),
        (("ls_0", "ls_9"), "ls_9"),
        (("nls_0",), "expected landslides in the tiles of an object rule. Received: 1 tiles, which hold no landslide"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*tiles were used in training")
def test_other_tiles_are_refused(bundle: Bundle, names: tuple[str, ...], said: str) -> None:
    path, tiles = bundle()
    before = (path / "model.json").read_bytes()
    done = fit(path, tiles, *names)
    assert done.exit_code == 1 and said in " ".join(done.output.split()), done.output
    assert (path / "model.json").read_bytes() == before


def grouped(tiles: Path, *valley: str) -> Path:
    """A tiles.csv in which the given tiles have a group in common."""
    table = tiles.parent / "tiles.csv"
    write_manifest(read_tiles(tiles), table)
    rows = [line.split(",") for line in table.read_text().splitlines()]
    for row in rows[1:]:
        row[rows[0].index("group")] = "valley" if row[0] in valley else ""
    table.write_text("\n".join(",".join(row) for row in rows) + "\n")
    return table


@pytest.mark.parametrize(("folds", "refused"), [({"ls_0": 0, "ls_1": 0}, False), ({"ls_0": 0, "ls_1": 1}, True)])
def test_folds_predict_no_ground_that_they_were_trained_on(
    bundle: Bundle, folds: dict[str, int], refused: bool
) -> None:
    trained = ("ls_0", "ls_1", "nls_0", "nls_1")
    held_out = folds | {"nls_0": 0, "nls_1": 1}
    path, tiles = bundle(folds=2, training_tiles=trained, held_out=held_out, test_tiles=())
    done = fit(path, grouped(tiles, "ls_0", "ls_1"), *trained)
    assert (done.exit_code == 1) == refused, done.output
    # A tile that no fold knows is predicted by all folds, one of which was trained on its ground.
    done = fit(path, grouped(tiles, "ls_1", "ls_2"), "ls_2")
    assert done.exit_code == 1 and "1 tiles on the ground of training or test tiles, such as ls_2" in done.output


def test_tiles_on_the_ground_of_training_tiles_are_refused(bundle: Bundle) -> None:
    path, tiles = bundle()
    table = grouped(tiles, "ls_1", "ls_2")
    done = fit(path, table, *HELD_OUT)
    assert done.exit_code == 1 and "1 tiles on the ground of training or test tiles, such as ls_1" in done.output


def test_an_edited_card_and_resized_tiles(bundle: Bundle) -> None:
    path, tiles = bundle()
    (path / "README.md").write_text("mine")
    done = fit(path, tiles, *HELD_OUT)
    assert done.exit_code == 1 and "README.md" in done.output and (path / "README.md").read_text() == "mine"
    done = CliRunner().invoke(main, ["export", str(path), "--object-rule", str(path / "model.json")])
    assert done.exit_code == 2 and "--object-rule needs the tiles that it names. Give --data" in done.output
    (path / "README.md").unlink()
    path, tiles = bundle(sampling={"mode": "resized", "size": 224})
    done = fit(path, tiles, *HELD_OUT)
    assert done.exit_code == 1 and "was trained on resized tiles" in done.output
