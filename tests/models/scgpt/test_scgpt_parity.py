"""Against what the official package computed for 64 real cells."""

import numpy as np
import torch

ABSOLUTE = 1e-4  # the reference itself is float32; recomputed in float64 it moves by up to 9e-6


def collect(network, tokens):
    with torch.inference_mode():
        return list(network.layers(tokens))


def test_all_thirteen_states_at_cls_and_their_gene_mean_are_the_reference(tiny, tokens, reference):
    states = collect(tiny, tokens)
    assert len(states) == tiny.n_layers + 1 == 13
    weights = tokens.is_content.float()
    for layer, state in enumerate(states):
        np.testing.assert_allclose(state[:, 0].numpy(), reference["cls"][:, layer], rtol=0, atol=ABSOLUTE)
        mean = torch.einsum("bt,btd->bd", weights, state) / weights.sum(1, keepdim=True)
        np.testing.assert_allclose(mean.numpy(), reference["gene_mean"][:, layer], rtol=0, atol=ABSOLUTE)


def test_every_token_of_two_cells_is_the_reference_in_every_layer(tiny, tokens, reference):
    states = collect(tiny, tokens)
    for row, cell in enumerate(reference["hidden_full_cells"]):
        length = reference["lengths"][cell]
        for layer, state in enumerate(states):
            expected = reference["hidden_full"][row, layer, :length]
            np.testing.assert_allclose(state[cell, :length].numpy(), expected, rtol=0, atol=ABSOLUTE)


def test_a_layer_is_told_from_its_neighbours(tiny, tokens, reference):
    states = collect(tiny, tokens)
    for layer in range(12):
        off_by_one = np.sqrt(np.mean((states[layer][:, 0].numpy() - reference["cls"][:, layer + 1]) ** 2))
        assert off_by_one > 0.5


def test_cell_embedding_is_the_reference(tiny, tokens, reference):
    last = collect(tiny, tokens)[-1]
    raw = tiny.cell(last, tokens).numpy()
    unit = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    np.testing.assert_allclose(unit, reference["cell_embedding"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(raw, reference["cell_emb_raw"], rtol=0, atol=ABSOLUTE)


def test_decoder_on_every_layer_and_mvc_and_classes_are_the_reference(tiny, tokens, reference):
    states = collect(tiny, tokens)
    real = tokens.is_token.numpy()
    with torch.inference_mode():
        for layer, state in enumerate(states):
            predicted = tiny.decode_expression(state, tokens).numpy()
            expected = reference["expr_pred"][:, layer]
            np.testing.assert_allclose(predicted[real], expected[real], rtol=0, atol=ABSOLUTE)
        cell = tiny.cell(states[-1], tokens)
        mvc, classes = tiny.mvc(cell, tokens).numpy(), tiny.classify(cell).numpy()
    np.testing.assert_allclose(mvc[real], reference["mvc_output"][real], rtol=0, atol=ABSOLUTE)
    np.testing.assert_allclose(classes, reference["cls_output"], rtol=0, atol=ABSOLUTE)
