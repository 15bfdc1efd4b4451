"""What training workers tell the driver while they run: a mailbox in the cluster, and lines in the log."""

import logging
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

import ray

from xfm.core.tracker import Tracker
from xfm.engine.progress import format_seconds
from xfm.training.settings import Record, Settings, curves_of

logger = logging.getLogger(__name__)

ALWAYS = ("step", "epoch", "seconds", "lr")  # in every record; what else it holds is a loss or a score
SHOWN = 3  # losses or scores in a line of the log


def track_step(tracker: Tracker, record: Record, name: Callable[[str], str] = str) -> None:
    """One record of training, as curves of train and validation; `name` is what the tracker calls an entry."""
    tracker.metrics(curves_of(record, name), step=int(record["step"]))


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
        job, unit: words for the log: what runs, and what it sees.

    Attributes:
        seen: steps of the records that arrived.
    """

    def __init__(
        self,
        settings: Settings,
        on_record: Callable[[Record], None],
        *,
        job: str = "train",
        unit: str = "rows",
        every_s: float = 5.0,
    ) -> None:
        self.settings, self.on_record, self.job, self.unit = settings, on_record, job, unit
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
        settings, step, seconds = self.settings, int(record["step"]), record["seconds"]
        speed = step / seconds if seconds else 0.0
        left = (settings.steps - step) / speed if speed else 0.0
        if settings.max_seconds is not None:
            left = min(left, max(0.0, settings.max_seconds - seconds))
        measured = [f"{name} {value:.4g}" for name, value in record.items() if name not in ALWAYS]
        return (
            f"{self.job}: step {step:,}/{settings.steps:,}, {', '.join(measured[:SHOWN])}, {speed:.1f} steps/s, "
            f"{speed * settings.batch_size:,.0f} {self.unit}/s"
            + (f", {format_seconds(left)} left" if left >= 0.5 else "")
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
