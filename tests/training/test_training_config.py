"""How long and how fast a training goes, by hand, and which settings are refused."""

import pytest
from pydantic import ValidationError

from xfm.core.errors import Refused
from xfm.core.task import FROM_SCRATCH
from xfm.engine.settings import UsageError, parse
from xfm.training.config import TrainingConfig, settings_of

ROWS = 8530  # 133 batches of 64, and 18 rows


def test_8530_rows_in_batches_of_64_are_133_steps_an_epoch():
    settings = settings_of(TrainingConfig(), ROWS)
    assert (settings.steps, settings.checkpoint_every, settings.warmup) == (13_300, 133, 8)
    assert (settings.lr, settings.weight_decay, settings.patience) == (2e-5, 0.01, None)
    half = settings_of(TrainingConfig(epochs=0.5, checkpoint_every=0.25), ROWS)
    assert (half.steps, half.checkpoint_every) == (66, 33)
    assert settings_of(TrainingConfig(steps=7), ROWS).steps == 7


def test_the_learning_rate_falls_on_a_line_to_nothing_at_the_last_step():
    settings = settings_of(TrainingConfig(epochs=1, warmup=0), ROWS)
    assert [settings.lr_at(step, 0.0) for step in (0, 133)] == [2e-5, 0.0]
    assert settings.lr_at(50, 0.0) - settings.lr_at(51, 0.0) == pytest.approx(2e-5 / 133)


def test_fewer_rows_than_a_batch_are_one_step_of_that_many():
    settings = settings_of(TrainingConfig(epochs=2), 10)
    assert (settings.steps, settings.batch_size) == (2, 10)


# 640 rows are 10 steps an epoch. A warmup of at most an epoch may be asked of any training, but ends with it.
@pytest.mark.parametrize(
    ("steps", "warmup", "taken"), [(100, None, 10), (100, 0.3, 3), (100, 5, 50), (4, 1, 4), (50_000, None, 1000)]
)
def test_a_warmup_that_was_asked_for_is_kept_and_null_takes_a_tenth(steps, warmup, taken):
    assert settings_of(TrainingConfig(steps=steps, warmup=warmup), 640).warmup == taken


@pytest.mark.parametrize(("steps", "every", "taken"), [(100, None, 10), (3, None, 1), (9000, None, 500), (50, 2, 20)])
def test_checkpoints_lie_epochs_apart_and_null_takes_a_tenth(steps, every, taken):
    assert settings_of(TrainingConfig(steps=steps, checkpoint_every=every), 640).checkpoint_every == taken


def test_warmup_and_checkpoints_that_were_meant_in_steps_are_refused():
    for name, asked in (("warmup", 1000), ("checkpoint_every", 500)):
        with pytest.raises(ValidationError, match=f"--{name} {asked} is counted in epochs, not in steps, .* only 6"):
            TrainingConfig(**(FROM_SCRATCH | {name: asked}))
        # With --steps it takes the rows to tell how many epochs there are: here ten.
        config = TrainingConfig(steps=100, **{name: asked})
        with pytest.raises(Refused, match=f"BAD_SETTINGS: --{name} {asked} is counted in epochs, .* only 10$"):
            settings_of(config, 640)
    assert settings_of(TrainingConfig(epochs=0.5, warmup=1, checkpoint_every=1), 640).steps == 5


def test_names_that_settings_had_are_answered_with_those_they_have():
    for old, new in (("validation_fraction", "validation"), ("validation-cells", "validation_rows")):
        with pytest.raises(UsageError, match=f"unknown argument --{old}. It is --{new} now. See"):
            parse(TrainingConfig, [f"--{old}", "0.2"], {}, "jobs/pretrain.py")


@pytest.mark.parametrize(
    ("asked", "watched"),
    [
        (None, ""),
        ("f1", "validation_f1"),
        ("validation_f1", "validation_f1"),
        ("loss", "-validation_loss"),
        ("-loss", "-validation_loss"),
        ("validation_loss", "-validation_loss"),
        ("-validation_modality_gap", "-validation_modality_gap"),
    ],
)
def test_what_is_watched_is_measured_on_validation_rows_and_a_loss_is_better_lower(asked, watched):
    assert settings_of(TrainingConfig(watch=asked), ROWS).watch == watched


def test_what_is_watched_decides_which_weights_are_kept():
    words = ["--watch=-validation_loss", "--patience", "2", "--steps", "10"]
    settings = settings_of(parse(TrainingConfig, words, {}, "jobs/x.py"), 64)
    assert (settings.watch, settings.patience) == ("-validation_loss", 2)
    assert settings.merit({"step": 1, "validation_loss": 0.25}) == -0.25


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"patience": 2}, "--patience needs --watch"),
        ({"carve": True}, "--carve goes with --split"),
        ({"validation": 0.5, "test": 0.5}, "--validation 0.5 and --test 0.5 leave no row to train on"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings, said):
    with pytest.raises(ValidationError, match=said):
        TrainingConfig(**settings)


def test_shares_are_free_where_the_data_come_split():
    assert TrainingConfig(split="split", validation=0.5, test=0.5).split == "split"
