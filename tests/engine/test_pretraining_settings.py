"""How a pretraining job is trained, from what was asked for."""

import pytest
from pydantic import ValidationError
from xfm.engine.pretrain import settings_of
from xfm.engine.training_config import TrainingConfig

from xfm.engine.settings import parse


@pytest.mark.parametrize(
    ("asked", "taken"), [({}, 10), ({"warmup": 3}, 3), ({"warmup": 50}, 50), ({"warmup": 500}, 100)]
)
def test_a_warmup_that_was_asked_for_is_kept_and_the_default_takes_a_tenth(asked, taken):
    assert settings_of(TrainingConfig(output="runs/x", steps=100, **asked), rows=64).warmup == taken


def test_a_batch_is_no_larger_than_the_rows():
    settings = settings_of(TrainingConfig(output="runs/x", batch_size=64, epochs=3), rows=20)
    assert (settings.batch_size, settings.steps) == (20, 3)


def test_what_is_watched_decides_which_weights_are_kept():
    assert settings_of(TrainingConfig(output="runs/x", steps=10), rows=64).watch == ""
    words = ["--watch=-validation_loss", "--patience", "2", "--output", "runs/x", "--steps", "10"]
    settings = settings_of(parse(TrainingConfig, words, {}, "jobs/x.py"), rows=64)
    assert (settings.watch, settings.patience) == ("-validation_loss", 2)
    assert settings.merit({"step": 1, "validation_loss": 0.25}) == -0.25


@pytest.mark.parametrize(
    ("word", "watched"),
    [("loss", "-validation_loss"), ("mae", "-validation_mae"), ("-mae", "-validation_mae"), ("r2", "validation_r2"),
     ("own_score", "validation_own_score"), ("-own_score", "-validation_own_score")],
)  # fmt: skip
def test_of_errors_the_lowest_is_best_with_or_without_a_minus(word, watched):
    assert TrainingConfig(output="runs/x", watch=word).watched == watched


def test_patience_without_anything_to_watch_is_refused():
    with pytest.raises(ValidationError, match="--watch"):
        TrainingConfig(output="runs/x", patience=2)
