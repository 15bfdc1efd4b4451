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

pytestmark = [pytest.mark.ray, pytest.mark.nightly]

FINETUNE = {
    "lr": 0.003, "batch_size": 16, "epochs": 3, "patience": 5, "bootstrap": 200, "log_every": 2,
    "task": {"label": "label", "network_dropout": 0.1},
}  # fmt: skip

RAW = {
    "job": "evaluate", "labels": ["label"], "tasks": ["probe"], "baselines": ["majority"], "combinations": [],
    "pools": ["mean"], "layers": [2], "bootstrap": 200,
}  # fmt: skip
LEFT = (("full", 0), ("full", 1), ("head", 0), ("further", 0), ("raw", 0))  # of the preset, whoever does not fail


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    folder = tmp_path_factory.mktemp("members")
    write_encoder(folder / "encoder", "distilbert", dropout=0.1, attention_dropout=0.0)
    return folder


def preset(given, folder, **more):
    """Members of one and two seeds, ones that start from others, one whose label no row has, and an evaluation that
    embeds first."""
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
            "raw": RAW | {"backbone": {"kind": "hf_text", "checkpoint": str(given / "encoder")}},
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
    assert report["numbers"] == {"rows": 4, "runs": 5, "members that failed": 4}
    summary = report["tables"][0]
    rows = {row[0]: dict(zip(summary["columns"], row, strict=True)) for row in summary["rows"]}
    assert list(rows) == ["whole network", "head", "further", "wrong", "behind", "raw"]
    assert rows["whole network"]["seeds"] == "2"
    assert "±" in rows["whole network"]["accuracy"]
    assert rows["wrong"]["accuracy"].startswith("- [")
    assert "the member wrong failed, NO_COLUMN" in summary["note"]
    assert "Sentences of a grammar (synthetic)" in printed
    assert "whole network" in printed
    assert "published, different data" in printed
    begun = [line for line in printed.splitlines() if "begins" in line]
    assert len(begun) == 5
    assert begun[-1].endswith("of 9")


def test_every_number_is_out_of_a_members_scores_and_leads_to_its_run_in_mlflow(undisturbed):
    import mlflow

    folder, _ = undisturbed
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    lines = pq.read_table(folder / "out" / "ablation.parquet").to_pylist()
    lines = [line for line in lines if line["value"] is not None]
    assert {line["row"] for line in lines} == {"whole network", "head", "further", "raw"}
    parents = set()
    for line in (each for each in lines if each["row"] != "raw"):
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


def runs_below(folder):
    """MLflow's runs below a folder: the one comparison, and by name those below it and below its children."""
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    runs = client.search_runs([each.experiment_id for each in client.search_experiments()])
    parents = {run.info.run_id: run.data.tags.get("mlflow.parentRunId") for run in runs}
    (top,) = [run for run, parent in parents.items() if parent is None]
    children = {run.info.run_name: run for run in runs if parents[run.info.run_id] == top}
    grandchildren = {run.info.run_name: run for run in runs if parents.get(parents[run.info.run_id]) == top}
    assert len(runs) == 1 + len(children) + len(grandchildren), "two runs of one name, or one that hangs nowhere"
    return client.get_run(top), children, grandchildren


def test_embedding_for_an_evaluation_is_told_as_a_run_below_its_own(undisturbed):
    folder, _ = undisturbed
    _, children, below = runs_below(folder)
    (embedding,) = below.values()
    assert embedding.data.tags["mlflow.parentRunId"] == children["raw, seed 0"].info.run_id
    assert embedding.info.run_name == "raw, seed 0: embeddings"
    assert embedding.info.status == "FINISHED"
    assert embedding.data.tags["xfm.output"] == str(place(folder, "raw") / "embeddings")
    assert not (place(folder, "raw") / "embeddings" / "tracking.sent.json").exists()


def test_a_member_that_no_node_can_hold_is_refused_before_anything_runs(cluster, given, tmp_path):
    members = {"wide": {"job": "finetune", "threads": 64}}
    words = preset(given, tmp_path, members=members, against=None)
    printed = cluster.run("compare", *words, cwd=tmp_path, expect=5)
    assert "member wide, seed 0: --workers 1 with 64 CPUs each do not fit" in printed
    assert not (tmp_path / "out" / "members").exists()


def test_seeds_share_their_tokens(undisturbed):
    folder, _ = undisturbed
    # Of the encoder, and of the network that `further` starts from: words become tokens by the checkpoint's files.
    assert len(list((folder / "out" / "members").glob("tokens-*"))) == 2


def test_finished_members_are_not_run_again_and_seeds_and_members_may_join(cluster, given, undisturbed):
    folder, _ = undisturbed
    before = {file: file.stat().st_mtime_ns for file in (folder / "out" / "members").rglob("report.json")}
    assert len(before) == 5 + 2  # the evaluation has stages with reports of their own
    members = yaml.safe_load((folder / "members.yaml").read_text())["members"]
    members = {name: members[name] for name in ("full", "head", "raw")} | {
        "again": {"job": "finetune", "epochs": 1, "seeds": 1}
    }
    printed = cluster.run("compare", *preset(given, folder, members=members), cwd=folder)
    assert "4 of 5 are finished already" in printed
    assert all(file.stat().st_mtime_ns == then for file, then in before.items())
    members["full"]["lr"] = 0.5
    changed = cluster.run("compare", *preset(given, folder, members=members), cwd=folder, expect=4)
    assert "OTHER_RUN" in changed
    assert "lr: 0.003 -> 0.5" in changed


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
    for name, seed in LEFT[:-1]:
        ours, theirs = (load_file(place(each, name, seed) / "checkpoint" / "model.safetensors") for each in
                        (tmp_path, folder))  # fmt: skip
        for tensor in ours:
            assert np.array_equal(ours[tensor], theirs[tensor]), (name, tensor)
    ours, theirs = (pq.read_table(place(each, "raw") / "scores.parquet") for each in (tmp_path, folder))
    assert ours.equals(theirs)
    check_runs(tmp_path)


def check_runs(folder):
    """As many runs as an undisturbed comparison has, each told whole and once."""
    top, children, below = runs_below(folder)
    assert top.info.status == "FINISHED"
    titles = {"full": "whole network"}
    ended = {f"{titles.get(name, name)}, seed {seed}" for name, seed in LEFT}
    assert {name for name, run in children.items() if run.info.status == "FINISHED"} == ended
    assert len(below) == 1
    for name in ended - {"raw, seed 0"}:
        assert children[name].data.metrics["test_macro_F1"] >= 0


def test_a_comparison_killed_before_it_told_of_a_finished_member_tells_it_once(cluster, given, tmp_path):
    members = {
        "short": {"job": "finetune", "epochs": 1},
        "raw": RAW | {"backbone": {"kind": "hf_text", "checkpoint": str(given / "encoder")}},
    }
    words = preset(given, tmp_path, members=members, seeds=1, against=None)
    cluster.run("compare", *words, cwd=tmp_path)
    # As after a kill between a member's report.json and the driver's note of it: its run was opened, and no more.
    spool, out = tmp_path / "out" / "tracking.jsonl", tmp_path / "out"
    lines = [json.loads(line) for line in spool.read_text().splitlines()]
    root = lines[0]["run"]
    kept = [line for line in lines if line["run"] == root or (line["op"] == "open" and line["run"].count("/") == 1)]
    kept = [line for line in kept if line["op"] != "close"]
    assert len({line["run"] for line in kept}) == 3
    spool.write_text("".join(f"{json.dumps(line)}\n" for line in kept))
    (out / "report.json").unlink()
    (out / "tracking.sent.json").unlink()
    (tmp_path / "mlflow.db").unlink()
    printed = cluster.run("compare", *words, cwd=tmp_path)
    assert "2 of 2 are finished already" in printed
    top, children, below = runs_below(tmp_path)
    assert top.info.status == "FINISHED"
    assert {name: run.info.status for name, run in (children | below).items()} == dict.fromkeys(
        ("short, seed 0", "raw, seed 0", "raw, seed 0: embeddings"), "FINISHED"
    )
    assert children["short, seed 0"].data.metrics["test_macro_F1"] >= 0
    assert pq.read_table(out / "ablation.parquet").num_rows
