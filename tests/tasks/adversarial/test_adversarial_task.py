"""Donor classification as a job asks for it: its own way of training, columns, tokens that are shared, refusals."""

from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from tests.tasks.adversarial.donors import Effects, atlas, memory
from xfm.core.errors import Refused
from xfm.engine.learn import all_columns, task_of
from xfm.engine.learn_config import FinetuneConfig
from xfm.judging.labelled import labelled_rows
from xfm.tasks.adversarial.task import columns_of
from xfm.training.config import settings_of
from xfm.training.tokens import embedding_width

ROWS = 3200


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch, tmp_path):
    """Labels that are encoded are kept in OUTPUT."""
    monkeypatch.chdir(tmp_path)


def config(backbone=None, task=None, **more):
    given = {
        "source": {"kind": "atlas"},
        "backbone": {"kind": "fusion"} | (backbone or {}),
        "task": {"kind": "adversarial"} | (task or {}),
        "split": "split",
        "output": "out",
    }
    return FinetuneConfig.model_validate(given | more)


def test_the_task_is_trained_its_own_way_unless_something_else_is_asked_for():
    settings = settings_of(config(task={"adversary": False}), ROWS)
    assert (settings.steps, settings.batch_size, settings.warmup, settings.patience) == (1000, 32, 50, 3)
    assert (settings.schedule, settings.weight_decay, settings.clip) == ("cosine", 0.01, 1.0)
    assert settings.watch == "validation_f1"
    assert settings_of(config(epochs=2, batch_size=16), ROWS).steps == 400


def test_against_an_adversary_the_last_step_is_kept_unless_something_is_watched():
    """A score of the classes says nothing of what was unlearned."""
    kept = {
        "default": settings_of(config(), ROWS),
        "watch": settings_of(config(watch="f1"), ROWS),
        "patience": settings_of(config(patience=2), ROWS),
        "without": settings_of(config(task={"adversary": False}), ROWS),
        "nothing to unlearn": settings_of(config(task={"attribute": None}), ROWS),
    }
    assert {name: (each.watch, each.patience) for name, each in kept.items()} == {
        "default": ("", None),
        "watch": ("validation_f1", None),
        "patience": ("validation_f1", 2),
        "without": ("validation_f1", 3),
        "nothing to unlearn": ("validation_f1", 3),
    }


def test_the_width_of_an_embedding_is_that_of_one_row():
    rows = memory(atlas(Effects(), dim=12))
    parts = rows.parts()
    rows.column = lambda name: pytest.fail(f"the whole column {name} was read")
    assert embedding_width(rows, parts) == 12


def columns(config):
    return all_columns(config, task_of(config))


def test_columns_of_task_and_network_are_carried_along_by_themselves():
    assert columns(config()) == ("donor_id", "sex", "dataset_id", "split", "cell_type")
    other = config({"text_column": "tissue"}, {"attribute": None, "within": None, "label": "study"})
    assert columns(other) == ("study", "split", "tissue")


def test_every_task_says_what_its_network_is_called():
    assert config().task.mode == "adversarial"
    assert config(task={"adversary": False}).task.mode == "plain"
    assert config(task={"kind": "class_prompts"}).task.mode == "lora"
    assert config(task={"kind": "classification"}).task.mode == "full"


def test_an_adversary_of_a_concatenation_is_refused_with_what_to_do():
    with pytest.raises(Refused, match=r"--no-task\.adversary") as refused:
        task_of(config({"design": "concat"}))
    assert refused.value.code == "NO_FUSED_FEATURES"
    task_of(config({"design": "concat"}, {"adversary": False}))


def test_another_network_is_refused():
    with pytest.raises(Refused, match=r"--backbone\.kind fusion") as refused:
        task_of(config({"kind": "hf_text", "checkpoint": "encoder"}))
    assert refused.value.code == "NO_FUSION"


def test_an_adversary_needs_two_classes_to_tell():
    rows = memory(atlas(Effects()))
    labelled = labelled_rows(rows, "donor_id", None, seed=0, resamples=10, also_read=config().task.columns)
    found = columns_of(config().task, config().backbone, labelled)
    assert (found.text, found.attribute, found.attributes) == ("cell_type", "sex", ("female", "male"))
    assert len(found.classes) == 6
    first, sex, *others = labelled.judged.labels
    only = replace(sex, codes=np.where(labelled.judged.split.parts == 0, 0, sex.codes))
    labels = replace(labelled, judged=replace(labelled.judged, labels=(first, only, *others)))
    with pytest.raises(Refused, match="two known classes among training rows, found female"):
        columns_of(config().task, config().backbone, labels)
    plain = config(task={"adversary": False})
    assert columns_of(plain.task, plain.backbone, labels).attributes == ("female", "male")


@pytest.mark.parametrize("field", ["lambda_adv", "adv_weight", "adversary_lr"])
def test_strengths_are_positive(field):
    with pytest.raises(ValidationError):
        config(task={field: 0.0})
