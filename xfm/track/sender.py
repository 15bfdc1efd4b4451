"""Takes a spool's lines to a server, in order, once each as far as a crash allows.

What the server has is remembered beside the spool, per server, so the next sender continues there. A line is marked
as sent after the server took it: a crash in between sends it again (at least once). MLflow keeps one copy of a metric
with the same name, step, value and time, so nothing is doubled. Knows nothing of MLflow: `mlflow.py` delivers.
"""

import fcntl
import json
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

from xfm.track.spool import Line, Record, Spool, close_record, history

logger = logging.getLogger(__name__)

MAX_LINES = 500  # read and merged at once
MAX_BACKOFF_S = 30.0
KEPT_REFUSALS = 1000


class TryLater(Exception):
    """The server cannot be reached or is not well: the line waits."""


class LineRefused(Exception):
    """The server is well and does not take this line: it is noted and passed over."""


class RunGone(Exception):
    """The server lost a run that it had: everything is sent again from the first line."""


class Delivery(Protocol):
    """An open connection to one server."""

    def deliver(self, records: Sequence[Record], runs: dict[str, str]) -> None:
        """Sends one record, or several metric records of one run.

        Args:
            runs: our run ids to the server's; opening a run adds to it.

        Raises:
            TryLater, LineRefused, RunGone: see there.
        """


@dataclass
class SentSoFar:
    """What one server has of one spool."""

    line: int = 0  # number of lines dealt with
    offset: int = 0  # the byte after them
    runs: dict[str, str] = field(default_factory=dict)  # our run ids to the server's
    # lines the server did not take: start, stop, number and reason
    refused: list[dict[str, Any]] = field(default_factory=list)


class Sidecar:
    """The file beside a spool that remembers progress: `tracking.sent.json` for `tracking.jsonl`."""

    def __init__(self, spool: Spool, server: str) -> None:
        self.spool, self.server = spool, server
        self.path = spool.path.with_suffix(".sent.json")
        self.progress = SentSoFar()

    def load(self) -> None:
        """Reads the progress; starts anew where it belongs to another spool or cannot be read."""
        known = self._read()
        entry = known.get("servers", {}).get(self.server)
        self.progress = SentSoFar(**entry) if entry and known.get("root") == self.spool.root() else SentSoFar()
        if self.progress.offset > self.spool.size():
            self.progress = SentSoFar()

    def save(self) -> None:
        """Writes the progress, whole or not at all."""
        known, root = self._read(), self.spool.root()
        servers = known.get("servers", {}) if known.get("root") == root else {}
        servers[self.server] = asdict(self.progress)
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text(json.dumps({"format": 1, "root": root, "last": self.server, "servers": servers}, indent=1))
        temporary.replace(self.path)

    def _read(self) -> dict[str, Any]:
        try:
            known = json.loads(self.path.read_text())
        except (OSError, ValueError):
            return {}
        return known if isinstance(known, dict) else {}


def last_server(spool: Path) -> str | None:
    """The server a spool was last sent to, without credentials."""
    server = Sidecar(Spool(spool), "")._read().get("last")
    return server if isinstance(server, str) else None


class SpoolSender:
    """Sends in one background thread. The thread never keeps the interpreter alive."""

    def __init__(self, spool: Spool, server: str, connect: Callable[[], Delivery]) -> None:
        """`server` names the server in the sidecar; `connect` runs in the thread and may raise TryLater."""
        self._spool, self._connect = spool, connect
        self._sidecar = Sidecar(spool, server)
        self._delivery: Delivery | None = None
        self._lock_file: Any = None
        self._failures = 0
        self._is_sync = False
        self._new, self._closing, self._stop = threading.Event(), threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="xfm-tracking", daemon=True)

    def start(self, *, is_sync: bool = False) -> None:
        """Begins to send. A sync comes after the job: it tries refused lines again and ends runs left open."""
        self._is_sync = is_sync
        self._thread.start()

    def wake(self) -> None:
        self._new.set()

    def finish(self, timeout_s: float) -> int:
        """Sends what it can within the time and ends. Returns the number of lines still waiting."""
        self._closing.set()
        self._new.set()
        self._thread.join(timeout_s)
        self._stop.set()
        there = Sidecar(self._spool, self._sidecar.server)
        there.load()
        return len(self._spool.read(there.progress.offset))

    def refused(self) -> list[str]:
        """`line N: reason` for every line the server did not take."""
        self._sidecar.load()
        return [f"line {entry['number']}: {entry['reason']}" for entry in self._sidecar.progress.refused]

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                if not self._attempt():
                    self._pause()
                elif self._closing.is_set():
                    return
                else:
                    self._new.wait()
        finally:
            if self._lock_file is not None:
                self._lock_file.close()

    def _attempt(self) -> bool:
        """Sends all there is. False where it has to be tried again later."""
        self._new.clear()
        try:
            self._open()
            for lines in self._batches():
                self._send(lines)
        except (TryLater, OSError) as error:
            self._failures += 1
            if self._failures == 1:
                logger.warning("tracking: %s; records wait in %s, the job goes on", error, self._spool.path)
            return False
        except RunGone as error:
            logger.warning("tracking: %s; sending %s again from its first line", error, self._spool.path)
            self._sidecar.progress = SentSoFar()
            self._sidecar.save()
            return False
        if self._failures:
            logger.info("tracking: the server answers again")
            self._failures = 0
        return True

    def _open(self) -> None:
        if self._lock_file is None:
            self._lock_file = _locked(self._spool.path.with_suffix(".lock"))
            self._sidecar.load()
            self._sidecar.save()  # names the server, so that a later sync finds it even if it never answers
        if self._delivery is None:
            delivery = self._connect()
            if self._is_sync:
                self._retry(delivery)
                # We hold the lock, so the job is gone: what it left open, a kill left open.
                for run in reversed(history(self._spool).unclosed):
                    self._spool.append(close_record(run, "KILLED"))
            self._delivery = delivery

    def _batches(self) -> Iterator[list[Line]]:
        """What is unsent: single lines, and runs of metric lines of one run as one batch."""
        while not self._stop.is_set():
            at = self._sidecar.progress
            lines = self._spool.read(at.offset, at.line, MAX_LINES)
            if not lines:
                return
            for _, group in groupby(lines, key=_merge_key):
                if self._stop.is_set():
                    return
                yield list(group)

    def _send(self, lines: list[Line]) -> None:
        assert self._delivery is not None
        progress = self._sidecar.progress
        try:
            self._deliver(self._delivery, lines)
        except LineRefused as error:
            if len(lines) > 1:  # one bad line must not take its neighbours with it
                for line in lines:
                    self._send([line])
                return
            line = lines[0]
            logger.warning("tracking: line %d of %s not taken: %s", line.number, self._spool.path, error)
            entry = {"start": line.start, "stop": line.stop, "number": line.number, "reason": str(error)}
            progress.refused = [*progress.refused, entry][-KEPT_REFUSALS:]
        progress.line, progress.offset = lines[-1].number, lines[-1].stop
        self._sidecar.save()

    def _deliver(self, delivery: Delivery, lines: list[Line]) -> None:
        records = [line.record for line in lines if line.record]
        if records:
            delivery.deliver(records, self._sidecar.progress.runs)

    def _retry(self, delivery: Delivery) -> None:
        left = []
        for entry in self._sidecar.progress.refused:
            try:
                self._deliver(delivery, self._spool.read(entry["start"], entry["number"] - 1, 1))
            except LineRefused as error:
                left.append(entry | {"reason": str(error)})
        self._sidecar.progress.refused = left
        self._sidecar.save()

    def _pause(self) -> None:
        if self._closing.is_set():
            self._stop.wait(0.5)
        else:
            self._closing.wait(min(2.0 ** min(self._failures, 10) / 2, MAX_BACKOFF_S))


def _merge_key(line: Line) -> tuple[str, int]:
    """Metric lines of one run share a key; every other line has its own."""
    is_metrics = line.record.get("op") == "metrics"
    return (line.record["run"], -1) if is_metrics else ("", line.number)


def _locked(path: Path) -> Any:
    """An open file that no other sender of this spool holds.

    Raises:
        TryLater: another one holds it.
    """
    file = path.open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise TryLater(f"another process is sending {path.with_suffix('.jsonl')}") from None
    except OSError:
        logger.info("tracking: %s cannot be locked on this file system", path)
    return file
