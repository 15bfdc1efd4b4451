"""A tracker that keeps a list."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xfm.core.tracker import Tracker


class MemoryTracker(Tracker):
    """Keeps what it is told.

    Attributes:
        name: of the run; a child's is `parent/child`.
        records: (run name, kind, content) in order, of this run and all its children.
        status: None while open.
    """

    def __init__(self, name: str = "run", records: list[tuple[str, str, Any]] | None = None) -> None:
        self.name = name
        self.records: list[tuple[str, str, Any]] = [] if records is None else records
        self.status: str | None = None
        self._has_params = False

    def child(self, name: str, *, key: str = "", tags: Mapping[str, str] | None = None) -> "MemoryTracker":
        """A nested run that writes into the same list."""
        self.records.append((self.name, "child", name))
        run = MemoryTracker(f"{self.name}/{key or name}", self.records)
        if tags:
            run.tags(tags)
        return run

    def params(self, values: Mapping[str, Any]) -> None:
        """Settings; a second call is ignored."""
        if not self._has_params:
            self._has_params = True
            self.records.append((self.name, "params", dict(values)))

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Numbers at one step."""
        self.records.append((self.name, "metrics", (step, dict(values))))

    def tags(self, values: Mapping[str, str]) -> None:
        """Words to find the run by."""
        self.records.append((self.name, "tags", dict(values)))

    def artifact(self, path: Path, folder: str = "") -> None:
        """A file."""
        self.records.append((self.name, "artifact", (path, folder)))

    def dataset(
        self, name: str, digest: str, source: str, *, context: str = "input", profile: Mapping[str, Any] | None = None
    ) -> None:
        """Which data the run read."""
        self.records.append((self.name, "dataset", (name, digest, source, context, dict(profile or {}))))

    def model(
        self, name: str, place: Path | str, sha256: str, *, tags: Mapping[str, str] | None = None, description: str = ""
    ) -> None:
        """A checkpoint the run made."""
        self.records.append((self.name, "model", (name, place, sha256, dict(tags or {}), description)))

    def close(self, status: str = "FINISHED") -> bool:
        """Ends the run; nothing ever waits."""
        self.status = status
        self.records.append((self.name, "close", status))
        return True

    def of(self, kind: str) -> list[Any]:
        """The contents of all records of one kind, in order."""
        return [content for _, what, content in self.records if what == kind]
