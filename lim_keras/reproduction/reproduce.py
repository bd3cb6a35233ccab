"""Reproduction of the paper: train what is missing, make the parts of the report, and write them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lim_keras import __version__
from lim_keras.data.contents import Contents
from lim_keras.errors import DataError, LimKerasError
from lim_keras.evaluation.unchanged import scene_state
from lim_keras.files import make_folder, write_text
from lim_keras.progress import ProgressCallback
from lim_keras.report.documents import MARKDOWN, PAGE, check_report_files, write_report
from lim_keras.report.parts import Part
from lim_keras.report.progress import ProgressBar
from lim_keras.reproduction.context import FIGURES, MAPS, MODELS, RUNS, SCORES, TABLES, ReproductionContext
from lim_keras.reproduction.data import LabelledTiles, ReproductionData, check_scene, read_data
from lim_keras.reproduction.experiments import Experiment, experiments, needed_experiments
from lim_keras.reproduction.settings import PARTS, ReproductionSettings, lacking
from lim_keras.reproduction.states import State, bundles, check_encoders, check_weights, read_states
from lim_keras.reproduction.stored_parts import PARTS_FOLDER, read_part, write_part
from lim_keras.reproduction.training import train_and_score
from lim_keras.reproduction.world import WORLD, with_synthetic_data
from lim_keras.seals import check_sealed, is_sealed, sealed_json
from lim_keras.tensorflow_import import load_tensorflow

RECORD = "reproduction.json"
"""Record of a reproduction: settings, digests of the data, and the experiments that its numbers come from."""

_TITLE = "Chen et al. 2022, reproduced"


@dataclass(frozen=True)
class ReproductionResult:
    """Result of a reproduction.

    Attributes:
        folder: folder of all results.
        parts: names of the parts of the report.
        failures: reasons of the experiments and parts that failed, by name; empty if all is finished.
        trained: names of the experiments that this call has trained.
        untrained: names of the experiments that the parts need and that are not trained.
    """

    folder: Path
    parts: tuple[str, ...]
    failures: Mapping[str, str] = field(default_factory=dict)
    trained: tuple[str, ...] = ()
    untrained: tuple[str, ...] = ()


def reproduce(
    settings: ReproductionSettings,
    *,
    synthetic: bool = False,
    progress: ProgressCallback | None = None,
    say: Callable[[str], None] | None = None,
) -> ReproductionResult:
    """Train the experiments that are missing, and write the report; the caller holds the lock of the folder.

    Args:
        synthetic: make the synthetic data in the folder of the results, and use them.
        progress: receives the progress; None: a bar on a terminal.
        say: receives a line for each experiment that ends; None: it is printed to standard error.

    Raises:
        DataError: data, weights or files of the folder cannot be used, or files of the user would be replaced.
        TrainingError: the folder holds a reproduction with another configuration or other data.
    """
    bar = ProgressBar(transient=False)
    shown, print_line = progress or bar, say or bar.print
    _check_folder(settings)
    if synthetic:
        settings = with_synthetic_data(settings)
    data = read_data(settings, ProgressBar() if progress is None else progress)
    digests = data_digests(settings, data)
    _check_record(settings, digests)
    check_weights(needed_experiments(settings), settings)
    states = read_states(experiments(settings), settings, data)
    before = _fresh_parts(settings, digests, states)
    stale = {name for name in settings.parts if name not in before}
    train, score = _concerned(settings, states, stale)
    if not settings.train:
        train = []
    if train or score:
        _check_scene(settings, data)
    check_encoders(train, settings, data)
    write_text(settings.out / RECORD, sealed_json(_record(settings, digests, {}, states)))
    failures = train_and_score(settings, data, train=train, score=score, progress=shown, say=print_line)
    if train:
        states = read_states(experiments(settings), settings, data)
    missing = {name: failures.get(name, "not trained") for name, state in states.items() if not state.bundle}
    context = ReproductionContext(settings, data, missing={**missing, **failures}, progress=progress or ProgressBar())
    parts, failed = _make_parts(context, before, print_line)
    lacked = failures if settings.train else {**missing, **failures}
    incomplete = {part for name in lacked for part in states[name].experiment.parts} | set(failed)
    _write(settings, parts, stale=stale, incomplete=incomplete, digests=digests, states=states)
    trained = tuple(one.name for one in train if states[one.name].bundle)
    untrained = tuple(one.name for one in needed_experiments(settings) if one.name in missing)
    names = tuple(part.name for part in parts)
    return ReproductionResult(settings.out, names, {**failures, **failed}, trained, untrained)


def _concerned(
    settings: ReproductionSettings, states: Mapping[str, State], stale: Collection[str]
) -> tuple[list[Experiment], list[Experiment]]:
    """Return the experiments to train, and the finished ones that the parts to make need scores of."""
    wanted = needed_experiments(settings)
    train = [one for one in wanted if not states[one.name].bundle]
    return train, [one for one in wanted if one.parts & set(stale) and states[one.name].bundle]


def _check_scene(settings: ReproductionSettings, data: ReproductionData) -> None:
    if settings.scene is not None and settings.truth is not None:
        check_scene(settings.scene, settings.truth, data.tiles.tiles)


def _write(
    settings: ReproductionSettings,
    parts: list[Part],
    *,
    stale: Collection[str],
    incomplete: Collection[str],
    digests: Mapping[str, str],
    states: Mapping[str, State],
) -> None:
    """Write report and record, and keep the parts that were made and are complete; an unchanged report stays."""
    out = settings.out
    if stale or not all(is_sealed(out / name) for name in (PAGE, MARKDOWN)):
        write_report(parts, out, title=_TITLE, summary=_summary(settings), argument="out")
    for part in parts:
        if part.name in stale and part.name not in incomplete:
            write_part(out, part, _key(part.name, settings, digests, states))
    numbers = {table.name: dict(table.sources) for part in parts for table in part.tables}
    write_text(out / RECORD, sealed_json(_record(settings, digests, numbers, states)))


def _check_folder(settings: ReproductionSettings) -> None:
    """Refuse a folder with files of the user that would be replaced, or that stand where a folder belongs."""
    make_folder(settings.out, "out")
    for name in (RUNS, MODELS, SCORES, TABLES, FIGURES, MAPS, PARTS_FOLDER, WORLD):
        place = settings.out / name
        if (place.is_symlink() or place.exists()) and not place.is_dir():
            raise DataError(
                f"{place}: expected a folder, or nothing. Received: a file, or a link to nothing. Move or rename it, "
                "or give another folder as `out`."
            )
    check_report_files(settings.out, PARTS, "out")
    scores = [f"{SCORES}/{one.name}.json" for one in needed_experiments(settings)]
    check_sealed(settings.out, [RECORD, *scores, *(f"{PARTS_FOLDER}/{name}.json" for name in PARTS)], "out")


def data_digests(settings: ReproductionSettings, data: ReproductionData) -> dict[str, str]:
    """Return the SHA-256 of each kind of data: tiles, test ids, coarse tiles, transfer tiles and scenes."""
    found: dict[str, Any] = {}
    for name, tiles in (("data", data.tiles), ("coarse", data.coarse)):
        if tiles is not None:
            found |= {name: tiles.contents, f"{name}_test": sorted(tiles.test_ids)}
    if data.transfer is not None:
        found["transfer"] = LabelledTiles(data.transfer, ()).contents
    if settings.scene is not None and settings.truth is not None:
        found["scene"] = scene_state(settings.scene, settings.truth)
    if settings.coarse_scene is not None:
        found["coarse_scene"] = scene_state(settings.coarse_scene, settings.coarse_scene)
    return {name: _digest(value) for name, value in found.items()}


def _digest(value: Contents | Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


_FIXED = ("budget", "encoder", "data", "data_test", "coarse", "coarse_test")
"""Settings and data that all runs of a folder share."""

_NAMES = {"data_test": "test_ids", "coarse_test": "coarse_test"}


def _check_record(settings: ReproductionSettings, digests: Mapping[str, str]) -> None:
    """Refuse a folder that holds a reproduction of another budget, encoder or data."""
    path = settings.out / RECORD
    if not is_sealed(path):
        return
    before = json.loads(path.read_text(encoding="utf-8"))
    old = {**before["settings"], **before["data"]}
    new = {"budget": settings.budget, "encoder": settings.encoder, **digests}
    differing = [name for name in _FIXED if name in old and name in new and old[name] != new[name]]
    if differing:
        verb = "differs" if len(differing) == 1 else "differ"
        names = ", ".join(f"`{_NAMES.get(name, name)}`" for name in differing)
        raise DataError(
            f"{settings.out} holds a reproduction with other settings or data: {names} {verb}. Give another folder as "
            "`out`, or the same settings and unchanged data."
        )


def _record(
    settings: ReproductionSettings, digests: Mapping[str, str], numbers: Mapping[str, Any], states: Mapping[str, State]
) -> dict[str, Any]:
    """Return the values of the record."""
    known = {name: state for name, state in states.items() if state.bundle}
    return {
        "lim_keras_version": __version__,
        "settings": {"budget": settings.budget, "encoder": settings.encoder, "edge_encoder": settings.edge_encoder},
        "data": dict(digests),
        "experiments": {
            name: {
                "run": f"{RUNS}/{name}",
                "config_hash": state.experiment.config.digest(),
                "bundle": state.bundle,
            }
            for name, state in known.items()
        },
        "tables": dict(numbers),
    }


def _key(name: str, settings: ReproductionSettings, digests: Mapping[str, str], states: Mapping[str, State]) -> str:
    """Return the SHA-256 of all that a part is made from."""
    used = {one: digest for one, digest in bundles(states).items() if name in states[one].experiment.parts}
    return _digest([__version__, name, settings.budget, settings.encoder, dict(digests), used])


def _fresh_parts(
    settings: ReproductionSettings, digests: Mapping[str, str], states: Mapping[str, State]
) -> dict[str, Part]:
    """Read the parts that earlier calls have made from what is there now, those that were not asked for included."""
    found = {name: read_part(settings.out, name, _key(name, settings, digests, states)) for name in PARTS}
    return {name: part for name, part in found.items() if part is not None}


def _make_parts(
    context: ReproductionContext, before: Mapping[str, Part], say: Callable[[str], None]
) -> tuple[list[Part], dict[str, str]]:
    """Make the parts that are not there; return all parts, and the reasons of those that failed."""
    wanted = [name for name in context.settings.parts if name not in before]
    if wanted:
        load_tensorflow()
    made, failures = dict(before), {}
    for name in wanted:
        made[name], failure = _make_part(name, context)
        if failure:
            failures[name] = failure
            say(f"{name} failed: {failure}")
    return [made[name] for name in PARTS if name in made], failures


def _make_part(name: str, context: ReproductionContext) -> tuple[Part, str]:
    from lim_keras.reproduction.registry import MAKERS

    maker = MAKERS[name]
    reason = lacking(name, context.settings)
    if reason:
        return Part(name, maker.title, text=(reason,)), ""
    try:
        return maker.make(context), ""
    except LimKerasError as error:
        return Part(name, maker.title, text=(f"This part could not be made: {error}",)), str(error)


def _summary(settings: ReproductionSettings) -> list[str]:
    lines = [
        f"Budget {settings.budget}. Encoder of the methods trained on whole tiles: {settings.encoder}; of all other "
        f"models, the ablation included: {settings.edge_encoder}. Made by lim-keras {__version__}."
    ]
    if settings.budget == "smoke":
        lines.append("This budget trains each model for a few steps: its numbers show the form of a report only.")
    return lines
