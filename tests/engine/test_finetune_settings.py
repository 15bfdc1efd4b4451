"""How long and how fast a fine-tuning goes, by hand, and what its config refuses."""

import pytest
from pydantic import ValidationError
from xfm.engine.finetune import settings_of
from xfm.engine.finetune_config import FinetuneConfig

from xfm.training.tokens import TokenParts

PARTS = TokenParts("somewhere", ("a", "b"), ((5000, 600, 600), (3530, 466, 466)))


def config(**more):
    given = {
        "source": {"kind": "hub_text", "path": "reviews"},
        "backbone": {"kind": "hf_text", "checkpoint": "encoder"},
        "output": "out",
    }
    return FinetuneConfig.model_validate(given | more)


def test_8530_rows_in_batches_of_64_are_133_steps_an_epoch():
    settings = settings_of(config(), PARTS)
    assert (settings.steps, settings.checkpoint_every, settings.warmup) == (13_300, 133, 8)
    assert (settings.lr, settings.weight_decay, settings.patience) == (2e-5, 0.01, 3)
    assert settings.watch == "validation_f1"
    assert settings_of(config(watch="loss"), PARTS).watch == "-validation_loss"
    half = settings_of(config(epochs=0.5, checkpoint_every=0.25), PARTS)
    assert (half.steps, half.checkpoint_every) == (66, 33)


def test_the_learning_rate_falls_on_a_line_to_nothing_at_the_last_step():
    settings = settings_of(config(epochs=1, warmup=0), PARTS)
    assert [settings.lr_at(step, 0.0) for step in (0, 133)] == [2e-5, 0.0]
    assert settings.lr_at(50, 0.0) - settings.lr_at(51, 0.0) == pytest.approx(2e-5 / 133)


def test_fewer_rows_than_a_batch_are_one_step_of_that_many():
    settings = settings_of(config(epochs=2), TokenParts("somewhere", ("a",), ((10, 2, 2),)))
    assert (settings.steps, settings.batch_size) == (2, 10)


def test_the_columns_of_label_split_and_group_are_asked_for_once():
    assert config(split="split", group="label").columns == ("label", "split")


def test_tokens_do_not_depend_on_how_is_trained():
    assert config().token_recipe() == config(lr=1.0, seed=5, epochs=1, task={"mode": "head"}).token_recipe()
    assert config().token_recipe() != config(split_seed=1).token_recipe()


def test_carving_needs_a_given_split():
    with pytest.raises(ValidationError, match="--carve goes with --split"):
        config(carve=True)
