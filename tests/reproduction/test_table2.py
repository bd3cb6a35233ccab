"""Table 2 on tiles whose pixels are counted by hand, and what follows from the paper's numbers."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lim_keras.data.layouts import read_tiles
from lim_keras.reproduction import paper
from lim_keras.reproduction.context import ReproductionContext
from lim_keras.reproduction.data import LabelledTiles, ReproductionData
from lim_keras.reproduction.settings import ReproductionSettings
from lim_keras.reproduction.table2 import make_table2


@pytest.fixture
def context(tmp_path: Path, write_picture: Callable) -> ReproductionContext:
    """Two landslide tiles, a quarter and an eighth landslide, and four others; all become 256 x 256."""
    folder = tmp_path / "tiles"
    for number, share in enumerate((4, 8)):
        image = np.full((64, 64, 3), 40 * number + 20, np.uint8)
        mask = np.zeros((64, 64), np.uint8)
        mask[: 64 // share] = 255
        write_picture(folder / f"landslide/image/a_{number}.png", image)
        write_picture(folder / f"landslide/mask/a_{number}.png", mask)
    for number in range(4):
        write_picture(folder / f"non-landslide/image/b_{number}.png", np.full((64, 64, 3), 9 * number, np.uint8))
    tiles = read_tiles(folder)
    settings = ReproductionSettings(out=tmp_path / "out", data=folder)
    return ReproductionContext(settings, ReproductionData(LabelledTiles(tiles, ("a_0",))))


def test_counts(context: ReproductionContext) -> None:
    part = make_table2(context)
    samples = {row[0]: row[1:] for row in part.tables[0].rows}
    # 65,536 px a tile: 16,384 + 8,192 landslide px of 131,072 in landslide tiles, and 262,144 px in the others
    assert samples["landslide pixels"] == (20_000_000, 24_576, None, 98_304)
    assert samples["background pixels"] == (None, 368_640, None, 4 * 106_496 + 262_144)
    assert samples["landslide samples"] == (770, 2, 3080, 8)
    assert samples["imbalance ratio"] == (8.0, pytest.approx(15.0), 3.1, pytest.approx(688_128 / 98_304))
    ratios = {row[0]: row[3] for row in part.tables[1].rows}
    assert ratios["landslide tiles only"] == pytest.approx(106_496 / 24_576)
    assert "no number of copies brings the ratio below 4.3. The paper's 3.1 is below that." in part.text[1]
    assert [drawing.name for drawing in part.drawings] == ["table2_ratios"]


def test_numbers_that_follow_from_those_of_the_paper() -> None:
    flk, fcn = paper.TABLE_3["fcn_flk"], paper.TABLE_3["fcn"]
    assert paper.implied_precision(flk) == pytest.approx(0.62 * 0.76 / 0.90)  # .52
    # of 1000 px, 75 landslides at recall .76: 57 found, 18 missed, 52 false; F1 = 114 / 184 = .62, accuracy .93
    assert paper.implied_share(flk) == pytest.approx(0.0751, abs=1e-4)
    assert paper.implied_share(fcn) == pytest.approx(0.1078, abs=1e-4)
    assert paper.implied_landslide_iou(flk) == pytest.approx(57 / 127, abs=2e-3)
