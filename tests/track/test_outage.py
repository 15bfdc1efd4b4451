"""A real MLflow server is killed, or falls silent, while a job logs: the job ends well, and a later sync sends all."""

import hashlib
import json
import signal
import subprocess
import sys
import time

import pytest

from tests.track.mlflow_server import running
from xfm.__main__ import main as xfm

STEPS = 400
# What a job does, without its computation. It pauses once, so that the server can be struck in between.
JOB = """
import sys
from pathlib import Path
from xfm.track.mlflow import start_run

folder, uri, steps = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
tracker = start_run(folder / "tracking.jsonl", "scgpt-0123abcd-1", uri=uri, experiment="xfm/test/outage",
                    close_timeout_s=2.0)
tracker.params({"seed": 3})
tracker.dataset("cells.h5ad", "ab" * 32, "/data/cells.h5ad", profile={"cells": 5})
child = tracker.child("masked")
for step in range(steps):
    tracker.metrics({"train/loss": 1 / (1 + step)}, step)
    child.metrics({"mse": float(step)}, step)
    if step == steps // 4:
        print("paused", flush=True)
        sys.stdin.readline()
tracker.artifact(folder / "report.json")
tracker.model("scgpt-cells", folder / "checkpoint", sys.argv[4])
print("all sent" if tracker.close() else "records wait")
"""


@pytest.fixture(autouse=True)
def _impatient(mlflow_environment, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


def client_of(server):
    import mlflow

    return mlflow.MlflowClient(server.uri)


def start_job(folder, uri):
    (folder / "checkpoint").mkdir(parents=True)
    (folder / "checkpoint" / "model.safetensors").write_bytes(b"weights")
    (folder / "report.json").write_text("{}")
    digest = hashlib.sha256(b"weights").hexdigest()
    return subprocess.Popen(
        [sys.executable, "-c", JOB, str(folder), uri, str(STEPS), digest],
        text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def end_of(job):
    """It goes on from its pause to its end, within a bounded time: the timeout fails the test."""
    out, err = job.communicate("\n", timeout=60)
    assert job.returncode == 0, err
    return out.strip().rpartition("\n")[2], err


def runs_called(client, name):
    """Empty while the server does not know the experiment or the run yet: they are made one after the other."""
    experiments = client.search_experiments(filter_string="name = 'xfm/test/outage'")
    ids = [experiment.experiment_id for experiment in experiments]
    return client.search_runs(ids, f"attributes.run_name = '{name}'") if ids else []


def points_of(client, metric, name="scgpt-0123abcd-1"):
    (run,) = runs_called(client, name)
    return run, client.get_metric_history(run.info.run_id, metric)


def await_points(client):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if runs_called(client, "scgpt-0123abcd-1") and points_of(client, "train/loss")[1]:
            return
        time.sleep(0.1)
    raise AssertionError("the job's first numbers never came")


def assert_all_there_once(client):
    root, losses = points_of(client, "train/loss")
    child, errors = points_of(client, "mse", "masked")
    assert sorted(point.step for point in losses) == list(range(STEPS))
    assert {point.step: point.value for point in losses} == {step: 1 / (1 + step) for step in range(STEPS)}
    assert sorted(point.step for point in errors) == list(range(STEPS))
    assert child.data.tags["mlflow.parentRunId"] == root.info.run_id
    assert root.info.status == child.info.status == "FINISHED"
    assert len(client.search_runs([root.info.experiment_id])) == 2
    assert root.data.params == {"seed": "3"}
    assert [data.dataset.name for data in root.inputs.dataset_inputs] == ["cells.h5ad"]
    assert "report.json" in {file.path for file in client.list_artifacts(root.info.run_id)}
    (version,) = client.search_model_versions("name = 'scgpt-cells'")
    assert version.run_id == root.info.run_id


@pytest.mark.slow
def test_a_server_killed_in_mid_run_costs_the_job_nothing_and_a_sync_sends_all_once(tmp_path, capsys):
    store, folder = f"sqlite:///{tmp_path}/mlflow.db", tmp_path / "output"
    with running(store, tmp_path / "server") as server:
        job = start_job(folder, server.uri)
        assert job.stdout.readline() == "paused\n"
        await_points(client_of(server))
        job.stdin.write("\n")  # it logs while the server dies
        job.stdin.flush()
        server.kill()
        last, warnings = end_of(job)
        assert last == "records wait"
        assert f"python -m xfm sync {folder}" in warnings
    with running(store, tmp_path / "server", server.port):
        client = client_of(server)
        for _ in range(2):  # the second finds nothing to do
            assert xfm(["sync", str(folder)]) == 0
            assert "0 records still waiting" in capsys.readouterr().out
            assert_all_there_once(client)
        # Nor does one that lost every acknowledgement.
        side = json.loads((folder / "tracking.sent.json").read_text())
        side["servers"][server.uri] |= {"line": 0, "offset": 0, "runs": {}}
        (folder / "tracking.sent.json").write_text(json.dumps(side))
        assert xfm(["sync", str(folder)]) == 0
        assert_all_there_once(client)


@pytest.mark.nightly  # by day: a server in any mood, in test_mlflow.py
def test_a_server_that_takes_connections_and_never_answers_costs_the_job_nothing_either(tmp_path):
    with running(f"sqlite:///{tmp_path}/mlflow.db", tmp_path / "server") as server:
        job = start_job(tmp_path / "output", server.uri)
        assert job.stdout.readline() == "paused\n"
        await_points(client_of(server))
        server.send(signal.SIGSTOP)
        assert end_of(job)[0] == "records wait"
        server.send(signal.SIGCONT)
        assert xfm(["sync", str(tmp_path / "output")]) == 0
        assert_all_there_once(client_of(server))
