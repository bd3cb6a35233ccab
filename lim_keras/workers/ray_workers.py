"""Jobs as tasks of a Ray cluster."""

from __future__ import annotations

import pickle
import time
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self, TypeVar

from lim_keras import __version__
from lim_keras.errors import ClusterError, LimKerasWarning
from lim_keras.workers.address import ClusterAddress
from lim_keras.workers.call import read_outcome, remote_call
from lim_keras.workers.connection import connect, load_ray
from lim_keras.workers.cores import CORES
from lim_keras.workers.machines import LIBRARIES, Machine, check_versions, facts_of_machine, share_cores
from lim_keras.workers.shared_files import shared_files, unseen

Job = TypeVar("Job")
Result = TypeVar("Result")

_ATTEMPTS = 5
"""Number of times that a job is tried while its worker processes die."""

_AHEAD = 4
"""Jobs handed to Ray for each one that can run, so that an autoscaler sees demand and Ray keeps no long queue."""

_THREADS = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")
"""Environment variables from which libraries take their number of threads."""

_REASONS = {
    "WorkerCrashedError": "its process died",
    "NodeDiedError": "its machine was lost",
    "LocalRayletDiedError": "its machine was lost",
    "OutOfMemoryError": "the memory of its machine ran out, and Ray ended its process",
}
"""Reasons for which a job runs again, by the name of Ray's error."""

_CURE = "If memory ran out, take machines with more. Ray's log files on the machine say more."

_LONGEST = 300  # characters of an error of Ray

_POLL_S = 1.0
_JOIN_S = 30.0
_ANSWER_S = 120.0  # a machine that has not answered by then does not take part in a check
_END_S = 10.0


class RayWorkers:
    """Worker processes of a Ray cluster; see `lim_keras.workers.Workers`.

    Args:
        address: cluster to connect to.
    """

    def __init__(self, address: ClusterAddress) -> None:
        self._source, self._waits = address.source, False
        self._close = connect(address)
        self._ray: Any = load_ray()
        try:
            check_versions(self._on_each_machine(facts_of_machine(), LIBRARIES), self._source)
        except BaseException:
            self._close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._close()

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
        """Call a function for each job; see `lim_keras.workers.Workers`."""
        machines = self._machines()
        gpus = gpus if any(machine.gpus for machine in machines) else 0
        cores = share_cores(machines, share or len(jobs), gpus=gpus)
        task = self._ray.remote(
            max_calls=1 if once else 0, max_retries=0, num_cpus=cores, num_gpus=gpus, scheduling_strategy="SPREAD"
        )(remote_call())
        ahead = _AHEAD * max(4, sum(machine.cores // cores for machine in machines))
        threads = dict.fromkeys((CORES, *_THREADS), str(cores))
        waiting, attempts = deque(range(len(jobs))), Counter[int]()
        running: dict[Any, int] = {}
        try:
            while waiting or running:
                while waiting and len(running) < ahead:
                    index = waiting.popleft()
                    named = task.options(name=str(jobs[index]))
                    running[named.remote(self._payload(function, jobs[index]), threads)] = index
                for reference in self._ended(running):
                    index = running.pop(reference)
                    attempts[index] += 1
                    ended = self._result(reference, str(jobs[index]), attempts[index])
                    if ended is None:
                        waiting.appendleft(index)
                    else:
                        yield index, ended[0]
                if watch is not None:
                    watch()
        finally:
            self._stop(list(running))

    def check_files(self, argument: str, *, folders: Sequence[Path] = (), files: Sequence[Path] = ()) -> None:
        """Check that every machine sees the same files; see `lim_keras.workers.Workers`."""
        with shared_files(folders, files) as expected:
            answers = self._on_each_machine(remote_call(), self._payload(unseen, expected), {})
        for machine, answer in answers:
            outcome = read_outcome(answer)
            if problem := outcome.error or outcome.result:
                raise ClusterError(
                    f"{self._source}: {machine.name} {problem}. All machines must see the files of `{argument}` under "
                    "the same names, on a shared file system."
                )

    def _machines(self) -> list[Machine]:
        """Return the machines that take jobs; a cluster that just started gets time for the first one to join."""
        deadline = time.monotonic() + _JOIN_S
        while True:
            with self._connected():
                machines = Machine.of_nodes(self._ray.nodes())
            if machines or time.monotonic() > deadline:
                return machines
            time.sleep(_POLL_S)

    def _on_each_machine(self, function: Callable[..., Any], *arguments: Any) -> list[tuple[Machine, Any]]:
        """Call a function on every machine at the same time; machines that die or do not answer are left out."""
        strategy = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        task, machines = self._ray.remote(num_cpus=0)(function), self._machines()
        with self._connected():
            asked = {
                task.options(scheduling_strategy=strategy(machine.node, soft=False)).remote(*arguments): machine
                for machine in machines
            }
            ready, late = self._ray.wait(list(asked), num_returns=len(asked), timeout=_ANSWER_S) if asked else ([], [])
        answers = []
        for reference in ready:
            with suppress(self._ray.exceptions.RayError):
                answers.append((asked[reference], self._ray.get(reference)))
        self._stop(late)
        if not answers:
            self._warn_of_waiting()
        return answers

    def _payload(self, function: Callable[[Any], Any], job: Any) -> bytes:
        return pickle.dumps((__version__, self._ray.cloudpickle.dumps((function, job))))

    def _ended(self, running: Mapping[Any, int]) -> list[Any]:
        with self._connected():
            ready, _ = self._ray.wait(list(running), num_returns=1, timeout=_POLL_S)
            if not ready and not Machine.of_nodes(self._ray.nodes()):
                self._warn_of_waiting()
        return list(ready)

    def _warn_of_waiting(self) -> None:
        """Warn once that no machine takes jobs."""
        if not self._waits:
            self._waits = True
            warnings.warn(
                f"{self._source}: no machine of the cluster has processor cores for jobs. The jobs wait for one.",
                LimKerasWarning,
                stacklevel=5,
            )

    def _result(self, reference: Any, name: str, attempt: int) -> tuple[Any] | None:
        """Return the result or the error of a job that ended; None: it is to be run again."""
        errors = self._ray.exceptions
        try:
            with self._connected():
                outcome = read_outcome(self._ray.get(reference))
        except errors.RayTaskError as error:
            return (ClusterError(f"{name}: {_line(error.cause)}"),)
        except errors.RayError as error:
            reason = _REASONS.get(type(error).__name__) or _line(error)
            if attempt == _ATTEMPTS:
                return (ClusterError(f"{name}: failed {attempt} times; the last time, {reason}. {_CURE}"),)
            warnings.warn(
                f"{name}: {reason}. It runs again ({attempt + 1} of {_ATTEMPTS} times).", LimKerasWarning, stacklevel=3
            )
            return None
        for warning in outcome.warnings:
            warnings.warn(warning, stacklevel=3)
        return (outcome.error or outcome.result,)

    def _stop(self, references: Sequence[Any]) -> None:
        """Kill tasks, and wait for their end."""
        with suppress(Exception):  # the cluster may be gone
            for reference in references:
                self._ray.cancel(reference, force=True)
            if references:
                self._ray.wait(list(references), num_returns=len(references), timeout=_END_S)

    @contextmanager
    def _connected(self) -> Iterator[None]:
        """Turn the loss of the connection into an error of the package."""
        try:
            yield
        except ConnectionError as error:
            raise ClusterError(
                f"{self._source}: the connection to the cluster is lost ({_line(error)}). Finished work is kept; when "
                "the cluster is there again, the same command goes on."
            ) from error


def _line(error: BaseException) -> str:
    """Format an error of Ray as one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."
