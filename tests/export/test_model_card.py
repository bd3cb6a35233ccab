"""The model card: what model.json knows, in words."""

from pathlib import Path

import pytest

from lim_keras.bundle.info import BundleInfo
from lim_keras.export.documents import model_card, write_documents
from lim_keras.metrics.binary import Estimate


@pytest.fixture(scope="module")
def info(bundle_path: Path) -> BundleInfo:
    return BundleInfo.read(bundle_path)


def test_sections_and_figures(bundle_path: Path) -> None:
    card = (bundle_path / "README.md").read_text()
    assert card.startswith("# tiny\n\nMaps landslides in images of 3 bands. Network: fcn_fl with a small encoder; an ")
    assert "an ensemble of 3 folds." in card
    assert "| out_of_fold | f1 | 0.700 | 0.600 to 0.800 |" in card
    assert "mcc" not in card and "nan" not in card  # a score that is not defined
    assert "Ground sample distance: 0.8 m." in card
    assert "landslide where it is >= 0.4500." in card
    assert "| 1 | 120 | 60 | 0 | 255 |" in card
    for words in ("Bare soil", "Roads", "quarries", "overgrown", "Not recorded. Before you publish"):
        assert words in card
    for call in (
        "lim-keras predict tiny",
        'lk.load_bundle("tiny")',
        '"tiny/ensemble/1"',
        'base_path="$PWD/tiny/ensemble"',
    ):
        assert call in card


def test_counts_and_terms(info: BundleInfo) -> None:
    changes = {"training_tiles": ("a", "b"), "test_tiles": ("c",), "data_terms": "Education and research."}
    changes |= {"data_link": "https://example.org/tiles"}
    card = model_card(info.model_copy(update=changes))
    assert "Trained on 2 tiles; 1 test tiles were kept out of training (ids in model.json)" in card
    assert "## Terms of the training data\n\nEducation and research.\n\nData: <https://example.org/tiles>" in card


def test_nothing_known(info: BundleInfo) -> None:
    card = model_card(info.model_copy(update={"metrics": {}, "gsd_m": None, "model": {}, "sampling": {}}))
    assert "## Scores\n\nNot recorded." in card and "distance: unknown" in card and "unknown network" in card


def test_interval_that_is_not_defined(info: BundleInfo) -> None:
    nan = float("nan")
    card = model_card(info.model_copy(update={"metrics": {"test": {"f1": Estimate(0.5, nan, nan)}}}))
    assert "| test | f1 | 0.500 | - |" in card


def test_documents_are_recorded_and_renewed(info: BundleInfo, copied: Path) -> None:
    files = info.files | {"tflite/int8.tflite": info.files["README.md"]}
    renewed = write_documents(copied, info.model_copy(update={"files": files}))
    assert renewed.files["README.md"] != info.files["README.md"]
    renewed.check_file(copied, "README.md")
    renewed.check_file(copied, "stac-item.json")
    assert "`tflite/int8.tflite`" in (copied / "README.md").read_text()
