"""A Ray cluster of several nodes on this machine, each with processes of its own, as `ray start` makes it."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

PACKAGE = str(Path(__file__).parents[2])


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Cluster:
    """A head that runs no jobs, and nodes of one core each."""

    def __init__(self, folder: Path, *, python: str = sys.executable) -> None:
        self._python, self._folder = python, folder
        self._head, self._client = free_port(), free_port()
        self.nodes: list[subprocess.Popen] = []
        ports = [f"--port={self._head}", f"--ray-client-server-port={self._client}", "--include-dashboard=false"]
        self._start("--head", *ports, f"--temp-dir={folder}", "--num-cpus=0")
        _wait_for(self._client)

    @property
    def address(self) -> str:
        return f"ray://127.0.0.1:{self._client}"

    def add(self, count: int) -> None:
        sockets = self._folder / "session_latest" / "sockets"
        for _ in range(count):
            known = set(sockets.glob("raylet*"))
            self._start(f"--address=127.0.0.1:{self._head}", "--num-cpus=1")
            deadline = time.monotonic() + 60
            while not set(sockets.glob("raylet*")) - known:  # nodes that start together would take the same socket
                assert time.monotonic() < deadline, "the node did not start"
                time.sleep(0.05)

    def wait_for(self, count: int) -> None:
        """Wait until so many nodes live, the head among them."""
        from ray._raylet import GcsClient

        client, deadline = GcsClient(address=f"127.0.0.1:{self._head}"), time.monotonic() + 60
        while sum(node.state == 0 for node in client.get_all_node_info().values()) != count:
            assert time.monotonic() < deadline, "the nodes did not join"
            time.sleep(0.2)

    def _start(self, *options: str) -> None:
        command = [self._python, "-m", "ray.scripts.scripts", "start", "--block", "--node-ip-address=127.0.0.1"]
        settings = ["--object-store-memory=83886080", "--disable-usage-stats", "--min-worker-port=0"]
        environment = os.environ | {
            "PYTHONPATH": PACKAGE,
            "RAY_worker_niceness": "0",
            "RAY_USAGE_STATS_ENABLED": "0",
            "GRPC_ENABLE_FORK_SUPPORT": "0",  # with it, Ray's client server crashes now and then when it forks
        }
        with (self._folder.parent / "ray.log").open("ab") as log:
            process = subprocess.Popen(
                [*command, *settings, "--max-worker-port=0", *options],
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.nodes.append(process)

    def remove(self, node: subprocess.Popen) -> None:
        """Kill all processes of a node at once, as a power failure does."""
        processes = family(node.pid)
        for one in processes:
            one.send_signal(signal.SIGKILL)
        psutil.wait_procs(processes, timeout=10)
        node.wait()
        self.nodes.remove(node)

    def workers(self) -> list[psutil.Process]:
        """Return the processes that run a job now."""
        found = []
        for node in self.nodes:
            for one in family(node.pid):
                try:
                    title = one.cmdline()[0]
                except (psutil.Error, IndexError):
                    continue
                if title.startswith("ray::") and "IDLE" not in title and "Agent" not in title:
                    found.append(one)
        return found

    def close(self) -> None:
        for node in reversed(self.nodes[:]):
            self.remove(node)


def family(process: int) -> list[psutil.Process]:
    try:
        parent = psutil.Process(process)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert time.monotonic() < deadline, "the cluster did not start"
            time.sleep(0.1)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A head and two nodes."""
    folder = Path(tempfile.mkdtemp(prefix="lk-test-"))  # short: Ray makes sockets in it
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("RAY_AUTH_MODE", "token")
        environment.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        one = Cluster(folder / "ray")
        try:
            one.add(2)
            one.wait_for(3)
            yield one
        finally:
            one.close()
            shutil.rmtree(folder, ignore_errors=True)
