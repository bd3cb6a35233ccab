"""Background tiles on which a model is confidently wrong."""

import numpy as np
import pytest

import lim_keras as lk
from lim_keras.bundle.protocol import EnsemblePrediction
from lim_keras.raster.writer import write_raster
from tests.conftest import bundle_info
from tests.tiling.conftest import TRANSFORM


class BrightIsLandslide:
    """Model whose probability is the first band / 255."""

    def __init__(self, **facts):
        self.info = bundle_info(**facts)

    def predict_all(self, images):
        probability = images[..., 0].astype(np.float32) / 255
        return EnsemblePrediction(probability, np.zeros_like(probability), (probability >= 0.5).astype(np.int32))


@pytest.fixture
def inputs(tmp_path, make_labels):
    """A dark scene of 4 x 4 tiles of 32 px, with bright pixels on two of them, and a landslide in the corner."""
    pixels = np.full((128, 128, 3), 50, np.uint8)
    pixels[40:50, 70:80] = 250  # in the tile at row 32, column 64
    pixels[100:102, 100:102] = 200  # fewer, in the tile at row 96, column 96
    pixels[0:4, 0:4] = 255  # the landslide itself
    scene = write_raster(tmp_path / "a.tif", pixels, crs="EPSG:32648", transform=TRANSFORM)
    return scene, make_labels(tmp_path / "l.gpkg", [(0, 0, 4, 4)])


def test_tiles_with_false_alarms_come_first(inputs, tmp_path):
    model = BrightIsLandslide(gsd_m=2.0)
    for ratio, expected in ((1, {"a_00032_00064"}), (2, {"a_00032_00064", "a_00096_00096"})):
        out = tmp_path / f"t{ratio}"
        result = lk.tile_scenes(*inputs, out, size=32, background=ratio, hard_negatives=model)
        assert set(result.tiles.of_kind("non-landslide").ids) == expected
        assert result.report.scenes[0].hard == ratio
    result = lk.tile_scenes(*inputs, tmp_path / "more", size=32, background=5, hard_negatives=model)
    assert expected < set(result.tiles.of_kind("non-landslide").ids) and result.report.scenes[0].hard == 2


def test_a_model_of_other_bands(inputs, tmp_path):
    model = BrightIsLandslide(bands=4)
    with pytest.raises(lk.DataError, match=r"a\.tif: expected tiles of 4 bands of uint8.* `bands`"):
        lk.tile_scenes(*inputs, tmp_path / "t", size=32, hard_negatives=model)
    assert not (tmp_path / "t").exists()


def test_a_model_of_another_distance(inputs, tmp_path):
    """The cure is an option of this command, and works."""
    model = BrightIsLandslide(gsd_m=0.8)
    with pytest.warns(
        lk.errors.DomainWarning, match=r"a pixel of its tiles is 2 m.*trained at 0\.8 m.*`gsd_m` 0\.8 gives"
    ):
        lk.tile_scenes(*inputs, tmp_path / "t", size=32, hard_negatives=model)
    lk.tile_scenes(*inputs, tmp_path / "t", size=32, hard_negatives=model, gsd_m=0.8)


def test_a_model_needs_a_number_of_background_tiles(inputs, tmp_path):
    with pytest.raises(lk.ConfigError, match="`background` must be a number"):
        lk.tile_scenes(*inputs, tmp_path / "t", background="all", hard_negatives=BrightIsLandslide())
