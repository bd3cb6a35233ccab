"""Public names of `lim_keras.data`."""

import subprocess
import sys

import pytest

import lim_keras as lk


def test_every_public_name_is_found():
    for name in lk.data.__all__:
        assert getattr(lk.data, name).__name__ == name
    assert dir(lk.data) == lk.data.__all__


def test_unknown_names_are_refused():
    with pytest.raises(AttributeError, match="no attribute 'assign_fold'"):
        lk.data.assign_fold  # noqa: B018


def test_tensorflow_is_not_imported_for_tiles():
    program = (
        "import sys, lim_keras as lk; lk.data.assign_folds, lk.data.read_tiles, lk.data.WindowSampler, "
        "lk.data.DatasetReport, lk.data.find_overlaps; print('tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
