"""A tracker whose every record is one line in a spool. No call waits for a server."""

import getpass
import hashlib
import json
import logging
import math
import os
import re
import sys
import threading
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xfm.core.tracker import Tracker
from xfm.track.redact import redact, redact_text
from xfm.track.sender import SpoolSender
from xfm.track.spool import Record, Spool, close_record, history, now_ms, point

logger = logging.getLogger(__name__)


class Session:
    """What one attempt's tracker and its children share: the spool, its history and the sender."""

    def __init__(
        self, spool: Spool, sender: SpoolSender | None, experiment: str, sync: str, close_timeout_s: float
    ) -> None:
        self.spool, self.sender, self.experiment = spool, sender, experiment
        self.sync, self.close_timeout_s = sync, close_timeout_s
        self.seen = history(spool)
        self._lock = threading.Lock()
        for run in reversed(self.seen.unclosed.copy()):
            self.append(close_record(run, "KILLED"))  # the attempt before ended without a word

    def append(self, record: Record) -> None:
        """Writes one line and wakes the sender."""
        with self._lock:
            self.spool.append(record)
            self.seen.see(record)
        if self.sender is not None:
            self.sender.wake()

    def open(self, run: str, parent: str | None, name: str, tags: Mapping[str, str]) -> "SpoolTracker":
        """Opens a run, or its next attempt where the spool knows it."""
        attempt = self.seen.attempts.get(run, 0) + 1
        record: Record = {"op": "open", "run": run, "parent": parent, "name": redact_text(name), "time": now_ms()}
        record |= {"experiment": self.experiment, "attempt": attempt, "user": _user(), "source": Path(sys.argv[0]).name}
        self.append(record | {"tags": redact(dict(tags))})
        return SpoolTracker(self, run, is_root=parent is None)

    def finish(self) -> bool:
        """Waits for the sender, for a bounded time. False where lines are left."""
        waiting = self.sender.finish(self.close_timeout_s) if self.sender is not None else 0
        self.spool.close()
        if waiting:
            logger.warning("tracking: %d records wait in %s; send them with: %s", waiting, self.spool.path, self.sync)
        return waiting == 0


class SpoolTracker(Tracker):
    """A run whose every record is one line in a spool. Returns at once and never raises for the server's sake.

    A run is named by its place: the child "probe" of a rerun job is the child "probe" of its earlier attempt.
    """

    def __init__(self, session: Session, run: str, *, is_root: bool) -> None:
        self._session, self._run = session, run
        self._is_root, self._is_open = is_root, True

    def child(self, name: str, *, key: str = "", tags: Mapping[str, str] | None = None) -> "SpoolTracker":
        """A nested run. The same key, by default the name, gives the same run, in this attempt and the next."""
        shown = redact_text(key or name)
        place = re.sub(r"[^\w.\- ]", "_", shown)
        if place != shown:
            place += f"-{hashlib.sha256(shown.encode(errors='replace')).hexdigest()[:8]}"
        return self._session.open(f"{self._run}/{place}", self._run, name, tags or {})

    def params(self, values: Mapping[str, Any]) -> None:
        """Settings; nested mappings become dotted names. A value that later differs is kept as a tag."""
        self._append("params", params=_flat(redact(dict(values))))

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Numbers at one step. NaN and infinity are not sent as numbers: a tag says which were dropped.

        A number that a run has at a step already, from an earlier attempt, is not written again: MLflow would keep
        both, for their times differ.
        """
        numbers = {name: float(value) for name, value in values.items()}
        dropped = {name: str(number) for name, number in numbers.items() if not math.isfinite(number)}
        known = self._session.seen.points
        told = {name for name, number in numbers.items() if point(self._run, name, int(step), number) in known}
        finite = {name: number for name, number in numbers.items() if name not in told | dropped.keys()}
        if finite or dropped:
            self._append("metrics", time=now_ms(), step=int(step), metrics=finite, dropped=dropped)

    def tags(self, values: Mapping[str, str]) -> None:
        self._append("tags", tags=redact(dict(values)))

    def artifact(self, path: Path, folder: str = "") -> None:
        """A file to keep with the run. It is read when it is sent, so it must outlive the job."""
        self._append("artifact", path=str(path.absolute()), folder=folder)

    def dataset(
        self, name: str, digest: str, source: str, *, context: str = "input", profile: Mapping[str, Any] | None = None
    ) -> None:
        what = {"name": redact_text(name), "digest": digest, "source": redact_text(source), "context": context}
        self._append("dataset", **what, profile=redact(dict(profile or {})))

    def model(
        self, name: str, place: Path | str, sha256: str, *, tags: Mapping[str, str] | None = None, description: str = ""
    ) -> None:
        where = {"folder": str(place.absolute())} if isinstance(place, Path) else {"uri": redact_text(place)}
        what = {"name": redact_text(name), "sha256": sha256, "description": redact_text(description)}
        self._append("model", **what, **where, tags=redact(dict(tags or {})))

    def close(self, status: str = "FINISHED") -> bool:
        """Ends the run. The job's own run also ends children still open, and waits a bounded time for the sender."""
        if not self._is_open:
            return True
        self._is_open = False
        unclosed = self._session.seen.unclosed
        for run in (*reversed([run for run in unclosed if run.startswith(f"{self._run}/")]), self._run):
            self._session.append(close_record(run, status))
        return self._session.finish() if self._is_root else True

    def _append(self, op: str, **record: Any) -> None:
        self._session.append({"run": self._run, "op": op} | record)


def open_run(
    spool: Spool,
    name: str,
    *,
    sender: SpoolSender | None = None,
    experiment: str = "xfm",
    tags: Mapping[str, str] | None = None,
    sync: str = "",
    close_timeout_s: float = 20.0,
) -> SpoolTracker:
    """The job's own run on a spool; a spool that already has one is continued.

    Args:
        name: shown to people.
        sender: takes lines to a server; None only keeps them.
        sync: the command that sends what is left, named in the warning.
        close_timeout_s: how long closing may wait for the sender.
    """
    session = Session(spool, sender, experiment, sync or f"python -m xfm sync {spool.path}", close_timeout_s)
    return session.open(session.seen.root or uuid.uuid4().hex, None, name, tags or {})


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return flat


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # containers often run as a number without a name
        return str(os.getuid())
