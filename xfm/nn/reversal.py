"""Gradient reversal: what lies behind it learns to tell, what lies before it learns not to let it.

Ganin et al., "Domain-Adversarial Training of Neural Networks", JMLR 2016, section 4. The sign is turned here and only
here: the total loss *adds* the adversary's. Subtracting it as well turns the sign twice, so that the encoder helps the
adversary while the adversary climbs its own loss.
"""

import math
from typing import Any

import torch
from torch import Tensor


class _Reversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * gradients[0], None


def reverse_gradient(x: Tensor, strength: float) -> Tensor:
    """The same values; a gradient that comes back is multiplied by -strength."""
    turned: Tensor = _Reversal.apply(x, strength)  # type: ignore[no-untyped-call]
    return turned


def reversal_strength(progress: float, most: float) -> float:
    """How strongly to reverse after a share of all steps, `progress`: from 0 up to `most`, but for a ten-thousandth.

    most * (2 / (1 + exp(-10 progress)) - 1), section 5.2.2 of the paper: an adversary that knows nothing yet says
    nothing worth unlearning.
    """
    return most * (2 / (1 + math.exp(-10 * progress)) - 1)
