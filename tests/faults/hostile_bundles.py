"""Damaged and forged bundles: descriptions, planted paths, links and huge arrays."""

import io
import json
import os
import shutil
import struct
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.faults.cases import Assets, Call, Case
from tests.faults.conftest import write_scene

Change = Callable[[Path, np.random.Generator], object]
"""Change the bundle in a folder."""

SAVED = Path("fold_0") / "1"


def call(name: str, bundle: str) -> Call:
    predict = ("predict", bundle, "area.tif", "--out", "out", "--memory", "2G")
    return predict if name == "predict" else (name, bundle)


def forged(command: str, change: Change, seal: bool = False) -> Callable[[Path, np.random.Generator, Assets], Call]:
    """Change a bundle and, with `seal`, record its files anew, as a forger would."""

    def make(folder: Path, rng: np.random.Generator, assets: Assets) -> Call:
        write_scene(folder / "area.tif")
        bundle = assets.copy_bundle(folder)
        (folder / "secret.txt").write_text("nobody else's")
        change(bundle, rng)
        if seal:
            _seal(bundle)
        return call(command, "single")

    return make


def _seal(bundle: Path) -> None:
    from lim_keras.bundle.info import INFO_FILE, BundleInfo, FileRecord

    info = BundleInfo.read(bundle)
    files = {
        path.relative_to(bundle).as_posix(): FileRecord.of(path)
        for path in sorted(bundle.rglob("*"))
        if path.is_file() and path.name != INFO_FILE
    }
    info.model_copy(update={"files": files}).write(bundle)


def _values(change: Callable[[dict[str, Any]], object]) -> Change:
    """Change the values of model.json."""

    def edit(bundle: Path, rng: np.random.Generator) -> None:
        values = json.loads((bundle / "model.json").read_text())
        change(values)
        (bundle / "model.json").write_text(json.dumps(values))

    return edit


def _set(**changes: Any) -> Change:
    return _values(lambda values: values.update(changes))


def _without(key: str) -> Change:
    return _values(lambda values: values.pop(key))


def _recorded(name: str) -> Change:
    return _values(lambda values: values["files"].update({name: {"bytes": 13, "sha256": "0" * 64}}))


def _content(content: str | bytes) -> Change:
    data = content.encode() if isinstance(content, str) else content
    return lambda bundle, rng: (bundle / "model.json").write_bytes(data)


def _replaced(old: str, new: str) -> Change:
    def replace(bundle: Path, rng: np.random.Generator) -> None:
        text = (bundle / "model.json").read_text()
        assert old in text
        (bundle / "model.json").write_text(text.replace(old, new, 1))

    return replace


def _fuzzed_json(bundle: Path, rng: np.random.Generator) -> None:
    content = bytearray((bundle / "model.json").read_bytes())
    for at in rng.integers(0, len(content), 3):
        content[at] = rng.integers(256)
    (bundle / "model.json").write_bytes(content)


DESCRIPTIONS: dict[str, Change] = {
    "nothing": _content(""),
    "cut": _content('{"format": 1, "na'),
    "list": _content("[1, 2]"),
    "nested 100,000 deep": _content("[" * 100_000),
    "nested values": _content('{"format": 1, "model": ' + '{"a": ' * 900 + "1" + "}" * 901),
    "utf-16": _content('{"format": 1}'.encode("utf-16")),
    "nul": _content("{\0}"),
    "70 MB": _content(b" " * 70 * 2**20),
    "a number of 10,000 digits": _replaced('"folds": 1', '"folds": 1' + "0" * 10_000),
    "key twice": _replaced('"folds": 1', '"folds": 3, "folds": 1'),
    "not a number": _replaced('"threshold": 0.5', '"threshold": NaN'),
    "infinite": _replaced('"threshold": 0.5', '"threshold": 1e999'),
    "missing key": _without("statistics"),
    "no files": _set(files={}),
    "other key": _set(secret=1),
    "format of text": _set(format="1"),
    "bands of text": _set(bands="3"),
    "65,536 bands": _set(bands=65_536, statistics=[{"mean": 1, "std": 1, "min": 0, "max": 1}] * 65_536),
    "no bands": _set(bands=0, statistics=[]),
    "halo of a million": _set(halo=2**20),
    "stride of a million": _set(stride=2**20),
    "stride of seven": _set(stride=7),
    "1,000 folds": _set(folds=1000),
    "memory of a gigabyte a pixel": _set(bytes_per_pixel=1e9),
    "negative memory": _set(bytes_per_pixel=-1),
    "statistics of nothing": _set(statistics=[{"mean": 0, "std": 0, "min": 0, "max": 0}] * 3),
    "statistics of 1e308": _set(statistics=[{"mean": 1e308, "std": 1e-308, "min": -1e308, "max": 1e308}] * 3),
    "temperature of 1e-300": _set(temperature=1e-300),
    "name of a path": _set(name="../../planted"),
    "name of markup": _set(name="[bold]x[/bold]"),
    "link of a script": _set(data_link="javascript:alert(1)"),
    "terms of markup and control characters": _set(data_terms="[red]\x1b[2J{{7*7}}<script>"),
    "creation in the year 1": _set(created="0001-01-01T00:00:00+14:00"),
    "scores of text": _set(metrics={"test": {"f1": "high"}}),
    **{f"bytes {number}": _fuzzed_json for number in range(4)},
}

PATHS: dict[str, Change] = {
    "file above": _recorded("../secret.txt"),
    "file far above": _recorded("fold_0/../../../../etc/passwd"),
    "absolute file": _recorded("/etc/passwd"),
    "drive": _recorded("C:/secret.txt"),
    "backslashes": _recorded("..\\secret.txt"),
    "nul": _recorded("a\0b"),
    "empty": _recorded(""),
    "file of 5,000 letters": _recorded("p/" * 2500 + "q"),
    "description is a link": lambda bundle, rng: _linked(bundle / "model.json", bundle.parent / "elsewhere.json"),
    "graph is a link": lambda bundle, rng: _linked(bundle / SAVED / "saved_model.pb", bundle.parent / "elsewhere.pb"),
    "model folder is a link": lambda bundle, rng: _linked(bundle / "fold_0", bundle.parent / "elsewhere"),
    "link to itself": lambda bundle, rng: _looped(bundle / SAVED / "saved_model.pb"),
    "folder within itself": lambda bundle, rng: (bundle / "fold_0" / "loop").symlink_to(bundle),
    "description is a pipe": lambda bundle, rng: _pipe(bundle / "model.json"),
    "graph is a pipe": lambda bundle, rng: _pipe(bundle / SAVED / "saved_model.pb"),
    "graph is a device": lambda bundle, rng: _device(bundle / SAVED / "saved_model.pb"),
    "assets beside the graph": lambda bundle, rng: _planted(bundle / SAVED / "assets.extra" / "run.sh"),
}


def _linked(path: Path, target: Path) -> None:
    shutil.move(path, target)
    path.symlink_to(target)


def _looped(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def _planted(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("touch planted\n")


def _npz(name: str, members: Callable[[], dict[str, bytes]]) -> Change:
    def write(bundle: Path, rng: np.random.Generator) -> None:
        with zipfile.ZipFile(bundle / name, "w", zipfile.ZIP_DEFLATED) as archive:
            for member, content in members().items():
                archive.writestr(member, content)

    return write


def _array(values: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.asarray(values), allow_pickle=True)
    return stream.getvalue()


def _header(shape: Sequence[int], dtype: str = "<f4") -> bytes:
    """Return an array file that claims a shape and holds no values."""
    text = str({"descr": dtype, "fortran_order": False, "shape": tuple(shape)}).encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text) + 1) + text + b"\n"


class _Harm:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch planted",)


def _pair(image: bytes, probability: bytes) -> Callable[[], dict[str, bytes]]:
    return lambda: {"image.npy": image, "probability.npy": probability}


_SMALL = _array(np.zeros((4, 4), np.float32))

ARRAYS: dict[str, Change] = {
    "bomb of zeros": _npz("verify.npz", lambda: _pair(_array(np.zeros((200, 2**20), np.uint8)), _SMALL)()),
    "shape without values": _npz("verify.npz", _pair(_header((2**31, 2**20, 3)), _SMALL)),
    "negative shape": _npz("verify.npz", _pair(_header((-1, -4, 3)), _SMALL)),
    "shape of overflow": _npz("verify.npz", _pair(_header((2**62, 4, 4)), _SMALL)),
    "pickle": _npz("verify.npz", lambda: _pair(_array(np.array([_Harm()], object)), _SMALL)()),
    "header of code": _npz("verify.npz", _pair(_header((4, 4, 3), "__import__('os').system('touch planted')"), _SMALL)),
    "text for numbers": _npz("verify.npz", _pair(_array(np.full((4, 4, 3), "a")), _SMALL)),
    "not numbers": _npz("verify.npz", _pair(_array(np.full((4, 4, 3), np.nan)), _SMALL)),
    "path in the archive": _npz("verify.npz", lambda: {"../../planted.npy": _SMALL, "image.npy": _SMALL}),
    "no archive": lambda bundle, rng: (bundle / "verify.npz").write_bytes(b"no archive"),
}


def cases() -> list[Case]:
    """List the cases."""
    made = [
        Case("model.json", f"unchanged, {command}", forged(command, _set()), fails=False)
        for command in ("predict", "verify", "info")
    ]
    made += [Case("model.json", name, forged("predict", change)) for name, change in DESCRIPTIONS.items()]
    for command in ("predict", "verify"):
        made += [
            Case("paths and links in bundles", f"{name}, {command}", forged(command, change))
            for name, change in list(PATHS.items())[:: 1 if command == "verify" else 2]
        ]
    made += [
        Case("arrays in bundles", name, forged("verify", change, seal=True), fails=True)
        for name, change in ARRAYS.items()
    ]
    return made
