"""Transformer encoder block on `scaled_dot_product_attention`, for packed and for padded batches.

Parameters carry the names of `torch.nn.TransformerEncoderLayer`, so that its checkpoints fit. Its fast path is not
used: it zeroes or cuts padded rows and is slower on CPUs than this loop.

Packed rows (N, D) know no padding: all linear work is done on real tokens only and each row attends alone, without
a mask. Padded rows (B, T, D) attend in one call with a key mask, which is what a GPU wants.
"""

# Shapes: B rows, T tokens, N tokens of all rows, D width, H heads, K width of one head.

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class SelfAttention(nn.Module):
    """Bidirectional multi-head attention with one fused projection for queries, keys and values."""

    def __init__(self, dim: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.dropout = dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = nn.Linear(dim, dim)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, x: Tensor, lengths: Sequence[int] | None, key_mask: Tensor | None) -> Tensor:
        """Mixes tokens of the same row; the shape of x.

        Args:
            x: packed (N, D), or padded (B, T, D).
            lengths: tokens of each packed row, or None where x is padded.
            key_mask: (B, T) bool of a padded x, False at padding; None where every token is real.
        """
        qkv = functional.linear(x, self.in_proj_weight, self.in_proj_bias)
        if lengths is None:
            mixed = self._attend(qkv, None if key_mask is None else key_mask[:, None, None, :])
        else:
            rows = [self._attend(row.unsqueeze(0), None).squeeze(0) for row in torch.split(qkv, list(lengths))]
            mixed = rows[0] if len(rows) == 1 else torch.cat(rows)
        projected: Tensor = self.out_proj(mixed)
        return projected

    def _attend(self, qkv_BTC: Tensor, mask: Tensor | None) -> Tensor:
        rows, columns, _ = qkv_BTC.shape
        q_BHTK, k_BHTK, v_BHTK = qkv_BTC.view(rows, columns, 3, self.n_heads, -1).permute(2, 0, 3, 1, 4)
        dropout = self.dropout if self.training else 0.0
        mixed_BHTK = functional.scaled_dot_product_attention(q_BHTK, k_BHTK, v_BHTK, attn_mask=mask, dropout_p=dropout)
        return mixed_BHTK.transpose(1, 2).flatten(2)


class EncoderBlock(nn.Module):
    """x = LN1(x + attention(x)); x = LN2(x + W2 relu(W1 x)).

    With `pre_norm` the order of scGPT's flash-attention layer: x = LN1(x); x += attention(x); x = LN2(x);
    x += W2 relu(W1 x). It is no usual pre-norm block, since the residual carries the normed value.
    """

    def __init__(self, dim: int, n_heads: int, ffn: int, dropout: float, *, pre_norm: bool = False) -> None:
        super().__init__()
        self.pre_norm = pre_norm
        self.self_attn = SelfAttention(dim, n_heads, dropout)
        self.linear1 = nn.Linear(dim, ffn)
        self.linear2 = nn.Linear(ffn, dim)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, lengths: Sequence[int] | None = None, key_mask: Tensor | None = None) -> Tensor:
        """Arguments and result as in `SelfAttention.forward`. x itself is left unchanged."""
        if self.pre_norm:
            x = self.norm1(x)
            x = self.norm2(_added(x, self._mix(x, lengths, key_mask)))
            return _added(x, self._feed_forward(x))
        x = self.norm1(_added(x, self._mix(x, lengths, key_mask)))
        x = self.norm2(_added(x, self._feed_forward(x)))
        return x

    def _mix(self, x: Tensor, lengths: Sequence[int] | None, key_mask: Tensor | None) -> Tensor:
        mixed: Tensor = self.dropout(self.self_attn(x, lengths, key_mask))
        return mixed

    def _feed_forward(self, x: Tensor) -> Tensor:
        # In place is safe under autograd here: no backward formula needs a linear layer's output.
        hidden = self.dropout(self.linear1(x).relu_())
        out: Tensor = self.dropout(self.linear2(hidden))
        return out


def _added(x: Tensor, fresh: Tensor) -> Tensor:
    """x + fresh, written over `fresh`, which no one else holds; not under autocast, where it may be narrower than x."""
    return fresh.add_(x) if fresh.dtype == x.dtype else x + fresh
