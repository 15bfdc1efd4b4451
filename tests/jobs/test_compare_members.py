"""A comparison that runs its own members: each as its job would have left it, continued after a kill, in MLflow."""

import json
import signal
import time

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from safetensors.numpy import load_file

from tests.text_examples import write_encoder

pytestmark = pytest.mark.ray

FINETUNE = {
    "lr": 0.003, "batch_size": 16, "epochs": 3, "patience": 5, "bootstrap": 200, "log_every": 2,
    "task": {"label": "label", "network_dropout": 0.1},
}  # fmt: skip


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    folder = tmp_path_factory.mktemp("members")
    write_encoder(folder / "encoder", "distilbert", dropout=0.1, attention_dropout=0.0)
    return folder


def preset(given, folder, **more):
    """Two members of two seeds, one that starts from the other, and one whose label no row has."""
    content = {
        "title": "Sentences of a grammar (synthetic)",
        "base": {
            "source": {"kind": "grammar", "n": 200}, "split": "split",
            "finetune": FINETUNE | {"backbone": {"kind": "hf_text", "checkpoint": str(given / "encoder")}},
        },
        "members": {
            "full": {"job": "finetune", "title": "whole network", "published": {"accuracy": 0.5}},
            "head": {"job": "finetune", "task": {"mode": "head"}, "seeds": 1},
            "further": {"job": "finetune", "after": "full", "seeds": 1, "epochs": 1},
            "wrong": {"job": "finetune", "task": {"label": "tone"}},
            "behind": {"job": "finetune", "after": "wrong"},
        },
        "seeds": 2, "against": "head",
    } | more  # fmt: skip
    file = folder / "members.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    return ["--config", str(file), "--output", str(folder / "out")]


@pytest.fixture(scope="module")
def undisturbed(cluster, given, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    printed = cluster.run("compare", *preset(given, folder), cwd=folder, expect=3)
    return folder, printed


def place(folder, name, seed=0):
    return folder / "out" / "members" / name / f"seed-{seed}"


def test_a_member_is_bitwise_what_its_job_leaves(cluster, given, undisturbed, tmp_path):
    folder, _ = undisturbed
    settings = FINETUNE | {"source.kind": "grammar", "source.n": 200, "split": "split", "seed": 1, "workers": 1,
                           "backbone.kind": "hf_text", "backbone.checkpoint": given / "encoder"}  # fmt: skip
    settings |= {f"task.{name}": value for name, value in settings.pop("task").items()}
    words = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    cluster.run("finetune", *words, "--output", str(tmp_path / "out"), cwd=tmp_path)
    member, job = place(folder, "full", 1), tmp_path / "out"
    ours, theirs = (load_file(each / "checkpoint" / "model.safetensors") for each in (member, job))
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert np.array_equal(ours[name], theirs[name]), name
    for file in ("scores.parquet", "predictions.parquet"):
        assert pq.read_table(member / file).equals(pq.read_table(job / file)), file
    runs = [json.loads((each / "run.json").read_text()) for each in (member, job)]
    assert runs[0]["fingerprint"] == runs[1]["fingerprint"]


def test_what_fails_is_reported_and_the_others_go_on(undisturbed):
    folder, printed = undisturbed
    report = json.loads((folder / "out" / "report.json").read_text())
    assert report["title"] == "Sentences of a grammar (synthetic)"
    assert report["refused"] == {"NO_COLUMN": 2, "NOT_RUN": 2}
    assert report["numbers"] == {"rows": 3, "runs": 4, "members that failed": 4}
    summary = report["tables"][0]
    rows = {row[0]: dict(zip(summary["columns"], row, strict=True)) for row in summary["rows"]}
    assert list(rows) == ["whole network", "head", "further", "wrong", "behind"]
    assert rows["whole network"]["seeds"] == "2"
    assert "±" in rows["whole network"]["accuracy"]
    assert rows["wrong"]["accuracy"].startswith("- [")
    assert "the member wrong failed, NO_COLUMN" in summary["note"]
    assert "Sentences of a grammar (synthetic)" in printed
    assert "whole network" in printed
    assert "published, different data" in printed
    begun = [line for line in printed.splitlines() if "begins" in line]
    assert len(begun) == 4
    assert begun[-1].endswith("of 8")


def test_every_number_is_out_of_a_members_scores_and_leads_to_its_run_in_mlflow(undisturbed):
    import mlflow

    folder, _ = undisturbed
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    lines = pq.read_table(folder / "out" / "ablation.parquet").to_pylist()
    lines = [line for line in lines if line["value"] is not None]
    assert {line["row"] for line in lines} == {"whole network", "head", "further"}
    parents = set()
    for line in lines:
        for value, output, run in zip(line["values"], line["outputs"], line["mlflow"], strict=True):
            scores = pq.read_table(f"{output}/scores.parquet").to_pylist()
            wanted = {name: line[name] for name in ("task", "label", "metric")} | {"split": "test", "kind": "layer"}
            (own,) = (score["value"] for score in scores if wanted.items() <= score.items())
            assert own == value
            tracked = client.get_run(run)
            assert tracked.data.tags["xfm.output"] == output
            assert tracked.info.status == "FINISHED"
            assert tracked.data.metrics["test_macro_F1"] >= 0
            assert client.get_metric_history(run, "train/loss")
            parents.add(tracked.data.tags["mlflow.parentRunId"])
    assert len(parents) == 1
    parent = client.get_run(parents.pop())
    assert parent.data.tags["xfm.job"] == "compare"
    text = (folder / "out" / "ablation.md").read_text()
    assert all(run in text for line in lines for run in line["mlflow"])
    assert "](members/full/seed-1/report.html)" in text
    assert (folder / "out" / "members/full/seed-1/report.html").is_file()


def test_seeds_share_their_tokens(undisturbed):
    folder, _ = undisturbed
    # Of the encoder, and of the network that `further` starts from: words become tokens by the checkpoint's files.
    assert len(list((folder / "out" / "members").glob("tokens-*"))) == 2


def test_finished_members_are_not_run_again_and_seeds_and_members_may_join(cluster, given, undisturbed):
    folder, _ = undisturbed
    before = {file: file.stat().st_mtime_ns for file in (folder / "out" / "members").rglob("report.json")}
    assert len(before) == 4
    members = yaml.safe_load((folder / "members.yaml").read_text())["members"]
    members = {name: members[name] for name in ("full", "head")} | {
        "again": {"job": "finetune", "epochs": 1, "seeds": 1}
    }
    printed = cluster.run("compare", *preset(given, folder, members=members), cwd=folder)
    assert "3 of 4 are finished already" in printed
    assert all(file.stat().st_mtime_ns == then for file, then in before.items())
    members["full"]["lr"] = 0.5
    changed = cluster.run("compare", *preset(given, folder, members=members), cwd=folder, expect=4)
    assert "OTHER_RUN" in changed
    assert "lr: 0.003 -> 0.5" in changed


@pytest.mark.slow
def test_a_killed_comparison_ends_with_the_weights_of_an_undisturbed_one(cluster, given, undisturbed, tmp_path):
    folder, _ = undisturbed
    words = preset(given, tmp_path)
    job = cluster.start("compare", *words, cwd=tmp_path)
    deadline = time.monotonic() + 200
    while not list((tmp_path / "out" / "members").glob("*/seed-*/train/checkpoint-*")):
        assert time.monotonic() < deadline, "no member wrote a checkpoint"
        assert job.poll() is None, f"ended early:\n{job.communicate()[0]}"
        time.sleep(0.02)
    job.send_signal(signal.SIGKILL)
    job.communicate()
    assert not (tmp_path / "out" / "report.json").exists()
    cluster.run("compare", *words, cwd=tmp_path, expect=3)
    for name, seed in (("full", 0), ("full", 1), ("head", 0), ("further", 0)):
        ours, theirs = (load_file(place(each, name, seed) / "checkpoint" / "model.safetensors") for each in
                        (tmp_path, folder))  # fmt: skip
        for tensor in ours:
            assert np.array_equal(ours[tensor], theirs[tensor]), (name, tensor)
