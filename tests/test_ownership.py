"""A file is ours only if a record lists it with the SHA-256 of its content."""

from pathlib import Path

import pytest

from lim_keras.errors import DataError
from lim_keras.ownership import check_replaceable_files, file_hash, is_ours, users_files

ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # SHA-256 of "abc", FIPS 180-2, B.1


def test_hash_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("abc")
    assert file_hash(tmp_path / "file") == ABC
    assert is_ours(tmp_path / "file", [ABC]) and not is_ours(tmp_path / "file", ["0" * 64])
    assert not is_ours(tmp_path / "file", []) and not is_ours(tmp_path, [ABC])


def test_ours_and_theirs(tmp_path: Path) -> None:
    record = dict.fromkeys(("ours", "changed", "gone", "link", "folder", "sub/ours"), ABC)
    (tmp_path / "sub").mkdir()
    for name in ("ours", "sub/ours", "foreign"):
        (tmp_path / name).write_text("abc")
    (tmp_path / "changed").write_text("abcd")
    (tmp_path / "link").symlink_to(tmp_path / "ours")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "folder").mkdir()
    found = users_files(tmp_path, [*record, "foreign", "dangling", "missing"], record)
    assert {path.name: why for path, why in found.items()} == {
        "changed": "changed since it was written",
        "link": "a link",
        "folder": "a folder",
        "foreign": "not written by lim-keras",
        "dangling": "a link",
    }
    changed = {"changed": file_hash(tmp_path / "changed")}
    assert users_files(tmp_path, ["changed"], record, changed) == {}
    assert (tmp_path / "changed").read_text() == "abcd"


def test_one_error_names_all(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_text("abcd")
    (tmp_path / "b.gpkg").write_text("abc")
    check_replaceable_files(tmp_path, ["b.gpkg", "c"], {"b.gpkg": ABC})
    listed = r"a\.tif \(changed since it was written\), b\.gpkg \(not written by lim-keras\)\. Nothing was replaced\. "
    with pytest.raises(
        DataError, match=f"{tmp_path}: .*: {listed}Move or rename them, or give another folder as `out`"
    ):
        check_replaceable_files(tmp_path, ["a.tif", "b.gpkg"], {"a.tif": ABC}, argument="out")
