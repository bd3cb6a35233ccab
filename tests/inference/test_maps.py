"""Maps on the disk: sparse, resumable, and clear about a full disk."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import rasterio

from lim_keras.errors import DataError
from lim_keras.inference.maps import Maps, WindowPrediction
from lim_keras.raster.georeference import RasterInfo
from lim_keras.raster.images import read_info
from lim_keras.raster.windows import Box

from .conftest import Write


@pytest.fixture
def info(write: Write) -> RasterInfo:
    return read_info(write("scene.tif", np.zeros((100, 150, 3), np.uint8)))


def piece(box: Box, value: float) -> WindowPrediction:
    shape = box.height, box.width
    valid = np.ones(shape, bool)
    valid[0, 0] = False
    return WindowPrediction(
        box, np.full(shape, value, np.float32), np.zeros(shape, np.float32), np.ones(shape, np.int32), valid
    )


def test_pieces_lie_where_they_belong(info: RasterInfo, tmp_path: Path) -> None:
    with Maps(tmp_path / "m", info, spread=False, identity="a", plan={"tile": [64, 64]}) as maps:
        maps.write(piece(Box(10, 20, 15, 30), 0.25))
        maps.write(piece(Box(99, 149, 100, 150), 0.5))
        vrt = maps.write_vrt()
    with rasterio.open(vrt) as file:
        values = file.read(1)
    expected = np.full((100, 150), -1.0)
    expected[10:15, 20:30] = 0.25
    expected[10, 20] = -1  # not valid
    assert values == pytest.approx(expected)


def test_what_is_not_written_takes_no_room(write: Write, tmp_path: Path) -> None:
    large = RasterInfo(tmp_path / "s.tif", 40_000, 40_000, 3, "uint8", "", None, None, None)
    with Maps(tmp_path / "m", large, spread=False, identity="", plan={}) as maps:
        maps.write(piece(Box(39_000, 39_000, 39_010, 39_010), 0.5))
    status = (tmp_path / "m" / "probability.raw").stat()
    assert status.st_size == 6.4e9
    assert status.st_blocks * 512 < 1e6


def test_the_same_identity_goes_on_with_its_own_plan(info: RasterInfo, tmp_path: Path) -> None:
    with Maps(tmp_path / "m", info, spread=False, identity="a", plan={"tile": [64, 64]}) as maps:
        maps.write(piece(Box(10, 20, 15, 30), 0.25))
        maps.commit(1)
    with Maps(tmp_path / "m", info, spread=False, identity="a", plan={"tile": [99, 99]}) as maps:
        assert (maps.done, maps.plan["tile"]) == (1, [64, 64])
        vrt = maps.write_vrt()
    with rasterio.open(vrt) as file:
        assert file.read(1)[12, 22] == 0.25


@pytest.mark.parametrize("change", ["identity", "damaged", "missing"])
def test_anything_else_starts_anew(info: RasterInfo, tmp_path: Path, change: str) -> None:
    with Maps(tmp_path / "m", info, spread=False, identity="a", plan={"tile": [64, 64]}) as maps:
        maps.write(piece(Box(10, 20, 15, 30), 0.25))
        maps.commit(1)
    if change == "damaged":
        (tmp_path / "m" / "state.json").write_text("{")
    if change == "missing":
        (tmp_path / "m" / "votes.raw").unlink()
    identity = "b" if change == "identity" else "a"
    with Maps(tmp_path / "m", info, spread=False, identity=identity, plan={"tile": [99, 99]}) as maps:
        assert (maps.done, maps.plan["tile"]) == (0, [99, 99])
        vrt = maps.write_vrt()
    with rasterio.open(vrt) as file:
        assert (file.read(1) == -1).all()


def test_a_full_disk_is_said_and_what_is_done_is_kept(
    info: RasterInfo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with Maps(tmp_path / "m", info, spread=False, identity="a", plan={}) as maps:
        maps.write(piece(Box(0, 0, 5, 5), 0.25))
        maps.commit(1)
        monkeypatch.setattr(os, "pwrite", full)
        with pytest.raises(DataError, match=r"No space left on device.*kept.*same command again"):
            maps.write(piece(Box(5, 5, 9, 9), 0.25))
    monkeypatch.undo()
    with Maps(tmp_path / "m", info, spread=False, identity="a", plan={}) as maps:
        assert maps.done == 1


def test_a_system_that_takes_a_part_gets_the_rest(
    info: RasterInfo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, place: pwrite(file, bytes(data)[:7], place))
    with Maps(tmp_path / "m", info, spread=False, identity="a", plan={}) as maps:
        maps.write(piece(Box(10, 20, 15, 30), 0.25))
        vrt = maps.write_vrt()
    monkeypatch.undo()
    with rasterio.open(vrt) as file:
        probability, votes = file.read(1), file.read(2)
    assert (probability[10:15, 20:30] == 0.25).sum() == (probability != -1).sum() > 0
    assert ((votes != -1) == (probability != -1)).all()


@pytest.mark.parametrize("state", ["[]", "3", '{"identity": "a"}', "[" * 100_000])
def test_a_state_that_is_none_starts_anew(info: RasterInfo, tmp_path: Path, state: str) -> None:
    with Maps(tmp_path / "m", info, spread=False, identity="a", plan={"tile": [64, 64]}) as maps:
        maps.commit(1)
    (tmp_path / "m" / "state.json").write_text(state)
    with Maps(tmp_path / "m", info, spread=False, identity="a", plan={"tile": [99, 99]}) as maps:
        assert (maps.done, maps.plan["tile"]) == (0, [99, 99])


@pytest.mark.parametrize("blocked", ["maps.vrt", "votes.hdr", "state.json"])
def test_small_files_that_cannot_be_written_are_said_as_well(info: RasterInfo, tmp_path: Path, blocked: str) -> None:
    (tmp_path / "m" / blocked).mkdir(parents=True)
    with (
        pytest.raises(DataError, match=r"m: cannot be written \(Is a directory\).*same command again"),
        Maps(tmp_path / "m", info, spread=False, identity="a", plan={}) as maps,
    ):
        maps.write_vrt()
