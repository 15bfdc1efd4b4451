"""Runs found again in a real MLflow store: by filter and experiment, with their artifacts; and stores that fail."""

import logging
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from xfm.core.errors import EnvironmentProblem, Refused
from xfm.track import mlflow as track
from xfm.track.mlflow import start_run
from xfm.track.query import Tracked, run_link, split_query, tracked_as

# MLflow 3.17 asks SQLAlchemy 2.1 for a loader that is on its way out.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    for name, value in track.ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A sqlite store with runs of two experiments, one of them with a child and an artifact."""
    folder = tmp_path_factory.mktemp("store")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    for name, experiment, cells in [("a", "xfm/evaluate/pbmc", 700), ("b", "xfm/evaluate/lung", 90), ("c", "other", 5)]:
        (folder / name).mkdir()
        report = folder / name / "report.json"
        report.write_text("{}")
        tags = {"xfm.job": "evaluate", "xfm.output": str(folder / name), "xfm.fingerprint": name * 64}
        tracker = start_run(folder / name / "tracking.jsonl", name, uri=uri, experiment=experiment, tags=tags,
                            close_timeout_s=60.0)  # fmt: skip
        tracker.metrics({"cells": float(cells)})
        tracker.child("probe").metrics({"cells": float(cells)})
        tracker.artifact(report)
        assert tracker.close()
    return folder, uri


def names(store, query):
    return [run.name for run in Tracked(store[1]).search(query)]


def test_a_filter_of_runs_finds_them_oldest_first_with_their_output(store):
    folder, uri = store
    runs = Tracked(uri).search("tags.`xfm.job` = 'evaluate'")
    assert [run.name for run in runs] == ["a", "b", "c"]
    assert runs[0].output == str(folder / "a")
    assert runs[0].fingerprint == "a" * 64
    assert runs[0].link == runs[0].run


def test_experiments_are_part_of_the_query(store):
    assert names(store, "experiment = 'xfm/evaluate/pbmc'") == ["a"]
    assert names(store, "experiment LIKE 'xfm/%' AND metrics.cells < 100") == ["b"]
    assert names(store, "metrics.cells < 100 and experiment != 'other'") == ["b"]
    assert names(store, "tags.`xfm.job` = 'embed' and experiment = 'other'") == []


def test_children_without_an_output_of_their_own_are_not_found(store):
    assert names(store, "attributes.run_name = 'probe'") == []


def test_clauses_are_told_apart_outside_quotes_only():
    query = "experiment = 'a and b' and tags.x = ' and experiment = ' and experiment ilike \"C%\""
    assert split_query(query) == (["name = 'a and b'", 'name ILIKE "C%"'], "tags.x = ' and experiment = '")
    assert split_query("") == ([], "")
    with pytest.raises(Refused, match="BAD_QUERY"):
        split_query("experiment in ('a', 'b')")


def test_what_mlflow_does_not_understand_is_refused_with_an_example(store):
    with pytest.raises(Refused, match=r"BAD_QUERY.*metrics.cells > 1000"):
        Tracked(store[1]).search("colour = 'red'")


def test_an_experiment_that_is_not_there_is_refused_with_those_that_are(store):
    with pytest.raises(Refused, match=r"NO_EXPERIMENT.*xfm/evaluate/lung"):
        Tracked(store[1]).search("experiment = 'xfm/evaluate/pmbc'")


def test_artifacts_that_are_there_come_down_and_others_are_not_missed(store, tmp_path):
    tracked = Tracked(store[1])
    run = tracked.search("attributes.run_name = 'a'")[0]
    assert tracked.fetch(run.run, ("report.json", "scores.parquet"), tmp_path) == ["report.json"]
    assert (tmp_path / "report.json").read_text() == "{}"


def test_a_database_that_is_not_there_is_not_made(tmp_path):
    with pytest.raises(EnvironmentProblem, match="MLFLOW_TRACKING_URI"):
        Tracked(f"sqlite:///{tmp_path / 'no.db'}")
    assert not (tmp_path / "no.db").exists()


def test_a_server_that_is_down_is_an_environment_problem(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(EnvironmentProblem, match="cannot be read"):
        Tracked("http://user:secret@127.0.0.1:9").search("")


def test_a_server_that_hangs_gets_a_bounded_time():
    release = threading.Event()

    class Hangs(BaseHTTPRequestHandler):
        def do_GET(self):
            release.wait(30)

        do_POST = do_GET

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hangs)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with pytest.raises(EnvironmentProblem, match=r"within 0\.3 s"):
            Tracked(f"http://127.0.0.1:{server.server_port}", timeout_s=0.3).search("")
    finally:
        release.set()
        server.shutdown()
        server.server_close()


def test_credentials_are_in_no_message_and_no_link(monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    caplog.set_level(logging.INFO)
    uri = "http://user:hunter22@127.0.0.1:9"
    with pytest.raises(EnvironmentProblem) as problem:
        Tracked(uri).search("")
    assert "hunter22" not in str(problem.value) + caplog.text + run_link(uri, "run1", "7")


def test_a_server_has_pages_and_a_database_has_ids():
    assert run_link("http://host:5000/", "abc", "7") == "http://host:5000/#/experiments/7/runs/abc"
    assert run_link("https://host", "abc") == "https://host/#/runs/abc"
    assert run_link("sqlite:///mlflow.db", "abc") == "abc"


def test_an_output_knows_its_own_run(store, tmp_path):
    folder, uri = store
    run = Tracked(uri).search("attributes.run_name = 'b'")[0].run
    assert tracked_as(folder / "b" / "tracking.jsonl") == run
    assert tracked_as(tmp_path / "tracking.jsonl") == ""
