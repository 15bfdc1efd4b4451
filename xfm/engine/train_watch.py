"""What training workers tell the driver while they run: a mailbox in the cluster, and lines in the log."""

import logging
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

import ray

from xfm.engine.progress import format_seconds

logger = logging.getLogger(__name__)

Record = dict[str, float]


class _Mailbox:
    """Keeps records until they are fetched. Workers post and go on."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def post(self, record: Record) -> None:
        """From a worker."""
        self.records.append(record)

    def fetch(self) -> list[Record]:
        """All since the last call, for the driver."""
        records, self.records = self.records, []
        return records


class Watch:
    """Fetches records in the background while the driver waits for the trainer; logs how far the run is.

    Args:
        steps: in all.
        batch_size: cells of a step.
        max_seconds: the time budget, if there is one.
        on_record: called with each record, once.
        every_s: seconds between log lines.

    Attributes:
        seen: steps of the records that arrived.
    """

    def __init__(
        self,
        steps: int,
        batch_size: int,
        max_seconds: float | None,
        on_record: Callable[[Record], None],
        every_s: float = 5.0,
    ) -> None:
        self.steps, self.batch_size, self.max_seconds, self.on_record = steps, batch_size, max_seconds, on_record
        self.every_s = every_s
        self.mailbox: Any = ray.remote(num_cpus=0, max_restarts=-1)(_Mailbox).remote()
        self.seen: set[float] = set()
        self._last: Record | None = None
        self._logged = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._fetch_now_and_then, name="training progress", daemon=True)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        if kind is None:
            self._fetch()
            if self._last is not None:
                logger.info("%s", self.line(self._last))
        ray.kill(self.mailbox)

    def line(self, record: Record) -> str:
        """Steps, loss, speed, time left."""
        step, seconds = int(record["step"]), record["seconds"]
        speed = step / seconds if seconds else 0.0
        left = (self.steps - step) / speed if speed else 0.0
        if self.max_seconds is not None:
            left = min(left, max(0.0, self.max_seconds - seconds))
        losses = ", ".join(f"{name} {record[name]:.4g}" for name in ("masked", "cell", "prompt") if name in record)
        return (
            f"pretrain: step {step:,}/{self.steps:,}, {losses}, {speed:.1f} steps/s, "
            f"{speed * self.batch_size:,.0f} cells/s" + (f", {format_seconds(left)} left" if left >= 0.5 else "")
        )

    def _fetch_now_and_then(self) -> None:
        while not self._stop.wait(1.0):
            has_news = self._fetch()
            if has_news and self._last is not None and time.monotonic() - self._logged >= self.every_s:
                logger.info("%s", self.line(self._last))
                self._logged = time.monotonic()

    def _fetch(self) -> bool:
        try:
            records = ray.get(self.mailbox.fetch.remote(), timeout=10)
        except ray.exceptions.RayError as problem:
            # The mailbox's node may die: the trainer survives that, and the history it returns is complete.
            logger.debug("no news from the workers: %s", problem)
            return False
        for record in records:
            self._last = record
            self.seen.add(record["step"])
            self.on_record(record)
        return bool(records)
