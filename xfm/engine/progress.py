"""How far a job is: a bar on a terminal, a line every few seconds in a log."""

import logging
import sys
import threading
import time
from types import TracebackType

from tqdm import tqdm

logger = logging.getLogger(__name__)


class ProgressLog:
    """Counts finished rows; shows rows/s and the time left.

    Args:
        what: verb shown in front, e.g. "embed".
        total: rows to do, or None where only reading can tell; then shards are counted instead.
        unit: what a row is, e.g. "cells".
    """

    def __init__(self, what: str, total: int | None, shards: int, unit: str = "cells", every_s: float = 5.0) -> None:
        self.what, self.total, self.shards, self.unit, self.every_s = what, total, shards, unit, every_s
        self.rows = 0
        self.done_shards = 0
        self.started = time.monotonic()
        self._bar: tqdm[None] | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._log_now_and_then, name="progress", daemon=True)

    def __enter__(self) -> "ProgressLog":
        if sys.stderr.isatty():
            self._bar = tqdm(total=self.total, desc=self.what, unit=f" {self.unit}", dynamic_ncols=True)
        else:
            self._thread.start()
        return self

    def add(self, rows: int) -> None:
        """One more shard is done."""
        self.rows += rows
        self.done_shards += 1
        if self._bar is not None:
            self._bar.update(rows)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._bar is not None:
            self._bar.close()
        else:
            self._thread.join()
        if kind is None:
            logger.info("%s", self.line())

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self.started

    def line(self) -> str:
        """One line: shards, rows, rows/s, time left."""
        rate = self.rows / self.seconds if self.seconds else 0.0
        of = f"/{self.total:,}" if self.total is not None else ""
        share = self.rows / self.total if self.total else self.done_shards / max(1, self.shards)
        left = ""
        if 0 < share < 1:
            left = f", {format_seconds(self.seconds * (1 - share) / share)} left"
        shards = "" if self.total == self.shards else f"{self.done_shards}/{self.shards} shards, "
        return f"{self.what}: {self.rows:,}{of} {self.unit}, {shards}{rate:,.1f} {self.unit}/s{left}"

    def _log_now_and_then(self) -> None:
        while not self._stop.wait(self.every_s):
            logger.info("%s", self.line())


def format_seconds(seconds: float) -> str:
    """3725 → "1:02:05"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
