"""Shared fixtures: reference data beside the repository, and one Ray cluster per session."""

import importlib.util
import os
import re
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import psutil
import pytest

REPOSITORY = Path(__file__).parents[1]


def pytest_addoption(parser: pytest.Parser) -> None:
    """--threads: `make test-numeric` runs on two as well."""
    parser.addoption("--threads", type=int, default=1, help="threads of PyTorch in each test")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of jobs lie where `.ci/test` looks for them."""
    for item in items:
        if item.get_closest_marker("ray") and item.path.parent.name not in ("jobs", "contracts"):
            raise pytest.UsageError(f"{item.nodeid} is marked ray: move it to tests/jobs or tests/contracts")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """One thread unless asked for more: tensors of these sizes are slower on two, far slower on a busy machine."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(item.config.getoption("--threads"))


def load_job(name: str) -> ModuleType:
    """jobs/NAME.py as a module."""
    spec = importlib.util.spec_from_file_location(f"jobs_{name}", REPOSITORY / "jobs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with reference outputs of official packages, kept beside the repository."""
    folder = REPOSITORY / ".." / "shared"
    if not folder.is_dir():
        pytest.skip("no ../shared beside this checkout: reference outputs and real data are not here")
    return folder.resolve()


@pytest.fixture
def bootstrap_of_few_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few groups are drawn as many are, so that a draw can be worked out by repeating cells."""
    monkeypatch.setattr("xfm.metrics.resampling.FEW", 0)
    monkeypatch.setattr("xfm.metrics.resampling.LEAST", 2)


@pytest.fixture(scope="session")
def tiny_scgpt() -> Path:
    """64 real cells and a small random scGPT, with what the official package computes for them."""
    return Path(__file__).parent / "fixtures" / "scgpt_tiny"


@dataclass(frozen=True)
class Cluster:
    """A Ray head on loopback that asks for a token; jobs run in processes of their own."""

    env: dict[str, str]
    dashboard: str

    def start(self, script: str, *flags: str, cwd: Path, **env: str) -> subprocess.Popen[str]:
        """Starts `python jobs/SCRIPT.py FLAGS`."""
        command = [sys.executable, str(REPOSITORY / "jobs" / f"{script}.py"), *flags]
        return subprocess.Popen(
            command, cwd=cwd, env=self.env | env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    def run(self, script: str, *flags: str, cwd: Path, expect: int = 0, **env: str) -> str:
        """Runs it to its end and returns what it printed."""
        process = self.start(script, *flags, cwd=cwd, **env)
        output, _ = process.communicate(timeout=240)
        assert process.returncode == expect, f"exit code {process.returncode}, expected {expect}\n{output}"
        return output


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The one cluster of the session: started here, ended by its process id."""
    folder = tmp_path_factory.mktemp("ray")
    token = folder / "token"
    token.write_text(secrets.token_hex(32))
    token.chmod(0o600)
    env = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "XFM_", "MLFLOW_"))}
    env |= {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_BACKEND_LOG_LEVEL": "fatal",
        # On a cluster, what brings a task of its own is installed on every node; that it does is told to jobs alone.
        "PYTHONPATH": os.pathsep.join(map(str, (REPOSITORY, REPOSITORY / "tests" / "fixtures" / "mean_task"))),
    }
    log = (folder / "head.log").open("w+")
    ray = [sys.executable, "-m", "ray.scripts.scripts"]
    # The agent that starts submitted jobs has a fixed port by default, which another cluster here may hold.
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        second.bind(("127.0.0.1", 0))
        port, agent = first.getsockname()[1], second.getsockname()[1]
    head = subprocess.Popen(
        [*ray, "start", "--head", "--block", f"--port={port}", "--num-cpus=2", "--include-dashboard=true",
         "--dashboard-host=127.0.0.1", "--dashboard-port=0", "--disable-usage-stats",
         f"--dashboard-agent-listen-port={agent}", f"--object-store-memory={400 * 2**20}"],
        env=env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    try:
        dashboard = _await_head(head, folder / "head.log")
        yield Cluster(env | {"RAY_ADDRESS": f"127.0.0.1:{port}"}, dashboard)
    finally:
        # Asked politely, a head drains for half a minute.
        everything = [*psutil.Process(head.pid).children(recursive=True), psutil.Process(head.pid)]
        for process in everything:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        head.wait(30)
        log.close()


def _await_head(head: "subprocess.Popen[bytes]", log: Path) -> str:
    """Waits until the head says where its dashboard listens."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        text = re.sub(r"\x1b\[[0-9;]*m", "", log.read_text())
        dashboard = re.search(r"http://(127\.0\.0\.1:\d+)", text)
        if dashboard and "Ray runtime started" in text:
            return f"http://{dashboard[1]}"
        assert head.poll() is None, f"the Ray head ended:\n{text}"
        time.sleep(0.2)
    raise AssertionError(f"the Ray head did not start in time:\n{log.read_text()}")
