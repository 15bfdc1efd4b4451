"""Donor classification as a job asks for it: its own way of training, columns, tokens that are shared, refusals."""

from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError
from xfm.engine.finetune import settings_of
from xfm.engine.finetune_adversarial import adversarial_settings, check_backbone, columns_of, width_of
from xfm.engine.finetune_config import FinetuneConfig

from tests.tasks.adversarial.donors import Effects, atlas, memory
from xfm.core.errors import Refused
from xfm.judging.labelled import labelled_rows
from xfm.training.tokens import TokenParts

PARTS = TokenParts("somewhere", ("a",), ((3200, 400, 400),))


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
    settings = settings_of(config(task={"adversary": False}), PARTS)
    assert (settings.steps, settings.batch_size, settings.warmup, settings.patience) == (1000, 32, 50, 3)
    assert (settings.schedule, settings.weight_decay, settings.clip) == ("cosine", 0.01, 1.0)
    assert settings.watch == "validation_f1"
    assert settings_of(config(epochs=2, batch_size=16), PARTS).steps == 400


def test_against_an_adversary_the_last_step_is_kept_unless_something_is_watched():
    """A score of the classes says nothing of what was unlearned."""
    kept = {
        "default": adversarial_settings(config(), PARTS),
        "watch": adversarial_settings(config(watch="f1"), PARTS),
        "patience": adversarial_settings(config(patience=2), PARTS),
        "without": adversarial_settings(config(task={"adversary": False}), PARTS),
        "nothing to unlearn": adversarial_settings(config(task={"attribute": None}), PARTS),
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
    assert width_of(rows, parts) == 12


def test_columns_of_task_and_network_are_carried_along_by_themselves():
    assert config().columns == ("donor_id", "split", "sex", "dataset_id", "cell_type")
    other = config({"text_column": "tissue"}, {"attribute": None, "within": None, "label": "study"})
    assert other.columns == ("study", "split", "tissue")


def test_runs_of_other_sizes_share_stored_tokens():
    """Where a network says which of its fields tokenising takes; a column of words is one."""
    one, other, words = config(), config({"hidden": 64, "latents": 4}), config({"text_column": "tissue"})
    assert one.token_recipe() == other.token_recipe()
    assert one.reader.identity() == other.reader.identity()
    assert one.token_recipe() != words.token_recipe()
    assert one.token_recipe() == config(task={"reversal": "reference"}, lr=1.0).token_recipe()


def test_every_task_says_what_its_network_is_called():
    assert config().task.mode == "adversarial"
    assert config(task={"adversary": False}).task.mode == "plain"
    assert config(task={"kind": "class_prompts"}).task.mode == "lora"
    assert config(task={"kind": "classification"}).task.mode == "full"


def test_an_adversary_of_a_concatenation_is_refused_with_what_to_do():
    with pytest.raises(Refused, match=r"--no-task\.adversary") as refused:
        check_backbone(config({"design": "concat"}))
    assert refused.value.code == "NO_FUSED_FEATURES"
    check_backbone(config({"design": "concat"}, {"adversary": False}))


def test_another_network_is_refused():
    with pytest.raises(Refused, match=r"--backbone\.kind fusion") as refused:
        check_backbone(config({"kind": "hf_text", "checkpoint": "encoder"}))
    assert refused.value.code == "NO_FUSION"


def test_an_adversary_needs_two_classes_to_tell():
    rows = memory(atlas(Effects()))
    labelled = labelled_rows(rows, "donor_id", None, seed=0, resamples=10, also_read=config().task.columns)
    found = columns_of(config(), labelled)
    assert (found.text, found.attribute, found.attributes) == ("cell_type", "sex", ("female", "male"))
    assert len(found.classes) == 6
    first, sex, *others = labelled.judged.labels
    only = replace(sex, codes=np.where(labelled.judged.split.parts == 0, 0, sex.codes))
    labels = replace(labelled, judged=replace(labelled.judged, labels=(first, only, *others)))
    with pytest.raises(Refused, match="two known classes among training rows, found female"):
        columns_of(config(), labels)
    assert columns_of(config(task={"adversary": False}), labels).attributes == ("female", "male")


@pytest.mark.parametrize("field", ["lambda_adv", "adv_weight", "adversary_lr"])
def test_strengths_are_positive(field):
    with pytest.raises(ValidationError):
        config(task={field: 0.0})
