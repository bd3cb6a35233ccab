"""LiteRT files of a bundle: they say what the SavedModel says, or are refused."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner

from lim_keras.bundle.info import BundleInfo
from lim_keras.bundle.litert import LiteRtIndex, load_litert
from lim_keras.bundle.saved_model import load_bundle, verify_bundle
from lim_keras.cli import main
from lim_keras.errors import BundleError, ConfigError, DataError, LimKerasWarning
from lim_keras.export.bundle import write_bundle
from lim_keras.export.tflite import LiteRtExport, LiteRtOptions, export_litert
from lim_keras.export.tflite_check import Tally
from lim_keras.inventory.options import PredictOptions
from lim_keras.inventory.predict_scene import predict_scene
from lim_keras.metrics.binary import Confusion
from tests.inference.conftest import texture, write_scene

from .conftest import FOLDS, THRESHOLD, constant, facts

TILE = 128


@pytest.fixture(scope="module")
def tiles(bijie_folder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bijie_folder(tmp_path_factory.mktemp("tiles"), 3, 3)


@pytest.fixture(scope="module")
def made(bundle_path: Path, tiles: Path, tmp_path_factory: pytest.TempPathFactory) -> LiteRtExport:
    out = tmp_path_factory.mktemp("tflite")
    asked = LiteRtOptions(
        ("float32", "int8"), tile=TILE, tiles=tiles, tile_ids=("ls_0", "nls_0"), allow_drop=True, out=out
    )
    with pytest.warns(
        LimKerasWarning, match=r"128 px keep a halo of 0 px, .* needs 127 px.* any input size gives exact"
    ):
        return export_litert(bundle_path, asked)


@pytest.fixture(scope="module")
def anysize(bundle_path: Path, tiles: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of files without a fixed size."""
    out = tmp_path_factory.mktemp("anysize")
    asked = LiteRtOptions(("float32", "int8"), tiles=tiles, tile_ids=("ls_0", "nls_0"), allow_drop=True, out=out)
    made = export_litert(bundle_path, asked)
    assert {(one.tile, one.halo, one.measured.side) for one in made.files.values()} == {(None, 127, 512)}
    return out


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


@pytest.mark.parametrize("size", [(1, 1), (31, 33), (130, 250)])
def test_images_of_any_size(anysize: Path, bundle_path: Path, size: tuple[int, int]) -> None:
    image = np.random.default_rng(1).integers(0, 256, (1, *size, 3), np.uint8)
    expected = load_bundle(bundle_path).predict_all(image)
    for variant, within in (("float32", 1e-5), ("int8", 0.1)):
        said = load_litert(anysize / f"ensemble_{variant}.tflite").predict_all(image)
        assert said.probability.shape == said.spread.shape == said.votes.shape == (1, *size)
        assert np.abs(said.probability - expected.probability).max() < within
        assert np.abs(said.spread - expected.spread).max() < within


def test_masks_of_ground_in_pieces_are_equal(anysize: Path, bundle_path: Path, tmp_path: Path) -> None:
    # Two pieces apart in nodata, one of them larger than a window: the network's own padding meets both.
    pixels = texture(700, 900)
    valid = np.zeros((700, 900), np.uint8)
    valid[10:640, 20:500] = valid[100:300, 650:890] = 255
    scene = write_scene(tmp_path / "scene.tif", pixels, valid=valid)
    exact = load_litert(anysize / "ensemble_float32.tflite")
    for model, out in ((load_bundle(bundle_path), "tensorflow"), (exact, "litert")):
        summary = predict_scene(model, scene, tmp_path / out, PredictOptions(tile=448, probability="float32")).summary
        assert summary["windows"]["islands"] == 2 and summary["windows"]["count"] > 2
    masks, maps = (
        [rasterio.open(tmp_path / out / f"scene_{name}.tif").read(1) for out in ("tensorflow", "litert")]
        for name in ("landslides", "probability")
    )
    assert set(np.unique(masks[0])) == {0, 1, 255}
    np.testing.assert_array_equal(masks[0] == 255, masks[1] == 255)
    np.testing.assert_allclose(maps[0], maps[1], rtol=0, atol=1e-5)
    # Each processor sums in an order of its own: a probability that is the threshold to 1e-5 may fall on either side.
    decided = np.abs(maps[0] - THRESHOLD) > 1e-5
    assert decided[valid > 0].mean() > 0.999
    np.testing.assert_array_equal(masks[0][decided], masks[1][decided])


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
    result = export_litert(bundle_path, LiteRtOptions(("float32",), fold=1, out=tmp_path))
    assert result.refused == ("fold_1_float32.tflite",) and not list(tmp_path.iterdir())


def test_eight_bits_need_tiles(bundle_path: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"int8 is calibrated on training tiles.*`tiles`"):
        export_litert(bundle_path, LiteRtOptions(("int8",), out=tmp_path))
    assert not list(tmp_path.iterdir())


def test_limits_of_iou() -> None:
    # IoU of the SavedModel 8 / 10; of the file 7.8 / 10 and 7.95 / 10
    reference = Tally(Confusion(800, 100, 100, 0), windows=1)
    files = [Tally(Confusion(tp, 100, 900 - tp, 0), windows=1, pixels=1) for tp in (780, 795)]
    assert [one.measured("int8", 64, reference).within for one in files] == [False, True]
    assert Tally(windows=1, pixels=1).measured("dynamic", 64, Tally()).within is None


def test_the_description_is_plain_json(made: LiteRtExport) -> None:
    content = json.loads((made.folder / "tflite.json").read_text())
    assert content["model"]["threshold"] == THRESHOLD and set(content["reference"]) == {"ensemble"}


def test_the_bundle_keeps_the_table(tiles: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "one"
    write_bundle(bundle, facts(name="one"), [constant(0.0)])
    export_litert(bundle, LiteRtOptions(("float32",)))
    # random pixels have no labels
    first = BundleInfo.read(bundle).litert["tflite/fold_0_float32.tflite"]
    assert first.saved_model_iou is None and first.landslide_f1 is None
    assert (first.tile, first.windows, first.side) == (None, 4, 512)
    assert f"| any | {first.milliseconds_per_tile:.1f} (512 px) |" in (bundle / "README.md").read_text()
    export_litert(bundle, LiteRtOptions(("dynamic",), tile=64, tiles=tiles, tile_ids=("ls_0", "nls_0")))
    known = BundleInfo.read(bundle).litert
    assert known.pop("tflite/fold_0_float32.tflite") == first  # its windows were others
    ((name, second),) = known.items()
    assert name == "tflite/fold_0_dynamic.tflite" and second.bytes == (bundle / name).stat().st_size
    # 1/2 reaches the threshold: all of 20 x 24 + 22 x 30 px; rows 5..9 of columns 6..11 are landslide
    assert second.landslide_iou == second.saved_model_iou == pytest.approx(30 / 1140)
    assert second.landslide_f1 == second.saved_model_f1 == pytest.approx(60 / 1170)
    assert (second.tile, second.windows, second.limit, second.within) == (64, 2, "IoU loss <= 0.01", True)
    assert second.max_difference <= 1e-6 and second.milliseconds_per_tile > 0
    size, speed = f"{second.bytes / 1e6:.2f} MB", f"{second.milliseconds_per_tile:.1f} (64 px)"
    row = f"| {name} | {size} | 64 px | {speed} | 0.0513 | 0.0263 | "
    assert row in (bundle / "README.md").read_text()
    said = CliRunner().invoke(main, ["info", str(bundle)])
    assert said.exit_code == 0 and "LiteRT files, beside the SavedModel" in said.output and "0.0513" in said.output
    assert LiteRtIndex.read(bundle / "tflite").model.litert == {}


def test_other_files_in_the_folder_are_none_of_the_bundle(tmp_path: Path) -> None:
    bundle = tmp_path / "renamed"
    write_bundle(bundle, facts(name="one"), [constant(0.0)])
    (bundle / "tflite").mkdir()
    for name in ("foreign.tflite", "note.json"):
        (bundle / "tflite" / name).write_text("not ours")
    export_litert(bundle, LiteRtOptions(("float32",)))
    known = [name for name in BundleInfo.read(bundle).files if name.startswith("tflite/")]
    assert sorted(known) == ["tflite/fold_0_float32.tflite", "tflite/tflite.json"]
    card = (bundle / "README.md").read_text()
    assert "foreign" not in card and card.startswith("# renamed\n") and BundleInfo.read(bundle).name == "renamed"
    assert [line.partition(": ")[0] for line in verify_bundle(bundle)] == [
        f"{bundle}/tflite/foreign.tflite",
        f"{bundle}/tflite/note.json",
    ]


def test_folder_that_cannot_be_made(bundle_path: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file/x: cannot be made \(Not a directory\)"):
        export_litert(bundle_path, LiteRtOptions(("float32",), out=tmp_path / "file" / "x"))


def test_files_of_the_user_are_never_replaced(tmp_path: Path) -> None:
    bundle, out, asked = tmp_path / "one", tmp_path / "out", LiteRtOptions(("float32",))
    write_bundle(bundle, facts(name="one"), [constant(0.0)])
    export_litert(bundle, asked)
    export_litert(bundle, asked)  # of an earlier call, unchanged
    assert verify_bundle(bundle) == []
    for name in ("README.md", "tflite/tflite.json", "tflite/fold_0_float32.tflite"):
        before = (bundle / name).read_bytes()
        (bundle / name).write_bytes(before + b" ")
        with pytest.raises(DataError, match=rf"{Path(name).name} \(changed since it was written\)\. Nothing was repl"):
            export_litert(bundle, asked)
        assert (bundle / name).read_bytes() == before + b" "
        (bundle / name).rename(tmp_path / "moved")  # the cure
        export_litert(bundle, asked)
        assert verify_bundle(bundle) == []
    out.mkdir()
    (out / "fold_0_float32.tflite").write_text("mine")
    with pytest.raises(
        DataError, match=r"fold_0_float32\.tflite \(not written by lim-keras\).*another folder as `out`"
    ):
        export_litert(bundle, LiteRtOptions(("float32",), out=out))
    assert [path.name for path in out.iterdir()] == ["fold_0_float32.tflite"]


def _killed_export(bundle: Path, asked: LiteRtOptions, monkeypatch: pytest.MonkeyPatch, ended: int) -> None:
    """Export, and leave the folder of drafts as a process that has ended."""
    with monkeypatch.context() as patch:
        patch.setattr("lim_keras.files.shutil.rmtree", lambda *_, **__: None)
        export_litert(bundle, asked)
    (draft,) = (asked.out or bundle / "tflite").glob(".tflite.*.partial")
    draft.rename(draft.with_name(f".tflite.{ended}.77.partial"))


def test_a_kill_between_the_documents_and_model_json_is_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ended: int
) -> None:
    bundle, asked = tmp_path / "one", LiteRtOptions(("float32",))
    write_bundle(bundle, facts(name="one"), [constant(0.0)])
    before = (bundle / "model.json").read_bytes()
    _killed_export(bundle, asked, monkeypatch, ended)
    (bundle / "model.json").write_bytes(before)
    assert verify_bundle(bundle) != []  # README.md is not the one that model.json lists
    export_litert(bundle, asked)
    assert verify_bundle(bundle) == [] and list((bundle / "tflite").glob(".*")) == []


@pytest.mark.parametrize("inner", ["fold_0", "fold_0/variables", ".", "mine"])
def test_files_are_not_written_into_other_folders_of_a_bundle(tmp_path: Path, inner: str) -> None:
    bundle = tmp_path / "one"
    write_bundle(bundle, facts(name="one"), [constant(0.0)])
    with pytest.raises(DataError, match=r"expected a place outside of bundles.* Give another place as `out`"):
        export_litert(bundle, LiteRtOptions(("float32",), out=bundle / inner))
    assert verify_bundle(bundle) == [] and not (bundle / "mine").exists()


def test_a_killed_export_is_repeated_and_another_bundle_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ended: int
) -> None:
    bundle, out = tmp_path / "one", tmp_path / "out"
    asked = LiteRtOptions(("float32",), out=out)
    write_bundle(bundle, facts(name="one"), [constant(0.0)])
    export_litert(bundle, asked)
    index = (out / "tflite.json").read_text()
    _killed_export(bundle, asked, monkeypatch, ended)
    (out / "tflite.json").write_text(index)  # killed between the file and its record
    assert (out / f".tflite.{ended}.77.partial" / "tflite.json").exists()
    export_litert(bundle, asked)
    assert sorted(path.name for path in out.iterdir()) == ["fold_0_float32.tflite", "tflite.json"]
    write_bundle(tmp_path / "two", facts(name="two"), [constant(1.0)])
    with pytest.raises(BundleError, match=r"out: holds LiteRT files of another bundle, one, .*another folder as `out`"):
        export_litert(tmp_path / "two", asked)
    assert load_litert(out / "fold_0_float32.tflite").info.name == "one"
