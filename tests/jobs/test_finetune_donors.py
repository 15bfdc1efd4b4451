"""Donor classification as a user runs it: two workers from scratch, then on from the checkpoint."""

import json

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

pytestmark = [pytest.mark.ray, pytest.mark.nightly]


def flags(output, **more):
    settings = {
        "source.kind": "atlas", "source.n_cells": 600, "source.n_types": 4, "source.dim": 16, "split": "split",
        "backbone.kind": "fusion", "task.kind": "adversarial", "task.label": "donor_id", "task.attribute": "sex",
        "epochs": 2, "lr": 0.003, "bootstrap": 100, "output": output,
    } | more  # fmt: skip
    return [word for name, value in settings.items() for word in (f"--{name}", str(value))]


SIZES = {"backbone.hidden": 16, "backbone.latents": 3, "backbone.heads": 2, "backbone.projection": 8}


def test_donors_are_told_from_scratch_and_on_from_the_checkpoint(cluster, tmp_path):
    printed = cluster.run("finetune", *flags(tmp_path / "out", workers=2, **SIZES), cwd=tmp_path)
    assert "donor_id" in printed
    first = tmp_path / "out"
    scores = pq.read_table(first / "scores.parquet")
    named = set(zip(*(scores[name].to_pylist() for name in ("representation", "task", "metric")), strict=True))
    assert ("finetuned_adversarial", "leakage", "auroc") in named
    assert ("within_majority", "finetune", "within_accuracy") in named
    report = json.loads((first / "report.json").read_text())
    assert {each["name"] for each in report["figures"]} >= {"confusion", "training_metrics", "cross_attention"}
    run = json.loads((first / "run.json").read_text())
    assert set(run["cells_by_label"]) == {"donor_id", "sex", "dataset_id"}
    assert len(pq.read_table(first / "label_embeddings.parquet")) == 4

    on = flags(tmp_path / "on", **{"backbone.checkpoint": first / "checkpoint"})
    cluster.run("finetune", *on, "--no-task.adversary", cwd=tmp_path)
    again = pq.read_table(tmp_path / "on" / "scores.parquet")
    own = again.filter(pc.and_(pc.equal(again["representation"], "finetuned_plain"), pc.equal(again["split"], "test")))
    accuracy = own.filter(pc.equal(own["metric"], "accuracy"))["value"][0].as_py()
    largest = again.filter(pc.equal(again["representation"], "majority"))["value"][0].as_py()
    assert accuracy > largest
