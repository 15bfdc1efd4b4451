"""A real MLflow server on loopback, in processes of its own, that a test can stop, kill and start again."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from xfm.track.mlflow import ENVIRONMENT


@dataclass(frozen=True)
class RealServer:
    """`mlflow server` and the processes it started."""

    port: int
    process: "subprocess.Popen[bytes]"

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def send(self, what: signal.Signals) -> None:
        """A signal to all its processes: they are a group of their own."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, what)

    def kill(self) -> None:
        """SIGKILL: no answer is finished, no file closed."""
        self.send(signal.SIGKILL)
        self.process.wait()


def free_port() -> int:
    """Nobody listens there now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(store: str, folder: Path, port: int | None = None) -> Iterator[RealServer]:
    """A server that answers.

    Args:
        store: backend store URI.
        folder: where it keeps the artifacts of new experiments, and its log.
        port: free_port() where None.
    """
    port = port or free_port()
    folder.mkdir(parents=True, exist_ok=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    environment |= ENVIRONMENT | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
               "--backend-store-uri", store, "--artifacts-destination", str(folder / "artifacts")]  # fmt: skip
    with (folder / "server.log").open("ab") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
        server = RealServer(port, process)
        try:
            _await(server, folder / "server.log")
            yield server
        finally:
            server.kill()


def _await(server: RealServer, log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert server.process.poll() is None, f"the MLflow server ended:\n{log.read_text()}"
        with suppress(urllib.error.URLError, OSError), urllib.request.urlopen(f"{server.uri}/health", timeout=5):
            return
        time.sleep(0.2)
    raise AssertionError(f"the MLflow server did not answer in time:\n{log.read_text()}")
