"""Runs found in MLflow: where their OUTPUT lies, and their artifacts where it cannot be reached.

A query is MLflow's filter of runs, and may name experiments besides, which MLflow searches apart from runs:

    experiment = 'xfm' and tags.`xfm.job` = 'evaluate'
    experiment like 'xfm/evaluate/%' and metrics.cells > 1000

Reading must end: a store that is down, slow or locked gets a bounded time.
"""

import logging
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from xfm.core.errors import EnvironmentProblem, Refused
from xfm.track.mlflow import first_line, import_mlflow
from xfm.track.redact import redact_text
from xfm.track.sender import Sidecar, last_server
from xfm.track.server import sqlite_file, with_driver
from xfm.track.spool import Spool

logger = logging.getLogger(__name__)

TIMEOUT_S = 60.0
PAGE = 1000  # runs asked for at once
PARENT = "mlflow.parentRunId"
_EXPERIMENT = re.compile(r"(?i)^\s*(?:attributes?\.)?experiment(?:_?name)?\s*(=|!=|i?like)\s*('[^']*'|\"[^\"]*\")\s*$")
_AND = re.compile(r"(?i)\s+and\s+(?=(?:[^'\"]*['\"][^'\"]*['\"])*[^'\"]*$)")  # outside quotes
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TrackedRun:
    """A run that MLflow knows."""

    run: str  # its id there
    name: str  # shown to people
    output: str  # where its job says its OUTPUT lies; empty for other programs' runs
    fingerprint: str  # of its recipe, or empty
    link: str  # address of its page; for a store without a server its id


class Tracked:
    """An MLflow store, for reading."""

    def __init__(self, uri: str, timeout_s: float = TIMEOUT_S) -> None:
        """Opens nothing yet.

        Raises:
            EnvironmentProblem: the database file is not there; MLflow would make an empty one.
        """
        file = sqlite_file(uri)
        if file is not None and not file.is_file():
            raise EnvironmentProblem(f"there is no MLflow database at {file}: nothing was tracked there. Set "
                                     "MLFLOW_TRACKING_URI to where the runs are")  # fmt: skip
        self._uri, self._timeout_s = uri, timeout_s

    def search(self, query: str) -> list[TrackedRun]:
        """Runs that match, oldest first; children of other runs only where they have an OUTPUT of their own.

        Raises:
            Refused: BAD_QUERY, or NO_EXPERIMENT.
            EnvironmentProblem: the store does not answer, or not in time.
        """
        names, rest = split_query(query)

        def ask() -> list[Any]:
            client = import_mlflow().MlflowClient(tracking_uri=with_driver(self._uri))
            experiments = client.search_experiments(filter_string=" AND ".join(names) or None)
            if not experiments:
                known = ", ".join(sorted(experiment.name for experiment in client.search_experiments())[:20])
                raise Refused("NO_EXPERIMENT", f"--query: no experiment has {' and '.join(names)}. Known: {known}")
            ids = [experiment.experiment_id for experiment in experiments]
            found, token = [], None
            while True:
                page = client.search_runs(ids, rest, max_results=PAGE, page_token=token, order_by=["start_time ASC"])
                found += page
                token = page.token
                if not token:
                    return found

        runs = [self._tracked(run) for run in self._within(ask)
                if PARENT not in run.data.tags or "xfm.output" in run.data.tags]  # fmt: skip
        logger.info("MLflow: %d runs match %s", len(runs), query)
        return runs

    def fetch(self, run: str, names: Sequence[str], folder: Path) -> list[str]:
        """Downloads those artifacts of a run that it has into a folder; returns their names.

        Raises:
            EnvironmentProblem: the store does not answer, or not in time.
        """

        def ask() -> list[str]:
            client = import_mlflow().MlflowClient(tracking_uri=with_driver(self._uri))
            there = {file.path for file in client.list_artifacts(run)}
            for name in (kept := [name for name in names if name in there]):
                client.download_artifacts(run, name, str(folder))
            return kept

        return self._within(ask)

    def _tracked(self, run: Any) -> TrackedRun:
        tags, info = run.data.tags, run.info
        link = run_link(self._uri, info.run_id, info.experiment_id)
        output, recipe = tags.get("xfm.output", ""), tags.get("xfm.fingerprint", "")
        return TrackedRun(info.run_id, info.run_name or info.run_id, output, recipe, link)

    def _within(self, ask: Callable[[], T]) -> T:
        """The answer, in time. MLflow's own limits are hours for a database that is down."""
        answers: list[T] = []
        problems: list[Exception] = []

        def work() -> None:
            try:
                answers.append(ask())
            # Stores, HTTP and the clients of artifact stores raise types of their own; here they become one of ours.
            except Exception as error:  # noqa: BLE001
                problems.append(error)

        thread = threading.Thread(target=work, name="xfm-query", daemon=True)
        thread.start()
        thread.join(self._timeout_s)
        if answers:
            return answers[0]
        place = redact_text(self._uri)
        if not problems:
            raise EnvironmentProblem(f"MLflow at {place} did not answer within {self._timeout_s:g} s")
        problem = problems[0]
        if isinstance(problem, Refused | EnvironmentProblem):
            raise problem
        reason = first_line(problem, 300)
        if getattr(problem, "error_code", None) == "INVALID_PARAMETER_VALUE":
            raise Refused(
                "BAD_QUERY", f"--query: MLflow does not understand it: {reason}. A filter of runs is wanted, e.g. "
                "experiment = 'xfm' and tags.`xfm.job` = 'evaluate' and metrics.cells > 1000"
            ) from problem  # fmt: skip
        raise EnvironmentProblem(f"MLflow at {place} cannot be read: {reason}") from problem


def split_query(query: str) -> tuple[list[str], str]:
    """Clauses on experiments as filters of experiments, and the rest as a filter of runs.

    Raises:
        Refused: BAD_QUERY; an experiment is asked for in another way than = != like ilike and a quoted name.
    """
    names, rest = [], []
    for clause in _AND.split(query.strip()):
        if match := _EXPERIMENT.match(clause):
            names.append(f"name {match[1].upper()} {match[2]}")
        elif re.match(r"(?i)\s*(?:attributes?\.)?experiment\b", clause):
            raise Refused(
                "BAD_QUERY", f"--query: {clause.strip()}: expected experiment = 'NAME' or experiment like 'A%'"
            )
        elif clause.strip():
            rest.append(clause.strip())
    return names, " and ".join(rest)


def run_link(uri: str, run: str, experiment: str = "") -> str:
    """The address of a run's page where the store is a server, else its id."""
    if not uri.startswith(("http://", "https://")):
        return run
    place = f"experiments/{experiment}/runs/{run}" if experiment else f"runs/{run}"
    return f"{redact_text(uri).rstrip('/')}/#/{place}"


def tracked_as(spool: Path) -> str:
    """The MLflow run that a job's own spool was last sent to: its address or id; empty where it was never sent."""
    return links(spool)[0].get("", "")


def links(spool: Path) -> tuple[dict[str, str], int]:
    """The address or id of each run of a spool where it was last sent to, and how many lines have been sent.

    A run's key is its place below the job's own run, which has the key "".
    """
    server, root = last_server(spool), Spool(spool).root()
    if not server or root is None:
        return {}, 0
    sidecar = Sidecar(Spool(spool), server)
    sidecar.load()
    sent = sidecar.progress
    return {ours.removeprefix(root).lstrip("/"): run_link(server, run) for ours, run in sent.runs.items()}, sent.line
