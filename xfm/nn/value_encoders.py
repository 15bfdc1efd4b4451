"""Embeddings of tokens, of their values, and of batch labels, as scGPT sums them into its input.

Cui et al., Nature Methods 2024; the layer order is that of the published package.
"""

# Shapes: any leading dimensions, D width.

import torch
from torch import Tensor, nn
from torch.nn import functional

MAX_VALUE = 512.0  # larger expression values are clamped to it


class TokenEncoder(nn.Module):
    """Embedding, then LayerNorm: genes, and batch labels."""

    def __init__(self, n_tokens: int, dim: int, padding_idx: int | None = None) -> None:
        super().__init__()
        self.embedding = nn.Embedding(n_tokens, dim, padding_idx=padding_idx)
        self.enc_norm = nn.LayerNorm(dim)

    def forward(self, ids: Tensor) -> Tensor:
        """(...) int64 to (..., D)."""
        embedded: Tensor = self.enc_norm(self.embedding(ids))
        return embedded


class ContinuousValues(nn.Module):
    """Linear, ReLU, Linear, LayerNorm of a number clamped from above; -1 (masked) and -2 (padding) pass unchanged."""

    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        self.linear1 = nn.Linear(1, dim)
        self.linear2 = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, values: Tensor) -> Tensor:
        """(...) float32 to (..., D)."""
        hidden = self.linear1(values.unsqueeze(-1).clamp(max=MAX_VALUE)).relu_()
        embedded: Tensor = self.dropout(self.norm(self.linear2(hidden)))
        return embedded


class CategoryValues(nn.Module):
    """One learned vector a bin, then LayerNorm. The row of `pad_value` gets no gradient."""

    def __init__(self, n_bins: int, dim: int, pad_value: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(n_bins, dim, padding_idx=pad_value if 0 <= pad_value < n_bins else None)
        self.enc_norm = nn.LayerNorm(dim)

    def forward(self, values: Tensor) -> Tensor:
        """(...) float32 whole numbers to (..., D).

        Raises:
            ValueError: a value that is no bin of this model.
        """
        bins, n_bins = values.long(), self.embedding.num_embeddings
        low, high = int(bins.min()), int(bins.max())
        if low < 0 or high >= n_bins:
            raise ValueError(f"values run from {low} to {high}; this model has one vector for each of 0..{n_bins - 1}")
        embedded: Tensor = self.enc_norm(self.embedding(bins))
        return embedded


class DomainBatchNorm(nn.Module):
    """BatchNorm without affine parameters, one set of running statistics for each batch label.

    In training every label present is normalised by its own tokens; in evaluation by its own running statistics,
    and cells without a known label by the average of all of them.
    """

    def __init__(self, n_labels: int, dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.bns = nn.ModuleList(nn.BatchNorm1d(dim, eps=eps, affine=False) for _ in range(n_labels))

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """Normalises (N, D) tokens by (N,) int64 labels; anything outside 0..n_labels-1 means unknown.

        Raises:
            ValueError: an unknown label in training.
        """
        if self.training:
            return self._by_batch(x, labels)
        means, variances = self._statistics()
        known = (labels >= 0) & (labels < len(self.bns))
        row = torch.where(known, labels, len(self.bns))
        return (x - functional.embedding(row, means)) * torch.rsqrt(functional.embedding(row, variances) + self.eps)

    def _statistics(self) -> tuple[Tensor, Tensor]:
        """(n_labels + 1, D) means and variances; the last row is the average over labels."""
        found = (torch.stack([bn.get_buffer(f"running_{name}") for bn in self.bns]) for name in ("mean", "var"))
        means, variances = (torch.cat([each, each.mean(0, keepdim=True)]) for each in found)
        return means, variances

    def _by_batch(self, x: Tensor, labels: Tensor) -> Tensor:
        normed = torch.zeros_like(x)
        for label in torch.unique(labels).tolist():
            if not 0 <= label < len(self.bns):
                raise ValueError(f"batch label {label} in training; this model knows 0..{len(self.bns) - 1}")
            rows = (labels == label).nonzero().squeeze(1)
            normed = normed.index_copy(0, rows, self.bns[label](x[rows]))
        return normed
