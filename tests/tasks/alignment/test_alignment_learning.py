"""Embeddings and words drawn together, without Ray."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import torch

from tests.picture_examples import BUILDING, Memory, workers
from tests.rounding import UNIT, assert_same_but_rounding
from xfm.core.errors import EnvironmentProblem, Refused
from xfm.core.schema import EMBEDDING, PART, ROW_ID
from xfm.models.fusion.config import Fusion
from xfm.models.fusion.text import HashedText
from xfm.sources.cells import vector_array
from xfm.tasks.alignment.learner import AlignmentLearner, AlignmentRecipe
from xfm.tasks.alignment.report import draw
from xfm.tasks.alignment.settings import Alignment, margin_losses, supcon_infonce
from xfm.training.group import Group
from xfm.training.learner import evaluating
from xfm.training.settings import Settings
from xfm.training.trainer import Trainer

TYPES = ("astrocyte", "ependymal cell", "microglial cell", "neuron")
DIM, BATCH = 6, 12
FAR = 20.0  # a margin beyond the distances of random weights: wrong pairs count from the first step
SIZES = {"hidden": 16, "heads": 2, "latents": 3, "projection": 8, "text": HashedText(dim=12)}
SETTINGS = Settings(
    steps=150, batch_size=BATCH, lr=5e-3, warmup=3, schedule="cosine", weight_decay=0.0, clip=1.0, log_every=20,
    checkpoint_every=150, max_seconds=None, seed=0,
)  # fmt: skip


def cells(types: list[int], parts: list[int], seed: int) -> pa.Table:
    """Type t lies at its own corner, with a noise of half the distance; three quarters are of the first two types."""
    rng = np.random.default_rng(seed)
    vectors = (2 * np.eye(len(TYPES), DIM)[types] + rng.normal(size=(len(types), DIM)) / 2).astype(np.float32)
    return pa.table(
        {
            ROW_ID: [f"cell-{seed}-{i}" for i in range(len(types))],
            EMBEDDING: vector_array(vectors),
            "cell_type": [TYPES[t] for t in types],
            "donor_id": [f"donor-{i % 3}" for i in range(len(types))],
            PART: pa.array(parts, pa.int8()),
        }
    )


def memory(types: tuple[int, ...] = (0, 0, 0, 1, 1, 1, 2, 3)) -> Memory:
    """Two parts of 80 and 50 cells: 100 to train on, 15 for validation, 15 to test."""
    sizes = ((60, 10, 10), (40, 5, 5))
    return Memory(
        [
            cells([types[i % len(types)] for i in range(sum(each))], np.repeat([0, 1, 2], each).tolist(), seed)
            for seed, each in enumerate(sizes)
        ]
    )


def recipe_of(rows: Memory, *, labels: tuple[str, ...] = TYPES, group: str | None = None, **task) -> AlignmentRecipe:
    asked = Alignment(**({"dropout": 0.0, "margin": FAR} | SIZES | task))
    start = Fusion(text=asked.text, **dict(asked.sizes))
    bank = start.bank_of(labels, None)
    return AlignmentRecipe(start, bank, DIM, rows.parts(), asked, BATCH, 100, 0, start.identity(), group)


def learner(group: Group | None = None, *, rows: Memory | None = None, **task) -> AlignmentLearner:
    rows = rows or memory()
    with BUILDING:
        return AlignmentLearner(recipe_of(rows, **task), rows, group or Group(), "cpu")


def gradient(of: AlignmentLearner, step: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Of a step: this worker's part of the gradient, and its summed losses over what they are a mean of."""
    of.network.train()
    of.network.zero_grad()
    examples = of.examples(step)
    counts = of.group.sum(torch.tensor(of.counts(examples, step), dtype=torch.float64))
    losses = of.backward(examples, counts, step) / counts
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in of.network.parameters() if p.requires_grad]
    return torch.cat([grad.flatten() for grad in grads]), losses


def test_the_gradient_is_that_of_the_loss_of_the_whole_batch():
    of = learner()
    found, losses = gradient(of)
    network, batch = of.network, of.examples(0)
    network.zero_grad()
    present, places = torch.unique(batch.types, return_inverse=True)
    halves = supcon_infonce(network.genes(batch.genes), network.labels(present), places, network.log_temperature.exp())
    loss = sum(halves) / 2
    loss.backward()
    whole = torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None and p.requires_grad])
    assert_same_but_rounding(found, whole, 256)
    assert losses.tolist() == pytest.approx([loss.item(), *(half.item() for half in halves)], rel=16 * UNIT)
    assert network.log_temperature.grad.item() != 0.0


@pytest.mark.parametrize("loss", ["supcon_infonce", "margin"])
@pytest.mark.parametrize("world", [2, 5])
def test_gradients_of_workers_add_up_to_that_of_one(world: int, loss: str):
    """Twelve cells are 6 + 6, or 3 + 3 + 2 + 2 + 2; of five workers one has no type to encode."""
    whole, total = gradient(learner(loss=loss), 1)
    parts = workers(world, lambda group: gradient(learner(group, loss=loss), 1))
    assert_same_but_rounding(sum(part for part, _ in parts), whole, 256)
    torch.testing.assert_close(sum(part for _, part in parts), total, rtol=32 * UNIT, atol=0)


@pytest.mark.parametrize("loss", ["supcon_infonce", "margin"])
def test_two_workers_take_the_steps_of_one(loss: str):
    """By their losses: Adam makes whole steps of gradients that are 0 but for rounding, as those of a key's bias."""
    few = replace(SETTINGS, steps=3, checkpoint_every=3, warmup=0, log_every=1)

    def losses(group: Group) -> list[float]:
        trained = Trainer(learner(group, loss=loss), few, group=group).run(lambda: None)
        return [record["loss"] for record in trained.history]

    alone = losses(Group())
    assert alone[1] != pytest.approx(alone[0], abs=1e-3)
    for together in workers(2, losses):
        assert together == pytest.approx(alone, rel=256 * UNIT)


def test_every_cell_of_the_margin_loss_meets_its_own_words_and_another_types():
    of = learner(loss="margin")
    batch = of.examples(0)
    assert batch.others is not None
    assert (batch.others != batch.types).all()
    own, wrong = (of.network.distances(batch.genes, codes) for codes in (batch.types, batch.others))
    right, not_right = margin_losses(own, torch.ones(BATCH), FAR), margin_losses(wrong, torch.zeros(BATCH), FAR)
    assert not_right.min() > 0
    expected = [(right.mean() + not_right.mean()).item() / 2, right.mean().item(), not_right.mean().item()]
    assert gradient(of)[1].tolist() == pytest.approx(expected, rel=1e-5)


def test_what_a_loss_does_not_reach_is_left_as_it_was():
    """Weight decay would wear it away."""
    for loss, frozen in (("supcon_infonce", "fusion.cross."), ("margin", "fusion.project_")):
        names = {name for name, p in learner(loss=loss).network.named_parameters() if not p.requires_grad}
        assert any(name.startswith(frozen) for name in names)
        assert ("log_temperature" in names) == (loss == "margin")


def test_validation_does_not_depend_on_the_number_of_workers():
    for loss in ("supcon_infonce", "margin"):
        alone = learner(loss=loss).validate(0)
        for validated in workers(2, lambda group: learner(group, loss=loss).validate(0)):  # noqa: B023
            assert validated == pytest.approx(alone, rel=1e-5)


def test_dropout_is_on_again_after_a_validation():
    """The public code leaves its network in evaluation mode from the first validation on."""
    of = learner(dropout=0.5)
    of.network.train()
    of.validate(0)
    assert of.network.training
    assert of.network.fusion.dropout.training
    genes = of.examples(0).genes
    assert not torch.equal(of.network.genes(genes), of.network.genes(genes))


def test_cells_learn_to_find_the_words_for_their_type():
    of = learner()
    started = of.network.log_temperature.item()
    trained = Trainer(of, SETTINGS).run(lambda: None)
    outcome = trained.outcome
    assert (outcome["part"], outcome["cells"]) == ("test", 15)
    assert outcome["hits"].mean() >= 0.9
    assert outcome["hits_before"].mean() < 0.7
    assert outcome["scores"]["loss"] < outcome["scores_before"]["loss"] / 2
    assert outcome["scores"]["alignment"] < outcome["scores_before"]["alignment"]
    assert trained.weights["log_temperature"].item() != pytest.approx(started, abs=1e-4)
    assert outcome["training_types"].sum() == 100
    # Drawn before and after: the same cells, at most twenty of a type.
    assert np.bincount(outcome["shared"]["types"]).max() <= 20
    assert len(outcome["drawn"]["columns"]["donor_id"]) == 15


def test_pairs_by_the_margin_come_apart_in_the_fused_vectors():
    of = learner(loss="margin", sampler="uniform", margin=1.0)
    outcome = Trainer(of, replace(SETTINGS, lr=2e-3, steps=150, checkpoint_every=150)).run(lambda: None).outcome
    assert outcome["scores"]["loss"] < outcome["scores_before"]["loss"] / 2
    assert outcome["scores"]["fused_margin_accuracy"] >= 0.9


def test_before_training_the_outcome_is_that_of_the_untrained_network():
    of = learner()
    outcome = of.outcome(0)
    assert np.array_equal(outcome["hits"], outcome["hits_before"])
    assert outcome["scores"] == outcome["scores_before"]


def test_without_test_cells_those_of_validation_are_judged_and_without_either_none():
    rows = Memory([cells([0, 1] * 8, [0] * 10 + [1] * 6, 0)])
    of = learner(rows=rows)
    outcome = of.outcome(0)
    assert (outcome["part"], outcome["cells"]) == ("validation", 6)
    validated = of.validate(0)
    assert outcome["scores"] == {name.removeprefix("validation_"): value for name, value in validated.items()}
    of = learner(rows=Memory([cells([0, 1] * 8, [0] * 16, 0)]))
    assert of.validate(0) == {}
    assert of.outcome(0)["cells"] == 0


def test_one_type_alone_has_nothing_to_be_told_from():
    of = learner(rows=memory((2,)), labels=TYPES[2:3])
    found, losses = gradient(of)
    usual, losses_of_many = gradient(learner())
    assert losses.tolist() == pytest.approx([0.0, 0.0, 0.0], abs=16 * UNIT * losses_of_many.max().item())
    assert found.abs().max() < 256 * UNIT * usual.abs().max()
    assert "validation_margin_accuracy" not in of.validate(0)


def test_groups_are_known_where_a_column_is_named():
    groups = learner(group=None).outcome(0)["groups"]
    assert len(np.unique(groups)) == 15
    rows = memory()
    with BUILDING:
        of = AlignmentLearner(recipe_of(rows, group="donor_id"), rows, Group(), "cpu")
    assert len(np.unique(of.outcome(0)["groups"])) == 3


def test_cells_of_unknown_groups_stand_for_themselves():
    tables = [table.set_column(table.column_names.index("donor_id"), "donor_id",
                               pa.array(["d1", "d2", None, "unknown", "d2"] * (len(table) // 5)))
              for table in memory().tables]  # fmt: skip
    rows = Memory(tables)
    with BUILDING:
        of = AlignmentLearner(recipe_of(rows, group="donor_id"), rows, Group(), "cpu")
    groups = of.outcome(0)["groups"]  # of each five test cells one of d1, two of d2
    assert sorted(np.bincount(groups).tolist()) == [1] * 6 + [3, 6]


@pytest.mark.parametrize(("learned", "limit"), [(0.001, 0.01), (50.0, 1.0)])
def test_a_last_step_beyond_the_limits_of_the_temperature_is_not_judged_or_reported(learned, limit):
    of, within = learner(), learner()
    with torch.no_grad():
        of.network.log_temperature.fill_(np.log(learned))
        within.network.log_temperature.fill_(np.log(limit))
    assert of.network.temperature == of.outcome(0)["temperature"] == limit
    assert of.validate(0)["validation_loss"] == pytest.approx(within.validate(0)["validation_loss"], rel=1e-5)


def test_the_recipe_refuses_another_start_and_inputs_side_by_side():
    recipe = recipe_of(memory())
    with pytest.raises(EnvironmentProblem):
        replace(recipe, identity={"initial": "another"}).build(Group(), "cpu")
    with pytest.raises(Refused, match="side by side"):
        replace(recipe, start=Fusion(design="concat", text=SIZES["text"])).network("cpu")


def test_what_text_latents_take_from_each_word_is_shown_where_a_label_has_words(tmp_path):
    assert learner().outcome(0)["words"] is None
    of = learner(text=HashedText(dim=12, level="tokens"))
    found = of.outcome(0)
    words = found["words"]
    assert words["names"][0] == TYPES[0]
    for weights, length, name in zip(words["weights"], words["lengths"], words["names"], strict=True):
        assert length == len(name.split())
        np.testing.assert_allclose(weights[:, :length].sum(axis=1), 1, rtol=1e-5)
        assert not weights[:, length:].any()
    with evaluating(of.network):
        texts, held = of.network.texts[[0]], of.network.is_text[[0]]
        (again,) = of.network.fusion.resample_text(texts, held, need_weights=True)[1]
    np.testing.assert_allclose(words["weights"][0], again[0], rtol=1e-5)
    history = [{"step": 1.0, "epoch": 1.0, "lr": 0.1, "loss": 1.0}]
    names = [each.name for each in draw(SimpleNamespace(outcome=found, history=history), "random weights", tmp_path)]
    assert "word_attention" in names
