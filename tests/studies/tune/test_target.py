"""What a search knows of the job it searches, be it fine-tuning or pretraining."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.conftest import REPOSITORY
from tests.picture_examples import fresh
from xfm.compute.read import read_tokens
from xfm.core import registry
from xfm.core.errors import Refused
from xfm.core.parts import TRAIN
from xfm.engine.learn import Prepared, class_of, task_of
from xfm.engine.output import write_part
from xfm.engine.settings import UsageError, read_yaml
from xfm.engine.stage import StageResult
from xfm.models.clip.writing import write_checkpoint
from xfm.sources.synthetic.atlas import Atlas
from xfm.studies.tune.space import fields_of, parse_space
from xfm.studies.tune.target import JOBS, ROWS, compared_on, searched_job
from xfm.studies.tune.trials import Aim
from xfm.tokenizers.embedding import EmbeddingTokenizer
from xfm.training.group import Group
from xfm.training.tokens import SplitRows, token_parts

ATLAS = {"kind": "atlas", "n_cells": 240, "n_types": 3, "n_donors": 4, "dim": 8, "shard_rows": 80}
SIZES = {"hidden": 16, "heads": 2, "latents": 2, "projection": 8, "text": {"kind": "hashed", "dim": 8}}
ALIGNMENT = {"source": ATLAS, "split": "split", "task": {"kind": "alignment", **SIZES}, "epochs": 2, "batch_size": 20}
DONORS = {"source": ATLAS, "split": "split", "backbone": {"kind": "fusion", **SIZES}, "task": {"kind": "adversarial"}}


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch, tmp_path):
    """Labels that are encoded are kept in OUTPUT."""
    monkeypatch.chdir(tmp_path)


def searched(word, job, metric, also=None, output="out", **place):
    sections = {"finetune": None, "pretrain": None} | {word: job}
    return searched_job(sections, output, metric, also, place)


def refusal(*arguments):
    with pytest.raises(Refused) as caught:
        searched(*arguments)
    return str(caught.value)


def test_a_pretraining_job_keeps_the_weights_that_the_search_is_for():
    found = searched("pretrain", ALIGNMENT, "validation_retrieval", workers=2)
    assert (found.given.watch, found.given.watched) == ("retrieval", "validation_retrieval")
    assert found.given.workers == 2
    assert found.config_of({"task.latents": 4, "lr": 0.1}).task.latents == 4
    assert found.value_of("task.latents") == 2
    assert found.value_of("task.nothing") is None
    assert searched("pretrain", ALIGNMENT, "-validation_loss").given.watched == "-validation_loss"
    watching = ALIGNMENT | {"watch": "-validation_loss"}
    assert searched("pretrain", watching, None).aim == Aim("validation_loss", is_lower_better=True)


def test_a_fine_tuning_job_may_be_searched_for_two_scores():
    found = searched("finetune", DONORS, "validation_f1", "validation_leakage_auroc~0.5")
    assert found.given.watch == "f1"
    assert found.aim == Aim("validation_f1", also=Aim("validation_leakage_auroc", near=0.5))


def test_a_search_is_for_what_the_job_watches_where_it_watches_something():
    plain = DONORS | {"task": {"kind": "adversarial", "adversary": False}}
    assert searched("finetune", plain, None).aim == Aim("validation_f1")
    # Against an adversary a score of the classes says nothing of what was unlearned, so none decides by itself.
    assert "say what decides between trials" in refusal("finetune", DONORS, None)


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
    assert "the lower is better" in refusal("finetune", DONORS, "validation_loss")
    odd = ALIGNMENT | {"task": ALIGNMENT["task"] | {"heads": 3}}
    assert "pretrain: --task: hidden 16 is no multiple of heads 3" in refusal("pretrain", odd, "validation_retrieval")


@pytest.mark.parametrize(
    ("word", "job", "metric", "field"),
    [
        ("pretrain", ALIGNMENT, "validation_retrieval", "task.text_column"),
        ("pretrain", ALIGNMENT, "validation_retrieval", "validation"),
        ("pretrain", ALIGNMENT, "validation_retrieval", "validation_rows"),
        ("pretrain", ALIGNMENT, "validation_retrieval", "split_seed"),
        ("pretrain", ALIGNMENT, "validation_retrieval", "source.n_cells"),
        ("finetune", DONORS, "validation_f1", "task.attribute"),
        ("finetune", DONORS, "validation_f1", "backbone.hidden"),
    ],
)
def test_all_trials_see_the_same_rows_and_tokens(word, job, metric, field):
    with pytest.raises(Refused, match=r"BAD_SPACE.*the same rows"):
        searched(word, job, metric).check(parse_space({field: {"choice": ["sex", "cell_type"]}}), 0)


# What a job's rows and tokens depend on, by the kind of task. A task may name more, never fewer.
FIXED = {
    "adversarial": {"kind", "label", "attribute", "within"},
    "alignment": {"kind", "init", "text_column", "text"},
    "class_prompts": {"kind", "label", "classes", "shots"},
    "classification": {"kind", "label"},
    "contrastive": {"kind", "init", "caption", "match", "vocabulary_size", "image_size", "text_length"},
    "masked_expression": {"kind", "init", "vocab", "n_bins", "ties", "max_length"},
    "regression": {"kind", "label"},
}


def test_every_field_that_may_not_be_searched_exists():
    known = {name for job in JOBS.values() for name in job.model_fields}
    assert set(ROWS) <= known
    assert {"split", "validation", "test", "carve", "group", "split_seed"} <= set(ROWS)
    assert registry.TASKS.keys() == FIXED.keys()
    for kind in registry.TASKS:
        settings = registry.load(registry.TASKS, kind, "task")
        task = class_of(settings)
        assert FIXED[kind] <= task.fixed <= settings.model_fields.keys()
        assert task.afterwards <= settings.model_fields.keys() - task.fixed
    assert {"task.latents", "task.hidden", "lr"} <= set(fields_of(JOBS["pretrain"]))


def test_what_is_used_after_training_alone_is_nothing_to_search(tmp_path):
    write_checkpoint(tmp_path / "clip", fresh().build("cpu"), fresh())
    clip = {"kind": "clip", "checkpoint": str(tmp_path / "clip")}
    job = {"source": {"kind": "digits"}, "split": "split", "backbone": clip, "task": {"kind": "class_prompts"}}
    found = searched("finetune", job, "validation_f1")
    with pytest.raises(Refused, match=r"BAD_SPACE.*forgetting_label: is used after training alone"):
        found.check(parse_space({"task.forgetting_label": {"choice": ["pair", "digit"]}}), 0)
    found.check(parse_space({"task.rank": {"choice": [1, 2]}}), 0)


def test_a_search_reads_no_rows_to_forget():
    """What training costs elsewhere is scored once, not in every trial."""
    clip = {"kind": "clip", "checkpoint": "clip"}
    job = {"source": {"kind": "digits"}, "split": "split", "backbone": clip, "task": {"kind": "class_prompts"}}
    assert searched("finetune", job | {"forgetting": {"kind": "digits"}}, "validation_f1").given.forgetting is None


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """The rows of an atlas as a search for an alignment stores them, and that search."""
    folder = tmp_path_factory.mktemp("stored")
    source = Atlas(**ATLAS)
    split = SplitRows(0, 0.0, split="split", labels=("cell_type",), has_test=False)
    for shard in source.shards():
        write_part(str(folder), shard.key, split(read_tokens(source, EmbeddingTokenizer("cell_type"), shard).tokens))
    parts = compared_on(token_parts(str(folder), [shard.key for shard in source.shards()]), "pretrain")
    found = searched_job({"pretrain": ALIGNMENT}, str(folder), "validation_retrieval", None, {})
    run = {"recipe": {"config": found.given.recipe()}}
    plan = SimpleNamespace(weights=task_of(found.given).start.identity(), run=run)
    return found, Prepared(plan, parts, None, {}, StageResult()), source


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


@pytest.mark.parametrize(
    ("base", "space", "epochs"),
    [
        ({}, {"lr": {"uniform": [0.1, 1]}}, 2),
        ({}, {"epochs": {"randint": [2, 8]}}, 7),
        ({"steps": 45}, {"lr": {"uniform": [0.1, 1]}}, 45 / 8),  # 8 batches an epoch
        ({"steps": 45}, {"batch_size": {"choice": [20, 84, 0]}}, 22.5),  # 2 batches; of 0 rows there is none
        ({"steps": 32, "warmup": 3}, {"steps": {"choice": [10, 24]}}, 4),  # 10 are fewer than such a warmup
        ({}, {"steps": {"randint": [10, 91]}, "batch_size": {"choice": [20, 40]}}, 90 / 4),
    ],
)
def test_the_longest_trial_bounds_the_rungs_in_epochs_or_in_steps(stored, base, space, epochs, tmp_path):
    _, prepared, _ = stored
    assert sum(prepared.parts.count(TRAIN)) == 170
    found = searched("pretrain", ALIGNMENT | base, "validation_retrieval", output=str(tmp_path))
    assert found.longest(prepared, parse_space(space)) == epochs


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
