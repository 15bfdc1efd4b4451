"""Records are written to a local file first, and sent from there.

Every call of a tracker (`tracker.py`) appends one JSON line to an append-only file and returns. Sending is someone
else's work (`sender.py`): it reads the file from where it last stopped, so a server that is down, slow or gone costs
the job nothing, and a later `sync` continues where the job left off. The first line's run id names the whole spool;
a job that is rerun with the same spool continues the same run as its next attempt.
"""

import json
import logging
import os
import threading
import time
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a spool."""

    number: int  # counts from 1
    start: int  # offset of its first byte
    stop: int  # offset of the byte after it
    record: Record  # its content; empty where the line was torn by a kill


class Spool:
    """An append-only file of JSON lines. Appending never raises: a full disk loses records, not the job."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._fd: int | None = None
        self._lost = 0

    def append(self, record: Record) -> None:
        """Adds one line. It survives a kill of this process as soon as the call returns."""
        data = json.dumps(record, ensure_ascii=False, allow_nan=False).encode(errors="replace") + b"\n"
        with self._lock:
            try:
                os.write(self._open(), data)
            except OSError as error:
                self._lost += 1
                if self._lost == 1:
                    logger.warning("tracking: cannot write %s (%s); records from here on may be lost", self.path, error)

    def _open(self) -> int:
        if self._fd is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
            size = os.fstat(fd).st_size
            if size and os.pread(fd, 1, size - 1) != b"\n":
                os.write(fd, b"\n")  # a kill tore the last line: end it, so that the next one stays whole
            self._fd = fd
        return self._fd

    def read(self, offset: int = 0, number: int = 0, limit: int | None = None) -> list[Line]:
        """Whole lines from a byte offset on; `number` is the count of lines before it."""
        lines: list[Line] = []
        try:
            with self.path.open("rb") as file:
                file.seek(offset)
                for data in islice(file, limit):
                    if not data.endswith(b"\n"):
                        break
                    number += 1
                    lines.append(Line(number, offset, offset + len(data), _parse(data)))
                    offset += len(data)
        except FileNotFoundError:
            pass
        except OSError as error:
            logger.warning("tracking: cannot read %s (%s)", self.path, error)
        return lines

    def root(self) -> str | None:
        """The run of the first line, which names the whole spool; None where there is none."""
        first = self.read(limit=1)
        return first[0].record.get("run") if first else None

    def size(self) -> int:
        """Bytes in the file; 0 where there is none."""
        return self.path.stat().st_size if self.path.is_file() else 0

    def close(self) -> None:
        """Closes the file. A later append opens it again."""
        with self._lock:
            if self._fd is not None:
                os.close(self._fd)
                self._fd = None


def _parse(data: bytes) -> Record:
    try:
        record = json.loads(data)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


@dataclass
class History:
    """What a spool says about its runs."""

    root: str | None = None  # id of the job's own run, None in an empty spool
    attempts: dict[str, int] = field(default_factory=dict)  # how often each run was opened
    unclosed: list[str] = field(default_factory=list)  # runs opened and not closed since, in order of opening
    points: set[int] = field(default_factory=set)  # hashes of (run, metric, step, value)

    def see(self, record: Record) -> None:
        """Takes one more line into account."""
        run = record.get("run", "")
        if record.get("op") == "open":
            self.root = self.root or run
            self.attempts[run] = self.attempts.get(run, 0) + 1
            if run not in self.unclosed:
                self.unclosed.append(run)
        elif record.get("op") == "close" and run in self.unclosed:
            self.unclosed.remove(run)
        elif record.get("op") == "metrics":
            self.points |= {point(run, name, record["step"], value) for name, value in record["metrics"].items()}


def point(run: str, metric: str, step: int, value: float) -> int:
    """Stands for one number of a run."""
    return hash((run, metric, step, value))


def history(spool: Spool) -> History:
    """Reads a spool from the start."""
    seen = History()
    for line in spool.read():
        seen.see(line.record)
    return seen


def close_record(run: str, status: str) -> Record:
    """The line that ends a run: FINISHED, FAILED or KILLED."""
    return {"op": "close", "run": run, "status": status, "time": now_ms()}


def now_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000
