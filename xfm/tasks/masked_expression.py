"""Masked expression and generation by cell prompt: the objectives scGPT is pretrained with.

Of each cell some genes are hidden: their value enters as the mask value. Three predictions of the hidden bins are
trained, each by its squared error (Cui et al., Nature Methods 2024):

    masked   the expression decoder on the hidden gene's own last state
    cell     the MVC decoder: from the cell's vector and the gene's embedding alone
    prompt   a second pass with the cell vector of the first, detached, as the input at <cls>

Every token attends to every other. That is the attention of the published fine-tuning code, and of the backbone that
reads the weights; the paper's pretraining instead shows hidden genes nothing of each other.
"""

# Shapes: B cells, T tokens.

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xfm.core.tokenizer import Tokens
from xfm.models.scgpt.network import ScGPTBackbone
from xfm.nn.losses import squared_error

OBJECTIVES = ("masked", "cell", "prompt")
Switches = tuple[bool, bool, bool]  # which of them are on


@dataclass(frozen=True, slots=True)
class Objectives:
    """How much each objective counts, and when.

    Attributes:
        weights: in the order of OBJECTIVES; 0 leaves one out.
        prompt_after: steps without the objective "prompt".
    """

    weights: tuple[float, float, float]
    prompt_after: int

    def is_on(self, step: int) -> Switches:
        """Which objectives are trained after `step` steps."""
        masked, cell, prompt = (weight > 0 for weight in self.weights)
        return masked, cell, prompt and step >= self.prompt_after


@dataclass(frozen=True, slots=True)
class Example:
    """Cells with some genes hidden.

    Attributes:
        tokens: values at hidden positions are the model's mask value.
        target: (B, T) float32 true bins; only hidden positions mean anything.
        hidden: (B, T) bool.
        rows: (B,) place of each cell in the batch it was cut from.
    """

    tokens: Tokens
    target: Tensor
    hidden: Tensor
    rows: NDArray[np.int64]

    def to(self, device: str) -> "Example":
        """The same on another device."""
        return Example(self.tokens.to(device), self.target.to(device), self.hidden.to(device), self.rows)


def objective_errors(network: ScGPTBackbone, example: Example, is_on: Switches) -> Tensor:
    """(3, B) summed squared errors over hidden positions, in the order of OBJECTIVES; 0 where one is not on."""
    tokens, target, hidden = example.tokens, example.target, example.hidden
    last = _last(network.layers(tokens))
    cell = network.cell(last, tokens)
    errors = [target.new_zeros(len(target)) for _ in OBJECTIVES]
    if is_on[0]:
        errors[0] = squared_error(network.decode_expression(last, tokens), target, hidden)
    if is_on[1]:
        errors[1] = squared_error(network.mvc(cell, tokens), target, hidden)
    if is_on[2]:
        again = _last(network.layers(tokens, cell_prompt=cell.detach()))
        errors[2] = squared_error(network.decode_expression(again, tokens), target, hidden)
    return torch.stack(errors)


def _last(states: Iterable[Tensor]) -> Tensor:
    """Without holding the others."""
    state = None
    for state in states:  # noqa: B007
        pass
    assert state is not None
    return state
