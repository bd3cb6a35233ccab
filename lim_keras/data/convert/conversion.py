"""Convert the labelled images of another layout to a folder with `tiles.csv`, `images` and `masks`."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from lim_keras.data.convert.formats import find_samples, list_files, recognise
from lim_keras.data.convert.names import tile_ids
from lim_keras.data.convert.record import (
    RECORD,
    Conversion,
    Tally,
    check_replaceable,
    count,
    merged,
    record_text,
    total,
)
from lim_keras.data.convert.sample import ConvertOptions, Drawn, Format, ImageHeader, LeftOut, Sample
from lim_keras.data.convert.tile_files import Written, write_folder
from lim_keras.data.tiles import IGNORED, LANDSLIDE
from lim_keras.errors import ConfigError, DataError, LimKerasWarning
from lim_keras.files import atomic_folder
from lim_keras.progress import ProgressCallback, track

Item = TypeVar("Item")
Result = TypeVar("Result")
_UNUSABLE = "image or mask that cannot be used"


@dataclass(frozen=True, slots=True)
class Checked:
    """Sample whose mask was read, the header of its image, and its counts."""

    sample: Sample
    header: ImageHeader
    tally: Tally
    notes: Counter[str] = field(default_factory=Counter)

    @property
    def type(self) -> tuple[int, str]:
        """Number of bands and data type of the image."""
        return self.header.bands, self.header.dtype


def convert(
    source: Path, out: Path, options: ConvertOptions, *, dry_run: bool = False, progress: ProgressCallback | None = None
) -> Conversion:
    """Convert a data set; arguments, result and errors as in `lim_keras.convert_tiles`."""
    files = list_files(source, out)
    kind = recognise(files, options)
    found = find_samples(files, options, kind)
    left_out = list(found.left_out)
    checked = _check_all(found.samples, left_out, progress)
    checked = _of_one_type(checked, left_out)
    if not checked:
        first = next((one for one in left_out if one.reason == _UNUSABLE), left_out[0])
        raise DataError(f"{source}: no image can be converted. {first.name}: {first.detail or first.reason}.")
    _check_landslides(checked, options, source)
    plan = _Plan(source, kind, found.notes, left_out)
    if dry_run:
        return plan.result(checked, None)
    check_replaceable(out)
    return _write(plan, checked, out, options, progress)


@dataclass(frozen=True)
class _Plan:
    """Facts of a conversion that do not depend on the written tiles."""

    source: Path
    kind: Format
    notes: Counter[str]
    left_out: list[LeftOut]

    def result(self, checked: Sequence[Checked], out: Path | None, duplicates: int = 0) -> Conversion:
        bands, dtype = checked[0].type
        return Conversion(
            source=self.source,
            out=out,
            format=self.kind,
            kinds=count([(_kind(one.tally), one.tally) for one in checked]),
            splits=count([(one.sample.split, one.tally) for one in checked]),
            bands=bands,
            dtype=dtype,
            notes=merged(self.notes, *(one.notes for one in checked)),
            left_out=tuple(self.left_out),
            duplicates=duplicates,
        )


def _kind(tally: Tally) -> str:
    return "landslide" if tally.landslide_px else "non-landslide"


def _write(
    plan: _Plan, checked: Sequence[Checked], out: Path, options: ConvertOptions, progress: ProgressCallback | None
) -> Conversion:
    """Write all tiles into a draft folder, which then replaces `out`."""
    ids = tile_ids([one.sample for one in checked])
    jobs = [Written(tile_id, one.sample, one.header) for tile_id, one in zip(ids, checked, strict=True)]
    with atomic_folder(out) as draft:
        folder = write_folder(draft, jobs, lambda work: _in_threads(work, jobs, "writing tiles", progress))
        bad = {one.name for one in folder.left_out}
        plan.left_out.extend(folder.left_out)
        kept = [
            replace(one, tally=folder.tallies[one.sample.source]) for one in checked if one.sample.source not in bad
        ]
        result = plan.result(kept, out, folder.duplicates)
        (draft / RECORD).write_text(record_text(result, options, folder.hashes), encoding="utf-8")
        check_replaceable(out)  # again, because the work may take minutes
    return result


def _check_all(samples: Sequence[Sample], left_out: list[LeftOut], progress: ProgressCallback | None) -> list[Checked]:
    checked = []
    for result in _in_threads(_check, samples, "checking images", progress):
        if isinstance(result, Checked):
            checked.append(result)
        else:
            left_out.append(result)
    return checked


def _check(sample: Sample) -> Checked | LeftOut:
    try:
        header = sample.image.header()
        drawn = sample.draw(header.height, header.width)
        return Checked(sample, header, _tally(drawn), drawn.notes)
    except DataError as error:
        return LeftOut(sample.source, _UNUSABLE, str(error).rstrip("."))
    except OSError as error:
        return LeftOut(sample.source, _UNUSABLE, f"{error.strerror or error}")
    except MemoryError:
        return LeftOut(sample.source, _UNUSABLE, "it does not fit into memory")


def _tally(drawn: Drawn) -> Tally:
    labels = drawn.labels
    return Tally(1, int(np.sum(labels == LANDSLIDE)), int(np.sum(labels == IGNORED)), labels.size)


def _of_one_type(checked: Sequence[Checked], left_out: list[LeftOut]) -> list[Checked]:
    """Leave out images whose bands or data type differ from those of most images."""
    counts = Counter(one.type for one in checked)
    if len(counts) < 2:
        return list(checked)
    bands, dtype = counts.most_common(1)[0][0]
    reason = f"image of other bands or another type than most ({bands} of {dtype})"
    left_out.extend(
        LeftOut(one.sample.source, reason, f"{one.header.bands} of {one.header.dtype}")
        for one in checked
        if one.type != (bands, dtype)
    )
    return [one for one in checked if one.type == (bands, dtype)]


def _check_landslides(checked: Sequence[Checked], options: ConvertOptions, source: Path) -> None:
    if total(count([("", one.tally) for one in checked])).landslide_px:
        return
    if options.landslide:
        shown = ", ".join(map(str, options.landslide))
        raise ConfigError(f"{source}: no pixel of any mask has a value of `landslide` ({shown}).")
    warnings.warn(f"{source}: no image has a landslide.", LimKerasWarning, stacklevel=2)


def _in_threads(
    work: Callable[[Item], Result], items: Sequence[Item], label: str, progress: ProgressCallback | None
) -> Iterator[Result]:
    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
    try:
        yield from track(pool.map(work, items), label, len(items), progress, "images")
    finally:
        pool.shutdown(cancel_futures=True)
