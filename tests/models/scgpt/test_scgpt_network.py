"""Laws of the network: a cell does not depend on its batch, and the whole can be trained."""

import copy
from dataclasses import replace

import pytest
import torch
from scgpt_cases import make_tokens, small_network, small_tokens

from xfm.core.tokenizer import Tokens
from xfm.models.scgpt import network as network_module


def states_of(network, tokens, **arguments):
    with torch.inference_mode():
        return list(network.layers(tokens, **arguments))


def rows(tokens: Tokens, chosen: list[int], columns: int) -> Tokens:
    return Tokens(
        tokens.ids[chosen, :columns], tokens.values[chosen, :columns],
        tokens.is_token[chosen, :columns], tokens.is_content[chosen, :columns],
    )  # fmt: skip


def test_packed_and_padded_layouts_agree(tiny, tokens):
    padded = copy.copy(tiny)
    padded.layout = "padded"
    tokens = rows(tokens, list(range(16)), tokens.ids.shape[1])
    for one, other in zip(states_of(tiny, tokens), states_of(padded, tokens), strict=True):
        torch.testing.assert_close(one[tokens.is_token], other[tokens.is_token], rtol=0, atol=2e-5)


@pytest.mark.parametrize("layout", ["packed", "padded"])
@pytest.mark.parametrize("group_tokens", [1, 300, 10**6])
def test_a_cell_alone_equals_itself_among_others(tiny, tokens, layout, group_tokens, monkeypatch):
    monkeypatch.setattr(network_module, "GROUP_TOKENS", group_tokens)
    network = copy.copy(tiny)
    network.layout = layout
    batch = states_of(network, rows(tokens, list(range(8)), tokens.ids.shape[1]))
    for cell in (0, 5):
        length = int(tokens.is_token[cell].sum())
        alone = states_of(network, rows(tokens, [cell], length))
        for one, other in zip(alone, batch, strict=True):
            torch.testing.assert_close(one[0], other[cell, :length], rtol=0, atol=2e-5)


def test_what_stands_in_padding_changes_nothing():
    network, tokens = small_network(), small_tokens()
    spoiled = replace(tokens, ids=tokens.ids.clone(), values=tokens.values.clone())
    spoiled.ids[~tokens.is_token], spoiled.values[~tokens.is_token] = 3, 1e6
    for one, other in zip(states_of(network, tokens), states_of(network, spoiled), strict=True):
        torch.testing.assert_close(one[tokens.is_token], other[tokens.is_token], rtol=0, atol=0)


def test_gene_order_changes_nothing_for_cls():
    network, tokens = small_network(), small_tokens((9,))
    order = [0, 4, 2, 8, 6, 1, 3, 5, 7]
    shuffled = make_tokens(tokens.ids[:, order], tokens.values[:, order], [9])
    for one, other in zip(states_of(network, tokens), states_of(network, shuffled), strict=True):
        torch.testing.assert_close(one[:, 0], other[:, 0], rtol=0, atol=1e-5)


def test_layers_are_computed_as_they_are_asked_for():
    network, calls = small_network(), []
    for block in network.transformer_encoder["layers"]:
        block.register_forward_hook(lambda *_: calls.append(1))
    iterator = network.layers(small_tokens((4,)))
    next(iterator)
    assert len(calls) == 0
    next(iterator)
    assert len(calls) == 1


def test_a_state_is_not_changed_by_later_layers():
    network, tokens = small_network(), small_tokens((6, 6))
    with torch.inference_mode():
        iterator = network.layers(tokens)
        first = next(iterator)
        kept = first.clone()
        list(iterator)
    assert torch.equal(first, kept)


@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_states_stay_in_single_precision_under_a_callers_autocast(layout):
    network, tokens = small_network(), small_tokens()
    network.layout = layout
    exact = states_of(network, tokens)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = states_of(network, tokens)
    assert {state.dtype for state in rough} == {torch.float32}
    # bfloat16 keeps 8 bits: each of some ten products a block is off by up to 0.4 %.
    assert 1e-4 < (exact[-1] - rough[-1])[tokens.is_token].abs().max() < 0.2


def test_a_row_without_tokens_is_refused():
    tokens = small_tokens((4, 3))
    tokens.is_token[1] = False
    with pytest.raises(ValueError, match="row 1 of the batch holds no token"):
        next(small_network().layers(tokens))


@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_gradients_are_those_of_finite_differences(layout):
    network, tokens = small_network().double(), small_tokens()
    network.layout = layout
    tokens = replace(tokens, values=tokens.values.double())
    weight = network.transformer_encoder["layers"][0].linear1.weight

    def loss() -> torch.Tensor:
        state = list(network.layers(tokens))[-1]
        return (network.decode_expression(state, tokens)[tokens.is_content] ** 2).sum()

    loss().backward()
    analytic, step = weight.grad[3, 5].item(), 1e-6
    with torch.no_grad():
        weight[3, 5] += step
        up = loss().item()
        weight[3, 5] -= 2 * step
        down = loss().item()
    assert analytic == pytest.approx((up - down) / (2 * step), rel=1e-5)


def test_every_parameter_of_a_training_step_gets_a_gradient_and_the_loss_falls():
    torch.manual_seed(0)
    network, tokens = small_network(mvc="inner product", n_classes=2).train(), small_tokens()
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        state = list(network.layers(tokens))[-1]
        cell = network.cell(state, tokens)
        both = network.decode_expression(state, tokens), network.mvc(cell, tokens)
        loss = sum(((p - tokens.values)[tokens.is_content] ** 2).mean() for p in both)
        loss = loss + torch.nn.functional.cross_entropy(network.classify(cell), torch.tensor([0, 1, 0]))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert losses[-1] < 0.5 * losses[0]


def test_dropout_acts_in_training_only():
    network, tokens = small_network(), small_tokens()
    torch.manual_seed(0)
    network.train()
    assert not torch.equal(states_of(network, tokens)[-1], states_of(network, tokens)[-1])
    network.eval()
    assert torch.equal(states_of(network, tokens)[-1], states_of(network, tokens)[-1])


def test_domain_norm_learns_each_labels_statistics_from_real_tokens_alone():
    network = small_network(input_norm="dsbn", n_labels=2, value_style="scaling").train()
    tokens = small_tokens((9, 4, 7), condition=torch.tensor([1, 0, 1]))
    raw = network.encoder(tokens.ids) * tokens.values.unsqueeze(2)
    before = [bn.running_mean.clone() for bn in network.dsbn.bns]
    next(network.layers(tokens))
    for label, chosen in ((0, [1]), (1, [0, 2])):
        mean = raw[chosen][tokens.is_token[chosen]].mean(0)
        moved = 0.9 * before[label] + 0.1 * mean
        torch.testing.assert_close(network.dsbn.bns[label].running_mean, moved.detach(), rtol=0, atol=1e-5)
