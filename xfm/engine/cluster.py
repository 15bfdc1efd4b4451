"""Joining a Ray cluster, or starting one on this machine, reachable from this machine only."""

import logging
import os
import signal
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version

from xfm.core.errors import EnvironmentProblem

logger = logging.getLogger(__name__)

MIN_RAY = (2, 60)


def prepare() -> None:
    """Sets what Ray reads when it is imported, by whomever; call before. What the user has set stays."""
    if not os.environ.get("RAY_ADDRESS"):
        # Ray on Linux takes the machine's outward address even when told 127.0.0.1; only this switch, meant for
        # other systems, keeps every port of a single-machine cluster on loopback.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        # Its native part reports ordinary events as errors on the user's terminal.
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Without it Ray hides GPUs from CPU workers with a warning for each.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")


def connect() -> None:
    """Joins the cluster of RAY_ADDRESS (a submitted job has it), else starts a local one. Does nothing twice.

    A local cluster binds to 127.0.0.1, has no dashboard, and asks for a token, which Ray makes by itself.

    Raises:
        EnvironmentProblem: no cluster at RAY_ADDRESS, or Ray does not start here.
    """
    prepare()
    address = os.environ.get("RAY_ADDRESS")
    import ray

    if ray.is_initialized():
        return
    if tuple(int(part) for part in version("ray").split(".")[:2]) < MIN_RAY:
        raise EnvironmentProblem(f"ray {version('ray')} is too old; xfm needs {'.'.join(map(str, MIN_RAY))} or newer")
    if address:
        _knock(address)
    logging.getLogger("ray").setLevel(logging.ERROR)
    before = signal.getsignal(signal.SIGTERM)
    try:
        if address:
            ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
        else:
            logger.info("starting a local Ray cluster")
            ray.init(address="local", include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        where = f"RAY_ADDRESS={address}" if address else "a local cluster"
        raise EnvironmentProblem(
            f"Ray did not start ({where}): {error}. Is the address right and RAY_AUTH_TOKEN set for that cluster?"
        ) from error
    # Ray's handler would end the process with code 15, and its native part takes the signal for a crash.
    signal.signal(signal.SIGTERM, before)


def _knock(address: str) -> None:
    """Ray itself takes minutes to say that nobody listens."""
    host, _, port = address.rpartition("://")[2].partition(":")
    if not port.isdigit():
        return  # "auto" and the like: Ray's to resolve
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise EnvironmentProblem(
            f"no Ray cluster answers at RAY_ADDRESS={address} ({error}). Start one there, correct the address, or "
            "unset RAY_ADDRESS to use this machine alone."
        ) from None


@dataclass(frozen=True, slots=True)
class Place:
    """Where something is computed."""

    workers: int
    cpus: float  # of each worker
    gpus: float  # of each worker

    @property
    def device(self) -> str:
        """Where workers compute."""
        return "cuda" if self.gpus else "cpu"


def gpu_workers(workers: int | None, gpus: float, have: Mapping[str, float], verb: str) -> int:
    """So many workers of some GPUs each, by default as many as the cluster has GPUs for; `verb` is what they do.

    Raises:
        EnvironmentProblem: fewer GPUs than asked for.
    """
    there = have.get("GPU", 0.0)
    fit = int(there / gpus + 1e-9)  # 1 / 0.1 must fit ten
    if fit < (workers or 1):
        raise EnvironmentProblem(
            f"--workers {workers or 1} --gpus {gpus:g} asks for {(workers or 1) * gpus:g} GPUs; the cluster has "
            f"{there:g}. Lower either, or leave out --gpus to {verb} on CPUs."
        )
    return workers or fit


def disconnect() -> None:
    """Leaves the cluster; ends it if it was started here."""
    if "ray" in sys.modules:
        import ray

        ray.shutdown()
