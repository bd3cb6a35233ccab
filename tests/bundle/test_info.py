"""model.json without any model: what it may say, and what older bundles do not say."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from lim_keras.bundle.info import BundleInfo
from lim_keras.errors import BundleError
from tests.conftest import bundle_info, model_facts


def written(folder: Path, **changes: object) -> BundleInfo:
    """model.json with some keys changed, or left out where None, as read back."""
    values = json.loads(bundle_info(folds=2).model_dump_json()) | changes
    kept = {key: value for key, value in values.items() if value is not None or key == "gsd_m"}
    (folder / "model.json").write_text(json.dumps(kept))
    return BundleInfo.read(folder)


def test_the_fold_that_has_not_seen_a_tile(tmp_path: Path) -> None:
    assert written(tmp_path, held_out={"a": 0, "b": 1}).held_out == {"a": 0, "b": 1}


def test_bundles_written_before_it_was_kept(tmp_path: Path) -> None:
    known = written(tmp_path, held_out=None, litert=None)
    assert (known.held_out, known.litert) == ({}, {})


def test_a_fold_that_the_bundle_does_not_have(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"expected folds 0\.\.1 in `held_out`, received 2 of tile 'b' \(2 such"):
        written(tmp_path, held_out={"a": 0, "c": 5, "b": 2})


def test_folds_count_from_zero() -> None:
    with pytest.raises(ValidationError, match="greater than or equal to 0"):
        model_facts(held_out={"a": -1})
    # training alone does not know how many models will be exported
    assert model_facts(held_out={"a": 7}).held_out == {"a": 7}
