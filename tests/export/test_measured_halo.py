"""Halos smaller than the receptive field: measured by hand-made networks, recorded in a bundle."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from lim_keras.bundle.info import BundleInfo
from lim_keras.bundle.saved_model import load_bundle, verify_bundle
from lim_keras.cli import main
from lim_keras.export import measured_halo
from lim_keras.export.bundle import write_bundle
from lim_keras.export.measured_halo import measure_halos, sheet_side, training_sheets
from tests.conftest import bundle_info

from .conftest import facts, network


def far_sighted(weight: float) -> Callable[[np.ndarray], np.ndarray]:
    """A half, and `weight` times the sum of the two pixels 100 columns away, 0 beyond the image."""

    def predict(images: np.ndarray) -> np.ndarray:
        wide = np.pad(images[..., 0] / 255, ((0, 0), (0, 0), (100, 100)))
        return (0.25 + weight * (wide[:, :, :-200] + wide[:, :, 200:])).astype(np.float32)

    return predict


WHITE = np.full((512, 512, 3), 255, np.uint8)


def test_halos_by_hand() -> None:
    # A window that ends at column 256 lacks the pixel 100 columns on for its last 100 columns: a difference of 0.002
    # at distances up to 99. It is within a third of 1e-2, and not of 1e-3: that needs a halo of 128 px.
    wide, narrow, narrowest = measure_halos(far_sighted(0.002), bundle_info(halo=200), [WHITE])
    assert (wide.tolerance, wide.halo, round(wide.max_difference, 6)) == (1e-2, 64, 0.002)
    assert (narrow.tolerance, narrow.halo, narrow.max_difference) == (1e-3, 128, 0)
    assert (narrowest.tolerance, narrowest.halo) == (1e-4, 128)
    # at least 128 px from column 256 and from row 256: 128 on either side of both
    assert narrow.pixels == 256 * 256 and wide.pixels == 384 * 384


def test_a_tolerance_that_only_the_full_halo_meets_has_no_row() -> None:
    # 0.02 at up to 99 px is beyond all tolerances, and the only halo below 100 px is 64 px
    assert measure_halos(far_sighted(0.02), bundle_info(halo=100), [WHITE]) == ()


def test_the_halo_within_a_tolerance() -> None:
    info = bundle_info(halo=200)
    assert info.halo_within(1e-3) == info.halo_within(None) == 200
    info = info.model_copy(update={"halos": measure_halos(far_sighted(0.002), info, [WHITE])})
    assert [info.halo_within(one) for one in (1e-2, 1e-3, 1e-5, None)] == [64, 128, 200, 200]
    assert BundleInfo.model_validate_json(info.model_dump_json()) == info


def test_descriptions_without_a_measurement_keep_their_text() -> None:
    assert "halos" not in bundle_info().model_dump_json()


@pytest.fixture
def bundle(tmp_path: Path, bijie_folder: Callable[..., Path]) -> tuple[Path, Path]:
    """A bundle that was not measured, and its tiles."""
    tiles = bijie_folder(tmp_path / "tiles", 3, 3)
    ids = tuple(f"{kind}_{number}" for kind in ("ls", "nls") for number in range(3))
    write_bundle(tmp_path / "net", facts(training_tiles=ids), [network(1), network(2)])
    return tmp_path / "net", tiles


def test_export_measures_an_older_bundle(bundle: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path, tiles = bundle
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    command = ["export", str(path), "--measure-halo", "--data", str(tiles)]
    few = CliRunner().invoke(main, command)
    assert few.exit_code == 1 and "at least 1048576 px" in few.output
    assert {file: file.read_bytes() for file in before} == before
    monkeypatch.setattr(measured_halo, "LEAST_PIXELS", 1)
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    assert "halo within 0.001" in done.output
    assert verify_bundle(path) == []
    changed = {file.name for file, content in before.items() if file.read_bytes() != content}
    assert changed == {"model.json"}
    info = load_bundle(path).info
    assert info.halo_within(1e-3) < info.halo
    assert load_bundle(path, fold=0).info.halo_within(1e-3) == info.halo  # the ensemble was measured, not a fold


def test_measuring_needs_tiles(bundle: tuple[Path, Path]) -> None:
    done = CliRunner().invoke(main, ["export", str(bundle[0]), "--measure-halo"])
    assert done.exit_code == 2 and "--data" in done.output


def test_a_new_bundle_is_measured_with_enough_imagery(
    bundle: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lim_keras.data.layouts import read_tiles

    tiles = read_tiles(bundle[1])
    assert write_bundle(tmp_path / "few", facts(), [network(1)], tiles=tiles).halos == ()
    monkeypatch.setattr(measured_halo, "LEAST_PIXELS", 1)
    info = write_bundle(tmp_path / "enough", facts(), [network(1)], tiles=tiles)
    assert [one.tolerance for one in info.halos][:2] == [1e-2, 1e-3]
    assert json.loads((tmp_path / "enough" / "model.json").read_text())["halos"][0]["pixels"] > 0
    assert {draw().shape for draw in training_sheets(tiles, info)} == {(sheet_side(info), sheet_side(info), 3)}
