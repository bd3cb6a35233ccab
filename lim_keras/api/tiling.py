"""Public functions that make tiles."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from lim_keras.api.arguments import CONVERSIONS, as_count, as_number, as_path, as_progress, public, scene_paths
from lim_keras.api.bundles import load_bundle
from lim_keras.api.places import json_place, locked
from lim_keras.errors import ConfigError
from lim_keras.files import StrPath, locked_folder

if TYPE_CHECKING:
    from lim_keras.api.arguments import Bands
    from lim_keras.bundle.protocol import SceneModel
    from lim_keras.data.convert.record import Conversion
    from lim_keras.data.convert.sample import Format, Value
    from lim_keras.progress import ProgressCallback
    from lim_keras.raster.validity import Nodata
    from lim_keras.tiling.options import Background, TilingOptions
    from lim_keras.tiling.tile_scenes import TilingResult


@public
def tile_scenes(
    scenes: StrPath | Iterable[StrPath],
    labels: StrPath,
    out: StrPath,
    *,
    size: int = 512,
    overlap: int = 0,
    gsd_m: float | None = None,
    background: Background = 2.0,
    hard_negatives: SceneModel | StrPath | None = None,
    min_valid: float = 0.5,
    seed: int = 2022,
    prefix: str = "",
    layer: str | None = None,
    where: str | None = None,
    ignore_where: str | None = None,
    aoi: StrPath | None = None,
    touched: bool = False,
    bands: Bands | None = None,
    scale: tuple[float, float] | None = None,
    nodata: Nodata = "file",
    jobs: int | None = None,
    dry_run: bool = False,
    json_file: StrPath | None = None,
    wait: bool = False,
    progress: ProgressCallback | None = None,
) -> TilingResult:
    """Cut georeferenced image and mask tiles from scenes and mapped landslides, ready for `fit` and `cross_validate`.

    Every landslide on ground with data and label lies in a tile, at a random position; one that is larger than a tile
    lies in several. Background tiles hold no landslide pixel. A repeated call with the same arguments returns finished
    tiles, and continues an interrupted call. Other arguments replace the tiles of an earlier call. Files that no
    earlier call wrote, or that changed since, are never replaced.

    Args:
        scenes: rasters, Sentinel-2 products and folders of them, or one of them; CRS, extent and ground sample distance
            may differ.
        labels: landslides: polygons in any format of OGR and any CRS, or a raster of labels.
        out: folder of the tiles.
        size: height and width of a tile, pixels; a smaller scene gives tiles of its own size.
        overlap: common rows or columns of neighbouring background tiles, and of the tiles of one large landslide,
            pixels.
        gsd_m: ground sample distance of the tiles, metres: finer scenes are averaged, coarser ones are interpolated
            bilinearly; None: that of each scene.
        background: number of background tiles for each landslide tile; "all": as many as there is room for.
        hard_negatives: loaded model, or a bundle or .tflite file; background on which it finds landslides is taken
            first.
        min_valid: smallest share of the pixels of a tile that have data and a label, 0 to 1.
        seed: seed of all random choices; equal arguments and seeds give equal files.
        prefix: first part of the name of every tile.
        layer: layer of `labels`; None: the one that holds polygons.
        where: condition, SQL, that selects polygons by their attributes; None: all.
        ignore_where: condition, SQL, of uncertain polygons, whose pixels get no label (255).
        aoi: polygons of the area that was mapped; outside of it pixels get no label (255).
        touched: pixels that an outline touches count as landslide; False: pixels whose centre lies inside.
        bands: bands to read, by number from 1, description or colour; None: all, of a Sentinel-2 product B04, B03, B02.
        scale: raw values (low, high) that become 0 and 255 of uint8; None: values and data type stay as they are.
        nodata: value that replaces the nodata value of the files; "file": use nodata value, mask and alpha of the file;
            "none": ignore them all.
        jobs: number of tiles that are cut at a time; None: one for each core.
        dry_run: plan the tiles and report on them, without writing any file into `out`.
        json_file: JSON file for the report.
        wait: wait for the end of another call that works in `out`; False: raise an error.
        progress: receives the numbers of counted pixels and of cut tiles; None: a bar on a terminal.

    Returns:
        The result: `tiles` (a TileSet; None after a dry run), `report` (tiles of each kind, landslides covered and
        lost, for each scene) and `files`.

    Raises:
        BundleError: `hard_negatives` is missing or damaged.
        ConfigError: invalid arguments.
        DataError: a scene or the labels cannot be used, no tile can be cut, another call works in `out`, or files of
            the user would be replaced.

    Warns:
        LimKerasWarning: tiles that share ground are most of all tiles, or files changed since an earlier call.

    Examples:
        >>> result = lk.tile_scenes(["a.tif", "b.tif"], "landslides.gpkg", "tiles", size=512, background=2)
        >>> bundle = lk.cross_validate("configs/bijie_edge.yaml", result.tiles)
    """
    options, folder = _options(locals()), as_path("out", out)
    from lim_keras.bundle.replaceable import check_outside_bundles
    from lim_keras.report.tiling import draw_tiling
    from lim_keras.tiling.labels import LabelOptions
    from lim_keras.tiling.tile_scenes import TilingTask, find_scenes, plan_tiling
    from lim_keras.tiling.tile_scenes import tile_scenes as tile

    area = None if aoi is None else as_path("aoi", aoi)
    given = LabelOptions(as_path("labels", labels), layer, where, ignore_where, area, bool(touched))
    threads = None if jobs is None else as_count("jobs", jobs)
    found = find_scenes(scene_paths(scenes), given)
    check_outside_bundles(folder, "out")
    path = None if json_file is None else as_path("json_file", json_file)
    with nullcontext() if path is None else json_place(path, wait=wait):
        model: Any = None if hard_negatives is None else _model(hard_negatives)
        task, shown = TilingTask(found, given, options, model), as_progress(progress)
        if dry_run:
            result = plan_tiling(task, progress=shown)
        else:
            with locked_folder(folder, wait=wait, argument="out"):
                result = tile(task, folder, jobs=threads, draw_tiling=draw_tiling, progress=shown)
        if path is not None:
            result.write_json(path)
    return result


def _model(model: SceneModel | StrPath) -> Any:
    return model if hasattr(model, "predict_all") else load_bundle(model)


def _options(given: dict[str, Any]) -> TilingOptions:
    from lim_keras.tiling.options import TilingOptions

    counts = {"size": 1, "overlap": 0, "seed": 0}
    values: dict[str, Any] = {name: as_count(name, given[name], least=least) for name, least in counts.items()}
    values["min_valid"] = as_number("min_valid", given["min_valid"])
    values["prefix"] = given["prefix"]
    if not isinstance(given["prefix"], str):
        raise ConfigError(f"Invalid value for `prefix`. Expected text. Received: {given['prefix']!r}.")
    background = given["background"]
    values["background"] = background if background == "all" else as_number("background", background)
    for name in ("gsd_m", "bands", "scale", "nodata"):
        values[name] = None if given[name] is None else CONVERSIONS[name](name, given[name])
    if given["hard_negatives"] is not None and background == "all":
        raise ConfigError("`hard_negatives` chooses among background tiles, so `background` must be a number.")
    return TilingOptions(**values)


@public
def convert_tiles(
    source: StrPath,
    out: StrPath,
    *,
    format: Format | None = None,
    bands: Sequence[int] = (),
    landslide: float | Sequence[Value] = (),
    ignore: float | Sequence[Value] = (),
    classes: Sequence[str] = (),
    ignore_classes: Sequence[str] = (),
    dry_run: bool = False,
    wait: bool = False,
    progress: ProgressCallback | None = None,
) -> Conversion:
    """Convert another layout of labelled images to a folder with tiles.csv, images/ and masks/.

    Images that `read_tiles` reads are copied as they are, others become GeoTIFF. Outlines are drawn by pixel centres.
    Files and annotations that cannot be converted are left out; the result and convert.json list them.

    Args:
        source: folder of a data set; or, for COCO and YOLO, its annotation file or data.yaml.
        out: folder to write. It may be new, empty, or an unchanged earlier conversion, which is replaced.
        format: "landslide4sense", "pairs", "coco" or "yolo"; None: tell it by the files.
        bands: bands of Landslide4Sense to keep, in this order, numbers from 1; empty: all.
        landslide: mask values that are landslide: a number, or a list of numbers, ranges (lowest, highest) and colours
            (red, green, blue), 0..255; empty: 1, or 255 in masks of 0 and 255. All other values are background.
        ignore: mask values without a label, as for `landslide`.
        classes: names or numbers of the COCO or YOLO classes that are landslides; empty: the only class.
        ignore_classes: names or numbers of classes whose pixels have no label.
        dry_run: count, and write nothing.
        wait: wait for the end of another call that writes the same folder; False: raise an error.
        progress: receives the progress; None: a bar on a terminal.

    Returns:
        Counts of tiles and pixels, and what was left out.

    Raises:
        ConfigError: an argument does not fit the data set, or it is not known which values or classes are landslides.
        DataError: the format is not known, no image can be converted, or `out` holds files of the user.

    Examples:
        >>> lk.convert_tiles("Landslide4Sense", "tiles", bands=(4, 3, 2)).tiles
        >>> lk.convert_tiles("labelled", "tiles", landslide=[(255, 0, 0)])
    """
    from lim_keras.data.convert.conversion import convert
    from lim_keras.data.convert.record import check_replaceable
    from lim_keras.data.convert.sample import ConvertOptions, Format
    from lim_keras.report.progress import ProgressBar

    if format is not None and format not in get_args(Format):
        raise ConfigError(
            f"Invalid value for `format`. Expected one of {', '.join(get_args(Format))}. Received: {format!r}."
        )
    options = ConvertOptions(
        format=format,
        bands=tuple(as_count("bands", band) for band in _items("bands", bands)),
        landslide=_as_values("landslide", landslide),
        ignore=_as_values("ignore", ignore),
        classes=_as_names("classes", classes),
        ignore_classes=_as_names("ignore_classes", ignore_classes),
    )
    source, out = as_path("source", source), as_path("out", out)
    _check_apart(source, out)
    with nullcontext() if dry_run else locked(out, "out", wait=wait):
        if not dry_run:
            check_replaceable(out)
        return convert(source, out, options, dry_run=dry_run, progress=progress or ProgressBar())


def _check_apart(source: Path, out: Path) -> None:
    inner, outer = source.resolve(), out.resolve()
    if outer == inner or outer in inner.parents:
        raise ConfigError(f"`out` {out} holds the data set {source}. Give another folder as `out`.")


def _items(name: str, value: Any) -> list[Any]:
    if isinstance(value, Iterable) and not isinstance(value, str):
        return list(value)
    raise ConfigError(f"Invalid value for `{name}`. Expected a sequence. Received: {value!r}.")


def _as_names(name: str, value: Any) -> tuple[str, ...]:
    names = [value] if isinstance(value, str) else _items(name, value)
    if not all(isinstance(one, str) for one in names):
        raise ConfigError(f"Invalid value for `{name}`. Expected names. Received: {value!r}.")
    return tuple(names)


def _as_values(name: str, value: Any) -> tuple[Value, ...]:
    items = _items(name, value) if isinstance(value, Iterable) else [value]
    return tuple(_as_value(name, one) for one in items)


def _as_value(name: str, value: Any) -> Value:
    if not isinstance(value, Iterable):
        return as_number(name, value)
    parts = tuple(as_number(name, part) for part in _items(name, value))
    if len(parts) == 2 and parts[0] <= parts[1]:
        return parts[0], parts[1]
    if len(parts) == 3:
        return parts[0], parts[1], parts[2]
    raise ConfigError(
        f"Invalid value for `{name}`. Expected numbers, (lowest, highest) or (red, green, blue). Received: {value!r}."
    )
