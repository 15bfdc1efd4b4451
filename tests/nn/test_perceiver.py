"""The resampler against its formulas, and what attention over one vector cannot say."""

import pytest
import torch

from tests.attention_formula import resample
from tests.rounding import UNIT, assert_same_but_rounding
from xfm.nn.perceiver import PerceiverResampler

# Shapes: B 5 rows, S 4 vectors of width 6, N 3 latents of width 8.


@pytest.fixture
def inputs():
    return torch.randn(5, 4, 6, generator=torch.Generator().manual_seed(1))


def resampler(**more):
    torch.manual_seed(0)
    module = PerceiverResampler(6, 8, 3, 2, **more)
    for parameter in module.parameters():  # fresh norms and biases are ones and zeros
        parameter.data.add_(torch.randn_like(parameter) * 0.3)
    return module.eval()


@pytest.mark.parametrize("layers", [1, 3])
def test_it_computes_what_the_formulas_say(inputs, layers):
    module = resampler(layers=layers)
    latents, weights = module(inputs, need_weights=True)
    assert len(weights) == layers
    for row, x in enumerate(inputs.double().numpy()):
        expected, attended = resample(module, x)
        assert_same_but_rounding(latents[row], expected, 128)
        assert_same_but_rounding(weights[-1][row], attended, 64)
    assert module(inputs)[1] == []
    assert_same_but_rounding(module(inputs)[0], latents, 128)


def test_over_one_vector_every_weight_is_one_and_every_latent_is_given_the_same(inputs):
    module = resampler()
    one = inputs[:, :1]
    _, (weights,) = module(one, need_weights=True)
    assert weights.shape == (5, 3, 1)
    assert (weights == 1).all()
    given, _ = module.blocks[0].attention(module.latents.expand(5, -1, -1), module.inputs(one), module.inputs(one))
    torch.testing.assert_close(given, given[:, :1].expand_as(given))
    torch.testing.assert_close(module(one)[0], module(inputs[:, 0])[0], rtol=0, atol=0)


def test_over_several_vectors_weights_are_shares_that_differ_between_latents(inputs):
    _, (weights,) = resampler()(inputs, need_weights=True)
    torch.testing.assert_close(weights.sum(-1), torch.ones(5, 3))
    assert (weights[:, 0] - weights[:, 1]).abs().max() > 0.01


def test_padding_is_not_seen(inputs):
    module = resampler(layers=2)
    held = torch.tensor([[True] * 4, [True, True, False, False], [True, False, False, False], [True] * 4, [True] * 4])
    latents, weights = module(inputs, held, need_weights=True)
    assert all((block[~held[:, None].expand_as(block)] == 0).all() for block in weights)
    torch.testing.assert_close(module(inputs.masked_fill(~held[..., None], 37.0), held)[0], module(inputs, held)[0])
    for row, x in enumerate(inputs.double().numpy()):
        assert_same_but_rounding(latents[row], resample(module, x, held[row].numpy())[0], 128)
    assert_same_but_rounding(latents[1:2], module(inputs[1:2, :2])[0], 128)


def test_dropout_acts_in_training_only(inputs):
    module = resampler(dropout=0.5)
    assert torch.equal(module(inputs)[0], module(inputs)[0])
    module.train()
    assert not torch.equal(module(inputs)[0], module(inputs)[0])


def test_every_parameter_learns_but_what_chooses_where_there_is_no_choice(inputs):
    def gradients(x):
        """Of what chooses (weights of queries and keys), and of all else."""
        module = resampler()
        (module(x)[0] * torch.randn(5, 3, 8, generator=torch.Generator().manual_seed(2))).sum().backward()
        of = {name: parameter.grad for name, parameter in module.named_parameters()}
        assert all(gradient is not None for gradient in of.values())
        chosen, of["said"] = of.pop("blocks.0.attention.in_proj_weight").split([16, 8])
        del of["blocks.0.attention.in_proj_bias"]  # a key's bias never learns: it adds the same to every score
        return chosen, of

    chosen, others = gradients(inputs)
    # Every gradient here is of order 1; one that is only the rounding of such numbers is not learning.
    assert all(gradient.abs().max() > 1e-2 for gradient in (chosen, *others.values()))
    chosen, others = gradients(inputs[:, 0])
    assert all(gradient.abs().max() > 1e-2 for gradient in others.values())
    # With one weight, 1, the softmax's gradient is g - g, the two by different sums of `width` terms of the size of g:
    # what is left is their rounding, 8 units of float32's last place at most, summed again over 5 rows and 3 latents.
    assert chosen.abs().max() < 15 * 8 * UNIT * others["said"].abs().max()
