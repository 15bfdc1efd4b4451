"""The losses of alignment against values by hand and against a second way to write them."""

import math

import pytest
import torch
from pydantic import ValidationError

from tests.rounding import UNIT
from xfm.tasks.alignment.settings import (
    Alignment,
    limit_temperature,
    margin_losses,
    pair_distances,
    supcon_gradients,
    supcon_infonce,
)


def test_the_margin_loss_has_the_values_of_the_hand_example():
    losses = margin_losses(torch.tensor([0.4, 0.4, 1.7]), torch.tensor([1, 0, 0]), 1.0)
    torch.testing.assert_close(losses, torch.tensor([0.08, 0.18, 0.0]))


def test_a_pair_must_be_labelled_and_a_tensor_will_do():
    distances = torch.tensor([0.4])
    with pytest.raises(TypeError):
        margin_losses(distances, margin=1.0)  # type: ignore[call-arg]
    # The public code asks `if not label`, which a tensor of several labels cannot answer.
    assert margin_losses(distances.expand(3), torch.tensor([True, False, True]), 1.0).tolist() == pytest.approx(
        [0.08, 0.18, 0.08]
    )


def test_equal_vectors_have_a_finite_gradient():
    vector = torch.ones(1, 4, requires_grad=True)
    margin_losses(pair_distances(vector, torch.ones(1, 4)), torch.tensor([0]), 1.0).sum().backward()
    assert vector.grad is not None
    assert vector.grad.isfinite().all()


def test_supcon_by_hand():
    """Two types, three cells, temperature 1, vectors on the axes: similarities are 0, 1 and -1."""
    genes = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    texts = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    e = math.e
    to_text = -math.log(e / (e + 1))  # each of the three cells: 1 for its type, 0 for the other
    first, second = -math.log(2 * e / (2 * e + 1)), -math.log(e / (e + 2))
    halves = supcon_infonce(genes, texts, torch.tensor([0, 0, 1]), 1.0)
    assert [half.item() for half in halves] == pytest.approx([to_text, (first + second) / 2], abs=8 * UNIT)


def test_cells_of_one_type_do_not_repel_each_other():
    """The gradient at a cell that is where its words are, with others of its type, points at no cell of its type."""
    texts = torch.eye(3)
    _, by_gene, _, _ = supcon_gradients(
        torch.eye(3)[[0, 0, 1, 2]], texts, torch.tensor([0, 0, 1, 2]), torch.tensor(math.log(0.07))
    )
    torch.testing.assert_close(by_gene[0], by_gene[1])
    assert by_gene.abs().max() < 1e-4


def test_a_batch_of_one_type_says_nothing():
    genes = torch.nn.functional.normalize(torch.randn(5, 4, generator=torch.Generator().manual_seed(0)))
    texts = genes[:1]
    halves, *gradients = supcon_gradients(genes, texts, torch.zeros(5, dtype=torch.int64), torch.tensor(-2.0))
    # What cancels are cosines times a scale of exp(2), and sums of their exponentials.
    rounding = 16 * UNIT * math.exp(2)
    assert halves.tolist() == pytest.approx([0.0, 0.0], abs=rounding)
    for gradient in gradients:
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=rounding, rtol=0)


def test_the_temperature_stays_within_its_limits():
    for started, ended in ((-9.0, 0.01), (3.0, 1.0), (math.log(0.07), 0.07)):
        log_temperature = torch.nn.Parameter(torch.tensor(started))
        limit_temperature(log_temperature)
        assert log_temperature.exp().item() == pytest.approx(ended)


def test_inputs_side_by_side_cannot_be_aligned():
    with pytest.raises(ValidationError, match="no space to align in"):
        Alignment(design="concat")
