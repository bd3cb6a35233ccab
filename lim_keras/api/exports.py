"""Public functions that convert bundles to other formats, and add facts to them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lim_keras.api.arguments import TileIds, as_count, as_ids, as_path, public
from lim_keras.api.places import locked
from lim_keras.errors import ConfigError
from lim_keras.files import StrPath
from lim_keras.tensorflow_import import load_tensorflow

if TYPE_CHECKING:
    from lim_keras.bundle.info import FamiliarityFacts, MeasuredHalo
    from lim_keras.bundle.litert import Variant
    from lim_keras.bundle.object_rule import FittedRule
    from lim_keras.export.onnx_file import OnnxExport
    from lim_keras.export.serving_repository import ServingExport
    from lim_keras.export.tflite import LiteRtExport


@public
def export_litert(
    bundle: StrPath,
    variants: Variant | Sequence[Variant],
    *,
    tile: int | None = None,
    fold: int | None = None,
    tiles: StrPath | None = None,
    tile_ids: TileIds | None = None,
    allow_drop: bool = False,
    out: StrPath | None = None,
    threads: int | None = None,
    wait: bool = False,
) -> LiteRtExport:
    """Export LiteRT (TFLite) files, which run without TensorFlow, and compare each with the SavedModel.

    Args:
        bundle: folder of the bundle.
        variants: number types, one or several of "float32", "float16", "dynamic" and "int8".
        tile: height and width of the input, pixels; None: any.
        fold: export this fold alone, counted from 0; None: the ensemble as one file.
        tiles: folder of tiles, or a tiles.csv. Tiles test every file and calibrate int8, which requires them.
        tile_ids: ids of the tiles to test on; None: the test tiles, or all tiles outside training if there are none.
        allow_drop: keep files that differ from the SavedModel by more than the limit of their number type.
        out: folder of the files; None: `tflite` in the bundle.
        threads: number of interpreter threads in the comparison; None: one per core.
        wait: wait for the end of another call that writes to the same folder; False: raise an error.

    Returns:
        The files with their measurements, and the names of the files that were refused and not kept.

    Raises:
        BundleError: the bundle cannot be read, or LiteRT cannot run a file.
        ConfigError: int8 without tiles, or tile ids without tiles.
        DataError: the tiles do not fit the bundle, files of the user would be replaced, or another call works there.

    Examples:
        >>> lk.export_litert("exported_models/bijie_edge", ["float16", "int8"], tiles="bijie_tiles.csv")
    """
    kinds = tuple(variants) if isinstance(variants, Iterable) and not isinstance(variants, str) else (variants,)
    _check_litert(kinds, tiles, tile_ids)
    load_tensorflow()
    from lim_keras.export.tflite import FOLDER, LiteRtOptions
    from lim_keras.export.tflite import export_litert as export

    ids = as_ids("tile_ids", tile_ids)
    options = LiteRtOptions(
        kinds,
        tile=tile,
        fold=fold,
        tiles=None if tiles is None else as_path("tiles", tiles),
        tile_ids=None if ids is None else tuple(ids),
        allow_drop=allow_drop,
        out=None if out is None else as_path("out", out),
        threads=threads,
    )
    source = as_path("bundle", bundle)
    inside = options.out is None or os.path.realpath(options.out) == os.path.realpath(source / FOLDER)
    with locked(source, "bundle", wait=wait) if inside else locked(Path(options.out or ""), "out", wait=wait):
        return export(source, options)


@public
def export_onnx(
    bundle: StrPath,
    *,
    fold: int | None = None,
    tile: int | None = None,
    out: StrPath | None = None,
    wait: bool = False,
) -> OnnxExport:
    """Export an ONNX file, which ONNX Runtime and the QGIS plugin Deepness run, and compare it with the SavedModel.

    The file takes `image` (n, bands, height, width), float32 of any size: digital numbers divided by 255 for uint8
    images, digital numbers for other data types. It gives `probability` (n, 1, height, width). Its metadata set
    Deepness up: ground sample distance, tile size and overlap, threshold and names of the classes.

    Args:
        bundle: folder of the bundle.
        fold: export this fold alone, counted from 0; None: the ensemble, or the only model.
        tile: height and width of the input, pixels, which Deepness needs; None: any.
        out: folder of the file; None: `onnx` in the bundle.
        wait: wait for the end of another call that writes to the same folder; False: raise an error.

    Returns:
        The file with its size, its metadata, and the largest difference from the SavedModel.

    Raises:
        BundleError: the bundle cannot be read, or the file would differ from the SavedModel.
        DataError: a file of the user would be replaced, or another call works there.
        OnnxMissingError: a package of `lim-keras[onnx]` is not installed.

    Examples:
        >>> lk.export_onnx("exported_models/bijie_edge").path
    """
    source = as_path("bundle", bundle)
    fold = None if fold is None else as_count("fold", fold, least=0)
    side = None if tile is None else as_count("tile", tile)
    folder = None if out is None else as_path("out", out)
    load_tensorflow()
    from lim_keras.export.onnx_file import FOLDER
    from lim_keras.export.onnx_file import export_onnx as export

    inside = folder is None or os.path.realpath(folder) == os.path.realpath(source / FOLDER)
    with locked(source, "bundle", wait=wait) if inside else locked(Path(folder or ""), "out", wait=wait):
        return export(source, fold=fold, tile=side, out=folder)


@public
def measure_halo(bundle: StrPath, tiles: StrPath, *, wait: bool = False) -> tuple[MeasuredHalo, ...]:
    """Measure which smaller halos keep windows near the whole-scene prediction, and record them in the bundle.

    A default prediction takes the halo for a tolerance of 0.001, which is faster than the whole receptive field. A
    bundle that `fit`, `cross_validate` or `distill` exports is measured already; older ones are not.

    Args:
        bundle: folder of the bundle; its model.json and tflite.json are rewritten.
        tiles: folder of tiles, or a tiles.csv, with the tiles that the bundle was trained on.
        wait: wait for the end of another call that writes to the same folder; False: raise an error.

    Returns:
        For each tolerance, the halo, the largest difference in probability that was seen, and the number of pixels.

    Raises:
        BundleError: the bundle cannot be read, or was changed.
        DataError: the tiles do not fit the bundle, hold too few of its training tiles, or another call works there.

    Examples:
        >>> lk.measure_halo("exported_models/bijie_edge", "bijie_tiles.csv")[1].halo
    """
    source, data = as_path("bundle", bundle), as_path("tiles", tiles)
    load_tensorflow()
    from lim_keras.export.measured_halo import measure_bundle

    with locked(source, "bundle", wait=wait):
        return measure_bundle(source, data).halos


@public
def fit_object_rule(bundle: StrPath, tiles: StrPath, tile_ids: TileIds, *, wait: bool = False) -> FittedRule:
    """Choose which regions of a map count as landslides, from labelled tiles that a bundle was not trained on.

    The tiles are laid edge to edge and predicted like a scene. Three working points are chosen and stored in the
    bundle: lower threshold, peak and smallest area, each with scores and 95 % intervals; see `predict_scene`. Bundles
    of `fit`, `cross_validate` and `distill` have them already; older ones do not.

    Args:
        bundle: folder of the bundle; model.json, tflite.json, model card and STAC item are rewritten.
        tiles: folder of tiles, or a tiles.csv.
        tile_ids: ids of the held-out tiles, or a file of them. Tiles that the bundle records as trained on, its test
            tiles, and tiles that share a group with them are refused.
        wait: wait for the end of another call that writes to the same folder; False: raise an error.

    Returns:
        The working points, and the curve of recall and false alarms.

    Raises:
        BundleError: the bundle cannot be read, or was changed.
        ConfigError: the bundle's model was trained on resized tiles.
        DataError: a tile is not held out, the tiles do not fit the bundle or hold no landslide, or another call works
            there.

    Examples:
        >>> rule = lk.fit_object_rule("exported_models/bijie_edge", "bijie_tiles.csv", "held_out.txt")
        >>> rule.working_points["balanced"].scores["f1_any_overlap"]
    """
    source, data = as_path("bundle", bundle), as_path("tiles", tiles)
    ids = as_ids("tile_ids", tile_ids)
    if not ids:
        raise ConfigError("`tile_ids`: expected at least one tile that the bundle was not trained on. Received: none.")
    load_tensorflow()
    from lim_keras.export.object_rule import fit_bundle_rule

    with locked(source, "bundle", wait=wait):
        return fit_bundle_rule(source, data, ids)


@public
def add_familiarity(bundle: StrPath, tiles: StrPath, *, wait: bool = False) -> FamiliarityFacts:
    """Fit the comparison of scenes with the training imagery of a bundle, so that predictions warn of unfamiliar ones.

    The distance of a piece of a scene from the training imagery is measured in the features of the bundle's first
    network. Bundles of `fit`, `cross_validate` and `distill` have it, if their tiles gave enough cells; older ones do
    not.

    Args:
        bundle: folder of the bundle; it gets the file familiarity.tflite, and its model.json is rewritten.
        tiles: folder of tiles, or a tiles.csv, with the tiles that the bundle was trained on and those that its first
            network was not trained on.
        wait: wait for the end of another call that writes to the same folder; False: raise an error.

    Returns:
        The distances of the held-out tiles, and the distance above which imagery is unfamiliar.

    Raises:
        BundleError: the bundle cannot be read, was changed, or takes images of more than 8 bits.
        DataError: the tiles do not fit the bundle, hold too few of its tiles, or another call works there.

    Examples:
        >>> lk.add_familiarity("exported_models/bijie_edge", "bijie_tiles.csv").limit
    """
    source, data = as_path("bundle", bundle), as_path("tiles", tiles)
    load_tensorflow()
    from lim_keras.export.familiarity import add_familiarity as add

    with locked(source, "bundle", wait=wait):
        return add(source, data)


def _check_litert(kinds: tuple[str, ...], tiles: StrPath | None, tile_ids: TileIds | None) -> None:
    known = ("float32", "float16", "dynamic", "int8")
    if not kinds or not all(kind in known for kind in kinds):
        raise ConfigError(f"Invalid value for `variants`. Expected some of {', '.join(known)}. Received: {kinds}.")
    if tile_ids is not None and tiles is None:
        raise ConfigError("`tile_ids` needs `tiles`: it names some of them.")
    if "int8" in kinds and tiles is None:
        raise ConfigError("int8 is calibrated on training tiles, landslides among them. Give `tiles`.")


@public
def export_serving(
    bundle: StrPath,
    repository: StrPath,
    *,
    base_path: str | None = None,
    promote: bool = False,
    wait: bool = False,
) -> ServingExport:
    """Add a version of a bundle's models to a model repository of TensorFlow Serving.

    Args:
        bundle: folder of the bundle.
        repository: folder of the repository; it is made if it does not exist.
        base_path: path of the repository on the server; None: the path in models.config, else /models.
        promote: label the newest version stable. If the newest version already is this bundle, no version is added.
        wait: wait for the end of another call that writes to the repository; False: raise an error.

    Raises:
        BundleError: the bundle is damaged, the repository holds another bundle, or the repository cannot be written.
        DataError: another call works in the repository.

    Warns:
        LimKerasWarning: the stable version no longer exists.

    Examples:
        >>> lk.export_serving("exported_models/bijie_edge", "repository")
    """
    source, folder = as_path("bundle", bundle), as_path("repository", repository)
    load_tensorflow()
    from lim_keras.export.serving_repository import export_serving as export

    with locked(folder, "repository", wait=wait):
        return export(source, folder, base_path, promote)
