"""A bundle as a model repository that TensorFlow Serving takes as it is.

    <folder>/
        models.config, batching.config, monitoring.config, compose.yaml     `lim_keras.export.serving_config`
        model.json                          of the version labelled stable, for clients: threshold, metres a pixel
        <bundle>_fold_<k>/<version>/        SavedModels with warm-up requests; of a single model `<bundle>/<version>/`
        <bundle>_ensemble/<version>/
            assets.extra/                   warm-up requests, and the model.json of this version

Each export adds a version to every model. The first is `stable` and `canary`; later ones are `canary` until they are
promoted. The server loads the labelled versions only. Nothing that is served changes before models.config is replaced,
which comes last: an export that fails takes its versions away, and one that is killed leaves versions that no one
loads and the next export does not count on. Model files are hard links to the bundle's, or copies on another disk.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from lim_keras.errors import BundleError
from lim_keras.export.bundle_info import INFO_FILE, BundleInfo, FileRecord
from lim_keras.export.saved_model import ENSEMBLE, VERSION, fold_name
from lim_keras.export.serving_config import (
    BATCHING,
    CONTAINER_PATH,
    MODELS_FILE,
    MONITORING,
    Served,
    check_base_path,
    compose,
    models_text,
    read_models,
)
from lim_keras.export.serving_warmup import EXTRA, write_warmup
from lim_keras.files import write_text


@dataclass(frozen=True)
class ServingExport:
    """What a repository serves now. added: the version that was written; None: labels moved only."""

    folder: Path
    models: tuple[str, ...]
    served: Served
    added: int | None

    def tables(self) -> list[Any]:
        """One line a model."""
        table = Table(title=f"{self.folder / MODELS_FILE}")
        for name in ("model", "stable", "canary", "loaded"):
            table.add_column(name, justify="left" if name == "model" else "right")
        for model in self.models:
            loaded = ", ".join(map(str, self.served.loaded))
            table.add_row(model, str(self.served.stable), str(self.served.canary), loaded)
        done = "labels moved" if self.added is None else f"version {self.added} added"
        return [table, f"{done}: {self.folder}"]


def export_serving(bundle: Path, folder: Path, base_path: str | None = None, promote: bool = False) -> ServingExport:
    """Add a version of every model of a bundle to a repository, which is made where there is none.

    Args:
        bundle: `exported_models/<name>`.
        folder: the repository.
        base_path: where the server sees `folder`; None: where models.config says, at first `/models`.
        promote: make the newest version stable. If that is this bundle, nothing is added.

    Raises:
        BundleError: the bundle is damaged, the repository serves another one or cannot be read, or
            tensorflow-serving-api is missing.
    """
    info = BundleInfo.read(bundle)
    models = served_models(info)
    before = read_models(folder / MODELS_FILE, list(models))
    base = _base_path(base_path, before, folder)
    if promote and before is not None and _holds(folder, models, before.canary, info):
        served = Served(before.canary, before.canary, (before.canary,), base)
        _write_files(folder, models, served)
        return ServingExport(folder, tuple(models), served, None)
    version = _next_version(folder, models)
    stable = version if promote or before is None else before.stable
    # A label moves only to what is loaded, so the version that was stable stays until the next export or promotion.
    loaded = sorted({stable, version} if before is None else {before.stable, version})
    served = Served(stable, version, tuple(loaded), base)
    with _new_version(bundle, folder, info, models, version):
        _write_files(folder, models, served)
    return ServingExport(folder, tuple(models), served, version)


def served_models(info: BundleInfo) -> dict[str, str]:
    """Folders of a bundle's SavedModels by the names that they have on a server; the one that predicts comes first."""
    if info.folds == 1:
        return {info.name: f"{fold_name(0)}/{VERSION}"}
    parts = [ENSEMBLE, *(fold_name(fold) for fold in range(info.folds))]
    return {f"{info.name}_{part}": f"{part}/{VERSION}" for part in parts}


def _base_path(asked: str | None, before: Served | None, folder: Path) -> str:
    if asked is None:
        return CONTAINER_PATH if before is None else before.base_path
    base = check_base_path(asked)
    if before is not None and base != before.base_path:
        raise BundleError(
            f"{folder / MODELS_FILE}: expected base path {before.base_path}, with which this repository was made. "
            f"Received: {base}. Leave it out, or export into another folder."
        )
    return base


def _holds(folder: Path, models: Mapping[str, str], version: int, info: BundleInfo) -> bool:
    """Whether a version is this bundle: the same graphs and variables."""
    there = BundleInfo.read(folder / next(iter(models)) / str(version) / EXTRA)
    return _records(there, models) == _records(info, models)


def _records(info: BundleInfo, models: Mapping[str, str]) -> dict[str, FileRecord]:
    return {name: info.files[name] for source in models.values() for name in _files(info, source)}


def _files(info: BundleInfo, source: str) -> list[str]:
    return [name for name in info.files if name.startswith(f"{source}/")]


def _next_version(folder: Path, models: Mapping[str, str]) -> int:
    """After the highest number of any of the models, so that what a killed export left is not taken for this one."""
    there = [path.name for model in models for path in (folder / model).glob("*") if path.name.isdecimal()]
    return max(map(int, there), default=0) + 1


@contextmanager
def _new_version(
    bundle: Path, folder: Path, info: BundleInfo, models: Mapping[str, str], version: int
) -> Iterator[None]:
    """Put a version of each model into its place; if the block fails, take all of them away again."""
    partial, placed = folder / ".version.partial", list[Path]()
    shutil.rmtree(partial, ignore_errors=True)
    try:
        for model, source in models.items():
            info.check_files(bundle, source)
            _fill(partial / model, bundle, info, model, source)
        for model in models:
            place = folder / model / str(version)
            place.parent.mkdir(exist_ok=True)
            placed.append((partial / model).rename(place))
        yield
    except BaseException:
        for place in placed:
            shutil.rmtree(place, ignore_errors=True)
            if not any(place.parent.iterdir()):
                place.parent.rmdir()
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _fill(place: Path, bundle: Path, info: BundleInfo, model: str, source: str) -> None:
    for name in _files(info, source):
        _link_or_copy(bundle / name, place / Path(name).relative_to(source))
    extra = place / EXTRA
    extra.mkdir()
    info.write(extra)
    write_warmup(extra, info, model)


def _link_or_copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another disk, or a file system without hard links
        shutil.copyfile(source, target)


def _write_files(folder: Path, models: Mapping[str, str], served: Served) -> None:
    """models.config, and after it what clients read. Files that may have been tuned are written once."""
    first = next(iter(models))
    once = {
        "batching.config": BATCHING,
        "monitoring.config": MONITORING,
        "compose.yaml": compose(first, served.base_path),
    }
    for name, text in once.items():
        if not (folder / name).exists():
            write_text(folder / name, text)
    stable = (folder / first / str(served.stable) / EXTRA / INFO_FILE).read_text(encoding="utf-8")
    write_text(folder / MODELS_FILE, models_text(folder / MODELS_FILE, list(models), served))
    write_text(folder / INFO_FILE, stable)
