"""A bundle's SavedModels into TensorFlow, once nothing in them does more than compute.

TensorFlow runs whatever a graph says, and its operations can also read and write files, call Python or open
connections. No export of ours has such operations, so a graph with one is somebody else's and is not loaded.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.framework import op_def_registry

from lim_keras.errors import BundleError

_PB_FILE = "saved_model.pb"

_STATE = frozenset(
    {
        *("Assert", "CheckNumerics", "CheckNumericsV2", "GuaranteeConst", "VariableShape"),
        *("AssignVariableOp", "DisableCopyOnRead", "ReadVariableOp", "VarHandleOp", "VarIsInitializedOp"),
        *("Case", "If", "ResourceGather", "ResourceGatherNd", "StatefulPartitionedCall", "While"),
    }
)
"""Operations with a state that stay inside the graph: its variables, and calls of its functions."""

_CHECKPOINT = frozenset({"MergeV2Checkpoints", "RestoreV2", "SaveV2"})
"""Operations of the two functions that every SavedModel has for checkpoints. Loading does not call them."""

_OUTSIDE = ("Dataset", "File", "LoadAndRemap", "PyFunc", "Reader", "Snapshot", "Xla")
"""Parts of the names of stateless operations that reach out of the graph, or hold programs of their own."""

_NAMES_ONLY = frozenset({"ShardedFilename", "ShardedFilespec"})

_UNREADABLE = (
    *(ArithmeticError, AssertionError, AttributeError, DecodeError, LookupError, OSError, RuntimeError),
    *(TypeError, ValueError, tf.errors.OpError),
)
"""What TensorFlow raises for files that fit no SavedModel of its version."""


def load_graph(folder: Path, made_with: str) -> Any:
    """What `tf.saved_model.load` gives for a folder.

    Args:
        folder: of a SavedModel whose files are as recorded.
        made_with: version of TensorFlow that wrote it, for the message.

    Raises:
        BundleError: the graph does more than compute, or TensorFlow cannot load it.
    """
    try:
        saved = saved_model_pb2.SavedModel.FromString((folder / _PB_FILE).read_bytes())
        foreign = sorted({name for graph in saved.meta_graphs for name in _foreign(graph)})
        if not foreign:
            return tf.saved_model.load(str(folder))
    except _UNREADABLE as error:
        raise BundleError(
            f"{folder}: TensorFlow {tf.__version__} cannot load this SavedModel, which was exported with {made_with} "
            f"({error}). Use that version, or export the bundle again."
        ) from error
    raise BundleError(
        f"{folder}: expected a graph that only computes. Received: the operations {', '.join(foreign)}, which can "
        "reach files, programs or the network. It was not loaded. Get the bundle from whoever trained the model."
    )


def _foreign(graph: Any) -> Iterator[str]:
    """Names of the operations of a graph and its functions that it may not have."""
    functions = {function.signature.name: function.node_def for function in graph.graph_def.library.function}
    saving = {name for name, nodes in functions.items() if any(node.op in _CHECKPOINT for node in nodes)}
    # Of the saving functions none may be what can be called: by an object or another function.
    callable_names = set(graph.object_graph_def.concrete_functions)
    for name, nodes in functions.items():
        callable_names.update(called for node in nodes for called in _called(node) if called != name)
    saving -= callable_names
    for name, nodes in functions.items():
        yield from (node.op for node in nodes if not _stays_inside(node.op, saves=name in saving))
    yield from (node.op for node in graph.graph_def.node if not _stays_inside(node.op))


def _called(node: Any) -> Iterator[str]:
    for value in node.attr.values():
        yield value.func.name
        yield from (function.name for function in value.list.func)


def _stays_inside(name: str, saves: bool = False) -> bool:
    known = op_def_registry.get(name)
    if known is None:
        return False
    if name in _CHECKPOINT:
        return saves
    if known.is_stateful:
        return name in _STATE
    return name in _NAMES_ONLY or not any(part in name for part in _OUTSIDE)
