"""Seals tell whether a file is as this package wrote it."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from lim_keras.errors import DataError
from lim_keras.seals import check_sealed, is_sealed, seal_png, sealed_json


def test_json(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(sealed_json({"f1": 0.1 + 0.2, "folds": {1: None}, "name": "ü"}))
    assert is_sealed(path)
    values = json.loads(path.read_text())
    # SHA-256 of the same object without the seal, indented by two spaces
    assert list(values) == ["f1", "folds", "name", "lim_keras_sha256"] and len(values["lim_keras_sha256"]) == 64
    for edited in (
        path.read_text().replace("0.3", "0.4"),
        path.read_text() + " ",
        json.dumps(values),
        json.dumps({**values, "note": "mine"}, indent=2) + "\n",
    ):
        path.write_text(edited)
        assert not is_sealed(path)
    with pytest.raises(ValueError, match="not JSON compliant"):
        sealed_json({"f1": float("nan")})


def test_png(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    picture = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    cv2.imwrite(str(path), picture)
    assert not is_sealed(path)
    seal_png(path)
    assert is_sealed(path)
    np.testing.assert_array_equal(cv2.imread(str(path)), picture)
    content = path.read_bytes()
    for edited in (content[:20] + b"\1" + content[21:], content[:-1], content + b"x", b"", b"\x89PNG\r\n\x1a\n"):
        path.write_bytes(edited)
        assert not is_sealed(path)
    cv2.imwrite(str(path), picture)  # as a painting program saves it
    assert not is_sealed(path)
    path.write_bytes(content[:-1])
    with pytest.raises(OSError, match="not a whole PNG file"):
        seal_png(path)


def test_one_error_names_all(tmp_path: Path) -> None:
    (tmp_path / "ours.json").write_text(sealed_json({}))
    (tmp_path / "mine.json").write_text("{}")
    (tmp_path / "link.json").symlink_to(tmp_path / "ours.json")
    (tmp_path / "folder").mkdir()
    check_sealed(tmp_path, ["ours.json", "missing.png"], "out")
    with pytest.raises(DataError, match=r"mine\.json \(.*link\.json \(.*folder \(.*give another folder as `out`"):
        check_sealed(tmp_path, ["ours.json", "mine.json", "link.json", "folder"], "out")
