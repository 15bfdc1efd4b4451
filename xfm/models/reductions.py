"""What is kept of a layer's state. Shapes: B rows, T tokens, D width."""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from xfm.core.backbone import Backbone
from xfm.core.tokenizer import Tokens

PoolName = Literal["cls", "mean", "max"]


@dataclass(frozen=True, slots=True)
class Pool:
    """One vector a row.

    `cls` is the state at position 0. `mean` and `max` run over content tokens: neither padding nor special tokens
    count, unlike scGPT's own `avg-pool`, which averages over padding and so depends on the neighbours.
    """

    name: PoolName

    def __post_init__(self) -> None:
        """Raises ValueError for a name that is no pooling."""
        if self.name not in get_args(PoolName):
            raise ValueError(f"no pooling {self.name!r}; known: {', '.join(get_args(PoolName))}")

    @property
    def columns(self) -> tuple[str, ...]:
        """The one column it makes."""
        return (self.name,)

    def __call__(self, state: Tensor, tokens: Tokens, backbone: Backbone) -> dict[str, Tensor]:  # noqa: ARG002
        """(B, T, D) to {name: (B, D)}."""
        if self.name == "cls":
            return {self.name: state[:, 0]}
        if self.name == "max":
            return {self.name: state.masked_fill(~tokens.is_content[:, :, None], -torch.inf).amax(dim=1)}
        weights = tokens.is_content.float()  # bfloat16 cannot count to 1,200
        summed = torch.bmm(weights[:, None, :], state.float()).squeeze(1)
        return {self.name: summed / weights.sum(dim=1, keepdim=True)}
