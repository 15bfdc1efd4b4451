"""A fusion aligned on a made atlas as a user runs it: what the preset reaches, and any number of workers."""

import json

import pytest

from tests.conftest import REPOSITORY
from xfm.models.fusion.config import Fusion

pytestmark = [pytest.mark.ray]

PRESET = str(REPOSITORY / "jobs" / "presets" / "fusion_align.yaml")


@pytest.mark.nightly
def test_nine_of_ten_test_cells_find_the_words_for_their_type(cluster, tmp_path):
    printed = cluster.run("pretrain", "--config", PRESET, "--output", str(tmp_path / "out"), cwd=tmp_path)
    assert "removes donor information by design" in printed
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    (summary,) = [table for table in report["tables"] if table["name"] == "retrieval_summary"]
    aligned, untrained, frequent, blind = (row[1] for row in summary["rows"])
    assert aligned["value"] >= 0.9
    assert summary["rows"][0][2] >= 0.9, "rare types too"
    assert untrained["value"] <= frequent + 0.05
    assert blind == 1 / 8
    assert [figure["name"] for figure in report["figures"]] == ["shared_umap", "training_metrics", "embedding_umap"]
    backbone = Fusion(checkpoint=str(tmp_path / "out" / "checkpoint")).build("cpu")
    assert backbone.dim == 64


@pytest.mark.nightly
@pytest.mark.parametrize("loss", ["supcon_infonce", "margin"])
def test_one_worker_takes_the_first_step_of_two(cluster, tmp_path, loss):
    losses = []
    for workers in (1, 2):
        output = tmp_path / str(workers)
        cluster.run(
            "pretrain", "--config", PRESET, "--task.loss", loss, "--task.dropout", "0", "--steps", "2", "--log_every",
            "1", "--checkpoint_every", "1", "--warmup", "0", "--workers", str(workers), "--output", str(output),
            cwd=tmp_path,
        )  # fmt: skip
        lines = (output / "plots" / "training_metrics.csv").read_text().splitlines()
        place = lines[0].split(",").index("loss")
        losses.append([float(line.split(",")[place]) for line in lines[1:]])
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
