"""Jobs on the machines of a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol, Self, TypeVar

from lim_keras.workers.address import parse_address as parse_address

Job = TypeVar("Job")
Result = TypeVar("Result")


class Workers(Protocol):
    """Processes that work on jobs, on one or several machines. A context manager; its end stops all jobs."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...

    def run(
        self,
        function: Callable[[Job], Result],
        jobs: Sequence[Job],
        *,
        gpus: float = 0,
        once: bool = False,
        share: int | None = None,
        watch: Callable[[], None] | None = None,
    ) -> Iterator[tuple[int, Result | Exception]]:
        """Call a function for each job, in several processes at the same time.

        A job whose process or machine died is run again a limited number of times, with a warning. A job that raised
        an error is not. Closing the iterator stops all running jobs.

        Args:
            function: function of an installed module.
            jobs: arguments, small and picklable; `str(job)` names a job in messages.
            gpus: number of GPUs of each job, where machines have any.
            once: each job gets a process of its own, so that all its memory is freed.
            share: number of jobs that share the cores of the cluster; None: `jobs`. A job's libraries use as many
                threads as it has cores.
            watch: called about once a second.

        Yields:
            Position of the job, and its result or error, in the order in which jobs end. An error that is no
            LimKerasError comes as ClusterError.

        Raises:
            ClusterError: the connection to the cluster is lost.
        """
        ...

    def check_files(self, argument: str, *, folders: Sequence[Path] = (), files: Sequence[Path] = ()) -> None:
        """Check on every machine that it sees the same files as this process.

        Args:
            argument: argument that gives the paths, for the error.
            folders: existing folders that every machine must see and write into.
            files: files that every machine must see with the size that they have here.

        Raises:
            ClusterError: a machine does not.
        """
        ...


def open_workers(text: str) -> Workers:
    """Connect to a Ray cluster, or start Ray on this machine.

    Args:
        text: `ray://HOST:PORT`, or `auto`: the cluster that the environment variable RAY_ADDRESS names, otherwise a Ray
            on this machine, which ends with the workers.

    Raises:
        ConfigError: `text` is neither.
        ClusterError: Ray is not installed, the cluster cannot be reached, or its machines have other versions of Ray,
            Python or lim_keras.
    """
    address = parse_address(text)
    from lim_keras.workers.ray_workers import RayWorkers

    return RayWorkers(address)
