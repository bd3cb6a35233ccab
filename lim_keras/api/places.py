"""Check and lock the outputs of public functions before their work starts."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lim_keras.api.arguments import as_path
from lim_keras.errors import ConfigError, DataError
from lim_keras.files import StrPath, check_writable, delete_drafts, locked_folder, make_folder, prepare_file, recover
from lim_keras.lock import folder_lock
from lim_keras.object_storage import Address, is_storage_address
from lim_keras.seals import check_sealed_file

if TYPE_CHECKING:
    from lim_keras.config import RunConfig
    from lim_keras.inventory.options import PredictOptions
    from lim_keras.inventory.remote_results import RemoteFolder


@contextmanager
def locked(path: Path, argument: str, *, wait: bool = False) -> Iterator[None]:
    """Hold the lock of a file or folder, which need not exist, while the block runs.

    The lock lies beside the path, because folders may be replaced as a whole, or in it if its parent folder cannot be
    written. If both cannot be written, there is no lock, and the first write of the block raises the error.

    Raises:
        DataError: another call holds the lock.
    """
    path = Path(os.path.realpath(path))
    with ExitStack() as lock:
        if _is_writable(path.parent):
            lock.enter_context(folder_lock(path.parent, entry=path.name, wait=wait, argument=argument))
        elif path.is_dir() and _is_writable(path):
            lock.enter_context(folder_lock(path, wait=wait, argument=argument))
        recover(path)
        yield


def _is_writable(folder: Path) -> bool:
    """Return whether a folder and a file in it can be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        check_writable(folder)
    except OSError:
        return False
    return True


@contextmanager
def results_place(
    out: StrPath, work: StrPath | None, options: PredictOptions, *, wait: bool, shared: bool
) -> Iterator[Path | RemoteFolder]:
    """Check and lock the folder of the results of a prediction, or the staging folder of results in object storage.

    Args:
        out, work, wait: as in `lim_keras.predict_scene`.
        shared: processes on other machines work in the folder, too.

    Raises:
        ConfigError: `work` and `out` do not fit together.
        DataError: another call works in the folder, or it cannot be written or reached.
    """
    from lim_keras.bundle.replaceable import check_outside_bundles

    part = "" if options.part is None else f"part-{options.part.number}-of-{options.part.count}"
    remote = _remote_folder(out, work, shared=shared or options.part is not None or options.merge)
    folder = as_path("out", out) if remote is None else remote.staging
    check_outside_bundles(folder, "out")
    with locked_folder(folder, wait=wait, argument="out" if remote is None else "work", entry=part):
        if remote is None:
            yield folder
            return
        remote.begin()
        try:
            yield remote
        finally:
            if options.part is None:  # other parts may be about to begin
                remote.end()


def _remote_folder(out: StrPath, work: StrPath | None, *, shared: bool) -> RemoteFolder | None:
    text = os.fspath(out) if isinstance(out, str | os.PathLike) else ""
    address = Address.find(text) if isinstance(text, str) and not os.path.lexists(text) else None
    if isinstance(out, str) and is_storage_address(out) and (address is None or "://" not in out):
        raise ConfigError(
            "Invalid value for `out`. Expected a folder, or s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or "
            f"az://CONTAINER/PREFIX. Received: {out!r}."
        )
    if address is None:
        if work is not None:
            raise ConfigError(
                "`work` is for results in object storage only (`out` as s3://, gs:// or az://). Leave it out."
            )
        return None
    if shared and work is None:
        raise ConfigError(
            "`part`, `merge` and `workers` with results in object storage need `work`: a folder on a file system that "
            "all machines share."
        )
    from lim_keras.inventory.remote_results import RemoteFolder

    return RemoteFolder.at(address, None if work is None else as_path("work", work))


@dataclass(frozen=True)
class RunPlaces:
    """Run folder and folder of the exported bundle."""

    run: Path
    bundle: Path


@contextmanager
def run_places(config: RunConfig, run: Path | None, export: Path | None, *, wait: bool) -> Iterator[RunPlaces]:
    """Check and lock the folders of a training while the block runs; arguments as in `lim_keras.fit`.

    Raises:
        BundleError: the bundle's folder holds files of the user.
        ConfigError: the bundle's folder holds the run folder.
        DataError: another call works in one of the folders.
    """
    from lim_keras.bundle.replaceable import check_bundle_folder, check_outside_bundles
    from lim_keras.training.run import EXPORTS, RUNS

    places = RunPlaces(
        RUNS / config.name if run is None else run,
        EXPORTS / config.name if export is None else export,
    )
    inner, outer = (Path(os.path.realpath(path)) for path in (places.run, places.bundle))
    if outer == inner or outer in inner.parents:
        raise ConfigError(
            f"`export` {places.bundle} holds the run folder {places.run}, which would be lost when the bundle is "
            "replaced. Give another folder as `export`."
        )
    check_bundle_folder(places.bundle, "export")
    check_outside_bundles(places.run, "run")
    check_outside_bundles(places.bundle.parent, "export")
    with ExitStack() as locks:
        locks.enter_context(locked(places.run, "run", wait=wait))
        locks.enter_context(locked(places.bundle, "export", wait=wait))
        check_bundle_folder(places.bundle, "export")  # again, because the call that held the lock may have changed it
        delete_drafts(places.run)
        yield places


@contextmanager
def report_places(
    json_file: Path | None, figures: Path | None, protocols: Sequence[str], *, wait: bool
) -> Iterator[None]:
    """Check and lock the files of a report while the block runs; arguments as in `lim_keras.evaluate`.

    Args:
        protocols: protocols whose figures will be written.

    Raises:
        DataError: files of the user would be replaced, files cannot be written, or another call writes them.
    """
    from lim_keras.bundle.replaceable import check_outside_bundles

    if figures is not None:
        check_outside_bundles(figures, "figures")
    with ExitStack() as locks:
        if json_file is not None:
            check_outside_bundles(json_file.parent, "json_file")
            prepare_file(json_file, "json_file")
            locks.enter_context(json_place(json_file, wait=wait))
        if figures is not None:
            locks.enter_context(locked(figures, "figures", wait=wait))
            make_folder(figures, "figures")
            from lim_keras.report.figures import check_report_figures

            check_report_figures(figures, protocols)
        yield


@contextmanager
def json_place(path: Path, *, wait: bool) -> Iterator[None]:
    """Check and lock the file of a JSON report, `json_file`, while the block runs; errors as in `report_places`."""
    with sealed_place(path, "json_file", wait=wait):
        yield


@contextmanager
def sealed_place(path: Path, argument: str, *, wait: bool) -> Iterator[None]:
    """Check and lock a file with a seal, which `argument` gives; errors as in `report_places`."""
    from lim_keras.bundle.replaceable import check_outside_bundles

    check_outside_bundles(path.parent, argument)
    if not path.parent.is_dir() and not any(folder.is_file() for folder in path.parents):
        raise DataError(f"{path}: cannot be written (no such folder). Make it, or give another file as `{argument}`.")
    with locked(path, argument, wait=wait):
        prepare_file(path, argument)
        check_sealed_file(path, argument)
        yield
