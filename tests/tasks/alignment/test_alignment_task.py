"""Alignment from a made atlas to a checkpoint and a report, without Ray."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from xfm.core.errors import Refused
from xfm.core.ledger import part_name
from xfm.engine.learn import Prepared, all_columns, conclude, plan_learning, recipe_of, task_of
from xfm.engine.learn_config import PretrainConfig
from xfm.engine.stage import StageResult
from xfm.models.fusion.config import Fusion
from xfm.models.fusion.text import HashedText
from xfm.sources.synthetic.atlas import Atlas
from xfm.sources.synthetic.grammar import Grammar
from xfm.tasks.alignment.report import draw
from xfm.training.config import TrainingConfig, settings_of
from xfm.training.in_process import train_here
from xfm.training.task import TrainingInputs, TrainingRun
from xfm.training.tokens import SplitRows, token_parts

SETTINGS = settings_of(TrainingConfig(steps=12, batch_size=32), 211)
ATLAS = Atlas(n_cells=300, n_types=4, n_donors=4, dim=16, shard_rows=200)
SMALL = {"kind": "alignment", "hidden": 16, "heads": 2, "latents": 3, "projection": 8}


def config_of(output: Path, **more) -> PretrainConfig:
    task = {**SMALL, **more.pop("task", {})}
    # 211 rows to train on: six batches of 32 an epoch.
    settings = {"steps": 12, "batch_size": 32, "lr": 3e-3, "checkpoint_every": 1, "log_every": 3} | more
    return PretrainConfig(source=ATLAS, task=task, split="split", output=str(output), **settings)


def prepared_of(config: PretrainConfig, folder: Path) -> Prepared:
    """What stage one leaves, without a cluster."""
    plan = plan_learning(config)
    split, keys = SplitRows(0, 0.1, split="split", labels=("cell_type",)), []
    for shard in plan.shards:
        rows = pa.Table.from_batches(list(config.source.read(shard)))
        path = folder / part_name(shard.key)
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(split(rows), path)
        keys.append(shard.key)
    return Prepared(plan, token_parts(str(folder), keys), None, {}, StageResult(rows=300))


@dataclass
class Job:
    """As much of an open job as `conclude` needs."""

    folder: Path
    report: object = None

    def publish_checkpoint(self, kind, write):
        assert kind == "fusion"
        self.said = write(self.folder / "checkpoint")

    def finish(self, report, draw, rows, refusals):
        self.report, self.draw, self.rows = report, draw, rows
        return 0


@pytest.fixture(scope="module")
def aligned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("aligned")
    config = config_of(folder, watch="-validation_loss")
    prepared = prepared_of(config, folder / "tokens")
    recipe, settings = recipe_of(config, prepared)
    torch.set_num_threads(1)
    trained = train_here(recipe, settings, folder / "train")
    job = Job(folder)
    assert conclude(config, prepared, recipe, settings, trained, job) == 0
    return job, recipe, trained


def test_the_checkpoint_is_the_trained_fusion_with_its_labels(aligned):
    job, recipe, trained = aligned
    backbone = Fusion(checkpoint=str(job.folder / "checkpoint"))
    bank = backbone.bank_of((), None)
    assert bank.labels == recipe.bank.labels == tuple(sorted(set(ATLAS.columns(np.arange(300))["cell_type"])))
    read = backbone.start(16, bank, 1).state_dict()
    learned = {n.removeprefix("fusion."): t for n, t in trained.weights.items() if n.startswith("fusion.")}
    assert learned
    for name, tensor in learned.items():
        torch.testing.assert_close(read[name], tensor, rtol=0, atol=0)
    started = recipe.network("cpu").fusion.state_dict()
    assert not torch.equal(read["project_gene.weight"], started["project_gene.weight"])
    cross = next(name for name in started if name.startswith("cross.") and started[name].ndim == 2)
    torch.testing.assert_close(read[cross], started[cross], rtol=0, atol=0)
    about = json.loads((job.folder / "checkpoint" / "fusion.json").read_text())["about"]
    assert about["temperature"] == pytest.approx(trained.weights["log_temperature"].exp().item())
    assert about["temperature"] != pytest.approx(0.07, abs=1e-6)


def test_labels_are_encoded_once_and_kept_in_output(aligned, monkeypatch):
    job, recipe, _ = aligned
    kept = pq.read_table(job.folder / "label_embeddings.parquet")
    assert sorted(kept["label"].to_pylist()) == list(recipe.bank.labels)

    def again(self, labels):
        pytest.fail(f"{labels} are encoded again")

    monkeypatch.setattr(HashedText, "encode", again)
    torch.testing.assert_close(recipe.network("cpu").texts, torch.from_numpy(recipe.bank.vectors))
    config = config_of(job.folder)
    found = task_of(config).recipe(TrainingInputs(recipe.parts, None, {}, SETTINGS, {})).bank
    assert found.digest() == recipe.bank.digest()
    checkpoint = Fusion(checkpoint=str(job.folder / "checkpoint"))
    assert checkpoint.bank_of(recipe.bank.labels, None).digest() == recipe.bank.digest()


def test_the_report_says_what_was_reached_beside_chance_and_what_alignment_takes_away(aligned):
    job, _, trained = aligned
    report, outcome = job.report, trained.outcome
    tables = {table.name: table for table in report.tables}
    summary = tables["retrieval_summary"]
    assert [row[0] for row in summary.rows] == ["aligned", "random weights", "most frequent type", "any type"]
    assert summary.rows[0][1].value == pytest.approx(outcome["hits"].mean())
    assert summary.rows[0][1].low <= outcome["hits"].mean() <= summary.rows[0][1].high
    assert summary.rows[3][1] == 0.25
    types = np.asarray(outcome["labels"])[outcome["types"]]
    frequent = outcome["labels"][int(outcome["training_types"].argmax())]
    assert summary.rows[2][1] == pytest.approx((types == frequent).mean())
    assert sum(row[1] for row in tables["types"].rows) == report.numbers["training cells"]
    assert sum(row[2] for row in tables["types"].rows) == report.numbers["test cells"] == outcome["cells"]
    assert report.numbers["step that was kept"] == trained.best_step
    assert any("removes donor information by design" in warning for warning in report.warnings)
    scored = {row[0]: row[1] for row in tables["space"].rows}
    assert scored["modality gap"] == pytest.approx(outcome["scores"]["modality_gap"])


def test_the_pictures_are_drawn(aligned, tmp_path):
    _, _, trained = aligned
    figures = draw(trained, "random weights", tmp_path)
    assert [figure.name for figure in figures] == ["shared_umap", "training_metrics", "embedding_umap"]
    for figure in figures:
        assert (tmp_path / figure.png).stat().st_size > 10_000
    lines = (tmp_path / "plots" / "embedding_umap.csv").read_text().splitlines()
    assert lines[0] == "cell,UMAP1,UMAP2,cell_type,donor_id,sex,dataset_id"
    assert len(lines) == 1 + trained.outcome["cells"]


def test_other_settings_take_the_same_rows(aligned, tmp_path):
    """As a search does: sizes and loss of a trial are its own, tokens are shared."""
    config = config_of(tmp_path)
    prepared = prepared_of(config, tmp_path / "tokens")
    other = config_of(tmp_path, task={"hidden": 8, "loss": "margin"}, steps=2, checkpoint_every=1)
    recipe, settings = recipe_of(other, prepared)
    trained = train_here(recipe, settings, tmp_path / "train")
    assert trained.outcome["scores"].keys() > {"fused_margin_accuracy", "retrieval"}
    job = Job(tmp_path)
    conclude(other, prepared, recipe, settings, trained, job)
    assert any("cannot be used for retrieval" in warning for warning in job.report.warnings)


def test_a_source_without_vectors_or_words_is_refused(tmp_path):
    config = config_of(tmp_path)
    with pytest.raises(Refused, match="grammar cannot carry cell_type"):
        plan_learning(config.model_copy(update={"source": Grammar()}))
    with pytest.raises(Refused, match="tissue"):
        plan_learning(config_of(tmp_path, task={"text_column": "tissue"}))


@pytest.mark.parametrize("others", [[], [("c", "glia", "test"), ("d", "glia", "validation")]])
def test_the_margin_needs_a_second_type_to_train_on(tmp_path, others):
    config = config_of(tmp_path, task={"loss": "margin"})
    ids, types, parts = zip(*[("a", "neuron", "train"), ("b", "neuron", "train"), *others], strict=True)
    table = pa.table(
        {
            "row_id": ids, "cell_type": types, "split": parts,
            "embedding": pa.array([[0.0] * 16] * len(ids), pa.list_(pa.float32(), 16)),
        }
    )  # fmt: skip
    path = tmp_path / "tokens" / part_name("only")
    path.parent.mkdir(parents=True)
    pq.write_table(SplitRows(0, 0.1, split="split")(table), path)
    parts = token_parts(str(tmp_path / "tokens"), ["only"])
    with pytest.raises(Refused, match="'neuron'") as refusal:
        task_of(config).recipe(TrainingInputs(parts, None, {}, SETTINGS, {}))
    assert refusal.value.code == "ONE_TYPE"


def test_weights_of_another_network_are_not_written(aligned, tmp_path):
    _, recipe, trained = aligned
    config = config_of(tmp_path)
    foreign = replace(trained, weights=trained.weights | {"of_another": torch.zeros(1)})
    run = TrainingRun(foreign, SETTINGS, recipe.parts, None, {}, plan_learning(config).run, {}, {})
    result = task_of(config).result(recipe, run)
    with pytest.raises(AssertionError, match="of_another"):
        result.checkpoint.write(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_further_training_takes_the_checkpoints_sizes_and_refuses_others(aligned, tmp_path):
    job, _, _ = aligned
    plain = {"kind": "alignment", "init": str(job.folder / "checkpoint")}

    def start(**task):
        config = PretrainConfig(source=ATLAS, task=plain | task, split="split", output=str(tmp_path))
        return task_of(config).start.settled()

    assert (start().hidden, start().dropout) == (16, 0.1)
    assert start(dropout=0.3).dropout == 0.3
    with pytest.raises(Refused, match=r"OTHER_SIZES.*hidden 256 \(the checkpoint's: 16\)"):
        start(hidden=256)


def test_words_and_split_are_carried_along_unasked(tmp_path):
    config = config_of(tmp_path).model_copy(update={"source": ATLAS.model_copy(update={"obs": ("sex",)})})
    assert plan_learning(config).rows == 300
    assert all_columns(config, task_of(config)) == ("cell_type", "split")
