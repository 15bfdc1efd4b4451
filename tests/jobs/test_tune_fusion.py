"""A search of both stages of a fusion as a user runs it: alignment with halving, donors for two scores."""

import json
import signal
from collections import Counter

import pyarrow.parquet as pq
import pytest
import yaml

from tests.search_outputs import await_half_way, book, children, stored_rows
from xfm.sources.synthetic.atlas import Atlas

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1500)]

ATLAS = {"kind": "atlas", "n_cells": 240, "n_types": 3, "n_donors": 8, "dim": 8, "shard_rows": 120}
SIZES = {"hidden": 16, "heads": 2, "latents": 2, "projection": 8, "text": {"kind": "hashed", "dim": 8}}


def write(folder, **settings):
    """search.yaml, and the words that run it."""
    (folder / "search.yaml").write_text(yaml.safe_dump(settings))
    return ["--config", str(folder / "search.yaml"), "--output", str(folder / "out")]


def check_no_test_rows(output):
    source = Atlas(**ATLAS)
    batches = [batch for shard in source.shards() for batch in source.read(shard)]
    words = {row: word for each in batches for row, word in zip(
        each.column("row_id").to_pylist(), each.column("split").to_pylist(), strict=True)}  # fmt: skip
    kept = {row for row, _ in stored_rows(output)}
    assert kept == {row for row, word in words.items() if word != "test"}
    assert len(kept) < len(words)


@pytest.mark.nightly
def test_a_killed_search_for_an_alignment_ends_with_eight_children_none_of_them_twice(cluster, tmp_path):
    pretrain = {"source": ATLAS, "split": "split", "task": {"kind": "alignment", **SIZES}, "epochs": 4,
                "batch_size": 20, "checkpoint_every": 0.5}  # fmt: skip
    space = {"lr": {"loguniform": [1e-4, 1e-2]}, "task.latents": {"choice": [1, 2, 4]},
             "task.hidden": {"randint": [12, 25]}, "task.heads": {"choice": [2, 3]}}  # fmt: skip
    words = write(tmp_path, pretrain=pretrain, space=space, trials=8, metric="validation_retrieval")
    job = cluster.start("tune", *words, cwd=tmp_path)
    await_half_way(job, tmp_path / "out", 480)
    job.send_signal(signal.SIGKILL)
    job.communicate()
    killed = book(tmp_path / "out")
    assert len(killed) < 8
    printed = cluster.run("tune", *words, cwd=tmp_path)
    assert f"{len(killed)} trials are in the book already" in printed

    after = book(tmp_path / "out")
    assert [trial["number"] for trial in after] == list(range(8))
    assert [trial["values"] for trial in after][: len(killed)] == [trial["values"] for trial in killed]
    assert {trial["status"] for trial in after} <= {"finished", "pruned"}
    assert all(trial["values"]["task.hidden"] % trial["values"]["task.heads"] == 0 for trial in after[1:])
    client, parent, runs = children(tmp_path)
    assert [run.data.tags["xfm.trial"] for run in runs] == [str(number) for number in range(8)]
    assert parent.data.tags["attempt"] == "2"
    for run, trial in zip(runs, after, strict=True):
        points = client.get_metric_history(run.info.run_id, "validation/retrieval")
        assert max(Counter(point.step for point in points).values()) == 1
        assert len(points) == len(trial["history"])
    check_no_test_rows(tmp_path / "out")
    best = ["--config", str(tmp_path / "out" / "best.yaml"), "--output", str(tmp_path / "best"), "--dry-run"]
    assert yaml.safe_load((tmp_path / "out" / "best.yaml").read_text())["watch"] == "retrieval"
    cluster.run("pretrain", *best, cwd=tmp_path)


@pytest.mark.nightly
def test_a_search_of_donors_for_two_scores_keeps_its_front_when_it_goes_on(cluster, tmp_path):
    finetune = {"source": ATLAS, "split": "split", "backbone": {"kind": "fusion", **SIZES},
                "task": {"kind": "adversarial", "attribute": "sex"}, "epochs": 2}  # fmt: skip
    space = {"lr": {"loguniform": [1e-4, 1e-2]}, "task.lambda_adv": {"loguniform": [0.01, 1.0]}}
    words = write(tmp_path, finetune=finetune, space=space, trials=3, metric="validation_f1",
                  also="validation_leakage_auroc~0.5")  # fmt: skip
    cluster.run("tune", *words, cwd=tmp_path)
    before = book(tmp_path / "out")
    printed = cluster.run("tune", *words, "--trials", "4", cwd=tmp_path)
    assert printed.count("tune: trial ") == 1

    table = pq.read_table(tmp_path / "out" / "trials.parquet").to_pylist()
    assert [row["status"] for row in table] == ["finished"] * 4  # nothing is pruned
    assert [row["lr"] for row in table[1:3]] == [trial["values"]["lr"] for trial in before[1:]]
    losses = [(-row["validation_f1"], abs(row["validation_leakage_auroc"] - 0.5)) for row in table]
    front = {
        number for number, (a, b) in enumerate(losses)
        if not any(c <= a and d <= b and (c < a or d < b) for c, d in losses)
    }  # fmt: skip
    assert {row["trial"] for row in table if row["on_front"]} == front
    presets = sorted((tmp_path / "out" / "front").iterdir())
    assert [path.name for path in presets] == [f"{number:03d}.yaml" for number in sorted(front)]
    for path in presets:
        row = table[int(path.stem)]
        assert yaml.safe_load(path.read_text()).get("lr", row["lr"]) == row["lr"]
    runs = children(tmp_path)[2]
    assert {int(run.data.tags["xfm.trial"]) for run in runs if run.data.tags.get("xfm.on_front") == "true"} == front
    assert {run.info.status for run in runs} == {"FINISHED"}
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["figures"][0]["name"] == "front"
    assert report["numbers"]["trials on the front"] == len(front)
    check_no_test_rows(tmp_path / "out")
    cluster.run("finetune", "--config", str(presets[0]), "--output", "o", "--dry-run", cwd=tmp_path)
