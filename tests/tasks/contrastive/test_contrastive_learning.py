"""CLIP learning from pictures and captions, without Ray."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.picture_examples import BUILDING, Memory, fresh, memory, pictures, workers
from tests.rounding import assert_same_but_rounding
from xfm.tasks.contrastive.learner import ContrastiveLearner, ContrastiveRecipe
from xfm.tasks.contrastive.settings import contrastive_losses
from xfm.training.group import Group
from xfm.training.settings import Settings
from xfm.training.trainer import Trainer

BATCH = 10
SETTINGS = Settings(
    steps=60, batch_size=BATCH, lr=5e-3, warmup=3, schedule="cosine", weight_decay=0.0, clip=1.0, log_every=20,
    checkpoint_every=60, max_seconds=None, seed=0,
)  # fmt: skip


def learner(group: Group | None = None, *, rows: Memory | None = None, batch_tokens: int = 10_000, seed: int = 0):
    rows, start = rows or memory(), fresh(seed)
    recipe = ContrastiveRecipe(start, rows.parts(), "caption", "colour", BATCH, batch_tokens, 100, 0, start.identity())
    with BUILDING:
        return ContrastiveLearner(recipe, rows, group or Group(), "cpu")


def gradient(of: ContrastiveLearner, step: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Of a step: this worker's part of the gradient, and its summed losses."""
    of.network.zero_grad()
    examples = of.examples(step)
    counts = of.group.sum(torch.tensor(of.counts(examples, step), dtype=torch.float64))
    losses = of.backward(examples, counts, step)
    return torch.cat([p.grad.flatten() for p in of.network.parameters()]), losses


def test_the_gradient_is_that_of_the_loss_of_the_whole_batch():
    of = learner()
    found, losses = gradient(of)
    of.network.zero_grad()
    (pairs,) = of.examples(0)
    images, texts = of.network.images(pairs.images), of.network.texts(pairs.texts.ids, pairs.texts.is_token)
    loss = contrastive_losses(images, texts, pairs.captions, of.network.scale).mean()
    loss.backward()
    assert_same_but_rounding(found, torch.cat([p.grad.flatten() for p in of.network.parameters()]), 256)
    assert_same_but_rounding(losses, loss.detach().double()[None] * BATCH, 16)


@pytest.mark.parametrize("world", [2, 3])
def test_gradients_of_workers_add_up_to_that_of_one(world: int):
    """Ten pairs are 5 + 5 or 4 + 3 + 3: every image meets all ten captions."""
    whole, loss = gradient(learner(), 1)
    parts = workers(world, lambda group: gradient(learner(group), 1))
    assert_same_but_rounding(sum(part for part, _ in parts), whole, 256)
    assert_same_but_rounding(sum(part for _, part in parts), loss, 16)


def test_a_batch_that_takes_several_passes_has_the_same_gradient():
    """13 tokens a pair: 40 a pass are three pairs."""
    of = learner(batch_tokens=40)
    assert [len(pairs.captions) for pairs in of.examples(0)] == [3, 3, 3, 1]
    assert_same_but_rounding(gradient(of)[0], gradient(learner())[0], 256)


def test_validation_does_not_depend_on_the_number_of_workers():
    alone = learner()
    assert alone.held == 9
    for validated in workers(2, lambda group: learner(group).validate(0)):
        assert validated == pytest.approx(alone.validate(0), rel=1e-5)


def test_more_workers_than_validation_pairs_do_no_harm():
    rows = Memory([pictures(range(13), [0] * 12 + [1])])
    found = workers(2, lambda group: learner(group, rows=rows).validate(0))
    assert found[0] == pytest.approx(learner(rows=rows).validate(0))
    assert found[0]["validation_retrieval"] == 1.0, "one caption can only be found"


def test_images_learn_to_find_a_caption_of_their_colour():
    of = learner()
    trained = Trainer(of, SETTINGS).run(lambda: None)
    outcome = trained.outcome
    assert outcome["images"] == 9
    assert outcome["captions"] == 6
    assert outcome["loss"] < outcome["loss_before"] - 0.3
    assert outcome["hits"].mean() > max(0.8, outcome["hits_before"].mean())
    # Nine pictures with colours 0..3: of validation numbers 16-19 and 38-42.
    share = np.array([2, 2, 3, 2]) / 9
    assert outcome["chance"] == pytest.approx((share**2).sum())
    losses = [record["loss"] for record in trained.history]
    assert losses[-1] < losses[0]


def test_before_training_the_outcome_is_that_of_the_untrained_network():
    of = learner()
    outcome = of.outcome(0)
    assert np.array_equal(outcome["hits"], outcome["hits_before"])
    assert outcome["loss"] == outcome["loss_before"] == pytest.approx(of.validate(0)["validation_loss"])


def test_without_validation_pairs_there_is_nothing_to_say():
    of = learner(rows=Memory([pictures(range(12), [0] * 12)]))
    assert of.validate(0) == {}
    assert of.outcome(0) == {"images": 0}


def test_the_scale_of_similarities_is_limited_while_training():
    of = learner()
    of.network.network.logit_scale.data.fill_(6.0)
    gradient(of)
    assert of.network.scale.item() == pytest.approx(100.0)


def test_the_recipe_refuses_another_copy_of_the_network():
    from xfm.core.errors import EnvironmentProblem

    start = fresh()
    recipe = ContrastiveRecipe(start, memory().parts(), "caption", "colour", BATCH, 1000, 10, 0, start.identity())
    with pytest.raises(EnvironmentProblem):
        replace(recipe, identity={"initial": "another"}).build(Group(), "cpu")
