"""`jobs/evaluate.py` that embeds first: sentences that come split, one command, no word of its own for text."""

import csv
import json

import pyarrow.parquet as pq
import pytest

from tests.text_examples import write_encoder, write_sentences

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def made(cluster, tmp_path_factory):
    """160 sentences, one of them empty, through a tiny BERT, judged by the SVM."""
    folder = tmp_path_factory.mktemp("reviews")
    data, checkpoint = write_sentences(folder / "data", 160), write_encoder(folder / "bert", "bert")
    words = ["--source.kind", "hub_text", "--source.path", str(data), "--source.shard_rows", "50",
             "--backbone.kind", "hf_text", "--backbone.checkpoint", str(checkpoint), "--labels", "label",
             "--split", "split", "--tasks", "probe,svm", "--choose_by", "svm", "--baselines", "majority,random",
             "--combinations", "", "--bootstrap", "200", "--output", str(folder / "out")]  # fmt: skip
    planned = cluster.run("evaluate", *words, "--dry-run", cwd=folder)
    assert "what is judged on them is planned once they are there" in planned
    assert not (folder / "out").exists()
    cluster.run("evaluate", *words, cwd=folder, expect=3)
    return folder / "out", words


def test_the_given_split_is_judged_and_all_of_it_is_called_sentences(made):
    out, _ = made
    report = json.loads((out / "report.json").read_text())
    # write_sentences puts three quarters, of which one is empty, into train.parquet; a fifth of them choose.
    assert report["numbers"]["training sentences"] + report["numbers"]["validation sentences"] == 119
    assert report["numbers"]["validation sentences"] == 24
    assert report["numbers"]["test sentences"] == 40
    assert report["headline"].startswith("Reading label: ")
    assert "linear SVM" in report["headline"]
    assert "cells" not in json.dumps(report["tables"]) + " ".join(report["warnings"]) + report["headline"]
    choice = report["provenance"]["choice"]["label"]
    scores = pq.read_table(out / "scores.parquet").to_pandas()
    layers = scores[(scores["kind"] == "layer") & (scores["metric"] == "f1") & (scores["split"] == "validation")]
    best = layers[layers["task"] == "svm"].sort_values("value").iloc[-1]
    assert layers.set_index(["task", "representation"])["value"]["svm", choice["representation"]] == best["value"]
    with (out / "classes.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert {line["classifier"] for line in lines} == {"probe", "svm"}
    assert {line["representation"] for line in lines} >= {
        f"{pool}_l{i:02d}" for pool in ("cls", "mean") for i in range(3)
    }
    assert sum(int(line["support"]) for line in lines[:2]) == 40


@pytest.mark.nightly
def test_the_embeddings_are_those_of_the_embed_job_and_the_same_command_continues(made, cluster):
    out, words = made
    run = json.loads((out / "embeddings" / "run.json").read_text())
    assert run["job"] == "embed"
    assert run["settings"]["source"]["obs"] == ["label", "split"]
    before = {path: path.stat().st_mtime_ns for path in out.rglob("parts/*.parquet")}
    again = cluster.run("evaluate", *words, cwd=out.parent, expect=3)
    assert "4 of 4 shards are committed already" in again
    assert {path: path.stat().st_mtime_ns for path in out.rglob("parts/*.parquet")} == before
    plain = ["evaluate", "--embeddings", str(out / "embeddings"), *words[words.index("--labels") : -1]]
    cluster.run(*plain, str(out.parent / "stored"), cwd=out.parent)
    prints = [json.loads((folder / "run.json").read_text())["fingerprint"] for folder in (out, out.parent / "stored")]
    assert prints[0] == prints[1]
    assert pq.read_table(out / "scores.parquet").equals(pq.read_table(out.parent / "stored" / "scores.parquet"))
