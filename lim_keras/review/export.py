"""Export of reviews: the reviewed inventory in several formats, counts, and a page with a summary."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas  # type: ignore[import-untyped]

from lim_keras.errors import DataError, LimKerasError, LimKerasWarning
from lim_keras.files import draft_folder, flush, flush_folder, locked_folder, write_text
from lim_keras.inventory.attributes import polygon_areas_m2
from lim_keras.inventory.result_files import read_document
from lim_keras.inventory.vector_files import write_frames
from lim_keras.ownership import Record, check_replaceable_files, file_hash
from lim_keras.pyogrio_import import load_pyogrio
from lim_keras.raster.opening import is_remote
from lim_keras.raster.reader import RasterReader
from lim_keras.report.preview import Preview, read_preview
from lim_keras.report.review_page import ReviewSummary, review_page
from lim_keras.review.counts import (
    OPEN,
    accepted_by_probability,
    count_landslides,
    landslides_of,
    searched_share,
)
from lim_keras.review.reader import ReviewReader
from lim_keras.review.scenes import MappedScene
from lim_keras.review.style import STATUS_COLOURS
from lim_keras.seals import sealed_json
from lim_keras.vectors.placement import outline

RECORD = "review_export.json"
COUNTS = "review_counts.csv"

_SUFFIXES = (".gpkg", ".parquet", ".geojson", ".shp", ".shx", ".dbf", ".prj", ".cpg")

_SHORT = {
    "perimeter_m": "perim_m",
    "compactness": "compact",
    "elongation": "elongat",
    "probability_mean": "prob_mean",
    "probability_max": "prob_max",
    "fold_agreement": "agreement",
    "touches_nodata": "at_nodata",
    "touches_edge": "at_edge",
    "familiarity": "familiar",
    "slope_mean_deg": "slope_deg",
    "elevation_min_m": "elev_min_m",
    "elevation_max_m": "elev_max_m",
    "elevation_range_m": "elev_range",
    "aspect_mean_deg": "aspect_deg",
    "slope_coverage": "slope_cov",
    "slope_unknown": "slope_unkn",
    "below_min_slope": "below_min",
}
"""Names of columns in shapefiles, which allow ten characters."""


@dataclass(frozen=True)
class ReviewExport:
    """Result of `export_reviews`.

    Attributes:
        files: files that were written.
        counts: a row for each scene, status, origin and class: number and area of landslides.
    """

    files: tuple[Path, ...]
    counts: pandas.DataFrame


def export_reviews(scenes: Sequence[MappedScene], out: Path, *, all_statuses: bool = False) -> ReviewExport:
    """Write the reviewed landslides of scenes, their counts, and a page for each scene.

    Files: `<scene>_reviewed` as GeoPackage, GeoParquet, GeoJSON and shapefile, `<scene>_review.html`, and
    `review_counts.csv` of all scenes. Files of an earlier export are replaced, if nobody changed them.

    Args:
        scenes: scenes with a review; others are left out with a warning.
        out: folder, made if necessary.
        all_statuses: write all landslides, also rejected ones and those without a verdict; else the accepted ones.

    Raises:
        DataError: no scene has a review, a file cannot be read or written, or files of the user would be replaced.

    Warns:
        LimKerasWarning: a scene has no review, landslides have no verdict, or the picture of a scene cannot be read.
    """
    reviewed = [scene for scene in scenes if scene.review.is_file()]
    if not reviewed:
        raise DataError(
            f"{scenes[0].folder}: expected a review, <scene>_review.gpkg. There is none. Make it first: "
            f"lim-keras review {scenes[0].folder}"
        )
    if missing := [scene.name for scene in scenes if scene not in reviewed]:
        warnings.warn(f"{', '.join(missing)}: not reviewed, and left out.", LimKerasWarning, stacklevel=3)
    names = [f"{scene.name}{ending}" for scene in reviewed for ending in _ENDINGS]
    with locked_folder(out, argument="out"):
        known = _record(out)
        check_replaceable_files(out, [*names, COUNTS], known, argument="out")
        check_replaceable_files(out, [RECORD] if not known else [], argument="out")
        with draft_folder(out / "review_export") as work:
            tables = [_export(scene, work, all_statuses=all_statuses) for scene in reviewed]
            counts = pandas.concat(tables, ignore_index=True)
            write_text(work / COUNTS, counts.to_csv(index=False, lineterminator="\n"))
            files = _put_in_place(work, out, names)
    return ReviewExport(files, counts)


_ENDINGS = (*(f"_reviewed{suffix}" for suffix in _SUFFIXES), "_review.html")


def _record(out: Path) -> Record:
    content = read_document(out / RECORD).get("sha256", {})
    return content if isinstance(content, dict) else {}


def _put_in_place(work: Path, out: Path, names: Sequence[str]) -> tuple[Path, ...]:
    """Move the drafts to their places; a record of their hashes is there first, with that of what it replaces."""
    drafts = [work / name for name in (*names, COUNTS) if (work / name).exists()]
    hashes = {draft.name: file_hash(draft) for draft in drafts}
    try:
        for draft in drafts:
            flush(draft)
        write_text(out / RECORD, sealed_json({"sha256": {**_record(out), **hashes}}))
        for name in names:
            if name not in hashes:
                (out / name).unlink(missing_ok=True)  # such as the .prj of an earlier export
        files = tuple(draft.replace(out / draft.name) for draft in drafts)
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be replaced ({error.strerror}). Repeat the call.") from error
    flush_folder(out)
    return (*files, out / RECORD)


def _export(scene: MappedScene, work: Path, *, all_statuses: bool) -> pandas.DataFrame:
    with scene.read_review() as review:
        landslides, model = landslides_of(review, scene.probability), _model_areas(review)
        summary = _summarise(scene, review, landslides, model)
    kept = landslides if all_statuses else landslides[(landslides["status"] == "accepted").fillna(False)]
    kept = kept.reset_index(drop=True)
    start = work / f"{scene.name}_reviewed"
    paths = [start.with_name(f"{start.name}{suffix}") for suffix in (".gpkg", ".parquet", ".geojson")]
    write_frames([kept], paths, layer="landslides")
    _write_shapefile(kept, start.with_name(f"{start.name}.shp"))
    write_text(work / f"{scene.name}_review.html", review_page(summary))
    return count_landslides(scene.name, landslides)


def _model_areas(review: ReviewReader) -> np.ndarray[Any, np.dtype[np.float64]]:
    shapes = geopandas.GeoSeries([row["geometry"] for row in review.originals()], crs=review.crs or None)
    return polygon_areas_m2(shapes, review.gsd_m)


def _write_shapefile(landslides: geopandas.GeoDataFrame, path: Path) -> None:
    pyogrio = load_pyogrio()
    texts = {"reviewed": landslides["reviewed"].dt.strftime("%Y-%m-%dT%H:%M:%SZ").astype("string")}
    flags = {name: landslides[name].astype("Int16") for name in landslides if landslides[name].dtype == "boolean"}
    named = landslides.assign(**texts, **flags).rename(columns=_SHORT)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="'crs' was not provided", category=UserWarning)
            warnings.filterwarnings("ignore", message=".*(truncated|width)", category=RuntimeWarning)
            pyogrio.write_dataframe(named, path, driver="ESRI Shapefile", encoding="UTF-8", geometry_type="Polygon")
    except (pyogrio.errors.DataSourceError, OSError, RuntimeError) as error:
        raise DataError(f"{path}: cannot be written ({error}). Free disk space, or give another folder.") from error


def _summarise(
    scene: MappedScene, review: ReviewReader, landslides: geopandas.GeoDataFrame, model: Any
) -> ReviewSummary:
    counts = count_landslides(scene.name, landslides)
    accepted = counts[counts["status"] == "accepted"]
    picture = _picture(scene)
    return ReviewSummary(
        title=scene.name,
        lines=list(_sentences(scene, review, landslides, picture)),
        landslides=landslides,
        model_m2=np.asarray(model),
        by_status=_totals(counts, "status", ("accepted", "rejected", "unsure", OPEN)),
        by_class=_totals(accepted, "class", (*review.classes, "")),
        shares=accepted_by_probability(landslides),
        colours={status: (colour, status or OPEN) for status, colour in STATUS_COLOURS.items()},
        picture=picture,
    )


def _totals(counts: pandas.DataFrame, column: str, first: Sequence[str]) -> list[tuple[str, int, float]]:
    """Return name, number and area of each value of a column; those of `first` in this order."""
    found = counts.groupby(column)[["landslides", "area_m2"]].sum()
    order = [*(name for name in first if name in found.index), *(name for name in found.index if name not in first)]
    return [
        (name or "no class", int(found.loc[name, "landslides"]), float(found.loc[name, "area_m2"])) for name in order
    ]


def _sentences(
    scene: MappedScene, review: ReviewReader, landslides: geopandas.GeoDataFrame, picture: Preview | None
) -> Iterator[str]:
    status, origin = landslides["status"], landslides["origin"]
    reviewed, drawn = int(status.notna().sum()), int((origin == "drawn").sum())
    accepted = int((status == "accepted").sum())
    yield f"{_count(accepted, 'landslide')} accepted, {drawn:,} drawn; verdicts: {reviewed:,} of {len(landslides):,}."
    names = sorted({str(one) for one in landslides["reviewer"].dropna()})
    times = landslides["reviewed"].dropna()
    if names:
        first, last = f"{times.min():%Y-%m-%d}", f"{times.max():%Y-%m-%d}"
        yield f"Reviewed by {', '.join(names)}, {f'on {first}' if first == last else f'from {first} to {last}'} (UTC)."
    cells = [row["geometry"] for row in review.searched()]
    if cells and picture is not None:
        share = searched_share(cells, outline(picture.view.info))
        yield f"Searched for missed landslides: {share:.0%} of the scene, in {_count(len(cells), 'cell')}."
    if (left := len(landslides) - reviewed) > 0:
        yield f"No verdict yet: {_count(left, 'landslide')} of the model."
    if picture is None:
        yield f"There is no map, because neither the scene ({scene.image}) nor its probability map can be read."


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _picture(scene: MappedScene) -> Preview | None:
    """Read the picture of the scene, else of its probability map."""
    for source in (scene.image, scene.probability):
        if source is None or not (is_remote(source) or Path(source).exists()):
            continue
        try:
            with RasterReader(source) as reader:
                return read_preview(reader, bands=reader.bands[:3] if len(reader.bands) >= 3 else reader.bands[:1])
        except LimKerasError as error:
            warnings.warn(f"The map of {scene.name} lacks a picture: {error}", LimKerasWarning, stacklevel=5)
    return None
