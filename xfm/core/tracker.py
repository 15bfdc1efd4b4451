"""Where a run's records go. Tracking never fails a job."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol


class Tracker(Protocol):
    """One run. Every call returns at once; what cannot be sent is kept for later."""

    def child(self, name: str) -> "Tracker":
        """A nested run under this one."""
        ...

    def params(self, values: Mapping[str, Any]) -> None:
        """Settings, once per run; a second call with the same run is ignored."""
        ...

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Numbers at one step; per-layer metrics use the layer as step."""
        ...

    def tags(self, values: Mapping[str, str]) -> None:
        """Words to find the run by."""
        ...

    def artifact(self, path: Path, folder: str = "") -> None:
        """A file to keep with the run."""
        ...

    def dataset(self, name: str, digest: str, source: str) -> None:
        """Which data the run read."""
        ...

    def close(self, status: str = "FINISHED") -> bool:
        """Ends the run: FINISHED, FAILED or KILLED. False where records are still waiting to be sent."""
        ...
