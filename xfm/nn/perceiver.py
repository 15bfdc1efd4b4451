"""Perceiver resampler: any number of vectors to a fixed number of latent ones.

Alayrac et al., "Flamingo", NeurIPS 2022, section 3.1, in the simple form of a public gene-text fusion model: learned
latents ask, the projected inputs answer, norms follow the residuals.

Over a single input vector attention has nothing to choose: every latent is given the same vector with weight exactly 1,
and what differs between latents is their learned constants. Maps of such weights show parameters, not data.
"""

# Shapes: B rows, S input vectors, N latents, h width.

from collections.abc import Iterator

import torch
from torch import Tensor, nn


class ResamplerBlock(nn.Module):
    """Latents attend to the inputs, then pass a feed-forward network; dropout follows either."""

    def __init__(self, hidden: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(hidden, heads, batch_first=True)
        self.norm_attention = nn.LayerNorm(hidden)
        self.feed_forward = nn.Sequential(nn.Linear(hidden, 4 * hidden), nn.GELU(), nn.Linear(4 * hidden, hidden))
        self.norm_feed_forward = nn.LayerNorm(hidden)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, latents: Tensor, inputs: Tensor, is_padding: Tensor | None, *, need_weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        """(B, N, h) and (B, S, h) to (B, N, h), and (B, N, S) weights averaged over heads where wanted."""
        attended, weights = self.attention(
            latents, inputs, inputs, key_padding_mask=is_padding, need_weights=need_weights
        )
        latents = self.norm_attention(latents + self.dropout(attended))
        return self.norm_feed_forward(latents + self.dropout(self.feed_forward(latents))), weights


class PerceiverResampler(nn.Module):
    """See the top of the file. `hidden`, the width of a latent, is a multiple of `heads`."""

    def __init__(
        self, dim_in: int, hidden: int, latents: int, heads: int, *, layers: int = 1, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.project = nn.Linear(dim_in, hidden)
        self.latents = nn.Parameter(torch.randn(latents, hidden))
        self.blocks = nn.ModuleList(ResamplerBlock(hidden, heads, dropout) for _ in range(layers))

    def forward(
        self, x: Tensor, is_key: Tensor | None = None, *, need_weights: bool = False
    ) -> tuple[Tensor, list[Tensor]]:
        """(B, S, dim_in), or (B, dim_in) which is S = 1, to (B, N, h), and of every block (B, N, S) weights averaged
        over heads where wanted. `is_key` is (B, S) bool, False at padding; at least one is True in every row."""
        *_, (latents, _) = steps = list(self.steps(x, is_key, need_weights=need_weights))
        return latents, [weights for _, weights in steps if weights is not None]

    def steps(
        self, x: Tensor, is_key: Tensor | None = None, *, need_weights: bool = False
    ) -> Iterator[tuple[Tensor, Tensor | None]]:
        """The latents (B, N, h) after each block, with its weights; arguments as for `forward`."""
        inputs = self.inputs(x)
        is_padding = None if is_key is None else ~is_key
        latents = self.latents.expand(len(x), -1, -1)
        for block in self.blocks:
            latents, weights = block(latents, inputs, is_padding, need_weights=need_weights)
            yield latents, weights

    def inputs(self, x: Tensor) -> Tensor:
        """(B, S, dim_in) or (B, dim_in) to the (B, S, h) that is attended to."""
        projected: Tensor = self.project(x if x.ndim == 3 else x[:, None])
        return projected
