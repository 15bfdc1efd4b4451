"""Records to MLflow, through its client with explicit run ids: nothing global, any thread.

`start_run` gives a job its tracker, `send_pending` sends later what could not be sent. MLflow is imported in the
sending thread, so a job does not wait the seconds that takes. What it takes (names, lengths, types) is after
mlflow.utils.validation and the columns of its database.
"""

import hashlib
import json
import logging
import os
import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xfm.core.errors import EnvironmentProblem
from xfm.track.checkpoints import CheckpointChanged, add_version
from xfm.track.redact import HIDDEN, redact_text
from xfm.track.sender import LineRefused, RunGone, SpoolSender, TryLater, last_server
from xfm.track.server import artifact_location, connect_once, tracking_uri, with_driver
from xfm.track.spool import Record, Spool
from xfm.track.tracker import SpoolTracker, open_run

MAX_NAME, MAX_PARAM, MAX_TAG, MAX_DIGEST, MAX_DATASET = 250, 6000, 8000, 36, 500  # characters
METRICS_PER_CALL, PAIRS_PER_CALL = 1000, 100
RUN_TAG = "xfm.run"  # our id of the run: finds it again where a crash came between creating and remembering it

# Training, and not talks with a language model: without it MLflow 3 guesses, and asks whether it guessed right.
EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}

# MLflow's own defaults wait up to 8 times 2 minutes and report usage to its vendor. Set only where unset.
ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
# Of a module that is missing: what would work.
DRIVERS = dict.fromkeys(("psycopg", "psycopg2"), ": pip install 'xfm[postgres]'")
# The server is well, and says that it will never take this.
NEVER = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "MALFORMED_REQUEST", "INVALID_STATE", "RESOURCE_DOES_NOT_EXIST"}


def start_run(
    spool: Path,
    name: str,
    *,
    uri: str,
    experiment: str = "xfm",
    tags: Mapping[str, str] | None = None,
    sync: str = "",
    close_timeout_s: float = 20.0,
) -> SpoolTracker:
    """A job's tracker: records go to the spool and from there to MLflow. Returns at once and never raises for it.

    Args:
        spool: a local file; the same file continues the same MLflow run.
        uri: see `tracking_uri`; all else is as for `open_run`.
    """
    file = Spool(spool)
    sender = SpoolSender(file, redact_text(uri), lambda: MLflowDelivery(uri))
    tracker = open_run(
        file, name, sender=sender, experiment=experiment, tags=tags, sync=sync, close_timeout_s=close_timeout_s
    )
    sender.start()
    return tracker


@dataclass(frozen=True, slots=True)
class Sent:
    """What a sync left behind."""

    uri: str  # where it was sent, without credentials
    waiting: int  # lines the server did not answer for
    refused: list[str]  # `line N: reason` for each line it does not take


def send_pending(spool: Path, uri: str | None = None, timeout_s: float = 300.0) -> Sent:
    """Sends what a job could not, exactly from where it stopped.

    Args:
        uri: tracking URI; by default MLFLOW_TRACKING_URI, else the one the job used. A server that never saw this
            spool gets all of it.

    Raises:
        EnvironmentProblem: no spool there, or the job's URI held credentials, which are never written down.
    """
    if not spool.is_file():
        raise EnvironmentProblem(f"no records to send: {spool} does not exist. Was tracking on, and is OUTPUT right?")
    uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or last_server(spool) or tracking_uri(str(spool.parent))
    if HIDDEN in uri:
        raise EnvironmentProblem(f"the job sent to {uri}; its credentials are not kept: set MLFLOW_TRACKING_URI")
    file = Spool(spool)
    sender = SpoolSender(file, redact_text(uri), lambda: MLflowDelivery(uri))
    sender.start(is_sync=True)
    waiting = sender.finish(timeout_s)
    file.close()
    return Sent(redact_text(uri), waiting, sender.refused())


class MLflowDelivery:
    """An MLflow client that takes spool records. One method per kind of record, found by its name."""

    def __init__(self, uri: str) -> None:
        """Raises TryLater where the store cannot be opened."""
        self._uri = uri
        self._experiments: dict[str, str] = {}
        try:
            mlflow = import_mlflow()
            store = with_driver(uri)
            connect_once(store)
            self._client = mlflow.MlflowClient(tracking_uri=store)
            self._entities = mlflow.entities
            self._error = mlflow.exceptions.MlflowException
        except Exception as error:  # noqa: BLE001 - see deliver()
            what_works = DRIVERS.get(getattr(error, "name", None) or "", "")
            raise TryLater(f"cannot open {redact_text(uri)}: {first_line(error)}{what_works}") from None

    def deliver(self, records: Sequence[Record], runs: dict[str, str]) -> None:
        op = records[0].get("op", "")
        send = getattr(self, f"_send_{op}", None)
        if send is None:
            raise LineRefused(f"unknown record {op!r}: written by a newer xfm?")
        if op != "open" and records[0]["run"] not in runs:
            raise LineRefused(f"run {records[0]['run']} was never opened")
        try:
            send(runs if op == "open" else runs[records[0]["run"]], *records)
        except (TryLater, LineRefused, RunGone):
            raise
        # Stores, HTTP, and the clients of every artifact store raise types of their own. This is the one place where
        # anything at all may go wrong without the job's fault, and must not end the thread.
        except Exception as error:  # noqa: BLE001
            reason = first_line(error)
            if op != "open" and getattr(error, "error_code", None) in NEVER:
                raise LineRefused(reason) from None
            if op == "artifact" and not isinstance(error, self._error | OSError):
                # For instance: the client of the artifact store is not installed. The metrics behind it go on.
                raise LineRefused(f"{records[0]['path']}: {reason}") from None
            raise TryLater(f"{redact_text(self._uri)}: {reason}") from None

    def _send_open(self, runs: dict[str, str], record: Record) -> None:
        ours, tags = record["run"], record["tags"] | {"attempt": str(record["attempt"])}
        if ours in runs:
            called = self._check_alive(runs[ours])
            # A name that a person gave it stays; a later attempt replaces the number of an earlier one.
            is_ours = re.sub(r"-\d+$", "", called) == re.sub(r"-\d+$", "", record["name"])
            self._client.update_run(runs[ours], status="RUNNING", name=record["name"] if is_ours else None)
            self._send_tags(runs[ours], {"tags": tags})
            return
        experiment = self._experiment(record["experiment"])
        found = self._client.search_runs([experiment], f"tags.`{RUN_TAG}` = '{ours}'", max_results=1)
        if found:
            runs[ours] = found[0].info.run_id
            self._send_tags(runs[ours], {"tags": tags})
            return
        own = {"mlflow.user": record["user"], "mlflow.source.name": record["source"], RUN_TAG: ours}
        if record["parent"] in runs:
            own["mlflow.parentRunId"] = runs[record["parent"]]
        run = self._client.create_run(experiment, record["time"], fit_tags(tags | own), record["name"])
        runs[ours] = run.info.run_id

    def _check_alive(self, run: str) -> str:
        """Returns the run's name."""
        try:
            info = self._client.get_run(run).info
        except self._error as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                raise RunGone(f"{redact_text(self._uri)} does not know run {run} any more") from None
            raise
        if info.lifecycle_stage != "active":
            raise RunGone(f"run {run} was deleted at {redact_text(self._uri)}")
        return str(info.run_name)

    def _experiment(self, name: str) -> str:
        if name not in self._experiments:
            known = self._client.get_experiment_by_name(name)
            if known is not None and known.lifecycle_stage != "active":
                place = redact_text(self._uri)
                raise TryLater(f"experiment {name!r} was deleted at {place}: restore it or name another")
            self._experiments[name] = known.experiment_id if known else self._new_experiment(name)
        return self._experiments[name]

    def _new_experiment(self, name: str) -> str:
        try:
            return str(self._client.create_experiment(name, artifact_location(self._uri, name), EXPERIMENT_TAGS))
        except self._error as error:
            made = self._client.get_experiment_by_name(name)  # by another job, since we asked
            if error.error_code != "RESOURCE_ALREADY_EXISTS" or made is None:
                raise
            return str(made.experiment_id)

    def _send_params(self, run: str, record: Record) -> None:
        logged = self._client.get_run(run).data.params
        new: dict[str, str] = {}
        changed: dict[str, str] = {}
        for name, value in record["params"].items():
            key, kept = clean_name(name), value
            if len(value) > MAX_PARAM:
                file = f"params/{key}.json"
                self._client.log_text(run, value, file)
                digest = hashlib.sha256(value.encode()).hexdigest()[:16]
                kept = f"{len(value)} characters, sha256 {digest}, see artifact {file}"
            if key not in logged:
                new[key] = kept
            elif logged[key] != kept:
                changed[f"param_changed.{key}"] = kept
        self._log(run, "params", [self._entities.Param(k, v) for k, v in new.items()], PAIRS_PER_CALL)
        self._send_tags(run, {"tags": changed})

    def _send_metrics(self, run: str, *records: Record) -> None:
        dropped: dict[str, str] = {}
        metrics: list[Any] = []
        for record in records:
            time, step = record["time"], record["step"]
            metrics += [self._entities.Metric(clean_name(k), v, time, step) for k, v in record["metrics"].items()]
            dropped |= {f"not_finite.{k}": f"{v} at step {step}, not sent" for k, v in record["dropped"].items()}
        self._log(run, "metrics", metrics, METRICS_PER_CALL)
        self._send_tags(run, {"tags": dropped})

    def _send_tags(self, run: str, record: Record) -> None:
        tags = [self._entities.RunTag(name, value) for name, value in fit_tags(record["tags"]).items()]
        self._log(run, "tags", tags, PAIRS_PER_CALL)

    def _log(self, run: str, kind: str, items: Sequence[Any], size: int) -> None:
        for start in range(0, len(items), size):
            self._client.log_batch(run, **{kind: items[start : start + size]}, synchronous=True)

    def _send_artifact(self, run: str, record: Record) -> None:
        path = Path(record["path"])
        if not path.is_file():
            raise LineRefused(f"artifact {path} is not there any more")
        self._client.log_artifact(run, str(path), record["folder"] or None)

    def _send_dataset(self, run: str, record: Record) -> None:
        kind, source = dataset_source(record["source"], record["digest"])
        name, digest, profile = record["name"][:MAX_DATASET], record["digest"][:MAX_DIGEST], record.get("profile", {})
        data = self._entities.Dataset(name, digest, kind, json.dumps(source), profile=json.dumps(profile))
        context = self._entities.InputTag("mlflow.data.context", record.get("context", "input"))
        self._client.log_inputs(run, [self._entities.DatasetInput(data, [context])])

    def _send_model(self, run: str, record: Record) -> None:
        try:
            add_version(self._client, self._error, run, record)
        except CheckpointChanged as problem:
            raise LineRefused(str(problem)) from None

    def _send_close(self, run: str, record: Record) -> None:
        self._client.set_terminated(run, record["status"], record["time"])


def import_mlflow() -> Any:
    """The package, told to be quiet and quick."""
    for variable, value in ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    import mlflow

    # Both tell in many lines what we tell in one.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    return mlflow


def first_line(error: Exception, length: int = 200) -> str:
    """What went wrong in a line, without credentials."""
    return redact_text(str(error).strip().partition("\n")[0][:length] or type(error).__name__)


def clean_name(name: str) -> str:
    """A name MLflow takes: letters, digits and `_-. :/`, at most 250 long, no path that resolves to another."""
    cleaned = posixpath.normpath(re.sub(r"[^\w\-. :/]", "_", name)).lstrip("/") or "_"
    cleaned = re.sub(r"^\.+", "_", cleaned)
    if len(cleaned) > MAX_NAME:
        cleaned = f"{cleaned[: MAX_NAME - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return cleaned


def fit_tags(tags: Mapping[str, Any]) -> dict[str, str]:
    """Tags with names and lengths that MLflow takes."""
    return {clean_name(name): str(value)[:MAX_TAG] for name, value in tags.items()}


def dataset_source(place: str, digest: str) -> tuple[str, dict[str, str]]:
    """MLflow's type of a data set's source, which decides how its page shows it, and the source as that type reads it.

    The digest is here in full; MLflow's own field is too short for it.
    """
    scheme, separator, rest = place.partition("://")
    if not separator:
        kind = "local" if "/" in place else "external"  # a release has no address
    else:
        kind = {"file": "local", "https": "http", "hf": "hugging_face"}.get(scheme, scheme)
    path = "/".join(rest.partition("@")[0].split("/")[:2]) if scheme == "hf" else place
    return kind, {"uri": place, "url": place, "path": path, "digest": digest}
