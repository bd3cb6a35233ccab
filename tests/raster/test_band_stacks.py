"""Virtual rasters with a file for each band, as `gdalbuildvrt -separate` makes them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from affine import Affine

from lim_keras.errors import DataError
from lim_keras.raster.georeference import Grid
from lim_keras.raster.reader import RasterReader
from lim_keras.raster.writer import write_raster

UTM, EAST, NORTH = "EPSG:32648", 500_000, 3_000_000


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    """Bands of 10 m (numbers of the columns, from 1) and 20 m (those of the rows, times 100), on the grid of 10 m."""
    fine = np.ones((6, 1)) * np.arange(1, 9)
    coarse = 100 * np.arange(1, 4)[:, np.newaxis] * np.ones((1, 4))
    coarse[2, 3] = 0
    files = []
    for name, pixels, step in (("fine ä", fine, 10), ("coarse", coarse, 20)):
        place = Affine(step, 0, EAST, 0, -step, NORTH)
        files.append(
            write_raster(tmp_path / f"{name}.tif", pixels.astype(np.uint16), crs=UTM, transform=place, nodata=0)
        )
    return write_stack(tmp_path / "stack.vrt", [(file.name, step) for file, step in zip(files, (1, 2), strict=True)])


def write_stack(path: Path, files: Sequence[tuple[str, int]]) -> Path:
    bands = "".join(
        f'<VRTRasterBand dataType="UInt16" band="{number}"><NoDataValue>0</NoDataValue><ComplexSource>'
        f'<SourceFilename relativeToVRT="1">{name}</SourceFilename><SourceBand>1</SourceBand>'
        f'<SrcRect xOff="0" yOff="0" xSize="{8 // step}" ySize="{6 // step}"/>'
        '<DstRect xOff="0" yOff="0" xSize="8" ySize="6"/><NODATA>0</NODATA></ComplexSource></VRTRasterBand>'
        for number, (name, step) in enumerate(files, start=1)
    )
    place = f"{EAST}, 10, 0, {NORTH}, 0, -10"
    path.write_text(
        f'<VRTDataset rasterXSize="8" rasterYSize="6"><SRS>{UTM}</SRS><GeoTransform>{place}</GeoTransform>{bands}'
        "</VRTDataset>",
        encoding="utf-8",
    )
    return path


def test_bands_of_two_resolutions_are_one_scene(stack: Path) -> None:
    with RasterReader(stack) as scene:
        pixels, valid = scene.image()
        assert (scene.info.height, scene.info.width, scene.info.bands) == (6, 8, 2) and scene.info.gsd_m == 10
    assert (pixels[..., 0] == np.arange(1, 9)).all()
    assert pixels[:, 0, 1].tolist() == [100, 100, 200, 200, 300, 300]
    assert not valid[4:, 6:].any() and valid.sum() == 44


def test_stacks_are_averaged(stack: Path) -> None:
    grid = Grid(UTM, Affine(20, 0, EAST, 0, -20, NORTH), 4, 3, 20)
    with RasterReader(stack, bands=(2, 1)) as scene, scene.on_grid(grid) as coarse:
        pixels, valid = coarse.image()
    assert pixels[0].tolist() == [[100, 2], [100, 4], [100, 6], [100, 8]]  # 1.5 and 3.5 are rounded to even numbers
    assert valid.tolist() == [[True] * 4, [True] * 4, [True, True, True, False]]


def test_every_band_counts_for_the_fingerprint(stack: Path) -> None:
    with RasterReader(stack) as scene:
        assert scene.fingerprint and not scene.has_changed()
        (stack.parent / "coarse.tif").touch()
        assert scene.has_changed()
    (stack.parent / "fine ä.tif").unlink()
    with pytest.raises(DataError, match=r"its source .*fine ä\.tif is missing"):
        RasterReader(stack)
