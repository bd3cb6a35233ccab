"""Public functions: train, evaluate, map and export, as the command line does."""

from lim_keras.api.audit import audit_tiles
from lim_keras.api.bundles import bundle_info, load_bundle, verify_bundle
from lim_keras.api.comparison import report_runs
from lim_keras.api.evaluation import evaluate, evaluate_scene
from lim_keras.api.exports import (
    add_familiarity,
    export_litert,
    export_onnx,
    export_serving,
    fit_object_rule,
    measure_halo,
)
from lim_keras.api.reproduction import reproduce
from lim_keras.api.review import export_review, review_maps
from lim_keras.api.scenes import predict_scene, predict_scenes
from lim_keras.api.tiles import dataset_report, find_overlaps, load_config, read_tiles
from lim_keras.api.tiling import convert_tiles, tile_scenes
from lim_keras.api.training import cross_validate, distill, fit, run_demo

__all__ = [
    "add_familiarity",
    "audit_tiles",
    "bundle_info",
    "convert_tiles",
    "cross_validate",
    "dataset_report",
    "distill",
    "evaluate",
    "evaluate_scene",
    "export_litert",
    "export_onnx",
    "export_review",
    "export_serving",
    "find_overlaps",
    "fit",
    "fit_object_rule",
    "load_bundle",
    "load_config",
    "measure_halo",
    "predict_scene",
    "predict_scenes",
    "read_tiles",
    "report_runs",
    "reproduce",
    "review_maps",
    "run_demo",
    "tile_scenes",
    "verify_bundle",
]
