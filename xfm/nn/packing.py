"""Batches of unequal rows without their padding.

The real tokens of all rows stand one below the other, (N, D), cut into groups of whole rows. A group is small enough
for a block's intermediate tensors to stay in the processor's cache and large enough for full-speed matrix products.
"""

# Shapes: B rows, T tokens of the longest row, N real tokens of all rows, D width.

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Packing:
    """Where the real tokens of a padded batch are."""

    shape: tuple[int, int]  # (B, T) of the padded batch
    lengths: list[int]  # real tokens of each row
    index: Tensor  # (N,) places of the real tokens in the flattened (B * T) grid
    starts: Tensor  # (B,) packed position of each row's first token
    groups: list[list[int]]  # lengths of the rows of each group; concatenated they give `lengths`

    @classmethod
    def of(cls, is_token: Tensor, group_tokens: int) -> Self:
        """Reads (B, T) bool; a group takes rows until it holds `group_tokens` tokens.

        Raises:
            ValueError: a row without any token.
        """
        lengths: list[int] = is_token.sum(dim=1).tolist()
        if 0 in lengths:
            raise ValueError(f"row {lengths.index(0)} of the batch holds no token; every row needs at least one")
        ends = torch.tensor(lengths, device=is_token.device).cumsum(0)
        starts = torch.cat([ends.new_zeros(1), ends[:-1]])
        rows, columns = is_token.shape
        index = is_token.flatten().nonzero().squeeze(1)
        return cls((rows, columns), lengths, index, starts, _group(lengths, group_tokens))

    def pack(self, padded: Tensor) -> Tensor:
        """(B, T, ...) to (N, ...)."""
        return padded.flatten(0, 1)[self.index]

    def split(self, packed: Tensor) -> list[Tensor]:
        """(N, D) to one (n, D) view per group."""
        return list(torch.split(packed, [sum(lengths) for lengths in self.groups]))

    def pad(self, groups: Sequence[Tensor]) -> Tensor:
        """One (n, D) per group to (B, T, D), zero at padding."""
        rows, columns = self.shape
        width = groups[0].shape[-1]
        if len(self.index) == rows * columns:
            return torch.cat(list(groups)).view(rows, columns, width)
        padded = groups[0].new_zeros(rows * columns, width)
        for index, group in zip(self.split(self.index), groups, strict=True):
            padded.index_copy_(0, index, group)
        return padded.view(rows, columns, width)


def _group(lengths: list[int], group_tokens: int) -> list[list[int]]:
    groups: list[list[int]] = []
    filled = group_tokens
    for length in lengths:
        if filled >= group_tokens or filled + length > group_tokens:
            groups.append([])
            filled = 0
        groups[-1].append(length)
        filled += length
    return groups
