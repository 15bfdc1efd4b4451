"""Records read back from a real MLflow store, and a server that refuses, hangs and breaks."""

import json
import sqlite3
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from xfm.core.errors import EnvironmentProblem
from xfm.track.mlflow import clean_name, dataset_source, send_pending, start_run
from xfm.track.spool import Spool
from xfm.track.tracker import open_run

# MLflow 3.17 asks SQLAlchemy 2.1 for a loader that is on its way out.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),
    pytest.mark.usefixtures("mlflow_environment"),
]


def start(path, uri, **more):
    return start_run(path / "tracking.jsonl", "job", uri=uri, **({"close_timeout_s": 60.0} | more))


def runs_of(client, experiment):
    found = client.get_experiment_by_name(experiment)
    return client.search_runs([found.experiment_id], order_by=["attributes.start_time ASC"])


def the_run(client, experiment):
    (run,) = runs_of(client, experiment)
    return run


def test_everything_a_job_says_can_be_read_back(tmp_path, store, client):
    report = tmp_path / "report.json"
    report.write_text("{}")
    tracker = start(tmp_path, store, experiment="all", tags={"mlflow.note.content": "hello"})
    tracker.params({"backbone": {"kind": "scgpt", "max_length": 1200}, "pools": ["cls", "mean"]})
    for layer, mse in enumerate([0.9, 0.4, 0.7]):
        tracker.metrics({"masked MSE (bins²)": mse}, step=layer)
    tracker.artifact(report, "reports")
    profile = {"cells": 271, "filter": "is_primary_data == True"}
    tracker.dataset("census", "0123456789abcdef" * 4, "2025-11-08", context="training", profile=profile)
    assert tracker.close()

    run = the_run(client, "all")
    assert run.info.run_name == "job"
    assert run.info.status == "FINISHED"
    assert run.data.params == {"backbone.kind": "scgpt", "backbone.max_length": "1200", "pools": '["cls", "mean"]'}
    curve = client.get_metric_history(run.info.run_id, "masked MSE _bins²_")
    assert [(point.step, point.value) for point in curve] == [(0, 0.9), (1, 0.4), (2, 0.7)]
    assert run.data.tags["mlflow.note.content"] == "hello"
    assert [file.path for file in client.list_artifacts(run.info.run_id, "reports")] == ["reports/report.json"]
    assert "/mlartifacts/all/" in run.info.artifact_uri
    (data,) = run.inputs.dataset_inputs
    assert (data.dataset.name, data.dataset.digest) == ("census", ("0123456789abcdef" * 4)[:36])
    assert json.loads(data.dataset.source)["digest"] == "0123456789abcdef" * 4
    assert json.loads(data.dataset.profile) == profile
    assert {tag.key: tag.value for tag in data.tags} == {"mlflow.data.context": "training"}
    kind = client.get_experiment_by_name("all").tags["mlflow.experimentKind"]
    assert kind == "custom_model_development"


def test_children_lie_under_their_parent_and_end_with_it(tmp_path, store, client):
    tracker = start(tmp_path, store, experiment="nested")
    children = [tracker.child(f"trial {number}") for number in range(3)]
    grandchild = children[0].child("fold")
    children[1].metrics({"score": 0.5})
    children[2].close("FAILED")
    assert tracker.close()

    runs = {run.info.run_name: run for run in runs_of(client, "nested")}
    parents = {name: run.data.tags.get("mlflow.parentRunId") for name, run in runs.items()}
    root = runs["job"].info.run_id
    trial = runs["trial 0"].info.run_id
    assert parents == {"job": None, "trial 0": root, "trial 1": root, "trial 2": root, "fold": trial}
    assert runs["trial 1"].data.metrics == {"score": 0.5}
    assert [runs[f"trial {number}"].info.status for number in range(3)] == ["FINISHED", "FINISHED", "FAILED"]
    assert grandchild.close()


def test_a_rerun_continues_the_run_and_params_stay_as_first_logged(tmp_path, store, client):
    for attempt, workers in enumerate([1, 8]):
        tracker = start(tmp_path, store, experiment="resumed")
        tracker.params({"seed": 3, "workers": workers})
        tracker.metrics({"loss": 1.0 - attempt}, step=attempt)
        assert tracker.close("KILLED" if attempt == 0 else "FINISHED")

    run = the_run(client, "resumed")
    assert run.info.status == "FINISHED"
    assert run.data.params == {"seed": "3", "workers": "1"}
    assert run.data.tags["param_changed.workers"] == "8"
    assert run.data.tags["attempt"] == "2"
    assert [point.step for point in client.get_metric_history(run.info.run_id, "loss")] == [0, 1]


def test_a_rerun_that_finds_the_same_numbers_does_not_double_the_curve(tmp_path, store, client):
    for mse in (0.5, 0.5, 0.25):
        tracker = start(tmp_path, store, experiment="same")
        for layer in range(3):
            tracker.metrics({"masked/mse": mse if layer == 2 else 1.0}, step=layer)
        assert tracker.close()
    run = the_run(client, "same")
    curve = client.get_metric_history(run.info.run_id, "masked/mse")
    assert sorted((point.step, point.value) for point in curve) == [(0, 1.0), (1, 1.0), (2, 0.25), (2, 0.5)]
    assert run.data.metrics == {"masked/mse": 0.25}


def test_the_name_counts_attempts_until_a_person_gives_another(tmp_path, store, client):
    def attempt(number):
        uri = {"uri": store, "experiment": "named", "close_timeout_s": 60.0}
        assert start_run(tmp_path / "tracking.jsonl", f"scgpt-0123abcd-{number}", **uri).close()
        return the_run(client, "named").info

    assert [attempt(1).run_name, attempt(2).run_name] == ["scgpt-0123abcd-1", "scgpt-0123abcd-2"]
    client.update_run(attempt(3).run_id, name="for the paper")
    assert attempt(4).run_name == "for the paper"


def test_an_experiment_that_another_job_makes_in_between_is_shared(tmp_path, store, client, monkeypatch, caplog):
    import mlflow

    asked = []

    def late(self, name):
        asked.append(name)
        return None if len(asked) == 1 else found(self, name)

    found = mlflow.MlflowClient.get_experiment_by_name
    client.create_experiment("raced")
    monkeypatch.setattr(mlflow.MlflowClient, "get_experiment_by_name", late)
    assert start(tmp_path, store, experiment="raced").close()
    assert len(asked) == 2
    monkeypatch.undo()
    assert the_run(client, "raced").info.status == "FINISHED"
    assert not caplog.records


def test_sending_twice_keeps_one_copy(tmp_path, store, client):
    tracker = start(tmp_path, store, experiment="twice")
    tracker.metrics({"loss": 0.5}, step=1)
    tracker.params({"seed": 3})
    assert tracker.close()
    (tmp_path / "tracking.sent.json").unlink()  # as if every acknowledgement had been lost
    assert send_pending(tmp_path / "tracking.jsonl", store).waiting == 0
    run = the_run(client, "twice")
    assert len(client.get_metric_history(run.info.run_id, "loss")) == 1


def test_a_run_deleted_by_hand_is_written_again_whole(tmp_path, store, client):
    tracker = start(tmp_path, store, experiment="deleted")
    tracker.params({"seed": 3})
    assert tracker.close()
    client.delete_run(the_run(client, "deleted").info.run_id)
    assert start(tmp_path, store, experiment="deleted").close()
    run = the_run(client, "deleted")
    assert run.data.params == {"seed": "3"}
    assert run.data.tags["attempt"] == "2"


def test_awkward_values_neither_fail_nor_turn_into_numbers(tmp_path, store, client):
    tracker = start(tmp_path, store, experiment="awkward")
    tracker.params({"long": "x" * 7000, "../up": "y", "many": {str(number): number for number in range(250)}})
    tracker.metrics({"mse": float("nan"), "r": 0.5}, step=7)
    tracker.artifact(tmp_path / "missing.png")
    tracker.metrics({f"m{number}": 1.0 for number in range(1500)})
    assert tracker.close()
    run = the_run(client, "awkward")
    assert run.data.params["long"].startswith("7000 characters")
    assert [file.path for file in client.list_artifacts(run.info.run_id, "params")] == ["params/long.json"]
    assert len(run.data.params) == 252
    assert "mse" not in run.data.metrics
    assert run.data.tags["not_finite.mse"] == "nan at step 7, not sent"
    assert len(run.data.metrics) == 1501
    sent = send_pending(tmp_path / "tracking.jsonl")
    assert sent.waiting == 0
    assert len(sent.refused) == 1
    assert "missing.png" in sent.refused[0]


def test_a_locked_database_holds_up_nothing_and_gets_all_when_it_is_free(tmp_path, store, client):
    with sqlite3.connect(store.removeprefix("sqlite:///"), isolation_level=None, check_same_thread=False) as lock:
        lock.execute("BEGIN EXCLUSIVE")
        tracker = start(tmp_path, store, experiment="locked")
        for step in range(50):
            tracker.metrics({"loss": 1.0}, step)
        assert len((tmp_path / "tracking.jsonl").read_text().splitlines()) == 51  # and the lock is still held
        lock.execute("COMMIT")
    lock.close()
    assert tracker.close()
    assert len(client.get_metric_history(the_run(client, "locked").info.run_id, "loss")) == 50


IMPORT_THAT_NEVER_ENDS = """
import sys, threading
from pathlib import Path

class Stuck:
    def find_spec(self, name, path=None, target=None):
        if name == "mlflow":
            threading.Event().wait()

sys.meta_path.insert(0, Stuck())
from xfm.track.mlflow import start_run
tracker = start_run(Path(sys.argv[1]), "job", uri="http://127.0.0.1:9", close_timeout_s=0.1)
tracker.params({"a": 1})
print(tracker.close())
"""


def test_no_call_waits_for_mlflow_to_be_imported(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_THAT_NEVER_ENDS, str(tmp_path / "t.jsonl")],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.split() == ["False"]
    assert "python -m xfm sync" in done.stderr


class Server(ThreadingHTTPServer):
    """As much of MLflow's REST interface as a run needs, and ways to misbehave."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.mood, self.metrics, self.calls = "well", [], 0
        self.well_again = threading.Event()

    @property
    def uri(self):
        return f"http://127.0.0.1:{self.server_address[1]}"


RUN = {"info": {"run_id": "r1", "lifecycle_stage": "active", "status": "RUNNING"}, "data": {}, "inputs": {}}
ANSWERS = {
    "experiments/get-by-name": {"experiment": {"experiment_id": "1", "name": "xfm", "lifecycle_stage": "active"}},
    "runs/search": {"runs": []},
    "runs/create": {"run": RUN},
    "runs/get": {"run": RUN},
    "runs/update": {"run_info": RUN["info"]},
    "runs/log-batch": {},
}


class Handler(BaseHTTPRequestHandler):
    def answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.calls += 1
        mood = self.server.mood
        if mood == "hangs":
            self.server.well_again.wait()
            return
        call = self.path.partition("?")[0].split("/mlflow/")[-1]
        if mood == "well" and call == "runs/log-batch":
            self.server.metrics += [metric["step"] for metric in json.loads(body).get("metrics", ())]
        code = 500 if mood == "breaks" else 200 if call in ANSWERS else 404
        data = json.dumps(ANSWERS.get(call, {}) if code == 200 else {"error_code": "INTERNAL_ERROR"}).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = answer

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with Server() as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.well_again.set()
        running.shutdown()


@pytest.mark.parametrize("mood", ["hangs", "breaks", "well"])
def test_a_server_in_any_mood_costs_the_job_nothing_and_gets_all_in_the_end(tmp_path, monkeypatch, server, mood):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "250")  # a call that waited for the server would not return
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    server.mood = mood
    tracker = start(tmp_path, server.uri, close_timeout_s=20.0 if mood == "well" else 0.5)
    for step in range(100):
        tracker.metrics({"loss": 1.0}, step)
    assert tracker.close() is (mood == "well")
    server.mood = "well"
    server.well_again.set()
    sent = send_pending(tmp_path / "tracking.jsonl", timeout_s=20)
    assert (sent.uri, sent.waiting, sent.refused) == (server.uri, 0, [])
    assert server.metrics == list(range(100))


def test_a_server_that_is_not_there_yet_gets_all_when_it_is(tmp_path, monkeypatch, server):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    tracker = start(tmp_path, "http://127.0.0.1:9", close_timeout_s=0.3)
    tracker.metrics({"loss": 1.0}, 5)
    assert not tracker.close()
    assert send_pending(tmp_path / "tracking.jsonl", server.uri, timeout_s=20).waiting == 0
    assert server.metrics == [5]


def test_a_missing_driver_is_named_with_what_works(tmp_path, monkeypatch, caplog):
    import mlflow  # noqa: F401 - it takes longer than the job waits

    def connect(uri):
        raise ModuleNotFoundError("No module named 'psycopg'", name="psycopg")

    monkeypatch.setattr("xfm.track.mlflow.connect_once", connect)
    assert not start(tmp_path, "postgresql://me:canary@127.0.0.1:9/x", close_timeout_s=0.5).close()
    assert "pip install 'xfm[postgres]'" in caplog.text
    assert "canary" not in caplog.text


def test_sync_says_what_is_missing(tmp_path):
    with pytest.raises(EnvironmentProblem, match="no records to send"):
        send_pending(tmp_path / "tracking.jsonl")
    open_run(Spool(tmp_path / "tracking.jsonl"), "job")
    side = {"root": None, "last": "postgresql://***@db/x", "servers": {}}
    (tmp_path / "tracking.sent.json").write_text(json.dumps(side))
    with pytest.raises(EnvironmentProblem, match="MLFLOW_TRACKING_URI"):
        send_pending(tmp_path / "tracking.jsonl")


@pytest.mark.parametrize(
    ("place", "kind", "path"),
    [
        ("/data/cells.h5ad", "local", "/data/cells.h5ad"),
        ("s3://bucket/cells.h5ad", "s3", "s3://bucket/cells.h5ad"),
        ("https://host/cells.h5ad", "http", "https://host/cells.h5ad"),
        ("hf://owner/atlas@0123abc/x.h5ad", "hugging_face", "owner/atlas"),
        ("2025-11-08", "external", "2025-11-08"),
    ],
)
def test_mlflow_reads_the_sources_it_has_a_type_for(place, kind, path):
    from mlflow.data.dataset_source_registry import get_dataset_source_from_json

    found, source = dataset_source(place, "ab")
    assert (found, source["path"]) == (kind, path)
    if kind in ("local", "s3", "http"):
        read = get_dataset_source_from_json(json.dumps(source), found)
        assert (read.url if kind == "http" else read.uri) == place


@pytest.mark.parametrize(
    ("name", "clean"),
    [("recall@10", "recall_10"), ("a/b: c-d", "a/b: c-d"), ("/abs", "abs"), ("..", "_"), ("../x", "_/x"), ("", "_")],
)
def test_names_are_made_fit_for_mlflow(name, clean):
    from mlflow.utils.validation import _validate_metric_name

    assert clean_name(name) == clean
    _validate_metric_name(clean)


def test_long_names_stay_apart():
    assert len(clean_name("x" * 300)) == 250
    assert clean_name("x" * 300) != clean_name("x" * 301)
