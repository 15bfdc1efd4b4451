"""The pretrain job as a user runs it: two workers, a killed driver, another recipe."""

import json
import signal
import time

import numpy as np
import pytest
from safetensors.numpy import load_file

from xfm.models.scgpt.config import ScGPT

pytestmark = pytest.mark.ray


# Of 64 cells 48 to 55 are trained on: an epoch has 6 steps, and checkpoints lie 10 steps apart.
def flags(tiny_scgpt, output, **more):
    settings = {
        "source.kind": "h5ad", "source.path": tiny_scgpt / "cells.h5ad", "source.shard_rows": 40, "output": output,
        "task.kind": "masked_expression", "task.layers": 1, "task.dim": 8, "task.heads": 2, "task.ffn": 8,
        "task.dropout": 0.1, "task.cell_prompt_after": 10, "lr": 0.003, "batch_size": 8, "steps": 100,
        "checkpoint_every": 1.67, "validation": 0.2, "workers": 2,
    } | more  # fmt: skip
    return [word for name, value in settings.items() for word in (f"--{name}", str(value))]


@pytest.fixture(scope="module")
def undisturbed(cluster, tmp_path_factory, tiny_scgpt):
    folder = tmp_path_factory.mktemp("pretrain")
    printed = cluster.run("pretrain", *flags(tiny_scgpt, folder / "out"), cwd=folder)
    assert "step 100/100" in printed
    return folder / "out"


def weights(output):
    return load_file(output / "checkpoint" / "model.safetensors")


def registered(output):
    """Whether Ray Train knows a checkpoint; its file may be caught half-written."""
    try:
        snapshot = json.loads((output / "train" / "checkpoint_manager_snapshot.json").read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return False
    return bool(snapshot["checkpoint_results"])


def test_the_checkpoint_is_one_that_the_backbone_reads(undisturbed):
    backbone = ScGPT(checkpoint=str(undisturbed / "checkpoint"))
    network = backbone.build("cpu")
    assert (network.n_layers, network.dim) == (1, 8)
    assert network.architecture.mvc == "inner product"
    assert all(np.isfinite(tensor).all() for tensor in weights(undisturbed).values())


def test_the_report_sets_the_model_beside_its_baselines(undisturbed):
    report = json.loads((undisturbed / "report.json").read_text())
    (table,) = report["tables"]
    assert [row[0] for row in table["rows"]][-2:] == ["mean of the gene", "mean of the cell"]
    assert report["numbers"]["steps"] == 100
    assert report["numbers"]["training cells"] + report["numbers"]["validation cells"] == 64
    figure = report["figures"][0]
    lines = (undisturbed / figure["csv"]).read_text().splitlines()
    assert lines[0].startswith("step,epoch,seconds,lr,masked,cell")
    assert len(lines) == 1 + 100 // 10
    assert (undisturbed / figure["png"]).stat().st_size > 5000


@pytest.mark.nightly
def test_a_killed_driver_ends_with_the_weights_of_an_undisturbed_run(cluster, undisturbed, tiny_scgpt, tmp_path):
    words = flags(tiny_scgpt, tmp_path / "out")
    job = cluster.start("pretrain", *words, cwd=tmp_path)
    deadline = time.monotonic() + 200
    while not registered(tmp_path / "out"):
        assert time.monotonic() < deadline, "no checkpoint was registered"
        assert job.poll() is None, f"ended early:\n{job.communicate()[0]}"
        time.sleep(0.05)
    job.send_signal(signal.SIGKILL)
    job.communicate()
    assert not (tmp_path / "out" / "checkpoint").exists()
    printed = cluster.run("pretrain", *words, cwd=tmp_path)
    assert "2 of 2 shards are committed already" in printed
    for name, tensor in weights(undisturbed).items():
        assert np.array_equal(tensor, weights(tmp_path / "out")[name]), name
    curves = [(output / "plots" / "loss.csv").read_text().splitlines() for output in (undisturbed, tmp_path / "out")]
    without_seconds = [[line.split(",")[:2] + line.split(",")[3:] for line in curve] for curve in curves]
    assert without_seconds[0] == without_seconds[1]
    refused = cluster.run("pretrain", *flags(tiny_scgpt, tmp_path / "out", lr=0.001), cwd=tmp_path, expect=4)
    assert "OTHER_RUN" in refused
    assert "lr" in refused
