"""Several jobs at once log to one PostgreSQL database that none of them has seen before: nothing is lost or doubled."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.track.postgres_server import running
from xfm.__main__ import main as xfm
from xfm.engine.session import SPOOL
from xfm.track.redact import HIDDEN
from xfm.track.server import with_driver

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("mlflow_environment")]

PASSWORD = "canary-" + "pw-0451"  # two pieces, so that this file is not found by a search for it
JOBS, CHILDREN, STEPS = 4, 3, 50
JOB = """
import logging, os, sys
from pathlib import Path
from xfm.track.mlflow import start_run

logging.basicConfig(level=logging.DEBUG)
folder, number, children, steps = Path(sys.argv[1]), *map(int, sys.argv[2:])
tracker = start_run(folder / "tracking.jsonl", f"scgpt-{number:08x}-1", uri=os.environ["MLFLOW_TRACKING_URI"],
                    experiment="xfm/embed/cells", tags={"xfm.job": "embed"}, close_timeout_s=240.0)
tracker.params({"seed": number, "store": os.environ["MLFLOW_TRACKING_URI"]})
tracker.dataset("cells", "ab" * 32, os.environ["MLFLOW_TRACKING_URI"])
trials = [tracker.child(f"trial {trial}") for trial in range(children)]
for step in range(steps):
    tracker.metrics({"train/loss": number + step / 100}, step)
    for trial in trials:
        trial.metrics({"mse": float(step)}, step)
tracker.model("scgpt-cells", "s3://bucket/checkpoint", f"{number:064x}")
sys.exit(0 if tracker.close() else 3)
"""


@pytest.fixture(scope="module")
def database():
    with running(PASSWORD) as uri:
        yield uri


def start_job(folder, number, monkeypatch, uri):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    command = [sys.executable, "-c", JOB, str(folder), str(number), str(CHILDREN), str(STEPS)]
    return subprocess.Popen(command, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def test_jobs_that_start_together_on_an_empty_database_lose_and_double_nothing(tmp_path, monkeypatch, database):
    folders = [tmp_path / f"job{number}" for number in range(JOBS)]
    for folder in folders:
        folder.mkdir()
    jobs = [start_job(folder, number, monkeypatch, database) for number, folder in enumerate(folders)]
    said = [job.communicate(timeout=280)[0] for job in jobs]
    assert [job.returncode for job in jobs] == [0] * JOBS, said

    client = client_of(database)
    experiment = client.get_experiment_by_name("xfm/embed/cells")
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == JOBS * (1 + CHILDREN)
    assert {run.info.status for run in runs} == {"FINISHED"}
    for number in range(JOBS):
        (root,) = (run for run in runs if run.info.run_name == f"scgpt-{number:08x}-1")
        losses = client.get_metric_history(root.info.run_id, "train/loss")
        assert [(point.step, point.value) for point in losses] == [(s, number + s / 100) for s in range(STEPS)]
        children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == root.info.run_id]
        assert sorted(run.info.run_name for run in children) == [f"trial {trial}" for trial in range(CHILDREN)]
        for child in children:
            points = client.get_metric_history(child.info.run_id, "mse")
            assert [point.step for point in points] == list(range(STEPS))
        assert root.data.params["seed"] == str(number)
        assert HIDDEN in root.data.params["store"]
    versions = client.search_model_versions("name = 'scgpt-cells'")
    assert sorted(int(version.version) for version in versions) == list(range(1, JOBS + 1))
    assert sorted(version.tags["xfm.weights"] for version in versions) == [f"{n:064x}" for n in range(JOBS)]

    # The password: not in what a job says and leaves behind, nor in any column of the database.
    assert PASSWORD not in "".join(said)
    for path in (path for folder in folders for path in folder.rglob("*") if path.is_file()):
        assert PASSWORD not in path.read_text(errors="replace"), path
    assert PASSWORD not in everything_in(database)


def test_a_database_that_refuses_the_password_costs_nothing_and_says_so_without_it(tmp_path, monkeypatch, database):
    wrong = database.replace(PASSWORD, "canary-wrong")
    spool = tmp_path / SPOOL
    program = JOB.replace("close_timeout_s=240.0", "close_timeout_s=10.0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", wrong)
    job = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path), "9", "1", "5"], cwd=tmp_path,
        text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120, check=False,
    )  # fmt: skip
    assert job.returncode == 3, job.stdout
    assert "records wait in" in job.stdout
    assert "password authentication failed" in job.stdout
    assert "canary" not in job.stdout + spool.read_text() + Path(spool.with_suffix(".sent.json")).read_text()
    # The URI is not written down with its password, so a sync has to be told it again.
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert xfm(["sync", str(tmp_path)]) == 5
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    assert xfm(["sync", str(tmp_path)]) == 0

    client = client_of(database)
    experiment = client.get_experiment_by_name("xfm/embed/cells")
    (run,) = client.search_runs([experiment.experiment_id], "attributes.run_name = 'scgpt-00000009-1'")
    assert [point.step for point in client.get_metric_history(run.info.run_id, "train/loss")] == list(range(5))


def client_of(uri):
    import mlflow

    return mlflow.MlflowClient(with_driver(uri))


def everything_in(uri):
    """Every table of the database as text."""
    import psycopg2

    connection = psycopg2.connect(uri)
    try:
        with connection.cursor() as cursor:
            cursor.execute("select table_name from information_schema.tables where table_schema = 'public'")
            tables = [name for (name,) in cursor.fetchall()]
            assert {"runs", "params", "tags", "metrics", "inputs", "datasets"} <= set(tables)
            rows = []
            for table in tables:
                cursor.execute(f'select * from "{table}"')
                rows += [str(row) for row in cursor.fetchall()]
    finally:
        connection.close()
    return "\n".join(rows)
