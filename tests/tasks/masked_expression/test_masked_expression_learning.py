"""Pretraining scGPT without Ray, on twelve cells whose bins follow from cell and gene."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from pydantic import ValidationError

from tests.rounding import assert_same_but_rounding
from xfm.core.errors import Refused
from xfm.core.schema import INPUT_IDS, ROW_ID, VALUES
from xfm.models.scgpt.checkpoint import write_checkpoint
from xfm.models.scgpt.config import ScGPT
from xfm.models.scgpt.fresh import FreshScGPT
from xfm.models.scgpt.settings import Architecture
from xfm.tasks.masked_expression.learner import MaskedExpressionLearner, MaskedExpressionRecipe, network_to_train
from xfm.tasks.masked_expression.masker import Masker
from xfm.tasks.masked_expression.settings import MaskedExpression, Objectives, objective_errors
from xfm.tasks.masked_expression.validation import gene_means
from xfm.training.group import Group
from xfm.training.settings import Settings
from xfm.training.state import load_training, save_training
from xfm.training.tokens import TokenParts
from xfm.training.trainer import Trainer

GENES = 20
TOKENS = (*(f"G{i}" for i in range(GENES)), "<pad>", "<cls>", "<eoc>")
PAD, CLS = GENES, GENES + 1
SETTINGS = Settings(
    steps=6, batch_size=4, lr=1e-2, warmup=0, schedule="constant", weight_decay=0.0, clip=1.0,
    log_every=2, checkpoint_every=3, max_seconds=None, seed=3,
)  # fmt: skip


class Memory:
    """Parts in memory."""

    def __init__(self, parts: Sequence[pa.Table]) -> None:
        self.parts = parts

    def take(self, parts: np.ndarray, rows: np.ndarray) -> pa.Table:
        return pa.concat_tables([self.parts[i].take(np.sort(rows[parts == i])) for i in np.unique(parts)])


def start(dropout: float = 0.0) -> FreshScGPT:
    sizes = {"n_layers": 2, "n_heads": 2, "dim": 16, "ffn": 16, "n_bins": 11, "max_length": 64}
    architecture = Architecture(n_tokens=len(TOKENS), dropout=dropout, mvc="inner product", **sizes)
    return FreshScGPT(tokens=TOKENS, architecture=architecture)


def cells(numbers: Sequence[int]) -> pa.Table:
    """Cell i expresses 8 + i % 5 genes; a bin follows from cell and gene."""
    ids, values = [], []
    for i in numbers:
        genes = [(i * 7 + 3 * j) % GENES for j in range(8 + i % 5)]
        ids.append([CLS, *genes])
        values.append([-2, *(1 + (gene + i) % 10 for gene in genes)])
    columns = {
        ROW_ID: [f"cell{i}" for i in numbers],
        INPUT_IDS: pa.array(ids, pa.large_list(pa.uint16())),
        VALUES: pa.array(values, pa.large_list(pa.int16())),
    }
    return pa.table(columns)


def masker(fractions: tuple[float, ...] = (0.25, 0.5, 0.75), batch_tokens: int = 1000) -> Masker:
    return Masker(start().tokenizer(0), -1.0, fractions, batch_tokens, 3)


def learner(
    *,
    weights: tuple[float, float, float] = (1.0, 1.0, 1.0),
    prompt_after: int = 2,
    dropout: float = 0.0,
    group: Group | None = None,
    batch_tokens: int = 1000,
) -> MaskedExpressionLearner:
    recipe = MaskedExpressionRecipe(
        start(dropout), TokenParts("", ("a", "b"), ((7, 1, 0), (3, 1, 0))), Objectives(weights, prompt_after),
        (0.25, 0.5, 0.75), SETTINGS.batch_size, batch_tokens, 100, SETTINGS.seed, {},
    )  # fmt: skip
    store = Memory([cells(range(8)), cells(range(8, 12))])
    of = MaskedExpressionLearner(recipe, store, group or Group(), "cpu")
    of.network.train()
    return of


def trainer(settings: Settings = SETTINGS, **more) -> Trainer:
    return Trainer(learner(**more), settings)


def whole_batch(of: MaskedExpressionLearner, step: int):
    """Examples, and the counts of all workers where there is one."""
    examples = of.examples(step)
    return examples, torch.tensor(of.counts(examples, step), dtype=torch.float64)


def gradients(of: MaskedExpressionLearner) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in of.network.parameters() if p.grad is not None])


def test_hidden_values_never_enter_and_all_others_do():
    for example in masker().examples(cells(range(12)), "epoch 0"):
        values, hidden = example.tokens.values, example.hidden
        assert (values[hidden] == -1).all()
        assert torch.equal(values[~hidden], example.target[~hidden])
        assert not hidden[:, 0].any(), "<cls> is never hidden"
        assert not hidden[~example.tokens.is_token].any(), "padding is never hidden"


def test_a_prediction_does_not_depend_on_the_true_value_it_is_judged_by():
    network = start().build("cpu")
    (example,) = masker().examples(cells(range(4)), "epoch 0")
    shifted = replace(example, target=example.target + 1.0)
    with torch.inference_mode():
        one, other = (objective_errors(network, e, (True, True, True)) for e in (example, shifted))
        predicted = network.decode_expression([*network.layers(example.tokens)][-1], example.tokens)
    # (p - t)^2 and (p - t - 1)^2 with the same p: their difference is linear in p.
    expected = ((1 - 2 * (predicted - example.target)) * example.hidden).sum(1)
    torch.testing.assert_close(other[0] - one[0], expected, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize(("weights", "after"), [((0, 0, 0), 0), ((0, 0, 1), 1000)])
def test_weights_that_leave_nothing_to_learn_in_the_first_step_are_refused(weights, after):
    with pytest.raises(ValidationError, match="nothing is learned in the first step"):
        MaskedExpression(weights=weights, cell_prompt_after=after)
    assert MaskedExpression(weights=(0, 0, 1), cell_prompt_after=0).objectives.is_on(0) == (False, False, True)


def test_fractions_are_drawn_per_cell_and_masks_change_with_the_epoch():
    many = cells([i % 12 + 12 * (i // 12) for i in range(60)])
    (first,) = masker((0.25, 0.75), 10_000).examples(many, "epoch 0")
    (second,) = masker((0.25, 0.75), 10_000).examples(many, "epoch 1")
    shares = (first.hidden.sum(1) / first.tokens.is_content.sum(1)).numpy()
    assert (shares < 0.5).any()
    assert (shares > 0.5).any()
    assert not torch.equal(first.hidden, second.hidden)


def test_the_mask_of_a_cell_does_not_depend_on_its_batch():
    (alone,) = masker().examples(cells([5]), "epoch 2")
    together = masker(batch_tokens=30).examples(cells(range(12)), "epoch 2")
    hidden = {int(row): example.hidden[i] for example in together for i, row in enumerate(example.rows)}[5]
    assert torch.equal(hidden[: alone.hidden.shape[1]], alone.hidden[0])


def test_loss_falls_when_one_batch_is_repeated():
    run = trainer(prompt_after=0)
    examples, counts = whole_batch(run.learner, 0)
    losses = []
    for _ in range(120):
        run.optimizer.zero_grad()
        losses.append(run.learner.backward(examples, counts, 0).numpy() / counts.numpy())
        run.optimizer.step()
    assert (losses[-1] < 0.3 * losses[0]).all(), losses[-1] / losses[0]


def test_the_prompt_objective_trains_the_second_pass_only():
    """The <cls> embedding is input of the first pass alone: the second has the cell vector in its place."""
    for weights, reaches in (((0.0, 0.0, 1.0), False), ((1.0, 0.0, 0.0), True)):
        run = learner(weights=weights, prompt_after=0)
        run.backward(*whole_batch(run, 0), 0)
        gradient = run.network.encoder.embedding.weight.grad
        assert bool((gradient[CLS] != 0).any()) == reaches
        assert bool((gradient[:GENES] != 0).any())


def test_the_prompt_changes_what_is_predicted():
    network = start().build("cpu")
    (example,) = masker().examples(cells(range(4)), "epoch 0")
    with torch.inference_mode():
        errors = objective_errors(network, example, (True, False, True))
    assert errors[1].eq(0).all()
    assert (errors[0] - errors[2]).abs().min() > 1e-3


def test_two_workers_add_up_to_the_gradient_of_one():
    alone = learner(prompt_after=0)
    examples, counts = whole_batch(alone, 1)
    loss = alone.backward(examples, counts, 1)
    parts, losses = [], []
    for rank in range(2):
        group = Group()
        group.rank, group.world = rank, 2
        worker = learner(prompt_after=0, group=group)
        losses.append(worker.backward(worker.examples(1), counts, 1))
        parts.append(gradients(worker))
    assert_same_but_rounding(losses[0] + losses[1], loss, 16)
    assert_same_but_rounding(parts[0] + parts[1], gradients(alone), 256)


def test_a_step_in_several_passes_has_the_gradient_of_one_pass():
    results = []
    for batch_tokens in (1000, 20):
        run = learner(batch_tokens=batch_tokens)
        run.backward(*whole_batch(run, 0), 0)
        results.append(gradients(run))
    assert_same_but_rounding(results[0], results[1], 256)


def test_a_run_that_was_interrupted_ends_with_the_same_bits(tmp_path: Path):
    whole = trainer(dropout=0.3)
    whole.run(lambda: None)
    first = trainer(replace(SETTINGS, steps=3), dropout=0.3)
    first.run(lambda: save_training(first, tmp_path))
    second = trainer(dropout=0.3)
    load_training(second, tmp_path)
    assert second.progress.step == 3
    second.run(lambda: None)
    for name, tensor in whole.learner.network.state_dict().items():
        assert torch.equal(tensor, second.learner.network.state_dict()[name]), name

    def losses(run: Trainer) -> list[dict[str, float]]:
        return [{k: v for k, v in record.items() if k != "seconds"} for record in run.progress.history]

    assert losses(whole) == losses(second)
    assert [record["step"] for record in whole.progress.history] == [2, 3, 4, 6]
    assert "prompt" not in whole.progress.history[0]
    assert "prompt" in whole.progress.history[2]


def test_gene_means_are_means_of_bins():
    ids = pa.array([[CLS, 0, 1], [CLS, 0]], pa.large_list(pa.uint16()))
    values = pa.array([[-2, 3, 8], [-2, 5]], pa.large_list(pa.int16()))
    means = gene_means(pa.table({INPUT_IDS: ids, VALUES: values}), len(TOKENS))
    assert means[:2].tolist() == [4.0, 8.0]
    assert means[2] == pytest.approx(16 / 3), "a gene never seen gets the mean of all"


def test_scores_of_the_guesses_follow_from_the_masks():
    run = learner(prompt_after=100)
    scores = run.outcome(0)["scores"]
    assert scores.shape == (2, 6)
    assert np.isnan(scores[:, 3]).all(), "the prompt is not on yet"
    (example,) = run.validation.examples
    table = pa.concat_tables([cells(range(7)), cells(range(8, 11))])
    means = gene_means(table, len(TOKENS))
    for i, row in enumerate(example.rows):
        hidden = example.hidden[i].numpy()
        target, genes = example.target[i].numpy(), example.tokens.ids[i].numpy()
        shown = target[~hidden & example.tokens.is_content[i].numpy()].mean()
        assert scores[row, 0] == hidden.sum()
        assert scores[row, 4] == pytest.approx(((means[genes[hidden]] - target[hidden]) ** 2).sum())
        assert scores[row, 5] == pytest.approx(((shown - target[hidden]) ** 2).sum())


def test_training_goes_on_from_a_checkpoint_with_the_heads_it_lacks(tmp_path: Path):
    recipe = start()
    bare = recipe.model_copy(update={"architecture": recipe.architecture.model_copy(update={"mvc": "none"})})
    saved = bare.build("cpu")
    write_checkpoint(tmp_path / "checkpoint", saved, bare.vocabulary())
    network = network_to_train(ScGPT(checkpoint=str(tmp_path / "checkpoint")), "cpu", seed=0)
    for name, tensor in saved.state_dict().items():
        assert torch.equal(network.state_dict()[name], tensor), name
    (example,) = masker().examples(cells(range(4)), "epoch 0")
    assert objective_errors(network, example, (False, True, False))[1].isfinite().all()


def test_a_checkpoint_conditioned_on_batch_labels_is_refused():
    recipe = start()
    update = {"label_encoder": True, "n_labels": 2}
    labelled = recipe.model_copy(update={"architecture": recipe.architecture.model_copy(update=update)})
    with pytest.raises(Refused, match="2 batch labels"):
        network_to_train(labelled, "cpu", seed=0)
