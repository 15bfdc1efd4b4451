"""OUTPUTs found and read for a comparison: folders, patterns, buckets, MLflow; and what is refused or listed."""

import json
import shutil

import pytest
from pyarrow import fs

from tests.evaluate_outputs import fingerprint, score, spread, write_evaluate, write_reported
from xfm.core.errors import Refused
from xfm.studies.compare.gather import gather
from xfm.track import mlflow as track
from xfm.track.mlflow import start_run

# MLflow 3.17 asks SQLAlchemy 2.1 for a loader that is on its way out.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")

SCORES = [*score("cls_l01", 0.8, validation=0.8, draws=spread(0.8)), *score("hvg", 0.7, validation=0.7)]


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch):
    """runs/a, runs/b, runs/c: three models on the same cells."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for name in "abc":
        write_evaluate(tmp_path / "runs" / name, SCORES, weights=name, choice="cls_l01")
    return tmp_path / "runs"


def found(*words, query=None, metrics=("primary",), output="runs/board"):
    return gather(words, query, metrics, output)


def names(gathered):
    return [run.name for run in gathered.runs]


def test_a_run_says_what_it_is(runs):
    write_evaluate(runs / "d", SCORES, seed=3, choice="cls_l01", seconds={"cls_l01": 12.5, "cls_l07": 1.0})
    (run,) = found("runs/d").runs
    content = json.loads((runs / "d" / "run.json").read_text())
    assert run.fingerprint == fingerprint(content["recipe"])
    assert (run.job, run.seed, run.model, run.data_name) == ("evaluate", 3, "scgpt", "pbmc")
    assert run.weights == content["origin"]["weights"]["model.safetensors"]
    assert run.data == content["recipe"]["cells"]
    assert run.split == content["recipe"]["split"]
    assert run.design == "split by donor, 0.2 validation, 0.2 test"
    assert run.choice == {"cell_type": "cls_l01"}
    assert run.seconds == {"cls_l01": 12.5}
    assert run.place == str(runs / "d")


def test_patterns_match_outputs_and_nothing_else(runs):
    (runs / "notes").mkdir()
    (runs / "file").write_text("")
    write_evaluate(runs / "a" / "expression", SCORES, weights="stage of a")
    write_evaluate(runs / "board", SCORES, weights="board")
    assert names(found("runs/*")) == ["runs/a", "runs/b", "runs/c"]
    assert names(found("runs/**")) == ["runs/a", "runs/b", "runs/c"]
    assert names(found("runs/[bc]", "runs/a")) == ["runs/b", "runs/c", "runs/a"]
    with pytest.raises(Refused, match="NO_RUNS"):
        found("runs/x*")


def test_a_folder_that_is_no_output_is_refused_with_its_neighbours(runs):
    (runs / "bb").mkdir()
    with pytest.raises(Refused, match=r"NOT_AN_OUTPUT.*Did you mean runs/b\?") as refusal:
        found("runs/bb")
    assert "runs/a, runs/b, runs/c" in str(refusal.value)
    with pytest.raises(Refused, match=r"NOT_AN_OUTPUT.*OUTPUTs in it: runs/a"):
        found("runs")
    (runs / "file").write_text("")
    with pytest.raises(Refused, match=r"NOT_AN_OUTPUT.*is a file"):
        found("runs/file")
    (runs / "bb" / "run.json").write_text("{}")
    with pytest.raises(Refused, match="FOREIGN_OUTPUT"):
        found("runs/bb")


def test_what_cannot_be_used_is_listed_with_its_reason(runs):
    write_evaluate(runs / "killed", SCORES, finished=False)
    write_evaluate(runs / "torn", SCORES, weights="torn")
    (runs / "torn" / "scores.parquet").write_bytes(b"PAR1 and no more")
    write_evaluate(runs / "lost", SCORES, weights="lost")
    (runs / "lost" / "scores.parquet").unlink()
    write_evaluate(runs / "empty", SCORES, weights="empty")
    (runs / "empty" / "report.json").write_text("")
    write_reported(runs / "cells", "embed", {"rows": 3})
    gathered = found("runs/killed", "runs/torn", "runs/lost", "runs/empty", "runs/cells", "runs/a", "runs/killed")
    assert names(gathered) == ["runs/a"]
    assert {refusal.key: refusal.code for refusal in gathered.refused} == {
        "runs/killed": "UNFINISHED",
        "runs/torn": "BAD_SCORES",
        "runs/lost": "BAD_SCORES",
        "runs/empty": "BAD_REPORT",
        "runs/cells": "NO_SCORES",
    }
    assert len(gathered.refused) == 5
    embed = gathered.refused[-1].message
    assert "jobs/evaluate.py --embeddings runs/cells" in embed
    with pytest.raises(Refused, match=r"NOTHING_TO_COMPARE.*UNFINISHED"):
        found("runs/killed")


def test_what_a_pattern_happens_to_match_and_has_no_scores_is_noted(runs):
    write_reported(runs / "cells", "embed", {"rows": 3})
    gathered = found("runs/*")
    assert gathered.refused == []
    assert any("runs/cells" in note for note in gathered.notes)


def test_a_run_given_twice_counts_once(runs):
    shutil.copytree(runs / "a", runs / "copy")
    gathered = found("runs/a", "runs/a", "runs/copy")
    assert names(gathered) == ["runs/a"]
    assert gathered.notes[0] == "runs/a was given twice and counts once."
    assert "runs/copy and runs/a are the same run" in gathered.notes[1]
    assert "differ" not in gathered.notes[1]
    shutil.rmtree(runs / "copy")
    write_evaluate(runs / "copy", [row | {"value": 0.1} for row in SCORES], weights="a")
    assert "though their scores differ" in found("runs/a", "runs/copy").notes[0]


def test_nothing_asked_for_is_refused():
    with pytest.raises(Refused, match=r"NO_RUNS.*--query"):
        found()


def test_a_bucket_is_read_like_a_folder(runs, monkeypatch):
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "x")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        bucket = fs.S3FileSystem(endpoint_override=f"{host}:{port}", scheme="http", allow_bucket_creation=True)
        bucket.create_dir("bucket")
        fs.copy_files(str(runs / "b"), "bucket/b", destination_filesystem=bucket)
        gathered = found("runs/a", "s3://bucket/b")
        assert names(gathered) == ["runs/a", "s3://bucket/b"]
        assert len(gathered.runs[1].scores) == len(gathered.runs[0].scores)
        with pytest.raises(Refused, match="NOT_AN_OUTPUT"):
            found("s3://bucket/nothing")
    finally:
        server.stop()


@pytest.fixture
def tracked(runs, tmp_path, monkeypatch):
    """The three runs in MLflow, as their jobs would have left them there."""
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    for name, value in track.ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    for name in "abc":
        place = runs / name
        recipe = json.loads((place / "run.json").read_text())["recipe"]
        tags = {"xfm.job": "evaluate", "xfm.output": str(place), "xfm.fingerprint": fingerprint(recipe)}
        spool = place / "tracking.jsonl"
        tracker = start_run(spool, name, uri=uri, experiment="xfm/evaluate/pbmc", tags=tags, close_timeout_s=60.0)
        for file in ("run.json", "report.json", "scores.parquet"):
            tracker.artifact(place / file)
        assert tracker.close()
    return uri


def test_runs_come_from_mlflow_by_their_output_or_where_that_is_gone_by_their_artifacts(runs, tracked):
    shutil.rmtree(runs / "b")
    shutil.rmtree(runs / "c")
    write_evaluate(runs / "c", SCORES, weights="another run in the same place")
    gathered = found(query="experiment = 'xfm/evaluate/pbmc' and tags.`xfm.job` = 'evaluate'")
    assert names(gathered) == ["runs/a", "runs/b", "runs/c"]
    assert len({run.weights for run in gathered.runs}) == 3
    assert [len(run.scores) for run in gathered.runs] == [4, 4, 4]
    assert all(run.tracked for run in gathered.runs)
    assert gathered.runs[1].place == str(runs / "b")
    # The run that MLflow knows, not the one that took its place.
    there = json.loads((runs / "c" / "run.json").read_text())
    assert gathered.runs[2].fingerprint != there["fingerprint"]


def test_a_named_run_and_the_same_from_mlflow_count_once(tracked):
    gathered = found("runs/a", query="experiment like 'xfm/%'")
    assert names(gathered) == ["runs/a", "runs/b", "runs/c"]
    assert gathered.notes == ["runs/a was given twice and counts once."]
    assert gathered.runs[0].tracked  # its own spool knows its run


def test_runs_of_other_programs_are_listed(runs, tracked):
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=tracked)
    client.create_run(client.get_experiment_by_name("xfm/evaluate/pbmc").experiment_id, run_name="stranger")
    gathered = found(query="experiment = 'xfm/evaluate/pbmc'")
    assert len(gathered.runs) == 3
    assert [(refusal.key, refusal.code) for refusal in gathered.refused] == [("stranger", "UNREACHABLE")]


def test_a_query_that_matches_nothing_says_so(tracked):
    with pytest.raises(Refused, match=r"NOTHING_TO_COMPARE.*query matches none"):
        found(query="experiment = 'xfm/evaluate/pbmc' and tags.`xfm.job` = 'nothing'")
