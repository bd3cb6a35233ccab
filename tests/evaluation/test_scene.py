"""A scene judged block by block against one pass over it, its landslides polygon by polygon."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import geopandas
import numpy as np
import pytest
import rasterio
from rasterio import Affine
from shapely.geometry import box

from lim_keras.bundle.object_rule import ObjectRule
from lim_keras.bundle.protocol import EnsemblePrediction
from lim_keras.config import EvaluationSection
from lim_keras.errors import ConfigError, DataError, DomainWarning, LimKerasWarning
from lim_keras.evaluation.scene import SceneResult, evaluate_scene, match_mask
from lim_keras.inference.predict_maps import MapOptions
from lim_keras.inventory.options import PredictOptions
from lim_keras.metrics.binary import Confusion, count, pool
from lim_keras.raster.reader import RasterReader
from lim_keras.report.tables import detections_table
from tests.conftest import bundle_info, fitted_rule

TRANSFORM = Affine(0.8, 0, 5e5, 0, -0.8, 3e6)
INFO = bundle_info(name="local", sampling={}, halo=4)


class Watched:
    """A local "network": a mean over 9 x 9 pixels, squashed. Keeps the shapes that it was shown."""

    info = INFO

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def probability(self, image: np.ndarray) -> np.ndarray:
        blurred = cv2.blur(image[..., 0].astype(np.float32), (9, 9), borderType=cv2.BORDER_REPLICATE)
        return (1 / (1 + np.exp((135 - blurred) / 10))).astype(np.float32)

    def predict_all(self, images: np.ndarray) -> EnsemblePrediction:
        self.shapes.append(images.shape)
        probability = np.stack([self.probability(image) for image in images])
        return EnsemblePrediction(probability, 0 * probability, (probability >= 0.5).astype(np.int32))


def judged(
    scene: Path, truth: Path, model: Any = None, choice: PredictOptions | None = None, **options: Any
) -> SceneResult:
    settings, reading = EvaluationSection(bootstrap=20), MapOptions(**options)
    return evaluate_scene(model or Watched(), scene, truth, settings=settings, options=reading, choice=choice)


Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(name: str, array: np.ndarray, mask: np.ndarray | None = None, **options: Any) -> Path:
        bands = array[np.newaxis] if array.ndim == 2 else np.moveaxis(array, -1, 0)
        count, height, width = bands.shape
        settings = {"crs": "EPSG:32648", "transform": TRANSFORM} | options
        with (
            rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
            rasterio.open(
                tmp_path / name,
                "w",
                driver="GTiff",
                count=count,
                height=height,
                width=width,
                dtype=bands.dtype,
                **settings,
            ) as file,
        ):
            file.write(bands)
            if mask is not None:
                file.write_mask(mask)
        return tmp_path / name

    return write


def world(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(12)
    image = cv2.GaussianBlur(rng.integers(0, 256, (height, width, 3)).astype(np.uint8), (0, 0), 6)
    image = cv2.normalize(image, None, 60, 200, cv2.NORM_MINMAX)
    labels = (cv2.blur(image[..., 0], (5, 5)) > 140).astype(np.uint8)
    labels[rng.random(labels.shape) < 0.02] = 255
    return image, labels


def total(result: SceneResult) -> Confusion:
    return pool([place.model for place in result.evaluation.samples])


def test_windows_with_a_halo_equal_the_whole_scene(write: Write) -> None:
    image, labels = world(700, 1130)
    model = Watched()
    scene, truth = write("scene.tif", image), write("labels.tif", labels, nodata=255)
    result = judged(scene, truth, model, tile=256)
    assert len(model.shapes) > 20
    whole = model.probability(image)
    # a block at a time: 2 rows of 3
    assert [place.name for place in result.evaluation.samples][:4] == [
        "row_0_column_0",
        "row_0_column_512",
        "row_0_column_1024",
        "row_512_column_0",
    ]
    assert total(result) == count(whole >= 0.5, labels)
    assert total(result).tp > 1000
    shown = next(p for p in result.gallery.best if p.sample.name == "row_512_column_512")
    assert np.abs(shown.probability - whole[512:700, 512:1024]).max() < 1e-6
    assert (shown.sample.image == image[512:700, 512:1024]).all()


def test_pixels_without_data_are_never_shown_and_count_nowhere(write: Write) -> None:
    image, labels = world(500, 300)
    valid = np.ones(labels.shape, bool)
    valid[:, 100:190] = False
    valid[200:, :] = False
    poisoned = np.where(valid[..., np.newaxis], image, 255).astype(np.uint8)
    model = Watched()
    model.probability = lambda image: np.ones(image.shape[:2], np.float32) * (image.max() <= 200)  # type: ignore[method-assign]
    result = judged(write("scene.tif", poisoned, valid), write("labels.tif", labels), model)
    assert total(result).pixels == np.count_nonzero(valid & (labels != 255))
    assert total(result).tp == np.count_nonzero(valid & (labels == 1))


class Interrupted(Watched):
    """Runs a call in the middle of the prediction."""

    def __init__(self, call: Callable[[], object]) -> None:
        super().__init__()
        self._call = call

    def predict_all(self, images: np.ndarray) -> EnsemblePrediction:
        if not self.shapes:
            self._call()
        return super().predict_all(images)


@pytest.mark.parametrize("changed", ["scene.tif", "labels.tif", "slides.gpkg", "slides.dbf"])
def test_a_scene_or_truth_that_changes_meanwhile_is_an_error(write: Write, tmp_path: Path, changed: str) -> None:
    image, labels = world(300, 200)
    scene, truth = write("scene.tif", image), write("labels.tif", labels)
    polygons = geopandas.GeoDataFrame({"a": [1]}, geometry=[box(500010, 2999900, 500050, 2999950)], crs="EPSG:32648")
    polygons.to_file(tmp_path / "slides.gpkg")
    polygons.to_file(tmp_path / "slides.shp")
    vectors = {"slides.gpkg": "slides.gpkg", "slides.dbf": "slides.shp"}
    truth = tmp_path / vectors.get(changed, "labels.tif")
    assert judged(scene, truth, Interrupted(lambda: (tmp_path / "another.tif").touch())).evaluation.samples
    named = truth.name if changed == "slides.dbf" else changed
    with pytest.raises(DataError, match=rf"{named}: changed while it was read. Nothing was written. Repeat the call"):
        judged(scene, truth, Interrupted((tmp_path / changed).touch))


def test_a_scene_that_is_cut_short_meanwhile_is_not_called_damaged(write: Write) -> None:
    image, labels = world(300, 200)
    scene, truth = write("scene.tif", image), write("labels.tif", labels)
    with pytest.raises(DataError, match=r"scene.tif: changed while it was read"):
        judged(scene, truth, Interrupted(lambda: scene.write_bytes(b"")), tile=192)


def test_polygons_are_scored_too(write: Write, tmp_path: Path) -> None:
    image = np.full((300, 400, 3), 60, np.uint8)
    image[50:110, 50:130] = 230  # found: 60 x 80 px
    image[200:240, 300:340] = 230  # a false alarm
    labels = np.zeros((300, 400), np.uint8)
    labels[50:110, 50:130] = 1
    labels[200:220, 20:60] = 1  # missed: 20 x 40 px
    scene = write("scene.tif", image)
    by_raster = judged(scene, write("labels.tif", labels))
    scores = by_raster.detections.iou_50["all"]
    assert (scores.truth, scores.found, scores.predicted, scores.right) == (2, 1, 2, 1)
    # 800 px of 0.64 m2 are 512 m2, 4800 px are 3072 m2
    assert by_raster.detections.iou_50["small"].truth == 1
    assert by_raster.detections.iou_50["medium"].recall == 1.0
    places = [(50, 50, 130, 110), (20, 200, 60, 220)]
    polygons = [box(5e5 + 0.8 * a, 3e6 - 0.8 * d, 5e5 + 0.8 * c, 3e6 - 0.8 * b) for a, b, c, d in places]
    frame = geopandas.GeoDataFrame(geometry=polygons, crs="EPSG:32648").to_crs("EPSG:4326")
    frame.to_file(tmp_path / "truth.geojson")
    by_polygon = judged(scene, tmp_path / "truth.geojson")
    assert by_polygon.detections.iou_50["all"] == scores
    assert abs(total(by_polygon).tp - total(by_raster).tp) <= 10


def test_what_is_predicted_on_unlabelled_ground_is_neither_right_nor_wrong(write: Write) -> None:
    image = np.full((300, 400, 3), 60, np.uint8)
    image[50:110, 50:130] = 230
    image[200:240, 300:340] = 230
    labels = np.zeros((300, 400), np.uint8)
    labels[50:110, 50:130] = 1
    labels[150:, 250:] = 255
    scores = judged(write("scene.tif", image), write("labels.tif", labels)).detections.iou_50["all"]
    assert (scores.truth, scores.found, scores.predicted, scores.right) == (1, 1, 1, 1)


@pytest.mark.parametrize(
    ("dtype", "nodata"), [(np.uint8, 2), (np.uint8, 255), (np.float32, np.nan), (np.float32, -9999), (np.int64, -1)]
)
def test_no_label_is_what_the_file_calls_nodata(write: Write, dtype: type, nodata: float) -> None:
    image = np.full((300, 400, 3), 60, np.uint8)
    image[50:110, 50:130] = 230
    image[200:240, 300:340] = 230  # on ground without label
    labels = np.zeros((300, 400))
    labels[50:110, 50:130] = 1
    labels[150:, 250:] = nodata
    result = judged(write("scene.tif", image), write("labels.tif", labels.astype(dtype), nodata=nodata))
    for scores in (result.detections.iou_50["all"], result.detections.any_overlap["all"]):
        assert (scores.truth, scores.found, scores.predicted, scores.right) == (1, 1, 1, 1)
    assert total(result).pixels == 300 * 400 - 150 * 150
    assert {value for one in result.gallery.best for value in np.unique(one.sample.mask).tolist()} == {0, 1, 255}


def test_rasters_without_a_place_are_taken_at_their_word(write: Write) -> None:
    image, labels = world(40, 50)
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning):
        scene = write("s.tif", image, crs=None, transform=None)
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning):
        truth = write("l.tif", labels, crs=None, transform=None)
    with pytest.warns(DomainWarning, match="not known"):
        assert total(judged(scene, truth)).pixels > 0


@pytest.mark.parametrize(
    ("labels", "options", "said"),
    [
        (np.zeros((40, 51), np.uint8), {}, "Expected 50 x 40 px"),
        (np.zeros((40, 50), np.uint8), {"transform": Affine(0.8, 0, 5e5 + 0.4, 0, -0.8, 3e6)}, "on another grid"),
        (np.zeros((40, 50), np.uint8), {"transform": Affine(0.81, 0, 5e5, 0, -0.8, 3e6)}, "on another grid"),
        (np.zeros((40, 50), np.uint8), {"crs": "EPSG:32649"}, "EPSG:32649"),
        (np.full((40, 50), 7, np.uint8), {}, r"255 no label. Received: 7\."),
        (np.full((40, 50), np.nan, np.float32), {}, "nan"),
    ],
)
def test_labels_that_do_not_fit_are_named(write: Write, labels: np.ndarray, options: dict[str, Any], said: str) -> None:
    scene = write("scene.tif", world(40, 50)[0])
    with pytest.raises(DataError, match=said) as raised:
        judged(scene, write("labels.tif", labels, **options))
    assert "labels.tif" in str(raised.value)


def test_a_scene_of_another_data_type_is_refused(write: Write) -> None:
    scene = write("scene.tif", np.zeros((8, 8, 3), np.int32))
    with pytest.raises(DataError, match="int32"):
        judged(scene, write("labels.tif", np.zeros((8, 8), np.uint8)))


def test_a_scene_of_another_scale_warns(write: Write) -> None:
    coarse = {"transform": Affine(10, 0, 5e5, 0, -10, 3e6)}
    image, labels = world(90, 110)
    with pytest.warns(DomainWarning, match=r"10 m, but .* 0\.8 m.*0\.08 times"):
        judged(write("scene.tif", image, **coarse), write("labels.tif", labels, **coarse))


def test_a_resampled_scene_is_judged_on_its_own_grid(write: Write) -> None:
    coarse = {"transform": Affine(1.6, 0, 5e5, 0, -1.6, 3e6)}
    labels = np.zeros((60, 70), np.uint8)
    labels[20:44, 20:50] = 1
    image = np.stack([np.where(labels == 1, 230, 40).astype(np.uint8)] * 3, axis=-1)
    scene, truth = write("scene.tif", image, **coarse), write("labels.tif", labels, **coarse)
    model = Watched()
    with pytest.warns(DomainWarning, match=r"1\.6 m"):
        resampled = judged(scene, truth, model, resample=True)
    assert model.shapes == [(1, 120, 140, 3)]
    with pytest.warns(DomainWarning):
        plain = judged(scene, truth)
    assert total(resampled).pixels == total(plain).pixels == labels.size
    # The mean over 9 x 9 px rounds the corners off: half as far where a pixel is half as large.
    missed = [total(one).fn for one in (resampled, plain)]
    assert 0 < missed[0] < missed[1]
    assert resampled.detections.iou_50["all"].right == 1


def test_a_resampled_scene_counts_its_own_pixels(write: Write) -> None:
    fine = {"transform": Affine(0.2, 0, 5e5, 0, -0.2, 3e6)}
    valid = np.random.default_rng(3).random((160, 200)) > 0.03
    valid[40:90, 60:130] = False
    image = np.repeat(np.uint8(valid * 230)[..., np.newaxis], 3, axis=-1)
    scene = write("scene.tif", image, nodata=0, **fine)
    truth = write("labels.tif", np.ones((160, 200), np.uint8), **fine)
    with pytest.warns(DomainWarning, match=r"0\.2 m"), pytest.warns(LimKerasWarning, match="100% .* are landslide"):
        assert total(judged(scene, truth, resample=True)).pixels == valid.sum()


def test_the_distance_that_is_said_counts_where_the_file_has_none(write: Write) -> None:
    image, labels = world(64, 64)
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning):
        scene = write("s.tif", image, crs=None, transform=None)
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning):
        truth = write("l.tif", labels, crs=None, transform=None)
    mapped = judged(scene, truth, gsd_m=0.8).detections.iou_50
    assert mapped["all"].truth == sum(mapped[name].truth for name in mapped if name != "all") > 0


def test_a_mask_is_matched_as_the_evaluation_matches_it(tmp_path: Path) -> None:
    """Right, missed, false, and false on ground without a label, which counts in neither."""
    labels, mask = np.zeros((60, 100), np.uint8), np.zeros((60, 100), np.uint8)
    labels[5:15, 5:15] = mask[8:20, 8:20] = 1
    labels[40:50, 5:15] = 1
    mask[30:36, 60:70] = 1
    labels[:, 80:], mask[5:10, 85:95] = 255, 1
    paths = {name: tmp_path / f"{name}.tif" for name in ("scene", "labels", "mask")}
    for path, values in zip(paths.values(), (labels, labels, mask), strict=True):
        layout: dict[str, Any] = {"driver": "GTiff", "count": 1, "height": 60, "width": 100, "dtype": "uint8"}
        with rasterio.open(path, "w", crs="EPSG:32648", transform=TRANSFORM, **layout) as file:
            file.write(values[None])
    with RasterReader(paths["scene"], nodata="none") as scene:
        matches = match_mask(paths["mask"], scene, paths["labels"])
    assert matches.found.tolist() == [True, False]
    assert matches.right.tolist() == [True, False]
    false = matches.predicted[~matches.right]
    # columns 60 to 70 and rows 30 to 36 of 0.8 m
    assert false.total_bounds.tolist() == [5e5 + 48, 3e6 - 28.8, 5e5 + 56, 3e6 - 24]
    score = matches.detections.any_overlap["all"]
    assert (score.truth, score.found, score.predicted, score.right) == (2, 1, 2, 1)


def test_polygons_follow_the_object_rule_and_pixels_the_threshold(write: Write) -> None:
    image = np.full((120, 160, 3), 100, np.uint8)
    image[20:60, 20:60] = 200  # a landslide
    image[80:110, 100:130] = 138  # a false alarm: probability .57
    labels = np.zeros(image.shape[:2], np.uint8)
    labels[20:60, 20:60] = 1
    scene, truth = write("scene.tif", image), write("truth.tif", labels)
    plain = judged(scene, truth)
    model = Watched()
    model.info = INFO.model_copy(update={"object_rule": fitted_rule(balanced=(0.4, 0.9, 100), strict=(0.4, 0.95, 0))})
    ruled = judged(scene, truth, model)
    assert plain.rule is None and plain.detections.any_overlap["all"].predicted == 2
    assert ruled.rule == ObjectRule(threshold=0.4, peak=0.9, min_area_m2=100)
    assert ruled.detections.any_overlap["all"].predicted == 1 and ruled.detections.iou_50["all"].f1 == 1
    every = judged(scene, truth, model, choice=PredictOptions(all_regions=True))
    assert every.rule is None and every.detections.any_overlap["all"].predicted == 2
    strict = judged(scene, truth, model, choice=PredictOptions(working_point="strict"))
    assert strict.rule == ObjectRule(threshold=0.4, peak=0.95)
    with pytest.raises(ConfigError, match="has no object rule"):
        judged(scene, truth, choice=PredictOptions(working_point="strict"))
    assert plain.evaluation.scores().model["f1"] == ruled.evaluation.scores().model["f1"]
    assert "by the object rule: threshold 0.4, peak 0.9, at least 100 m2" in str(
        detections_table(ruled.detections, ruled.rule).title
    )
