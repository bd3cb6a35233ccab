"""LiteRT files of a bundle: they say what the SavedModel says, or are refused."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from lim_keras.cli import main
from lim_keras.errors import BundleError, DataError, LimKerasWarning
from lim_keras.evaluation.confusion import Confusion
from lim_keras.export.bundle import load_bundle, write_bundle
from lim_keras.export.bundle_info import BundleInfo
from lim_keras.export.tflite import Asked, LiteRtExport, export_litert
from lim_keras.export.tflite_check import Tally
from lim_keras.inference.litert import LiteRtIndex, load_litert

from .conftest import FOLDS, THRESHOLD, constant, facts

TILE = 128


@pytest.fixture(scope="module")
def tiles(bijie_folder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bijie_folder(tmp_path_factory.mktemp("tiles"), 3, 3)


@pytest.fixture(scope="module")
def made(bundle_path: Path, tiles: Path, tmp_path_factory: pytest.TempPathFactory) -> LiteRtExport:
    out = tmp_path_factory.mktemp("tflite")
    asked = Asked(("float32", "int8"), tile=TILE, data=tiles, test_ids=("ls_0", "nls_0"), allow_drop=True, out=out)
    with pytest.warns(LimKerasWarning, match=r"128 px keep a halo of 0 px, .* 127 px far.* --tile 384"):
        return export_litert(bundle_path, asked)


def test_the_table(made: LiteRtExport) -> None:
    exact, eight = made.files.values()
    assert exact.measured.max_difference <= 1e-5 and exact.measured.within is True
    assert exact.measured.landslide_iou == pytest.approx(made.reference["iou_landslide"])
    assert 1e-5 < eight.measured.max_difference < 0.1 and eight.measured.windows == 2
    assert eight.record.bytes < exact.record.bytes / 2
    assert [eight.source, eight.folds, eight.tile, eight.halo, eight.input] == ["ensemble", FOLDS, TILE, 0, "uint8"]


def test_files_lie_beside_their_description(made: LiteRtExport) -> None:
    assert {path.name for path in made.folder.iterdir()} == {*made.files, "tflite.json"}
    assert LiteRtIndex.read(made.folder).files == made.files


@pytest.mark.parametrize(("variant", "within"), [("float32", 1e-5), ("int8", 0.1)])
def test_an_ensemble_is_one_file(made: LiteRtExport, bundle_path: Path, variant: str, within: float) -> None:
    image = np.random.default_rng(0).integers(0, 256, (1, TILE, TILE, 3), np.uint8)
    with pytest.warns(LimKerasWarning, match="approximate"):
        said = load_litert(made.folder / f"ensemble_{variant}.tflite").predict_all(image)
    expected = load_bundle(bundle_path).predict_all(image)
    assert np.abs(said.probability - expected.probability).max() < within
    assert np.abs(said.spread - expected.spread).max() < within
    near = np.abs(expected.probability - THRESHOLD) + expected.spread
    assert variant == "int8" or ((said.votes == expected.votes) | (near < 1e-3)).mean() > 0.999


def test_a_changed_file_is_found(made: LiteRtExport, tmp_path: Path) -> None:
    for path in made.folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    content = bytearray((tmp_path / "ensemble_int8.tflite").read_bytes())
    content[-100] ^= 1
    (tmp_path / "ensemble_int8.tflite").write_bytes(content)
    with pytest.raises(BundleError, match="not the file that was exported"):
        load_litert(tmp_path / "ensemble_int8.tflite")
    (tmp_path / "other.tflite").write_bytes(content)
    with pytest.raises(BundleError, match="not one of the files"):
        load_litert(tmp_path / "other.tflite")


def test_beyond_its_limit_a_file_is_refused(bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lim_keras.export.tflite_check.MAX_DIFFERENCE", {"float32": 0.0})
    result = export_litert(bundle_path, Asked(("float32",), tile=384, fold=1, out=tmp_path))
    assert result.refused == ("fold_1_float32.tflite",) and not list(tmp_path.iterdir())


def test_eight_bits_need_tiles(bundle_path: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"int8 is calibrated on real training tiles.*--data"):
        export_litert(bundle_path, Asked(("int8",), tile=384, out=tmp_path))
    assert not list(tmp_path.iterdir())


def test_limits_of_iou() -> None:
    # IoU of the SavedModel 8 / 10; of the file 7.8 / 10 and 7.95 / 10
    reference = Tally(Confusion(800, 100, 100, 0), windows=1)
    files = [Tally(Confusion(tp, 100, 900 - tp, 0), windows=1, pixels=1) for tp in (780, 795)]
    assert [one.judged("int8", reference).within for one in files] == [False, True]
    assert Tally(windows=1, pixels=1).judged("dynamic", Tally()).within is None


def test_the_description_is_plain_json(made: LiteRtExport) -> None:
    content = json.loads((made.folder / "tflite.json").read_text())
    assert content["model"]["threshold"] == THRESHOLD and set(content["reference"]) == {"ensemble"}


def test_the_bundle_keeps_the_table(tiles: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "one"
    write_bundle(bundle, facts(name="one"), [constant(0.0)])
    export_litert(bundle, Asked(("float32",), tile=128))
    # random pixels have no labels
    first = BundleInfo.read(bundle).litert["tflite/fold_0_float32.tflite"]
    assert first.saved_model_iou is None and first.landslide_f1 is None and first.windows == 4
    export_litert(bundle, Asked(("dynamic",), tile=64, data=tiles, test_ids=("ls_0", "nls_0")))
    known = BundleInfo.read(bundle).litert
    assert known.pop("tflite/fold_0_float32.tflite") == first  # its windows were others
    ((name, second),) = known.items()
    assert name == "tflite/fold_0_dynamic.tflite" and second.bytes == (bundle / name).stat().st_size
    # 1/2 reaches the threshold: all of 20 x 24 + 22 x 30 px; rows 5..9 of columns 6..11 are landslide
    assert second.landslide_iou == second.saved_model_iou == pytest.approx(30 / 1140)
    assert second.landslide_f1 == second.saved_model_f1 == pytest.approx(60 / 1170)
    assert (second.tile, second.windows, second.limit, second.within) == (64, 2, "IoU loss <= 0.01", True)
    assert second.max_difference <= 1e-6 and second.milliseconds_per_tile > 0
    row = f"| {name} | {second.bytes / 1e6:.2f} MB | 64 px | {second.milliseconds_per_tile:.1f} | 0.0513 | 0.0263 | "
    assert row in (bundle / "README.md").read_text()
    said = CliRunner().invoke(main, ["info", str(bundle)])
    assert said.exit_code == 0 and "LiteRT files, beside the SavedModel" in said.output and "0.0513" in said.output
    assert LiteRtIndex.read(bundle / "tflite").model.litert == {}
