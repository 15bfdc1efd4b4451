"""What a search knows of the job it searches, be it fine-tuning or pretraining."""

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
from pydantic import PositiveInt
from xfm.engine.pretrain import Prepared
from xfm.studies.tune.rows import SplitWithoutTest, without_test
from xfm.studies.tune.tune_finetune import AFTERWARDS
from xfm.studies.tune.tune_finetune import KIND as FINETUNING
from xfm.studies.tune.tune_finetune import ROWS as FINETUNE_ROWS
from xfm.studies.tune.tune_finetune import ROWS_OF_TASK as FINETUNE_ROWS_OF_TASK
from xfm.studies.tune.tune_pretrain import KIND as PRETRAINING
from xfm.studies.tune.tune_pretrain import ROWS as PRETRAIN_ROWS
from xfm.studies.tune.tune_pretrain import ROWS_OF_TASK as PRETRAIN_ROWS_OF_TASK

from tests.conftest import REPOSITORY
from xfm.compute.read import read_tokens
from xfm.core import registry
from xfm.core.errors import Refused
from xfm.engine.config import JobConfig
from xfm.engine.output import write_part
from xfm.engine.settings import UsageError, read_yaml
from xfm.engine.stage import StageResult
from xfm.sources.synthetic.atlas import Atlas
from xfm.studies.tune.space import parse_space
from xfm.studies.tune.space_check import fields_of
from xfm.studies.tune.target import SearchTarget, searched_job
from xfm.studies.tune.trials import Aim
from xfm.tokenizers.embedding import EmbeddingTokenizer
from xfm.training.group import Group
from xfm.training.settings import Settings
from xfm.training.tokens import token_parts

ATLAS = {"kind": "atlas", "n_cells": 240, "n_types": 3, "n_donors": 4, "dim": 8, "shard_rows": 80}
SIZES = {"hidden": 16, "heads": 2, "latents": 2, "projection": 8, "text": {"kind": "hashed", "dim": 8}}
ALIGNMENT = {"source": ATLAS, "split": "split", "task": {"kind": "alignment", **SIZES}, "epochs": 2, "batch_size": 20}
DONORS = {"source": ATLAS, "split": "split", "backbone": {"kind": "fusion", **SIZES}, "task": {"kind": "adversarial"}}


def searched(word, job, metric, also=None, **place):
    sections = {"finetune": None, "pretrain": None} | {word: job}
    return searched_job(sections, "out", metric, also, place)


def refusal(*arguments):
    with pytest.raises(Refused) as caught:
        searched(*arguments)
    return str(caught.value)


def test_a_pretraining_job_keeps_the_weights_that_the_search_is_for():
    found = searched("pretrain", ALIGNMENT, "validation_retrieval", workers=2)
    assert found.given.watch == "validation_retrieval"
    assert found.given.workers == 2
    assert found.config_of({"task.latents": 4, "lr": 0.1}).task.latents == 4
    assert found.value_of("task.latents") == 2
    assert found.value_of("task.nothing") is None
    assert searched("pretrain", ALIGNMENT, "-validation_loss").given.watch == "-validation_loss"
    watching = ALIGNMENT | {"watch": "-validation_loss"}
    assert searched("pretrain", watching, None).aim == Aim("validation_loss", is_lower_better=True)


def test_a_fine_tuning_job_may_be_searched_for_two_scores():
    found = searched("finetune", DONORS, None, "validation_leakage_auroc~0.5")
    assert found.given.watch == "f1"
    assert found.aim == Aim("validation_f1", also=Aim("validation_leakage_auroc", near=0.5))


def test_what_no_search_can_be_for_is_refused():
    assert "say what decides between trials" in refusal("pretrain", ALIGNMENT, None)
    assert "write validation_retrieval" in refusal("pretrain", ALIGNMENT, "retrieval")
    assert "write -validation_loss" in refusal("pretrain", ALIGNMENT, "-loss")
    assert "goes with --also" in refusal("finetune", DONORS, "validation_f1~1")
    assert "searched for twice" in refusal("finetune", DONORS, "validation_f1", "-validation_f1")
    assert "names no score" in refusal("finetune", DONORS, "validation_f1", "validation_x~half")
    assert "names no score" in refusal("finetune", DONORS, "validation_f1", "-validation_x~0.5")
    assert "write validation_leakage~0.5" in refusal("finetune", DONORS, "validation_f1", "leakage~0.5")
    assert "the higher is better" in refusal("finetune", DONORS, "-validation_f1")
    odd = ALIGNMENT | {"task": ALIGNMENT["task"] | {"heads": 3}}
    assert "pretrain: --task: hidden 16 is no multiple of heads 3" in refusal("pretrain", odd, "validation_retrieval")


@pytest.mark.parametrize(
    ("word", "job", "metric", "field"),
    [
        ("pretrain", ALIGNMENT, "validation_retrieval", "task.text_column"),
        ("pretrain", ALIGNMENT, "validation_retrieval", "validation_fraction"),
        ("pretrain", ALIGNMENT, "validation_retrieval", "source.n_cells"),
        ("finetune", DONORS, "validation_f1", "task.attribute"),
        ("finetune", DONORS, "validation_f1", "backbone.hidden"),
    ],
)
def test_all_trials_see_the_same_rows_and_tokens(word, job, metric, field):
    with pytest.raises(Refused, match=r"BAD_SPACE.*the same rows"):
        searched(word, job, metric).check(parse_space({field: {"choice": ["sex", "cell_type"]}}), 0)


def test_every_field_that_may_not_be_searched_exists():
    for kind, rows in ((FINETUNING, FINETUNE_ROWS), (PRETRAINING, PRETRAIN_ROWS)):
        assert set(rows) <= set(kind.job.model_fields)
    of_tasks = (registry.TASKS, FINETUNE_ROWS_OF_TASK + AFTERWARDS), (registry.PRETRAINING, PRETRAIN_ROWS_OF_TASK)
    for table, names in of_tasks:
        known = {name for kind in table for name in registry.load(table, kind, "task").model_fields}
        assert set(names) <= known
    assert {"task.latents", "task.hidden", "lr"} <= set(fields_of(PRETRAINING.job))


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """The rows of an atlas as a search for an alignment stores them, and that search."""
    folder = tmp_path_factory.mktemp("stored")
    source, split = Atlas(**ATLAS), SplitWithoutTest(0, 0.0, split="split", labels=("cell_type",))
    for shard in source.shards():
        write_part(str(folder), shard.key, split(read_tokens(source, EmbeddingTokenizer("cell_type"), shard).tokens))
    parts = without_test(token_parts(str(folder), [shard.key for shard in source.shards()]), "")
    found = searched_job({"pretrain": ALIGNMENT}, str(folder), "validation_retrieval", None, {})
    return found, Prepared(SimpleNamespace(weights={}), parts, StageResult()), source


def test_no_test_row_of_a_pretraining_search_is_stored(stored):
    _, prepared, source = stored
    tables = [batch.column("split").to_pylist() for shard in source.shards() for batch in source.read(shard)]
    words = [word for table in tables for word in table]
    assert words.count("test") > 20
    assert sum(map(sum, prepared.parts.sizes)) == len(words) - words.count("test")
    kept = [pq.read_table(path) for path in sorted(Path(prepared.parts.uri, "parts").iterdir())]
    assert {word for table in kept for word in table["split"].to_pylist()} == {"train", "validation"}


def test_a_trial_trains_the_network_that_was_drawn(stored):
    found, prepared, _ = stored
    made = [found.trained_of(prepared, {"task.latents": latents, "lr": 0.01}) for latents in (1, 4)]
    assert [recipe.start.latents for recipe, _ in made] == [1, 4]
    assert made[0][0].start.identity() != made[1][0].start.identity()
    assert {settings.lr for _, settings in made} == {0.01}
    with pytest.raises(UsageError, match="no multiple of heads"):
        found.trained_of(prepared, {"task.heads": 3})


def test_a_trial_of_an_alignment_measures_what_it_is_for(stored):
    found, prepared, _ = stored
    recipe, _ = found.trained_of(prepared, {"lr": 1e-3})
    assert 0 <= recipe.build(Group(), "cpu").validate(0)[found.aim.metric] <= 1


class Job(JobConfig):
    """A job that is as long as it says."""

    epochs: float = 3.0
    steps: PositiveInt | None = None
    batch_size: PositiveInt = 10
    watch: str = "validation_f1"
    lr: float = 0.1


@dataclass(frozen=True)
class Fake:
    """A kind of job that is never trained, on 100 rows."""

    word: str = "fake"
    title: str = "faking"
    others: tuple[str, ...] = ()
    job: type[Job] = Job

    def watch(self, aim):
        return aim.watch

    def make(self, config, prepared):
        if config.batch_size > 100:
            raise Refused("FEW_ROWS", "there are no so many rows")
        steps = config.steps or round(config.epochs * (100 // config.batch_size))
        return None, Settings(
            steps=steps, batch_size=config.batch_size, lr=config.lr, warmup=0, schedule="constant", weight_decay=0.0,
            clip=1.0, log_every=1, checkpoint_every=1, max_seconds=None, seed=0, watch=config.watch,
        )  # fmt: skip

    def pass_rows(self, recipe, prepared):
        return 100


@pytest.mark.parametrize(
    ("base", "space", "epochs"),
    [
        ({}, {"lr": {"uniform": [0.1, 1]}}, 3),
        ({}, {"epochs": {"randint": [2, 8]}}, 7),
        ({"steps": 45}, {"lr": {"uniform": [0.1, 1]}}, 4.5),  # 10 batches an epoch
        ({"steps": 45}, {"batch_size": {"choice": [10, 50, 200]}}, 22.5),  # 2 batches; of 200 rows there is none
        ({}, {"steps": {"randint": [10, 91]}, "batch_size": {"choice": [5, 10]}}, 9),
    ],
)
def test_the_longest_trial_bounds_the_rungs_in_epochs_or_in_steps(base, space, epochs):
    searched = SearchTarget(Fake(), base, "out", Aim("validation_f1"), None)
    assert searched.longest(None, parse_space(space)) == epochs


PRESETS = sorted((REPOSITORY / "jobs" / "presets").glob("*search*.yaml"))


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.stem)
def test_the_space_of_a_preset_fits_its_job(preset, monkeypatch):
    monkeypatch.chdir(REPOSITORY)  # a preset may stand on another
    asked = read_yaml(str(preset))
    sections = {word: asked.get(word) for word in ("finetune", "pretrain")}
    found = searched_job(sections, "out", asked["metric"], asked.get("also"), {})
    found.check(parse_space(asked["space"]), 0)


def test_the_published_space_of_the_network_has_no_width_that_its_heads_do_not_divide():
    asked = read_yaml(str(REPOSITORY / "jobs" / "presets" / "fusion_search_alignment.yaml"))
    draws = {draw.field: draw for draw in parse_space(asked["space"]).draws}
    widths = {draws["task.hidden"].draw(np.random.default_rng(i)) for i in range(200)}
    assert widths == {128, 256, 384, 512}
    assert all(width % heads == 0 for width in widths for heads in draws["task.heads"].arguments)
