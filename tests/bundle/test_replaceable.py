"""A bundle is replaced only if all its files are as they were exported."""

import shutil
from pathlib import Path

import pytest

from lim_keras.bundle.info import FileRecord
from lim_keras.bundle.replaceable import check_bundle_folder
from lim_keras.errors import BundleError
from tests.conftest import bundle_info


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle of two files and a model.json."""
    folder = tmp_path / "tiny"
    (folder / "fold_0" / "1" / "assets").mkdir(parents=True)
    names = ("README.md", "fold_0/1/saved_model.pb")
    for name in names:
        (folder / name).write_text("ours")
    bundle_info(files={name: FileRecord.of(folder / name) for name in names}).write(folder)
    return folder


def test_what_may_be_replaced(bundle: Path, tmp_path: Path) -> None:
    check_bundle_folder(bundle)
    (bundle / ".DS_Store").write_text("of a file manager")
    (bundle / "fold_0" / ".saved_model.12.34.partial.pb").write_text("draft of a killed call")
    (bundle / "README.md").unlink()
    check_bundle_folder(bundle)
    check_bundle_folder(tmp_path / "new")
    (tmp_path / "empty").mkdir()
    check_bundle_folder(tmp_path / "empty")


def test_one_error_names_all_files_of_the_user(bundle: Path) -> None:
    (bundle / "README.md").write_text("edited")
    (bundle / "notes.txt").write_text("mine")
    (bundle / "fold_0" / "1" / "assets" / "labels.txt").write_text("mine")
    (bundle / "link").symlink_to("elsewhere")
    before = {path: path.read_bytes() for path in bundle.rglob("*") if path.is_file()}
    with pytest.raises(BundleError) as raised:
        check_bundle_folder(bundle, "export")
    said = str(raised.value)
    for name, why in (
        ("README.md", "changed since it was written"),
        ("notes.txt", "not written by lim-keras"),
        (f"{bundle}/fold_0/1/assets/labels.txt", "not written by lim-keras"),
        ("link", "a link"),
    ):
        assert f"{name} ({why})" in said
    assert "model.json" not in said and said.endswith("Move or rename them, or give another folder as `export`.")
    assert {path: path.read_bytes() for path in bundle.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    "edit",
    [
        lambda text: text.replace('"threshold": 0.5', '"threshold": 0.4'),
        lambda text: "{}",
        lambda text: "",
    ],
)
def test_an_edited_description_is_the_users(bundle: Path, edit) -> None:
    path = bundle / "model.json"
    path.write_text(edit(path.read_text()))
    with pytest.raises(BundleError, match=r"model\.json \("):
        check_bundle_folder(bundle)


def test_a_folder_of_other_files(tmp_path: Path, bundle: Path) -> None:
    shutil.copytree(bundle / "fold_0", tmp_path / "other")
    with pytest.raises(BundleError, match=r"other: expected a folder with model\.json, .* another folder as `export`"):
        check_bundle_folder(tmp_path / "other", "export")
    with pytest.raises(BundleError, match="expected a folder's name of letters"):
        check_bundle_folder(tmp_path / "my bundle")
