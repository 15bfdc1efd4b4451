"""How a pretraining job is trained, from what was asked for."""

import pytest

from xfm.engine.pretrain import settings_of
from xfm.engine.training_config import TrainingConfig


@pytest.mark.parametrize(
    ("asked", "taken"), [({}, 10), ({"warmup": 3}, 3), ({"warmup": 50}, 50), ({"warmup": 500}, 100)]
)
def test_a_warmup_that_was_asked_for_is_kept_and_the_default_takes_a_tenth(asked, taken):
    assert settings_of(TrainingConfig(output="runs/x", steps=100, **asked), rows=64).warmup == taken


def test_a_batch_is_no_larger_than_the_rows():
    settings = settings_of(TrainingConfig(output="runs/x", batch_size=64, epochs=3), rows=20)
    assert (settings.batch_size, settings.steps) == (20, 3)
