"""Damaged and forged bundles: descriptions, planted paths, links, huge arrays, graphs and LiteRT files that do harm."""

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

from tests.faults.cases import LITERT, Assets, Call, Case
from tests.faults.conftest import write_scene

Change = Callable[[Path, np.random.Generator], object]
"""Change the bundle in a folder."""

_SAVED = Path("fold_0") / "1"


def _call(name: str, bundle: str) -> Call:
    predict = ("predict", bundle, "area.tif", "--out", "out", "--memory", "2G")
    return predict if name == "predict" else (name, bundle)


def _forged(command: str, change: Change, seal: bool = False) -> Callable[[Path, np.random.Generator, Assets], Call]:
    """Change a bundle and, with `seal`, record its files anew, as a forger would."""

    def make(folder: Path, rng: np.random.Generator, assets: Assets) -> Call:
        write_scene(folder / "area.tif")
        bundle = assets.copy_bundle(folder)
        (folder / "secret.txt").write_text("nobody else's")
        change(bundle, rng)
        if seal:
            _seal(bundle)
        return _call(command, "single")

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
    "graph is a link": lambda bundle, rng: _linked(bundle / _SAVED / "saved_model.pb", bundle.parent / "elsewhere.pb"),
    "model folder is a link": lambda bundle, rng: _linked(bundle / "fold_0", bundle.parent / "elsewhere"),
    "link to itself": lambda bundle, rng: _looped(bundle / _SAVED / "saved_model.pb"),
    "folder within itself": lambda bundle, rng: (bundle / "fold_0" / "loop").symlink_to(bundle),
    "description is a pipe": lambda bundle, rng: _pipe(bundle / "model.json"),
    "graph is a pipe": lambda bundle, rng: _pipe(bundle / _SAVED / "saved_model.pb"),
    "graph is a device": lambda bundle, rng: _device(bundle / _SAVED / "saved_model.pb"),
    "assets beside the graph": lambda bundle, rng: _planted(bundle / _SAVED / "assets.extra" / "run.sh"),
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

GRAPHS = (
    "ReadFile",
    "WriteFile",
    "MatchingFiles",
    "EagerPyFunc",
    "PyFunc",
    "PrintV2",
    "InitializeTableFromTextFileV2",
    "TFRecordDataset",
    "SaveV2",
    "UnknownOperation",
    "hidden in a function",
    "huge tensor",
    "huge output",
    "not probabilities",
    "other signature",
)


def _graph(name: str) -> Change:
    """Write a SavedModel with the signature of a bundle whose graph also does something else."""

    def write(bundle: Path, rng: np.random.Generator) -> None:
        import tensorflow as tf

        harm = _HARM.get(name, lambda tf, image: None)

        class Model(tf.Module):
            @tf.function(input_signature=[tf.TensorSpec((None, None, None, 3), tf.float32, name="image")])
            def serve(self, image: Any) -> dict[str, Any]:
                done = harm(tf, image)
                zero = 0.0 if done is None else tf.cast(tf.size(done), tf.float32) * 0.0
                answer = tf.sigmoid(tf.reduce_mean(image, -1, keepdims=True) / 100 - 2) + zero
                if name == "not probabilities":
                    answer = answer * float("nan")
                return {"other" if name == "other signature" else "probability": answer}

            @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="image_bytes")])
            def encoded(self, image_bytes: Any) -> dict[str, Any]:
                decode = tf.map_fn(lambda one: tf.cast(tf.io.decode_png(one, 3), tf.float32), image_bytes, tf.float32)
                return self.serve(decode)

        model, folder = Model(), bundle / _SAVED
        shutil.rmtree(folder)
        signatures = {"serving_default": model.serve, "encoded": model.encoded}
        tf.saved_model.save(model, str(folder), signatures=signatures)
        if name == "UnknownOperation":
            path = folder / "saved_model.pb"
            path.write_bytes(path.read_bytes().replace(b"\x07Sigmoid", b"\x07Sigmund"))

    return write


def _table(tf: Any, image: Any) -> Any:
    table = tf.raw_ops.HashTableV2(key_dtype=tf.string, value_dtype=tf.int64)
    values = {"filename": "/etc/passwd", "key_index": -2, "value_index": -1}
    tf.raw_ops.InitializeTableFromTextFileV2(table_handle=table, **values)
    return tf.raw_ops.LookupTableSizeV2(table_handle=table)


def _written(tf: Any, image: Any) -> None:
    tf.raw_ops.WriteFile(filename="planted", contents="harm")


def _printed(tf: Any, image: Any) -> None:
    tf.raw_ops.PrintV2(input="harm", output_stream="file://planted")


def _saved(tf: Any, image: Any) -> None:
    tf.raw_ops.SaveV2(prefix="planted", tensor_names=["a"], shape_and_slices=[""], tensors=[tf.constant(1.0)])


def _called(tf: Any, image: Any) -> Any:
    @tf.function
    def inner() -> Any:
        return tf.raw_ops.ReadFile(filename="/etc/passwd")

    return tf.cond(tf.reduce_sum(image) >= 0, inner, lambda: tf.constant(""))


def _huge(tf: Any, image: Any) -> Any:
    """Allocate terabytes, of a size that only a run shows."""
    side = tf.shape(image)[1] * 2**14
    return tf.cumsum(tf.ones((side, side)))


_HARM: dict[str, Callable[[Any, Any], Any]] = {
    "ReadFile": lambda tf, image: tf.raw_ops.ReadFile(filename="/etc/passwd"),
    "WriteFile": _written,
    "MatchingFiles": lambda tf, image: tf.raw_ops.MatchingFiles(pattern="/etc/*"),
    "EagerPyFunc": lambda tf, image: tf.py_function(lambda: 1.0, [], tf.float32),
    "PyFunc": lambda tf, image: tf.numpy_function(lambda: np.float32(1), [], tf.float32),
    "PrintV2": _printed,
    "InitializeTableFromTextFileV2": _table,
    "TFRecordDataset": lambda tf, image: tf.data.TFRecordDataset("/etc/passwd").reduce(np.int64(0), lambda n, _: n + 1),
    "SaveV2": _saved,
    "hidden in a function": _called,
    "huge tensor": _huge,
    "huge output": lambda tf, image: tf.zeros((1000, 1000, 64)),
}

_HARMLESS = ("huge tensor", "huge output", "not probabilities", "other signature")


def _pb(change: Callable[[bytearray, np.random.Generator], object]) -> Change:
    def edit(bundle: Path, rng: np.random.Generator) -> None:
        path = bundle / _SAVED / "saved_model.pb"
        content = bytearray(path.read_bytes())
        change(content, rng)
        path.write_bytes(content)

    return edit


def _flip(content: bytearray, rng: np.random.Generator) -> None:
    for at in rng.integers(0, len(content), 8):
        content[at] = rng.integers(256)


def _cut(content: bytearray, rng: np.random.Generator) -> None:
    del content[int(rng.integers(len(content))) :]


def _litert(change: Callable[[bytearray, np.random.Generator], object]) -> Callable[..., Call]:
    """Change a LiteRT file and record it anew."""

    def make(folder: Path, rng: np.random.Generator, assets: Assets) -> Call:
        from lim_keras.bundle.info import FileRecord

        write_scene(folder / "area.tif")
        shutil.copytree(LITERT.parent, folder / "tflite")
        file, index = folder / "tflite" / LITERT.name, folder / "tflite" / "tflite.json"
        content = bytearray(file.read_bytes())
        change(content, rng)
        file.write_bytes(content)
        values = json.loads(index.read_text())
        values["files"][LITERT.name]["record"] = FileRecord.of(file).model_dump()
        index.write_text(json.dumps(values))
        return _call("predict", f"tflite/{LITERT.name}")

    return make


def _operations(code: int, custom: str = "") -> Callable[[bytearray, np.random.Generator], None]:
    """Turn the first operation of a LiteRT file into another, or into a custom one of a name."""

    def change(content: bytearray, rng: np.random.Generator) -> None:
        from ai_edge_litert import schema_py_generated as schema
        from flatbuffers import Builder

        model = schema.ModelT.InitFromPackedBuf(bytes(content), 0)
        one = model.operatorCodes[0]
        one.builtinCode, one.deprecatedBuiltinCode = code, min(code, 127)
        one.customCode = custom.encode() if custom else None
        builder = Builder(len(content) + 1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        content[:] = builder.Output()

    return change


def _inputs(shape: tuple[int, ...]) -> Callable[[bytearray, np.random.Generator], None]:
    """Change the shape of a LiteRT file's input."""

    def change(content: bytearray, rng: np.random.Generator) -> None:
        from ai_edge_litert import schema_py_generated as schema
        from flatbuffers import Builder

        model = schema.ModelT.InitFromPackedBuf(bytes(content), 0)
        graph = model.subgraphs[0]
        tensor = graph.tensors[graph.inputs[0]]
        tensor.shape = tensor.shapeSignature = np.array(shape, np.int32)
        builder = Builder(len(content) + 1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        content[:] = builder.Output()

    return change


_CUSTOM = 32

LITERTS: dict[str, Callable[[bytearray, np.random.Generator], object]] = {
    "custom operation": _operations(_CUSTOM, "Harm"),
    "Flex operation": _operations(_CUSTOM, "FlexReadFile"),
    "operation of no number": _operations(9999),
    "input of 100,000 px a side": _inputs((1, 100_000, 100_000, 3)),
    "input of no pixels": _inputs((1, 0, 0, 3)),
    "input of three axes": _inputs((64, 64, 3)),
    "empty": lambda content, rng: content.clear(),
    "text": lambda content, rng: content.__setitem__(slice(None), b"no model"),
    **{f"cut {number}": _cut for number in range(2)},
    **{f"bytes {number}": _flip for number in range(4)},
}


def _index(change: Callable[[dict[str, Any]], object]) -> Callable[[Path, np.random.Generator, Assets], Call]:
    """Change the values of tflite.json."""

    def make(folder: Path, rng: np.random.Generator, assets: Assets) -> Call:
        write_scene(folder / "area.tif")
        shutil.copytree(LITERT.parent, folder / "tflite")
        index = folder / "tflite" / "tflite.json"
        values = json.loads(index.read_text())
        change(values)
        index.write_text(json.dumps(values))
        return _call("predict", f"tflite/{LITERT.name}")

    return make


INDEXES: dict[str, Callable[[dict[str, Any]], object]] = {
    "no files": lambda values: values.update(files={}),
    "halo of a million": lambda values: values["files"][LITERT.name].update(halo=2**20),
    "input size of one": lambda values: values["files"][LITERT.name].update(tile=1),
    "a thousand folds": lambda values: values["files"][LITERT.name].update(folds=1000),
    "four bands": lambda values: values["model"].update(bands=4, statistics=values["model"]["statistics"][:1] * 4),
    "file above": lambda values: values["files"].update({"../secret.txt": values["files"][LITERT.name]}),
    "record of text": lambda values: values["files"][LITERT.name].update(record="x"),
}


def cases() -> list[Case]:
    """List the cases."""
    made = [Case("model.json", name, _forged("predict", change)) for name, change in DESCRIPTIONS.items()]
    for command in ("predict", "verify"):
        made += [
            Case("paths and links in bundles", f"{name}, {command}", _forged(command, change))
            for name, change in list(PATHS.items())[:: 1 if command == "verify" else 2]
        ]
    made += [
        Case("arrays in bundles", name, _forged("verify", change, seal=True), fails=True)
        for name, change in ARRAYS.items()
    ]
    made += [
        Case("graphs", name, _forged("predict", _graph(name), seal=True), fails=None if name in _HARMLESS else True)
        for name in GRAPHS
    ]
    made += [Case("graphs", f"bytes {number}", _forged("predict", _pb(_flip), seal=True)) for number in range(4)]
    made += [Case("graphs", f"cut {number}", _forged("predict", _pb(_cut), seal=True)) for number in range(2)]
    made += [Case("LiteRT files", name, _litert(change)) for name, change in LITERTS.items()]
    made += [Case("LiteRT files", f"index, {name}", _index(change)) for name, change in INDEXES.items()]
    return made
