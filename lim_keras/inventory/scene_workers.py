"""Prediction of a scene's parts on the machines of a cluster."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from lim_keras.bundle.info import INFO_FILE
from lim_keras.bundle.protocol import TENSORFLOW, DescribedModel, runtime_of
from lim_keras.errors import ConfigError
from lim_keras.inference.predict_maps import MapOptions
from lim_keras.inference.scene_plan import CellJob, read_cells
from lim_keras.inference.strips import PartRecord, StripJob, predict_strip
from lim_keras.progress import ProgressCallback
from lim_keras.raster.opening import is_remote
from lim_keras.raster.reader import RasterReader
from lim_keras.raster.remote_names import public_name
from lim_keras.workers import Workers, open_workers
from lim_keras.workers.cores import usable_cores

Job = TypeVar("Job")
Result = TypeVar("Result")


@dataclass(frozen=True)
class PartJob:
    """Job that predicts a part of a scene on any machine.

    Attributes:
        threads: number of threads of TensorFlow, whose results depend on it in their last bits.
        label: name of the job in messages.
    """

    strips: StripJob
    threads: int
    label: str

    def __str__(self) -> str:
        return self.label


def predict_part(job: PartJob) -> PartRecord:
    """Predict a part in this process; errors as in `lim_keras.inference.strips.predict_strip`."""
    os.environ["TF_NUM_INTRAOP_THREADS"] = str(job.threads)  # counts if TensorFlow is not imported yet
    return predict_strip(job.strips)


@dataclass(frozen=True)
class _CellsJob:
    cells: CellJob
    label: str

    def __str__(self) -> str:
        return self.label


def _read_cells(job: _CellsJob) -> NDArray[np.bool_]:
    return read_cells(job.cells)


def fastest_runtime(bundle: str) -> str:
    """Return the runtime that `auto` takes on this machine."""
    from lim_keras.bundle.runtimes import load_model

    return runtime_of(load_model(Path(bundle)))


class SceneWorkers:
    """Machines that predict the parts of scenes. A context manager; the cluster is opened when it is first needed.

    Args:
        text: as in `lim_keras.workers.open_workers`.
    """

    def __init__(self, text: str) -> None:
        self._text, self._opened = text, ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._opened.close()

    def open(self) -> None:
        """Connect to the cluster now; errors as in `lim_keras.workers.open_workers`."""
        _ = self._cluster

    @cached_property
    def _cluster(self) -> Workers:
        return self._opened.enter_context(open_workers(self._text))

    def check_files(self, model: DescribedModel, scene: RasterReader, work: Path) -> None:
        """Check that all machines see the bundle, the scene and the scene's working folder.

        Raises:
            ClusterError: one does not.
        """
        bundle = Path(_path_of(model))
        described = bundle / INFO_FILE if bundle.is_dir() else bundle
        self._cluster.check_files("bundle", files=[described])
        self._cluster.check_files("scenes", files=[path for path in map(Path, scene.files) if path.is_file()])
        self._cluster.check_files("out", folders=[work])

    def fastest_runtime(self, bundle: Path) -> str:
        """Return the runtime that `auto` takes on a machine of the cluster, with a GPU where there are any."""
        # A process of its own, because TensorFlow may be imported with another number of threads than `predict` wants.
        (runtime,) = self._results(fastest_runtime, [str(bundle.absolute())], gpus=1, once=True)
        return str(runtime[1])

    def cells(self, jobs: Sequence[CellJob]) -> list[NDArray[np.bool_]] | None:
        """Find the valid cells of a scene, from top to bottom; None if there are no jobs."""
        if not jobs:
            return None
        name = PurePath(public_name(jobs[0].scene)).name
        named = []
        for job in jobs:
            label = f"{name}, valid pixels of rows {job.rows[0]}-{job.rows[1] - 1}"
            named.append(_CellsJob(replace(job, scene=_absolute(job.scene)), label))
        return [cells for _, cells in sorted(self._results(_read_cells, named), key=lambda one: one[0])]

    def predict(
        self,
        model: DescribedModel,
        scene: RasterReader,
        options: MapOptions,
        work: Path,
        ranges: Sequence[tuple[int, int]],
        progress: ProgressCallback | None,
    ) -> list[PartRecord]:
        """Predict parts, and write them into the working folder.

        Args:
            scene: reader on the scene's own grid.
            ranges: first strip of each part, and its last + 1.
            progress: receives the number of pixels of each part when it is finished.

        Raises:
            LimKerasError: a part cannot be made. Other parts that were finished are kept.
        """
        runtime, name = runtime_of(model), PurePath(scene.name).name
        shared = MapOptions(**{field.name: getattr(options, field.name) for field in fields(MapOptions)})
        bundle, place, folder = _path_of(model), _absolute(scene.source), str(work.absolute())
        jobs = [
            PartJob(
                StripJob(bundle, runtime, place, shared, folder, first, last),
                usable_cores(),
                f"{name}, strips {first}-{last - 1}" if last - first > 1 else f"{name}, strip {first}",
            )
            for first, last in ranges
        ]
        made: list[PartRecord] = []
        for _, part in self._results(predict_part, jobs, gpus=1 if runtime == TENSORFLOW else 0):
            made.append(part)
            if progress is not None:
                progress.advance(part.pixels)
        return made

    def _results(
        self, function: Callable[[Job], Result], jobs: Sequence[Job], *, gpus: float = 0, once: bool = False
    ) -> Iterator[tuple[int, Result]]:
        """Yield position and result of each job; raise the first error, which stops the other jobs."""
        ended = self._cluster.run(function, jobs, gpus=gpus, once=once)
        try:
            for index, result in ended:
                if isinstance(result, Exception):
                    raise result
                yield index, result
        finally:
            close: Any = getattr(ended, "close", None)
            if close is not None:
                close()


def _path_of(model: DescribedModel) -> str:
    """Return the absolute path by which other processes load a model.

    Raises:
        ConfigError: it has none.
    """
    path = getattr(model, "path", None)
    if path is None:
        raise ConfigError("`workers` needs the path of a bundle, because other processes load it.")
    return str(Path(path).absolute())


def _absolute(scene: str) -> str:
    """Return the name by which processes in other folders open a scene."""
    return scene if is_remote(scene) else str(Path(scene).absolute())
