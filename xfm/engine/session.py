"""A job at work: its OUTPUT under lease, its run in MLflow, and the report that ends both."""

import logging
import shlex
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from xfm.core import errors
from xfm.core.config import fingerprint
from xfm.core.ledger import Refusal
from xfm.core.report import Figure, Report
from xfm.engine.config import JobConfig
from xfm.engine.job import Terminated, is_local, say, scratch_path
from xfm.engine.output import Output
from xfm.track.mlflow import start_run
from xfm.track.redact import redact, redact_text
from xfm.track.server import tracking_uri, ui_command
from xfm.track.tracker import SpoolTracker

logger = logging.getLogger(__name__)

SPOOL = "tracking.jsonl"


class OpenJob:
    """What a job's run function works with.

    Attributes:
        output: where results go.
        tracker: the job's MLflow run.
        attempt: which start of this job this is, from 1.
    """

    def __init__(self, output: Output, tracker: SpoolTracker, tracking: str, shown: str) -> None:
        self.output, self.tracker, self._tracking, self._shown = output, tracker, tracking, shown

    @property
    def attempt(self) -> int:
        """Which start of this job this is."""
        return self.output.attempt

    def finish(
        self,
        report: Report,
        draw: Callable[[Path], list[Figure]] | None = None,
        rows: int | None = None,
        refusals: Sequence[Refusal] = (),
    ) -> int:
        """Writes plots, page and report, in that order, sends them, and tells the user.

        Args:
            draw: writes figures below a folder and returns them; the first is the hero of the page.
            rows: rows that made it into OUTPUT; 0 means that everything was refused.
            refusals: the quarantine of stages that have OUTPUTs of their own.

        Returns:
            The job's exit code.
        """
        from xfm.plots.page import render_page

        # Not a temporary folder: what tracking could not send is read from here by a later sync.
        folder = scratch_path(self._shown, ".")
        with tempfile.TemporaryDirectory() as scratch:
            figures = draw(Path(scratch)) if draw is not None else []
            report = report.model_copy(update={"figures": figures})
            for name in (path for figure in figures for path in (figure.png, figure.csv) if path):
                self._publish(name, (Path(scratch) / name).read_bytes(), folder)
            page = render_page(report, Path(scratch))
        self._publish("report.html", page.encode(), folder)
        if refusals:
            self.output.adopt(refusals)
        if rows != 0:
            # Last of all: its presence means success.
            self._publish("report.json", report.to_json().encode(), folder)
        self.tracker.artifact(self.output.local_copy("run.json", folder))
        numbers = {name: value for name, value in report.numbers.items() if isinstance(value, int | float)}
        self.tracker.metrics({name.replace(",", "").replace(" ", "_"): float(value) for name, value in numbers.items()})
        self.tracker.close()
        say("\n" + _on_a_terminal(report).to_text())
        say(f"output   {redact_text(self._shown)}  (report.html is the page to read)")
        say(f"MLflow   {ui_command(self._tracking)}")
        if rows == 0:
            say("nothing was computed: everything was refused, see quarantine.jsonl")
            return errors.REFUSED_INPUT
        if report.refused:
            say("some rows or files were not used: see quarantine.jsonl")
            return errors.QUARANTINED
        return errors.OK

    def _publish(self, name: str, data: bytes, scratch: Path) -> None:
        self.output.write_bytes(name, data)
        self.tracker.artifact(self.output.local_copy(name, scratch), name.rpartition("/")[0])


@contextmanager
def open_job(config: JobConfig, run: Mapping[str, Any], *, joint: bool = False) -> Iterator[OpenJob]:
    """Takes the OUTPUT and opens its MLflow run; closes both whatever happens.

    Args:
        config: of the job.
        run: the content of run.json; credentials in its settings are not written.
        joint: see `Output`.

    Raises:
        Refused: OUTPUT belongs to another run, or another process writes to it.
    """
    tracking = tracking_uri(config.output)
    run = {**run, "settings": redact(run["settings"])}
    with Output(config.output, run, joint=joint) as output:
        spool = scratch_path(config.output, SPOOL)
        spool.parent.mkdir(parents=True, exist_ok=True)
        sync = f"python -m xfm sync {shlex.quote(config.output)}"
        name = f"{run['job']} {config.output.rstrip('/').rpartition('/')[2]}"
        tags = {"xfm.job": str(run["job"]), "xfm.output": output.place, "xfm.fingerprint": fingerprint(run["recipe"])}
        tracker = start_run(spool, name, uri=tracking, experiment=config.experiment, tags=tags, sync=sync)
        tracker.params(run["settings"])
        for source, digest in _datasets(run["recipe"].get("data", {})):
            tracker.dataset(source.rpartition("/")[2], digest, source)
        try:
            yield OpenJob(output, tracker, tracking, config.output)
        except (Terminated, KeyboardInterrupt):
            tracker.close("KILLED")
            raise
        except BaseException:
            tracker.close("FAILED")
            raise


def _on_a_terminal(report: Report) -> Report:
    """Without the long tables and the figures' captions, where there are summaries: they are on the page."""
    short = [table for table in report.tables if table.name.endswith("summary")]
    return report.model_copy(update={"tables": short, "figures": []}) if short else report


def print_plan(text: str) -> int:
    """Ends a dry run."""
    say(text)
    return errors.OK


def local_folder(output: str) -> Path | None:
    """The folder of a local OUTPUT."""
    return Path(output.removeprefix("file://")) if is_local(output) else None


def _datasets(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(name, digest) for lineage: every file where there are few, else one digest over all."""
    files: dict[str, str] = dict(data.get("files", {}))
    if 0 < len(files) <= 20:
        return list(files.items())
    return [(str(data.get("uri") or data.get("release") or "data"), fingerprint(dict(data)))]
