"""Images and their captions, as a network that learns from both reads them."""

# Shapes: M pairs of a worker.

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from xfm.compute.embed import batches
from xfm.core.random import key64
from xfm.core.schema import INPUT_IDS
from xfm.core.tokenizer import Tokenizer, Tokens
from xfm.tokenizers.text import TextTokenizer


@dataclass(frozen=True, slots=True)
class Pairs:
    """Some images and their captions."""

    images: Tokens  # pixels
    texts: Tokens  # ids of the captions
    captions: Tensor  # (M, 2) int64 that stand for their words, and for what they mean

    def to(self, device: str) -> "Pairs":
        """The same on another device."""
        return Pairs(self.images.to(device), self.texts.to(device), self.captions.to(device))


@dataclass(frozen=True, slots=True)
class Collator:
    """Rows with an encoded picture and a caption to pairs."""

    images: Tokenizer  # tokenizer of the pictures
    prompts: TextTokenizer  # tokenizer of the captions
    caption: str  # column of the captions
    match: str  # column of what they mean
    batch_tokens: int  # of one pass, of both towers

    def __call__(self, rows: pa.Table) -> list[Pairs]:
        """M rows in pieces of one pass each, in their order."""
        size = next(batches(self.images.lengths(rows) + self.prompts.max_length, self.batch_tokens)).size
        return [self._pairs(rows.slice(start, size)) for start in range(0, rows.num_rows, size)]

    def _pairs(self, rows: pa.Table) -> Pairs:
        captions = rows[self.caption].cast(pa.string()).to_pylist()
        ids = pa.array([self.prompts.subwords.encode(caption).ids for caption in captions], pa.large_list(pa.int32()))
        texts = self.prompts.collate(pa.table({INPUT_IDS: ids}))
        numbers = torch.stack([_numbers(captions), _numbers(rows[self.match].to_pylist())], dim=1)
        return Pairs(self.images.collate(rows), texts, numbers)


def _numbers(values: Sequence[Any]) -> Tensor:
    """(M,) int64, the same for the same value in any batch and on any worker."""
    return torch.from_numpy(np.array([key64(0, str(value)) for value in values], np.uint64).view(np.int64))
