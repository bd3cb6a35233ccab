"""A file or folder is either the old one or the new one, at every moment."""

import os
import threading
from pathlib import Path

import pytest

from lim_keras.api.places import locked
from lim_keras.errors import BundleError, DataError
from lim_keras.files import atomic_file, atomic_folder, locked_folder, prepare_file, write_text


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _write(path: Path, text: str) -> None:
    with atomic_folder(path) as folder:
        (folder / "file").write_text(text)


def test_appears_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "bundle"
    with atomic_folder(path) as folder:
        (folder / "file").write_text("new")
        assert not path.exists()
    assert (path / "file").read_text() == "new"
    assert _names(path.parent) == ["bundle"]


def test_error_keeps_what_was_there(tmp_path: Path) -> None:
    _write(tmp_path / "bundle", "old")
    with pytest.raises(RuntimeError, match="disk"), atomic_folder(tmp_path / "bundle") as folder:
        (folder / "file").write_text("new")
        raise RuntimeError("disk full")
    assert (tmp_path / "bundle" / "file").read_text() == "old"
    assert _names(tmp_path) == ["bundle"]


def test_replaces_as_a_whole(tmp_path: Path) -> None:
    _write(tmp_path / "bundle", "old")
    (tmp_path / "bundle" / "extra").write_text("of the old one")
    with atomic_folder(tmp_path / "bundle") as folder:
        (folder / "file").write_text("new")
        assert (tmp_path / "bundle" / "file").read_text() == "old"
    assert _names(tmp_path / "bundle") == ["file"]
    assert (tmp_path / "bundle" / "file").read_text() == "new"
    assert _names(tmp_path) == ["bundle"]


def test_clears_what_a_killed_process_left_and_keeps_folders_of_the_user(tmp_path: Path, ended: int) -> None:
    kept = [".bundle.partial", ".bundle.previous", f".other.{ended}.77.partial", f".bundle.{os.getppid()}.77.partial"]
    for name in (
        *kept,
        f".bundle.{ended}.77.partial",
        f".bundle.{ended}.78.previous",
        f".bundle.{os.getpid()}.7.partial",
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "half").write_text("")
    _write(tmp_path / "bundle", "new")
    assert _names(tmp_path / "bundle") == ["file"]
    assert set(_names(tmp_path)) == {"bundle", *kept} and all((tmp_path / name / "half").exists() for name in kept)


def test_killed_between_the_renames_loses_nothing(tmp_path: Path, ended: int) -> None:
    _write(tmp_path / "bundle", "old")
    (tmp_path / "bundle").rename(tmp_path / f".bundle.{ended}.77.previous")  # as the first rename leaves it
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "bundle"):
        raise RuntimeError
    assert (tmp_path / "bundle" / "file").read_text() == "old"
    assert _names(tmp_path) == ["bundle"]


def test_errors_of_the_block_stay_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_folder(tmp_path / "bundle"):
        (tmp_path / "missing").read_text()
    assert _names(tmp_path) == []


def test_the_check_of_a_place_touches_no_file_of_the_user(tmp_path: Path) -> None:
    (tmp_path / ".report.json.partial").write_text("mine")
    prepare_file(tmp_path / "report.json")
    assert (tmp_path / ".report.json.partial").read_text() == "mine"
    assert _names(tmp_path) == [".report.json.partial"]
    with pytest.raises(DataError, match="cannot be written"):
        prepare_file(tmp_path / ("n" * 300))


def test_a_link_to_a_folder_stays_and_the_folder_is_replaced(tmp_path: Path) -> None:
    _write(tmp_path / "disk" / "bundle", "old")
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "bundle")
    for text in ("new", "newer"):
        _write(tmp_path / "link", text)
        assert (tmp_path / "disk" / "bundle" / "file").read_text() == text
    assert (tmp_path / "link").is_symlink()
    assert _names(tmp_path) == ["disk", "link"] and _names(tmp_path / "disk") == ["bundle"]


def test_a_file_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    with pytest.raises(BundleError, match="file: expected a folder, or nothing yet"):
        _write(tmp_path / "file", "new")
    for name in ("file/bundle", "circle/bundle", "x" * 300):
        with pytest.raises(BundleError, match="cannot be made"):
            _write(tmp_path / name, "new")
    assert (tmp_path / "file").read_text() == "mine" and _names(tmp_path) == ["circle", "file"]


@pytest.mark.parametrize("path", [".", "/", "bundle/.."])
def test_a_folder_without_a_name_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BundleError, match="expected a folder's name"):
        _write(Path(path), "new")
    assert _names(tmp_path) == []


def test_a_file_appears_when_the_block_ends(tmp_path: Path) -> None:
    path = write_text(tmp_path / "map.tif", "old")
    with atomic_file(path) as draft:
        assert draft.suffix == ".tif" and draft.parent == tmp_path
        draft.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new" and _names(tmp_path) == ["map.tif"]


def test_an_error_keeps_the_file_and_leaves_no_draft(tmp_path: Path) -> None:
    path = write_text(tmp_path / "inventory.gpkg", "old")
    with pytest.raises(RuntimeError, match="disk"), atomic_file(path) as draft:
        draft.write_text("half")
        draft.with_name(f"{draft.name}-journal").write_text("of SQLite")
        raise RuntimeError("disk full")
    assert path.read_text() == "old" and _names(tmp_path) == ["inventory.gpkg"]


def test_the_lock_of_a_folder_deletes_drafts_of_dead_processes_only(tmp_path: Path, ended: int) -> None:
    drafts = [f".{stem}.{ended}.77.partial{end}" for stem in ("summary", "best_1.weights") for end in ("", ".h5")]
    drafts += [f".best_1.{ended}.77.partial.weights.h5", f".a.{ended}.77.partial.gpkg-journal"]
    drafts.append(f".a.{os.getpid()}.77.partial.json")  # its process had the same number; it has no such thread
    kept = [
        f".a.{os.getpid()}.{threading.get_ident()}.partial.json",
        ".a.1.77.partial.json",
        f"a.{ended}.77.partial.json",
        ".a.partial",
    ]
    for name in (*drafts, *kept):
        (tmp_path / name).write_text("half")
    with locked_folder(tmp_path):
        assert set(_names(tmp_path)) == {*kept, ".lim-keras.lock"}


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for name in ("missing/file.txt", "folder"):
        with pytest.raises(DataError, match=rf"{name}: cannot be written \("):
            write_text(tmp_path / name, "text")
    assert _names(tmp_path) == ["folder"] and _names(tmp_path / "folder") == []


def test_a_name_as_long_as_the_file_system_allows(tmp_path: Path) -> None:
    path = write_text(tmp_path / ("n" * 251 + ".txt"), "new")
    assert path.read_text() == "new" and _names(tmp_path) == [path.name]


def test_the_lock_of_a_bundle_recovers_what_killed_exports_left_beside_it(tmp_path: Path, ended: int) -> None:
    kept = ["bundle", ".bundle.partial", ".notes", f".another.{ended}.5.partial"]
    for name in (*kept[1:], f".bundle.{ended}.5.partial", f".bundle.{ended}.6.previous"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    with locked(tmp_path / "bundle", "export", wait=False):
        assert set(_names(tmp_path)) == {*kept, ".bundle.lim-keras.lock"}
        assert (tmp_path / "bundle" / "file").read_text() == f".bundle.{ended}.6.previous"


def test_the_lock_of_a_report_deletes_its_drafts_only(tmp_path: Path, ended: int) -> None:
    kept = [f".other.{ended}.5.partial.json", ".report.json.partial", f".report.{os.getppid()}.5.partial.json"]
    for name in (*kept, f".report.{ended}.5.partial.json"):
        (tmp_path / name).write_text("half")
    with locked(tmp_path / "report.json", "json_file", wait=False):
        assert set(_names(tmp_path)) == {*kept, ".report.json.lim-keras.lock"}
