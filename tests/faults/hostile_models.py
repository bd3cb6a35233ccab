"""Forged models: SavedModels whose graphs do harm or fail, and damaged LiteRT files."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.faults.cases import LITERT, Assets, Call, Case
from tests.faults.conftest import write_scene
from tests.faults.hostile_bundles import SAVED, Change, call, forged

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

        model, folder = Model(), bundle / SAVED
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
    """Allocate terabytes; the size is known only when the graph runs."""
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
        path = bundle / SAVED / "saved_model.pb"
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
        return call("predict", f"tflite/{LITERT.name}")

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
        return call("predict", f"tflite/{LITERT.name}")

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
    made = [
        Case("graphs", name, forged("predict", _graph(name), seal=True), fails=None if name in _HARMLESS else True)
        for name in GRAPHS
    ]
    made += [Case("graphs", f"bytes {number}", forged("predict", _pb(_flip), seal=True)) for number in range(4)]
    made += [Case("graphs", f"cut {number}", forged("predict", _pb(_cut), seal=True)) for number in range(2)]
    made += [Case("LiteRT files", name, _litert(change)) for name, change in LITERTS.items()]
    made += [Case("LiteRT files", f"index, {name}", _index(change)) for name, change in INDEXES.items()]
    return made
