"""Every variant of the network against a float64 forward written from the formulas."""

import logging

import numpy as np
import pytest
import scgpt_in_numpy as truth
import torch
from scgpt_cases import small_network, small_tokens

from tests.rounding import assert_same_but_rounding

CLOSE = {"rtol": 0, "atol": 5e-5}  # float32 against float64 over three layers of values of order 1 to 10


def numpy_states(network, tokens, **options):
    weights = truth.float64(network.state_dict())
    prompts = options.pop("prompts", None)
    by_cell = []
    for row, length in enumerate(tokens.is_token.sum(1).tolist()):
        label = None if tokens.condition is None else int(tokens.condition[row])
        prompt = None if prompts is None else prompts[row].double().numpy()
        ids, values = tokens.ids[row, :length].numpy(), tokens.values[row, :length].double().numpy()
        heads = network.architecture.n_heads
        by_cell.append(truth.states(ids, values, weights, heads, label=label, prompt=prompt, **options))
    return by_cell


def assert_states_agree(network, tokens, expected, **arguments):
    with torch.inference_mode():
        states = list(network.layers(tokens, **arguments))
    assert len(states) == network.n_layers + 1
    for row, cell in enumerate(expected):
        for layer, state in enumerate(cell):
            np.testing.assert_allclose(states[layer][row, : len(state)].numpy(), state, **CLOSE)
    assert all(torch.isfinite(state).all() for state in states)


@pytest.mark.parametrize("layout", ["packed", "padded"])
@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"value_style": "category", "n_value_bins": 10},
        {"value_style": "scaling"},
        {"input_norm": "bn"},
        {"pre_norm": True},
        {"n_layers": 1, "dim": 16, "n_heads": 4, "ffn": 8},
    ],
    ids=["continuous", "category", "scaling", "bn", "pre_norm", "other size"],
)
def test_states_follow_the_formulas(parts, layout):
    network, tokens = small_network(**parts), small_tokens()
    network.layout = layout
    expected = numpy_states(network, tokens, pre_norm=network.architecture.pre_norm)
    assert_states_agree(network, tokens, expected)


def test_each_cell_is_normalised_by_the_statistics_of_its_own_label():
    network, tokens = small_network(input_norm="dsbn", n_labels=3), small_tokens(condition=[2, 0, 2])
    assert_states_agree(network, tokens, numpy_states(network, tokens))


def test_cells_without_a_label_are_normalised_by_the_average_and_a_warning_says_so(caplog):
    network, tokens = small_network(input_norm="dsbn", n_labels=3), small_tokens()
    with caplog.at_level(logging.WARNING):
        assert_states_agree(network, tokens, numpy_states(network, tokens))
        list(network.layers(tokens))
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "average" in caplog.text


def test_masked_and_padding_values_reach_the_network_unclamped_but_large_ones_are_cut():
    network, tokens = small_network(), small_tokens()
    tokens.values[0, 1:5] = torch.tensor([-1.0, -2.0, 512.0, 10_000.0])
    assert_states_agree(network, tokens, numpy_states(network, tokens))
    tokens.values[0, 4] = 512.0
    assert_states_agree(network, tokens, numpy_states(network, tokens))


def test_a_value_without_a_category_is_refused():
    network, tokens = small_network(value_style="category", n_value_bins=10), small_tokens()
    tokens.values[1, 1] = -1.0
    with pytest.raises(ValueError, match=r"values run from -1 to 9; .* 0\.\.9"):
        next(network.layers(tokens))


def test_a_cell_prompt_takes_the_place_of_the_first_input_embedding():
    network, tokens = small_network(), small_tokens()
    prompts = torch.randn(3, 24, generator=torch.Generator().manual_seed(3))
    expected = numpy_states(network, tokens, prompts=prompts)
    assert_states_agree(network, tokens, expected, cell_prompt=prompts)


@pytest.mark.parametrize("explicit_zero", [False, True])
@pytest.mark.parametrize("labels", [None, [1, 0, 3]])
def test_heads_follow_the_formulas_with_and_without_labels_and_heads_of_zeros(labels, explicit_zero):
    parts = {} if labels is None else {"n_labels": 4, "label_encoder": True}
    network = small_network(mvc="inner product", explicit_zero=explicit_zero, n_classes=5, **parts)
    tokens, w = small_tokens(condition=labels), truth.float64(network.state_dict())
    with torch.inference_mode():
        last = list(network.layers(tokens))[-1]
        cell = network.cell(last, tokens)
        outputs = [network.decode_expression(last, tokens), network.mvc(cell, tokens), network.classify(cell)]
    for row, states in enumerate(numpy_states(network, small_tokens())):
        ids, final = tokens.ids[row, : len(states[0])].numpy(), states[-1]
        wide, wide_cell = final, final[0]
        if labels is not None:
            vector = truth.label_vector(w, labels[row])
            wide = np.concatenate([final, np.tile(vector, (len(final), 1))], axis=1)
            wide_cell = np.concatenate([final[0], vector])
        expected = [truth.expression(wide, w), truth.mvc(wide_cell, ids, w, "inner"), truth.classes(final[0], w)]
        for output, value in zip(outputs, expected, strict=True):
            np.testing.assert_allclose(output[row, : len(value)].numpy(), value, **CLOSE)


@pytest.mark.parametrize("style", ["concat query", "sum query", "inner product, detach"])
def test_other_mvc_styles_follow_their_formulas(style):
    network, tokens = small_network(mvc=style), small_tokens()
    w = truth.float64(network.state_dict())
    cell = torch.randn(3, 24, generator=torch.Generator().manual_seed(4))
    predicted = network.mvc(cell, tokens)
    for row, length in enumerate((9, 4, 7)):
        expected = truth.mvc(cell[row].double().numpy(), tokens.ids[row, :length].numpy(), w, style)
        np.testing.assert_allclose(predicted[row, :length].detach().numpy(), expected, **CLOSE)
    predicted.sum().backward()
    assert (network.encoder.embedding.weight.grad is None) == style.endswith("detach")


@pytest.mark.parametrize("n_layers_cls", [1, 2, 4])
def test_classification_heads_of_other_depths_follow_the_formula(n_layers_cls):
    network = small_network(n_classes=3, n_layers_cls=n_layers_cls)
    cell = torch.randn(2, 24, generator=torch.Generator().manual_seed(5))
    expected = truth.classes(cell.double().numpy(), truth.float64(network.state_dict()))
    np.testing.assert_allclose(network.classify(cell).detach().numpy(), expected, **CLOSE)


def test_pooled_cells_average_real_tokens_only():
    tokens, state = small_tokens(), torch.randn(3, 9, 24, generator=torch.Generator().manual_seed(6))
    for row, length in enumerate((9, 4, 7)):
        mean = state[row, :length].mean(0)
        weighted = (state[row, :length] * tokens.values[row, :length, None]).sum(0)
        for style, raw in (("cls", state[row, 0]), ("avg-pool", mean), ("w-pool", weighted)):
            network = small_network(cell_style=style)
            found = network.cell(state, tokens)[row]
            assert_same_but_rounding(found / found.norm(), raw / raw.norm(), 32)
    torch.testing.assert_close(small_network(cell_style="avg-pool").cell(state, tokens)[1], state[1, :4].mean(0))


def test_what_a_network_lacks_is_said():
    network, tokens = small_network(decoder=False), small_tokens()
    state = torch.zeros(3, 9, 24)
    with pytest.raises(ValueError, match="no expression decoder"):
        network.decode_expression(state, tokens)
    with pytest.raises(ValueError, match="no MVC decoder"):
        network.mvc(state[:, 0], tokens)
    with pytest.raises(ValueError, match="no classification head"):
        network.classify(state[:, 0])
    with pytest.raises(ValueError, match=r"batch label for every cell \(0 to 1\)"):
        small_network(n_labels=2, label_encoder=True).decode_expression(state, tokens)
