"""The sign of the adversary's gradient."""

import math

import pytest
import torch

from xfm.nn.reversal import reversal_strength, reverse_gradient


def gradients(strength):
    """Of an encoder and of an adversary behind it: with the reversal, and without."""
    torch.manual_seed(0)
    encoder, adversary = torch.nn.Linear(3, 4), torch.nn.Linear(4, 1)
    x, wanted = torch.randn(6, 3), torch.tensor([0.0, 1, 0, 1, 1, 0])
    found = []
    for turn in (lambda h: reverse_gradient(h, strength), lambda h: h):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(adversary(turn(encoder(x)))[:, 0], wanted)
        found.append((torch.autograd.grad(loss, list(encoder.parameters()), retain_graph=True),
                      torch.autograd.grad(loss, list(adversary.parameters())), loss))  # fmt: skip
    return found


@pytest.mark.parametrize("strength", [1.0, 0.25])
def test_the_encoder_is_pushed_the_other_way_and_the_adversary_as_ever(strength):
    (encoder, adversary, loss), (plain_encoder, plain_adversary, plain_loss) = gradients(strength)
    torch.testing.assert_close(loss, plain_loss, rtol=0, atol=0)
    torch.testing.assert_close(adversary, plain_adversary, rtol=0, atol=0)
    for turned, plain in zip(encoder, plain_encoder, strict=True):
        assert plain.abs().max() > 1e-3
        torch.testing.assert_close(turned, -strength * plain)


def test_at_strength_zero_the_encoder_hears_nothing():
    (encoder, adversary, _), _ = gradients(0.0)
    assert all((gradient == 0).all() for gradient in encoder)
    assert all((gradient != 0).any() for gradient in adversary)


def test_values_pass_unchanged():
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(1))
    assert torch.equal(reverse_gradient(x, 3.0), x)


def test_the_strength_grows_from_nothing_to_the_most():
    # 2 / (1 + e^-5) - 1 = (1 - e^-5) / (1 + e^-5) = tanh(2.5)
    assert reversal_strength(0.0, 0.3) == 0.0
    assert reversal_strength(0.5, 0.3) == pytest.approx(0.3 * math.tanh(2.5))
    assert reversal_strength(0.1, 1.0) == pytest.approx(0.46211716)
    assert reversal_strength(1.0, 0.3) == pytest.approx(0.3, rel=1e-4)
    assert reversal_strength(1.0, 0.3) < 0.3
