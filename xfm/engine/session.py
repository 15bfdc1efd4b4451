"""A job at work: its OUTPUT under lease, its run in MLflow, and the report that ends both."""

import hashlib
import shlex
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from xfm.core import errors
from xfm.core.ledger import Refusal
from xfm.core.report import Estimate, Figure, Report, format_column, printable
from xfm.core.storage import below
from xfm.engine.config import JobConfig
from xfm.engine.job import Terminated, is_local, say, scratch_path
from xfm.engine.output import Output
from xfm.track.lineage import data_name, datasets, experiment_name, run_name, run_tags
from xfm.track.mlflow import start_run
from xfm.track.redact import redact, redact_text
from xfm.track.server import tracking_uri, ui_command
from xfm.track.spool import Spool
from xfm.track.tracker import SpoolTracker, open_run

SPOOL = "tracking.jsonl"
CHECKPOINT, WEIGHTS = "checkpoint", "model.safetensors"


class OpenJob:
    """What a job's run function works with.

    Attributes:
        run: the content of run.json, without credentials.
    """

    def __init__(
        self, output: Output, tracker: SpoolTracker, run: Mapping[str, Any], tracking: str, shown: str
    ) -> None:
        self.output, self.tracker, self.run, self._tracking, self._shown = output, tracker, run, tracking, shown
        self._checkpoints: list[dict[str, Any]] = []

    @property
    def attempt(self) -> int:
        """Which start of this job this is."""
        return self.output.attempt

    def register(self, kind: str, place: Path | str, sha256: str, description: str) -> None:
        """A checkpoint that becomes a version of the registered model KIND-DATA when the job has finished; `place` is
        its folder, or its URI in a bucket."""
        tags = run_tags(self.run, self.output.place)
        # What the job began with; `xfm.weights` of a version are its own.
        began = tags.pop("xfm.weights", "")
        tags |= {"xfm.init": began} if began else {}
        tags["xfm.datasets"] = ", ".join(data.name for data in datasets(self.run))
        name = f"{kind}-{data_name(self.run)}"
        made = {"name": name, "place": place, "sha256": sha256, "tags": tags, "description": description}
        self._checkpoints.append(made)

    def publish_checkpoint(self, kind: str, write: Callable[[Path], str]) -> None:
        """OUTPUT/checkpoint, which a backbone reads; registered as `register` says.

        `write` makes the folder it is given, model.safetensors among its files, or exchanges it; it returns a
        description for people.
        """
        local = local_folder(self.output.uri)
        if local is not None:
            description = write(local / CHECKPOINT)
            self.register(kind, local / CHECKPOINT, _sha256(local / CHECKPOINT / WEIGHTS), description)
            return
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / CHECKPOINT
            description = write(folder)
            for file in sorted((path for path in folder.rglob("*") if path.is_file()), reverse=True):
                self.output.write_bytes(f"{CHECKPOINT}/{file.relative_to(folder).as_posix()}", file.read_bytes())
            self.register(kind, below(self.output.place, CHECKPOINT), _sha256(folder / WEIGHTS), description)

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
        plain = {name: n.value if isinstance(n, Estimate) else n for name, n in report.numbers.items()}
        numbers = {name: value for name, value in plain.items() if isinstance(value, int | float)}
        self.tracker.metrics({name.replace(",", "").replace(" ", "_"): float(value) for name, value in numbers.items()})
        self.tracker.tags({"mlflow.note.content": _description(report)})
        for made in self._checkpoints:  # last, since they are large
            self.tracker.model(**made)
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

    def publish(self, name: str, data: bytes) -> None:
        """Writes a file beside the report and keeps it with the MLflow run."""
        self._publish(name, data, scratch_path(self._shown, "."))

    def publish_table(self, name: str, table: pa.Table) -> None:
        """As `publish`, a Parquet file."""
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        self.publish(name, sink.getvalue().to_pybytes())

    def _publish(self, name: str, data: bytes, scratch: Path) -> None:
        self.output.write_bytes(name, data)
        self.tracker.artifact(self.output.local_copy(name, scratch), name.rpartition("/")[0])


@contextmanager
def open_job(
    config: JobConfig, run: Mapping[str, Any], *, joint: bool = False, is_sent: bool = True
) -> Iterator[OpenJob]:
    """Takes the OUTPUT and opens its MLflow run; closes both whatever happens.

    Args:
        run: the content of run.json; credentials in its settings are not written.
        is_sent: False keeps the run's records in OUTPUT, for another process to send.

    Raises:
        Refused: OUTPUT belongs to another run, or another process writes to it.
    """
    tracking = tracking_uri(config.output)
    run = {**run, "settings": redact(run["settings"])}
    with Output(config.output, run, joint=joint) as output:
        spool = scratch_path(config.output, SPOOL)
        spool.parent.mkdir(parents=True, exist_ok=True)
        name, tags = run_name(run, output.attempt), run_tags(run, output.place)
        if is_sent:
            sync = f"python -m xfm sync {shlex.quote(config.output)}"
            experiment = config.experiment or experiment_name(run)
            tracker = start_run(spool, name, uri=tracking, experiment=experiment, tags=tags, sync=sync)
        else:
            tracker = open_run(Spool(spool), name, tags=tags)
        tracker.params(run["settings"])
        for data in datasets(run):
            tracker.dataset(data.name, data.digest, data.source, profile=data.profile)
        try:
            yield OpenJob(output, tracker, run, tracking, config.output)
        except (Terminated, KeyboardInterrupt):
            tracker.close("KILLED")
            raise
        except BaseException:
            tracker.close("FAILED")
            raise


def _on_a_terminal(report: Report) -> Report:
    """Without the long tables and the figures' captions, where there are summaries: they are on the page."""
    short = [table for table in report.tables if table.is_summary]
    return report.model_copy(update={"tables": short, "figures": []}) if short else report


def print_plan(text: str) -> int:
    """Ends a dry run."""
    say(text)
    return errors.OK


def local_folder(output: str) -> Path | None:
    """The folder of a local OUTPUT."""
    return Path(output.removeprefix("file://")) if is_local(output) else None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _description(report: Report) -> str:
    """What MLflow shows first of a run."""
    numbers = [f"{printable(name)}: {format_column([value])[0]}" for name, value in report.numbers.items()]
    cautions = [f"- {printable(warning)}" for warning in report.warnings]
    page = "The whole page: Artifacts, report.html."
    return "\n\n".join(filter(None, [f"**{report.headline}**", "; ".join(numbers), "\n".join(cautions), page]))
