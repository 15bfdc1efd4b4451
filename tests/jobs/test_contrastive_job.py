"""CLIP from scratch on coloured digits and adapted to another domain, as a user runs it; mechanics, not accuracy."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from xfm.models.clip.config import CLIP

pytestmark = [pytest.mark.ray, pytest.mark.nightly]


def words(settings: dict[str, object]) -> list[str]:
    return [word for name, value in settings.items() for word in (f"--{name}", str(value))]


def pretraining(output, **more) -> list[str]:
    return words({
        "source.kind": "digits", "source.size": 16, "split": "split", "output": output, "task.kind": "contrastive",
        "task.image_size": 16, "task.image_width": 32, "task.image_layers": 2, "task.text_width": 32,
        "task.text_layers": 2, "task.projection_dim": 16, "task.vocabulary_size": 600, "task.match": "pair",
        "steps": 40, "batch_size": 64, "lr": 0.002, "checkpoint_every": 0.31, "validation_rows": 200, "workers": 2,
    } | more)  # fmt: skip


@pytest.fixture(scope="module")
def pretrained(cluster, tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    printed = cluster.run("pretrain", *pretraining(folder / "out"), cwd=folder)
    assert "step 40/40" in printed
    return folder / "out"


def adapting(pretrained, output, **more) -> list[str]:
    return words({
        "source.kind": "digits", "source.size": 16, "source.domain": "shifted", "split": "split",
        "backbone.kind": "clip", "backbone.checkpoint": pretrained / "checkpoint", "task.kind": "class_prompts",
        "task.label": "digit", "task.shots": 4, "task.rank": 4, "task.alpha": 8, "forgetting.kind": "digits",
        "forgetting.size": 16, "forgetting.split": "test", "forgetting.pairs": "seen", "steps": 20, "lr": 0.004,
        "bootstrap": 100, "workers": 2, "output": output,
    } | more)  # fmt: skip


def test_the_checkpoint_is_a_plain_clip_that_training_has_improved(pretrained):
    backbone = CLIP(checkpoint=str(pretrained / "checkpoint")).build("cpu")
    assert (backbone.n_layers, backbone.dim) == (2, 32)
    report = json.loads((pretrained / "report.json").read_text())
    (table,) = report["tables"]
    assert [row[0] for row in table["rows"]] == ["trained", "untrained", "guessing"]
    assert table["rows"][0][2] < table["rows"][1][2], "the loss fell"
    assert report["numbers"]["training images"] == 4200
    assert report["numbers"]["validation images"] == 750
    lines = (pretrained / report["figures"][0]["csv"]).read_text().splitlines()
    assert lines[0] == "step,epoch,seconds,lr,loss,validation_loss,validation_retrieval"


def test_one_worker_sees_the_first_batch_as_two_do(cluster, pretrained, tmp_path):
    """Float rounding apart: every image meets the captions of all workers."""
    settings = {"workers": 1, "steps": 1, "warmup": 0, "validation_rows": 8}
    losses = []
    for workers in (1, 2):
        output = tmp_path / str(workers)
        cluster.run("pretrain", *pretraining(output, **settings | {"workers": workers}), cwd=tmp_path)
        losses.append(float((output / "plots" / "loss.csv").read_text().splitlines()[1].split(",")[4]))
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_adapting_reports_what_it_gains_and_what_it_forgets(cluster, pretrained, tmp_path):
    cluster.run("finetune", *adapting(pretrained, tmp_path / "out"), cwd=tmp_path)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    tables = {table["name"]: table for table in report["tables"]}
    assert [row[0] for row in tables["shares"]["rows"]] == ["0", "0.25", "0.5", "0.75", "1"]
    assert tables["shares"]["columns"] == ["share", "validation", "test", "other images"]
    assert report["numbers"]["training images"] == 40
    effort = {row[0]: row[1] for row in tables["effort"]["rows"]}
    assert effort["trained numbers, image tower"] == 2 * 3 * 2 * 4 * 32
    assert effort["trained numbers, text tower"] == 0
    scores = pq.read_table(tmp_path / "out" / "scores.parquet")
    assert {"finetuned_lora", "zero_shot"} <= set(scores["representation"].to_pylist())
    merged = CLIP(checkpoint=str(tmp_path / "out" / "checkpoint")).build("cpu")
    before = CLIP(checkpoint=str(pretrained / "checkpoint")).build("cpu")
    text = [name for name in before.state_dict() if "text_model" in name]
    assert all(np.array_equal(before.state_dict()[name], merged.state_dict()[name]) for name in text)
    lines = (tmp_path / "out" / "plots" / "shares.csv").read_text().splitlines()
    assert len(lines) == 1 + 2 * 5


def test_forgetting_on_the_training_rows_is_refused(cluster, pretrained, tmp_path):
    same = {"forgetting.domain": "shifted"}
    words = adapting(pretrained, tmp_path / "out", **same)
    for flag in ("--forgetting.split", "--forgetting.pairs"):
        place = words.index(flag)
        del words[place : place + 2]
    printed = cluster.run("finetune", *words, cwd=tmp_path, expect=4)
    assert "SAME_DATA" in printed
