"""Machines of a cluster: their versions, and how jobs share their cores."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from lim_keras import __version__
from lim_keras.errors import ClusterError, LimKerasWarning
from lim_keras.workers.call import INSTALL

LIBRARIES = ("numpy", "rasterio", "tensorflow", "keras", "ai-edge-litert", "openvino")
"""Libraries whose versions may change results."""

_FEWEST_CORES = 4
"""Cores that a job gets at least, where machines have them: each job needs memory, too."""


@dataclass(frozen=True)
class Machine:
    """A node of a cluster.

    Attributes:
        node: Ray's id of the node.
        name: host name.
        cores: processor cores that Ray shares out.
        gpus: GPUs that Ray shares out.
    """

    node: str
    name: str
    cores: int
    gpus: int

    @classmethod
    def of_nodes(cls, nodes: Iterable[Mapping[str, Any]]) -> list[Machine]:
        """Describe the living nodes that take jobs."""
        living = [node for node in nodes if node["Alive"]]
        machines = [
            cls(
                node["NodeID"],
                node["NodeManagerHostname"],
                int(node["Resources"].get("CPU", 0)),
                int(node["Resources"].get("GPU", 0)),
            )
            for node in living
        ]
        return [machine for machine in machines if machine.cores]


def share_cores(machines: Iterable[Machine], jobs: int, *, gpus: float = 0) -> int:
    """Return the number of cores of each job.

    It is the largest number with which all jobs run at the same time, but at least four. Each machine has as many, so
    that jobs of one that is lost can run on any other.

    Args:
        machines: machines that take jobs.
        jobs: number of jobs.
        gpus: number of GPUs of each job; above 0, only machines with GPUs count.
    """
    cores = [machine.cores for machine in machines if machine.gpus or not gpus]
    if gpus:
        places = [int(machine.gpus // gpus) for machine in machines if machine.gpus]
        return max(1, min(core // max(1, place) for core, place in zip(cores, places, strict=True)))
    if not cores:
        return 1
    share = next((size for size in range(min(cores), 1, -1) if sum(core // size for core in cores) >= jobs), 1)
    return max(share, min(_FEWEST_CORES, *cores))


def facts_of_machine() -> Callable[[tuple[str, ...]], dict[str, Any]]:
    """Make a function that tells the versions on the machine on which it runs; it is sent by value."""

    def facts(libraries: tuple[str, ...]) -> dict[str, Any]:
        import importlib.metadata

        found: dict[str, str] = {}
        for name in libraries:
            try:
                found[name] = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                found[name] = ""
        try:
            import lim_keras
        except Exception as error:
            return {"version": None, "error": " ".join(str(error).split()), "libraries": found}
        return {"version": lim_keras.__version__, "error": "", "libraries": found}

    return facts


def check_versions(answers: Iterable[tuple[Machine, Mapping[str, Any]]], source: str) -> None:
    """Compare the versions of all machines with those of this process.

    Args:
        answers: machines, and what `facts_of_machine` told on each.
        source: address of the cluster, for the error.

    Raises:
        ClusterError: lim_keras is missing on a machine, or has another version.

    Warns:
        LimKerasWarning: libraries have other versions.
    """
    facts = {machine.name: told for machine, told in answers}
    missing = {host: told["error"] for host, told in facts.items() if told["version"] is None}
    if missing:
        host, reason = next(iter(missing.items()))
        raise ClusterError(
            f"{source}: lim-keras is not installed on {len(missing)} of {len(facts)} machines, such as {host} "
            f"({reason}). {INSTALL}"
        )
    other = {host: told["version"] for host, told in facts.items() if told["version"] != __version__}
    if other:
        host, version = next(iter(other.items()))
        raise ClusterError(f"{source}: {host} has lim-keras {version}, and this process {__version__}. {INSTALL}")
    ours = facts_of_machine()(LIBRARIES)["libraries"]
    differing = [
        f"{name} {told['libraries'][name] or 'missing'} on {host} ({ours[name] or 'missing'} here)"
        for host, told in facts.items()
        for name in LIBRARIES
        if told["libraries"][name] != ours[name]
    ]
    if differing:
        warnings.warn(
            f"{source}: other versions than here: {', '.join(differing[:3])}. Results may differ in their last bits. "
            "Install the same versions on all machines.",
            LimKerasWarning,
            stacklevel=4,
        )
