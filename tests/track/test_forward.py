"""Runs recorded elsewhere, told as children: every record once, and where MLflow has them."""

import pytest

from xfm.track import mlflow as track
from xfm.track.forward import child_links, finished_children, forward
from xfm.track.mlflow import start_run
from xfm.track.spool import Spool
from xfm.track.tracker import open_run

# MLflow 3.17 asks SQLAlchemy 2.1 for a loader that is on its way out.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")


def record(folder):
    """What a piece of a job leaves: settings, a curve of two points, a file, a word."""
    folder.mkdir()
    (folder / "page.html").write_text("page")
    tracker = open_run(Spool(folder / "tracking.jsonl"), "piece", tags={"xfm.output": str(folder)})
    tracker.params({"lr": 0.1})
    tracker.metrics({"loss": 2.0}, step=1)
    tracker.metrics({"loss": 1.0, "odd": float("nan")}, step=2)
    tracker.artifact(folder / "page.html")
    tracker.tags({"word": "w"})
    tracker.close()
    return folder / "tracking.jsonl"


@pytest.fixture
def job(tmp_path, monkeypatch):
    for name, value in track.ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"

    def start():
        return start_run(tmp_path / "job.jsonl", "job", uri=uri, close_timeout_s=120)

    return start, tmp_path / "job.jsonl", uri


def test_a_piece_becomes_a_child_with_all_that_it_recorded(job, tmp_path):
    import mlflow

    start, spool, uri = job
    piece = record(tmp_path / "piece")
    tracker = start()
    child = tracker.child("A piece, seed 0", key="piece-seed-0")
    forward(piece, child)
    child.close()
    links = child_links(spool, ["piece-seed-0"])
    forward(piece, tracker.child("A piece, seed 0", key="piece-seed-0"))  # told again, as after a kill
    assert tracker.close()
    client = mlflow.MlflowClient(tracking_uri=uri)
    run = client.get_run(links["piece-seed-0"])
    assert run.info.run_name == "A piece, seed 0"
    assert run.data.params == {"lr": "0.1"}
    assert run.data.tags["word"] == "w"
    assert [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, "loss")] == [
        (1, 2.0), (2, 1.0)
    ]  # fmt: skip
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["page.html"]
    parent = client.get_run(run.data.tags["mlflow.parentRunId"])
    assert parent.info.run_name == "job"


def test_a_child_is_finished_once_it_was_closed_so_and_not_begun_again(tmp_path):
    spool = tmp_path / "job.jsonl"
    tracker = open_run(Spool(spool), "job")
    tracker.child("one").close()
    tracker.child("two").close("FAILED")
    tracker.child("three")
    tracker.child("one again", key="one")
    tracker.child("four").close()
    assert finished_children(spool) == {"four"}
    assert finished_children(tmp_path / "none.jsonl") == set()


def test_links_are_missing_where_nothing_was_sent(tmp_path):
    tracker = open_run(Spool(tmp_path / "job.jsonl"), "job")
    tracker.child("one").close()
    assert child_links(tmp_path / "job.jsonl", ["one"], timeout_s=0) == {}
