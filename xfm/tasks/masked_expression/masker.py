"""Hides genes of tokenised cells: a function of (seed, epoch, cell)."""

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from torch import from_numpy

from xfm.compute.embed import batches
from xfm.core.schema import INPUT_IDS, VALUES
from xfm.tasks.masked_expression.settings import Example
from xfm.tokenizers.binned import BinnedTokenizer
from xfm.tokenizers.ragged import choose_fraction, position_uniforms, ragged

I64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Masker:
    """Hides genes of tokenised cells."""

    tokenizer: BinnedTokenizer  # pads
    mask_value: float  # stands for a hidden value
    fractions: tuple[float, ...]  # of a cell's genes; one of them is drawn for each cell and epoch
    batch_tokens: int  # of one example, padding included
    seed: int  # keys the draws

    def examples(self, cells: pa.Table, purpose: str) -> list[Example]:
        """N cells cut into examples of similar lengths; `purpose` names the draw, e.g. "epoch 3"."""
        return [
            self._example(cells, rows, purpose) for rows in batches(self.tokenizer.lengths(cells), self.batch_tokens)
        ]

    def _example(self, cells: pa.Table, rows: I64, purpose: str) -> Example:
        table = cells.take(rows).combine_chunks()
        offsets, ids = ragged(table[INPUT_IDS].chunk(0))
        _, values = ragged(table[VALUES].chunk(0))
        is_gene = np.ones(len(ids), dtype=bool)
        is_gene[offsets[:-1]] = False
        # <cls> is never hidden, so its number is free to choose the fraction.
        draws = position_uniforms(offsets, ids, values, self.seed, f"mask fraction {purpose}")[offsets[:-1]]
        fractions = np.array(self.fractions)[(draws * len(self.fractions)).astype(np.int64)]
        uniforms = position_uniforms(offsets, ids, values, self.seed, f"mask {purpose}")
        flat = choose_fraction(offsets, uniforms, is_gene, fractions)
        tokens = self.tokenizer.collate(table)
        assert tokens.values is not None
        padded = np.zeros(tuple(tokens.ids.shape), dtype=bool)
        padded[tokens.is_token.numpy()] = flat
        hidden = from_numpy(padded)
        masked = tokens.values.masked_fill(hidden, self.mask_value)
        shown = replace(tokens, values=masked)
        return Example(shown, tokens.values, hidden, rows)
