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
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator

from xfm.core.task import TaskSettings
from xfm.core.tokenizer import Tokens

if TYPE_CHECKING:
    from torch import Tensor

    from xfm.models.scgpt.network import ScGPTBackbone

OBJECTIVES = ("masked", "cell", "prompt")
Switches = tuple[bool, bool, bool]  # which of them are on
Share = Annotated[float, Field(gt=0, lt=1)]


class MaskedExpression(TaskSettings):
    """scGPT on cells: hidden genes, and generation by cell prompt."""

    task: ClassVar[str] = "xfm.tasks.masked_expression.task:MaskedExpressionTask"
    starts_from: ClassVar[Literal["backbone", "task"]] = "task"

    kind: Literal["masked_expression"] = "masked_expression"

    init: str | None = None
    """Checkpoint to start from (DIR or hf://OWNER/NAME), with its own vocabulary and sizes. Without: from scratch."""

    vocab: str | None = None
    """vocab.json for training from scratch; by default the symbols of the source's gene table."""

    layers: PositiveInt = 12
    """Transformer blocks; like the next five used only from scratch."""

    dim: PositiveInt = 512
    """Width of a state."""

    heads: PositiveInt = 8
    """Attention heads; must divide dim."""

    ffn: PositiveInt = 512
    """Hidden width of the feed-forward part."""

    dropout: float = Field(0.2, ge=0, lt=1)
    """Share of activations dropped in training; 0 lets CPUs use fused attention, several times faster."""

    n_bins: PositiveInt = Field(51, ge=3)
    """Bins of expression, zero included."""

    ties: Literal["mid", "keyed", "low", "high"] = "mid"
    """Bin of a value that spans several: the middle one, the lowest, the highest, or one drawn by seed and cell."""

    max_length: PositiveInt = Field(1200, ge=2)
    """Tokens of a cell, <cls> included; longer cells are sampled by a keyed choice."""

    mask_fractions: tuple[Share, ...] = Field((0.25, 0.5, 0.75), min_length=1)
    """Shares of a cell's genes to hide; one is drawn for each cell and epoch."""

    weights: tuple[NonNegativeFloat, NonNegativeFloat, NonNegativeFloat] = (1.0, 1.0, 1.0)
    """Of predicting a hidden gene from its own state, from the cell vector (GEPC), and prompted by the cell vector."""

    cell_prompt_after: NonNegativeInt = 1000
    """Steps before the third of these begins."""

    @model_validator(mode="after")
    def _learns_something(self) -> "MaskedExpression":
        if not any(self.objectives.is_on(0)):
            raise ValueError(
                f"weights {self.weights} with cell_prompt_after {self.cell_prompt_after}: nothing is learned in the "
                "first step; give one of the first two a weight, or the third one with cell_prompt_after 0"
            )
        return self

    @property
    def objectives(self) -> "Objectives":
        """What counts how much, and when."""
        return Objectives(self.weights, self.cell_prompt_after)


@dataclass(frozen=True, slots=True)
class Objectives:
    """How much each objective counts, and when."""

    weights: tuple[float, float, float]  # in the order of OBJECTIVES; 0 leaves one out
    prompt_after: int  # steps without the objective "prompt"

    def is_on(self, step: int) -> Switches:
        """Which objectives are trained after `step` steps."""
        masked, cell, prompt = (weight > 0 for weight in self.weights)
        return masked, cell, prompt and step >= self.prompt_after


@dataclass(frozen=True, slots=True)
class Example:
    """Cells with some genes hidden."""

    tokens: Tokens  # values at hidden positions are the model's mask value
    target: "Tensor"  # (B, T) float32 true bins; only hidden positions mean anything
    hidden: "Tensor"  # (B, T) bool
    rows: NDArray[np.int64]  # (B,) place of each cell in the batch it was cut from

    def to(self, device: str) -> "Example":
        """The same on another device."""
        return Example(self.tokens.to(device), self.target.to(device), self.hidden.to(device), self.rows)


def objective_errors(network: "ScGPTBackbone", example: Example, is_on: Switches) -> "Tensor":
    """(3, B) summed squared errors over hidden positions, in the order of OBJECTIVES; 0 where one is not on."""
    import torch

    from xfm.nn.losses import squared_error

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


def _last(states: "Iterable[Tensor]") -> "Tensor":
    """Without holding the others."""
    state = None
    for state in states:  # noqa: B007
        pass
    assert state is not None
    return state
