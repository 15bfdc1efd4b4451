"""The book of a search: which trials there are, what each reached, on disk and in MLflow.

    OUTPUT/trials/003.json     written whole when the trial is drawn, at every validation, and when it is over
    OUTPUT/trials/trial-003/   its checkpoint while it runs; removed when it is over

A search goes on from its book, not from Ray Tune's own state: that is pickled, is written every ten seconds or so, and
forgets the trials that began in between, which would then be drawn again under other names. A trial is known by its
number, so whatever was started twice is there once.
"""

import json
import logging
import shutil
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import pyarrow as pa
from pyarrow import fs

from xfm.core.errors import Refused
from xfm.core.report import printable
from xfm.core.storage import below, open_storage
from xfm.core.tracker import Tracker
from xfm.engine.progress import format_seconds
from xfm.studies.tune.trials import Aim, Status, Trial, best_of
from xfm.training.settings import VALIDATION, Record, curves_of

logger = logging.getLogger(__name__)

FOLDER = "trials"


class TrialLog:
    """Keeps the trials of one OUTPUT. Lives on the driver alone.

    Args:
        uri: of OUTPUT, absolute.
        total: trials that the search is to have.
        tracker: the job's run; each trial becomes a child of it.
        defaults: values of the searched fields in trial 0.

    Raises:
        Refused: BAD_TRIAL, a file of the book is damaged.
    """

    def __init__(
        self, uri: str, aim: Aim, total: int, tracker: Tracker, defaults: Mapping[str, Any] | None = None
    ) -> None:
        self.uri, self.aim, self.total = uri, aim, total
        self._tracker, self._defaults = tracker, dict(defaults or {})
        self._storage = open_storage(uri)
        self._runs: dict[int, Tracker] = {}
        self._started = time.monotonic()
        read = [self._read(name) for name in sorted(self._storage.sizes(FOLDER)) if name.endswith(".json")]
        self._trials = {trial.number: trial for trial in read if trial is not None}
        self._over_before = sum(trial.status != "running" for trial in self.trials)

    @property
    def trials(self) -> list[Trial]:
        """All that were drawn so far, in order."""
        return [self._trials[number] for number in sorted(self._trials)]

    @property
    def unfinished(self) -> list[Trial]:
        """Drawn, and to be run (again): a kill caught them, or they failed for a reason that may have gone."""
        return [each for each in self.trials if not each.is_over and not (each.status == "failed" and each.is_final)]

    @property
    def undrawn(self) -> list[int]:
        """Numbers of trials that are still to be drawn."""
        return [number for number in range(self.total) if number not in self._trials]

    def get(self, number: int) -> Trial:
        return self._trials[number]

    def draw(self, number: int, values: Mapping[str, Any]) -> Trial:
        """A new trial; from here on these are its values, whatever happens."""
        return self._put(Trial(number, dict(values)))

    def start(self, number: int) -> None:
        trial = self._trials[number]
        if trial.status != "running":
            self._put(replace(trial, status="running", reason=""))
        self._run(number)

    def add(self, number: int, history: Sequence[Record]) -> None:
        """Takes validation records; those of steps that it knows are not taken twice."""
        trial = self._trials[number]
        known = {record["step"] for record in trial.history}
        new = [dict(record) for record in history if record["step"] not in known]
        if not new:
            return
        trial = replace(trial, history=sorted([*trial.history, *new], key=lambda record: record["step"]))
        self._put(trial)
        run = self._run(number)
        for place, record in enumerate(trial.history, start=1):
            if record["step"] not in known:
                run.metrics(curves_of(record), step=place)

    def end(self, number: int, status: Status, reason: str = "", *, is_final: bool = True) -> None:
        """It is over: finished, pruned or failed. Nothing that comes later changes that."""
        trial = self._trials[number]
        if trial.status != "running":
            return
        trial = replace(trial, status=status, reason=printable(reason)[:500], is_final=is_final)
        run = self._run(number)
        if values := self.aim.values(trial.history):
            kept = zip(self.aim.each, values, strict=True)
            run.metrics({f"best/{aim.metric.removeprefix(VALIDATION)}": value for aim, value in kept})
        run.tags({"xfm.status": status} | ({"xfm.reason": trial.reason} if reason else {}))
        self._close(trial)  # a kill between its run's end and its file's does both again
        if status != "failed" or is_final:
            _clear(below(self.uri, f"{FOLDER}/{trial.name}"))
        logger.info("%s", self.line(trial))

    def mark_front(self, numbers: Collection[int]) -> None:
        """Says with each trial's run whether it is on the front; runs that were told so before are left alone."""
        for trial in self.trials:
            on_front = trial.number in numbers
            if trial.on_front == on_front:
                continue
            self._run(trial.number).tags({"xfm.on_front": str(on_front).lower(), "xfm.status": trial.status})
            self._close(replace(trial, on_front=on_front))

    def line(self, trial: Trial) -> str:
        """What a finished trial came to, and how long the rest will take."""
        values, best = self.aim.values(trial.history), best_of(self.trials, self.aim)
        scores = zip(self.aim.each, values or (), strict=False)
        told = ", ".join(f"{aim.metric} {value:.4g}" for aim, value in scores)
        reached = f"{told} after {trial.epochs:.3g} epochs" if told else "no value"
        words = {"finished": "", "pruned": ", pruned", "failed": f", failed: {trial.reason}", "running": ""}
        record = "" if best is None else f"; best {self.aim.best(best.history):.4g} (trial {best.number})"
        over = sum(each.status != "running" for each in self.trials)
        seconds = (time.monotonic() - self._started) / max(1, over - self._over_before) * (self.total - over)
        left = f", about {format_seconds(seconds)} left" if over < self.total else ""
        return (
            f"tune: trial {trial.number}: {reached} in {format_seconds(trial.seconds)}{words[trial.status]}{record}; "
            f"{over} of {self.total} trials{left}"
        )

    def _run(self, number: int) -> Tracker:
        """The trial's MLflow run, opened when it is first needed."""
        if number not in self._runs:
            trial = self._trials[number]
            shown = ", ".join(f"{field} {_short(value)}" for field, value in trial.values.items()) or "default settings"
            tags = {"xfm.trial": str(number), "xfm.status": "running"}
            run = self._tracker.child(f"trial {number}: {shown}"[:200], key=trial.name, tags=tags)
            run.params(self._defaults | trial.values)
            self._runs[number] = run
        return self._runs[number]

    def _close(self, trial: Trial) -> None:
        self._runs.pop(trial.number).close("FAILED" if trial.status == "failed" else "FINISHED")
        self._put(trial)

    def _put(self, trial: Trial) -> Trial:
        self._trials[trial.number] = trial
        data = json.dumps(asdict(trial), allow_nan=False, indent=1)
        self._storage.write(f"{FOLDER}/{trial.number:03d}.json", data.encode())
        return trial

    def _read(self, name: str) -> Trial | None:
        data = self._storage.read(f"{FOLDER}/{name}")
        if data is None:
            return None
        try:
            return Trial(**json.loads(data))
        except (ValueError, TypeError) as error:
            raise Refused("BAD_TRIAL", f"{self._storage.place}/{FOLDER}/{name} is damaged ({error}); remove it, and "
                          "the trial is drawn and run again") from None  # fmt: skip


def _clear(uri: str) -> None:
    if "://" not in uri:
        shutil.rmtree(uri, ignore_errors=True)
        return
    try:
        filesystem, path = fs.FileSystem.from_uri(uri)
        filesystem.delete_dir(path)
    except (OSError, pa.ArrowInvalid) as problem:
        logger.debug("nothing removed: %s", problem)


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
