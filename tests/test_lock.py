"""One call at a time writes into a folder; the others say who works there, or wait."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from lim_keras import lock
from lim_keras.errors import DataError, LimKerasWarning
from lim_keras.files import locked_folder
from lim_keras.lock import folder_lock

HOLD = """
import sys, time
from pathlib import Path
from lim_keras.files import locked_folder
from lim_keras.lock import folder_lock
with folder_lock(Path(sys.argv[2])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def other(tmp_path: Path):
    """A process that holds the lock of the folder."""
    call = [sys.executable, "-c", HOLD, "work", str(tmp_path)]
    with subprocess.Popen(call, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_the_lock_leaves_nothing(tmp_path: Path) -> None:
    for _ in range(2):
        with folder_lock(tmp_path):
            assert [path.name for path in tmp_path.iterdir()] == [".lim-keras.lock"]
        assert list(tmp_path.iterdir()) == []
    with pytest.raises(RuntimeError), folder_lock(tmp_path):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_the_second_call_says_who_works_there(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    since = r"since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
    expected = rf"{tmp_path}: in use by process {other.pid} on {os.uname().nodename} \(-c work\), {since}\. "
    cure = "Wait for its end, give `wait`, or give another folder as `out`."
    with pytest.raises(DataError, match=expected + cure), folder_lock(tmp_path, argument="out"):
        pass
    (tmp_path / "link").symlink_to(tmp_path)  # the same folder by another path
    with pytest.raises(DataError, match=f"process {other.pid}"), folder_lock(tmp_path / "link"):
        pass
    with folder_lock(tmp_path, entry="bundle"):  # another thing in the folder
        pass


def test_a_killed_holder_frees_the_lock(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert (tmp_path / ".lim-keras.lock").exists()
    again = pytest.raises(DataError, match=f"process {os.getpid()}, another thread of this")
    with folder_lock(tmp_path), again, folder_lock(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_waiting_for_another_process(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    timer = threading.Timer(0.5, other.kill)
    timer.start()
    start = time.monotonic()
    waits = pytest.warns(LimKerasWarning, match=f"waiting for the end of process {other.pid}")
    with waits, folder_lock(tmp_path, wait=True):
        assert time.monotonic() - start > 0.4


@pytest.mark.filterwarnings("ignore::lim_keras.errors.LimKerasWarning")
def test_many_threads_hold_it_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "_POLL_S", 0.001)
    inside: list[int] = []
    most: list[int] = []

    def work(number: int) -> None:
        for _ in range(10):
            with folder_lock(tmp_path, wait=True):
                inside.append(number)
                most.append(len(inside))
                time.sleep(0.001)
                inside.remove(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == 60 and max(most) == 1 and list(tmp_path.iterdir()) == []


def test_the_content_of_a_left_lock_file_is_ignored(tmp_path: Path) -> None:
    for content in (b"", b"{", b'{"process": 1}', b'{"process": 12, "host"' + b"\0" * 5000):
        (tmp_path / ".lim-keras.lock").write_bytes(content)
        with folder_lock(tmp_path):
            assert str(os.getpid()) in (tmp_path / ".lim-keras.lock").read_text()


@pytest.mark.parametrize("content", [b"mine", b"\xff" * 5000, b'{"name": 1}', b" "])
@pytest.mark.parametrize("has_locks", [True, False])
def test_a_file_of_the_user_with_the_name_of_a_lock(tmp_path: Path, monkeypatch, content, has_locks) -> None:
    path = tmp_path / ".a.lim-keras.lock"
    path.write_bytes(content)
    if not has_locks:
        monkeypatch.setattr(lock, "_lock", no_locks)
    cure = (
        "a file of other content, not a lock file of lim-keras. Remove or rename it, or give another folder as `out`."
    )
    refused = pytest.raises(DataError, match=f"^{path}: cannot be locked, because it is {cure}$")
    with refused, folder_lock(tmp_path, entry="a", argument="out", wait=True):
        pass
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (os.mkfifo, "no regular file"),
        (os.mkdir, "a folder"),
        (lambda path: path.symlink_to("mine"), "a link"),
        (lambda path: path.symlink_to("."), "a link"),
    ],
)
def test_something_else_with_the_name_of_a_lock(tmp_path: Path, make, kind) -> None:
    path = tmp_path / ".lim-keras.lock"
    make(path)
    refused = pytest.raises(DataError, match=f"^{path}: cannot be locked, because it is {kind}, .* Remove or rename it")
    with refused, folder_lock(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == [path]
    path.rename(tmp_path / "moved")
    with folder_lock(tmp_path):
        pass


def no_locks(file: int) -> bool:
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))


def test_a_folder_that_cannot_be_locked_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".lim-keras.lock").symlink_to(tmp_path / "mine")
    with pytest.raises(DataError, match="cannot be locked"), folder_lock(tmp_path):
        pass
    assert not (tmp_path / "mine").exists()
    (tmp_path / ".lim-keras.lock").unlink()

    def refuse(*_: object) -> int:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(lock.os, "open", refuse)
    cure = "Repair the folder, free disk space, or give another folder as `out`"
    refused = pytest.raises(DataError, match=rf"cannot be locked for writing \(Read-only file system\). {cure}")
    with refused, folder_lock(tmp_path, argument="out"):
        pass


def test_a_lock_file_of_another_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    native = os.open

    def readable_only(path: Path, flags: int, *mode: int) -> int:
        if flags & os.O_RDWR:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return native(path, flags, *mode)

    monkeypatch.setattr(lock.os, "open", readable_only)
    refused = pytest.raises(DataError, match=r"cannot be locked for writing \(Permission denied\)")
    with refused, folder_lock(tmp_path):
        pass
    (tmp_path / ".lim-keras.lock").touch()  # left by a killed call
    again = pytest.raises(DataError, match="in use by another call")
    with folder_lock(tmp_path), again, folder_lock(tmp_path):
        pass


def test_without_locks_of_the_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock.tempfile, "gettempdir", lambda: str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    (tmp_path / "out").mkdir()
    native = lock._lock

    def locks_below_tmp(file: int, shared: bool) -> bool:
        if Path(f"/proc/self/fd/{file}").readlink().parent != tmp_path / "tmp":
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
        return native(file, shared)

    monkeypatch.setattr(lock, "_lock", locks_below_tmp)
    with pytest.warns(LimKerasWarning, match="out: its file system has no locks"), folder_lock(tmp_path / "out"):
        assert list((tmp_path / "out").iterdir()) == []
        with pytest.raises(DataError, match=f"in use by process {os.getpid()}"), folder_lock(tmp_path / "out"):
            pass
    assert list((tmp_path / "tmp").iterdir()) == []


def test_parts_share_the_lock_and_keep_all_others_out(tmp_path: Path) -> None:
    with locked_folder(tmp_path, entry="part-1-of-3"), locked_folder(tmp_path, entry="part-2-of-3"):
        both, again = (pytest.raises(DataError, match=text) for text in ("by 2 calls that make parts", "3: in use"))
        with both, locked_folder(tmp_path):
            pass
        with again, locked_folder(tmp_path, entry="part-2-of-3"):
            pass
    assert list(tmp_path.iterdir()) == []
    refused = pytest.raises(DataError, match=r"in use by process \d+")
    with locked_folder(tmp_path), refused, locked_folder(tmp_path, entry="part-1-of-3"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_the_end_of_one_part_frees_nothing_for_others(tmp_path: Path) -> None:
    with locked_folder(tmp_path, entry="part-1-of-2"):
        with locked_folder(tmp_path, entry="part-2-of-2"):
            pass
        with pytest.raises(DataError, match="in use by"), locked_folder(tmp_path):
            pass
    (tmp_path / ".part-9-of-9.lim-keras.lock").write_text('{"process": 1}')  # a killed call left it
    with locked_folder(tmp_path):
        pass


def test_a_killed_part_is_no_holder(tmp_path: Path) -> None:
    held = HOLD.replace("lock import folder_lock", "files import locked_folder")
    held = held.replace("folder_lock(Path(sys.argv[2]))", 'locked_folder(Path(sys.argv[2]), entry="part-1-of-2")')
    call = [sys.executable, "-c", held, "work"]
    with subprocess.Popen([*call, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        with pytest.raises(DataError, match=f"in use by process {process.pid} "), locked_folder(tmp_path):
            pass
        process.kill()
        process.wait()
    with locked_folder(tmp_path, entry="part-1-of-2"):
        pass
    with locked_folder(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []
