"""What a search left behind, in its OUTPUT and in MLflow."""

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from xfm.core.schema import PART, ROW_ID


def children(folder: Path) -> tuple[Any, Any, list[Any]]:
    """The client, the one search that MLflow knows below a folder, and its trials in order."""
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    runs = client.search_runs([each.experiment_id for each in client.search_experiments()])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    below = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert len(below) == len(runs) - 1
    return client, parent, sorted(below, key=lambda run: int(run.data.tags["xfm.trial"]))


def stored_rows(output: Path) -> list[tuple[str, int]]:
    """Ids and parts of all stored rows."""
    parts = [pq.read_table(path, columns=[ROW_ID, PART]) for path in sorted((output / "tokens" / "parts").iterdir())]
    return [(row, part) for each in parts for row, part in zip(*each.to_pydict().values(), strict=True)]


def book(output: Path) -> list[dict[str, Any]]:
    """The trials that are on disk; each is replaced as a whole."""
    return [json.loads(path.read_text()) for path in sorted((output / "trials").glob("*.json"))]


def is_half_way(output: Path) -> bool:
    """One trial is over, and another has a checkpoint."""
    trials = book(output)
    has_checkpoint = any((output / "trials").glob("trial-*/checkpoint-*"))
    return any(trial["status"] != "running" for trial in trials) and len(trials) > 2 and has_checkpoint


def await_half_way(job: "subprocess.Popen[str]", output: Path, within_s: float = 240) -> None:
    """Returns when the search is half way."""
    deadline = time.monotonic() + within_s
    while not is_half_way(output):
        assert time.monotonic() < deadline, "the search did not come far enough"
        assert job.poll() is None, f"ended early:\n{job.communicate()[0]}"
        time.sleep(0.05)
