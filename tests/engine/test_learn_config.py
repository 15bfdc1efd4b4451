"""Jobs that learn: what is taken where nothing is asked for, which columns and tokens follow, and what is refused."""

import json

import pytest
from pydantic import ValidationError

from xfm.core.errors import Refused
from xfm.engine.learn import all_columns, plan_learning, shared_tokens, task_of
from xfm.engine.learn_config import FinetuneConfig, LearnConfig, PretrainConfig
from xfm.engine.learning_job import run_learning
from xfm.engine.settings import UsageError, build, parse
from xfm.training.config import settings_of

ATLAS = {"kind": "atlas", "n_cells": 40, "n_types": 4, "n_donors": 4, "dim": 16}
ALIGNMENT = {"kind": "alignment", "hidden": 16, "heads": 2, "latents": 3}
FUSION = {"kind": "fusion", "hidden": 16, "heads": 2, "latents": 3}


def finetuning(**more) -> FinetuneConfig:
    given = {
        "source": {"kind": "hub_text", "path": "reviews"},
        "backbone": {"kind": "hf_text", "checkpoint": "encoder"},
        "output": "out",
    }
    return FinetuneConfig.model_validate(given | more)


def donors(**more) -> FinetuneConfig:
    given = {"source": ATLAS, "backbone": FUSION, "task": {"kind": "adversarial"}, "split": "split"}
    return finetuning(**given | more)


def pretraining(**more) -> PretrainConfig:
    task = ALIGNMENT | more.pop("task", {})
    return PretrainConfig.model_validate({"source": ATLAS, "task": task, "split": "split", "output": "out"} | more)


def test_fine_tuning_is_classification_that_keeps_the_best_epoch_unless_asked_otherwise():
    assert finetuning().task.kind == finetuning(task={"mode": "head"}).task.kind == "classification"
    settings = settings_of(finetuning(), 8530)
    assert (settings.steps, settings.checkpoint_every, settings.warmup) == (13_300, 133, 8)
    assert (settings.lr, settings.weight_decay, settings.schedule, settings.patience) == (2e-5, 0.01, "linear", 3)
    assert settings.watch == "validation_f1"
    assert settings_of(finetuning(watch="loss"), 8530).watch == "-validation_loss"
    assert (finetuning().validation, finetuning().test) == (0.2, 0.2)


def test_errors_are_better_lower_with_a_minus_or_without():
    for asked in ("mae", "-mae", "-validation_mae"):
        assert settings_of(finetuning(task={"kind": "regression"}, watch=asked), 8530).watch == "-validation_mae"


def test_where_nothing_is_watched_the_last_weights_are_kept_and_nothing_ends_training():
    for task in ({"kind": "classification"}, {"kind": "regression"}, {"kind": "adversarial", "adversary": False}):
        settings = settings_of(finetuning(task=task, watch=None), 8530)
        assert (settings.watch, settings.patience) == ("", None)


def test_pretraining_takes_six_epochs_at_a_higher_rate_and_keeps_the_last_weights():
    config = pretraining()
    settings = settings_of(config, 6400)
    assert (settings.steps, settings.warmup, settings.checkpoint_every) == (600, 60, 60)
    assert (settings.lr, settings.weight_decay, settings.schedule) == (1e-4, 0.0, "cosine")
    assert (settings.watch, settings.patience) == ("", None)
    assert (config.validation, config.test, config.batch_tokens) == (0.1, 0.0, 65536)
    assert settings_of(pretraining(lr=0.5), 6400).lr == 0.5


def test_epochs_that_are_asked_for_replace_the_steps_that_a_task_would_take():
    task = {"kind": "class_prompts", "shots": 4}
    assert finetuning(task=task).steps == 4 * 500
    assert finetuning(task=task, epochs=3).steps is None
    assert finetuning(task=task, steps=7, epochs=3).steps == 7


def columns(config: LearnConfig) -> tuple[str, ...]:
    return all_columns(config, task_of(config))


def test_the_columns_of_task_split_group_and_network_are_asked_for_once():
    assert columns(finetuning(split="split", group="label")) == ("label", "split")
    assert columns(pretraining(group="donor_id")) == ("cell_type", "split", "donor_id")
    assert columns(donors()) == ("donor_id", "sex", "dataset_id", "split", "cell_type")


def tokens(config: LearnConfig) -> str:
    return shared_tokens(config, plan_learning(config))


def test_tokens_do_not_depend_on_how_is_trained():
    own = tokens(pretraining())
    for same in ({"lr": 0.5, "epochs": 3, "seed": 1}, {"task": {"hidden": 32, "loss": "margin"}}, {"output": "other"}):
        assert own == tokens(pretraining(**same)), same
    for other in ({"split_seed": 1}, {"task": {"text_column": "donor_id"}}, {"group": "donor_id"}, {"validation": 0.5}):
        assert own != tokens(pretraining(**other)), other


def test_fine_tunings_of_other_sizes_share_tokens_but_not_with_pretraining():
    """Where a network says which of its fields tokenising takes; a column of words is one."""
    own = tokens(donors())
    assert own == tokens(donors(lr=1.0, seed=5, epochs=1, task={"kind": "adversarial", "reversal": "reference"}))
    assert own == tokens(donors(backbone=FUSION | {"hidden": 64, "latents": 4}))
    assert own != tokens(donors(backbone=FUSION | {"text_column": "dataset_id"}))
    assert own != tokens(pretraining())


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"carve": True}, "--carve goes with --split"),
        ({"forgetting": ATLAS}, "--forgetting: --task.kind classification does not measure it"),
        ({"watch": "beauty"}, "--watch beauty: --task.kind classification measures f1, accuracy, balanced_accuracy"),
        ({"watch": "-r2", "task": {"kind": "regression"}}, "--watch -r2: the higher is better; write --watch r2"),
        ({"watch": "-f1"}, "--watch -f1: the higher is better; write --watch f1"),
    ],
)
def test_what_does_not_go_together_is_refused(more, said):
    with pytest.raises(ValidationError, match=said):
        finetuning(**more)


@pytest.mark.parametrize("task", ["classification", 3, ["classification"]])
def test_a_task_that_is_no_section_is_a_mistake_of_usage(task):
    settings = {"source": ATLAS, "backbone": FUSION, "output": "out", "task": task}
    with pytest.raises(UsageError, match="--task"):
        build(FinetuneConfig, settings, "jobs/finetune.py")


def test_each_job_takes_its_own_tasks():
    with pytest.raises(UsageError, match=r"--task\.kind: unknown 'classification'; known: alignment, contrastive, "):
        build(PretrainConfig, {"source": ATLAS, "output": "o", "task": {"kind": "classification"}}, "jobs/pretrain.py")
    with pytest.raises(UsageError, match=r"--task\.kind: is required"):
        build(PretrainConfig, {"source": ATLAS, "output": "o"}, "jobs/pretrain.py")


PRETRAIN = ["--source.kind", "atlas", "--task.kind", "alignment", "--split", "split", "--output", "out"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--validation_fraction", "0.1"], "unknown argument --validation_fraction. It is --validation now."),
        (["--validation-cells", "9"], "unknown argument --validation-cells. It is --validation_rows now."),
        (["--warmup", "1000"], "--warmup 1000 is counted in epochs, not in steps, and there are only 6"),
        (["--checkpoint_every", "500"], "--checkpoint_every 500 is counted in epochs, not in steps"),
    ],
)
def test_settings_of_older_pretraining_are_refused_by_name(words, said):
    with pytest.raises(UsageError, match=said):
        parse(PretrainConfig, PRETRAIN + words, {}, "jobs/pretrain.py")


def test_older_names_in_a_settings_file_are_refused_with_the_new_ones(tmp_path):
    (tmp_path / "old.yaml").write_text("validation_fraction: 0.1\n")
    with pytest.raises(UsageError, match="It is --validation now"):
        parse(PretrainConfig, [*PRETRAIN, "--config", str(tmp_path / "old.yaml")], {}, "jobs/pretrain.py")


def test_an_output_of_older_settings_is_refused_with_the_fields_that_are_others(tmp_path):
    """Its numbers counted steps where those of now count epochs: it must not be continued."""
    config = pretraining(output=str(tmp_path))
    recipe = plan_learning(config).run["recipe"]
    old = {name: value for name, value in recipe["config"].items() if name not in ("validation", "validation_rows")}
    old |= {"validation_fraction": 0.1, "validation_cells": 2000, "warmup": 1000, "checkpoint_every": 500}
    (tmp_path / "run.json").write_text(json.dumps({"recipe": recipe | {"config": old}, "fingerprint": "f"}))
    with pytest.raises(Refused) as refused:
        run_learning(config)
    assert refused.value.code == "OTHER_RUN"
    for said in (
        "config.validation_fraction: 0.1 -> null", "config.validation: null -> 0.1", "config.warmup: 1000 -> null",
        "config.validation_cells: 2000 -> null", "config.checkpoint_every: 500 -> null",
    ):  # fmt: skip
        assert said in refused.value.message
    assert not (tmp_path / "tokens").exists()
