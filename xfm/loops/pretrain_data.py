"""What a pretraining step reads: which cells, in which order, with which genes hidden.

All of it is a function of (seed, epoch, cell): the order of cells is the same for any number of workers, and a run
that was killed goes on with the very batch it would have seen. Cells are shuffled in two steps, as streaming loaders
do: all parts, then the cells of a window of parts, so that memory holds one window however many cells there are.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from torch import from_numpy

from xfm.core.errors import Refused
from xfm.core.random import in_fraction, rng_for
from xfm.core.schema import INPUT_IDS, ROW_ID, VALUES
from xfm.loops.embed import batches
from xfm.tasks.masked_expression import Example
from xfm.tokenizers.binned import BinnedTokenizer
from xfm.tokenizers.masking import choose_fraction, position_uniforms
from xfm.tokenizers.ragged import ragged

I64 = NDArray[np.int64]
IS_VALIDATION = "is_validation"
WINDOW_CELLS = 65_536


class Cells(Protocol):
    """Tokenised cells in parts; inside a part, training cells come first."""

    def take(self, parts: I64, rows: I64) -> pa.Table:
        """(N,) part numbers and rows in them to N rows, sorted by part and row."""
        ...


class SplitTokens:
    """Maps a shard's tokens to what training needs of them, validation cells last.

    Args:
        seed: keys the split.
        fraction: share of validation cells.
        group: obs column whose values never stand on both sides, or None to split by cell.
    """

    def __init__(self, seed: int, fraction: float, group: str | None) -> None:
        self.seed, self.fraction, self.group = seed, fraction, group

    def __call__(self, tokens: pa.Table) -> pa.Table:
        """N rows to row_id, input_ids, values and is_validation; N rows.

        Raises:
            Refused: NO_COLUMN.
        """
        name = self.group or ROW_ID
        if name not in tokens.column_names:
            raise Refused("NO_COLUMN", f"--group {name}: the cells bring {', '.join(tokens.column_names)}. Add it to "
                          "--source.obs")  # fmt: skip
        held = in_fraction(self.seed, [f"validation\x1f{key}" for key in tokens[name].to_pylist()], self.fraction)
        kept = tokens.select([ROW_ID, INPUT_IDS, VALUES]).append_column(IS_VALIDATION, pa.array(held))
        return kept.take(np.argsort(held, kind="stable"))


class Order:
    """Which cells make up which batch.

    Args:
        sizes: cells of each part.
        batch_size: cells of a batch; an epoch leaves out the rest that fills no batch, each time another one.
        seed: of the shuffling.
        window_cells: about how many cells are shuffled with each other.

    Raises:
        Refused: NO_TRAINING_CELLS.
    """

    def __init__(self, sizes: Sequence[int], batch_size: int, seed: int, window_cells: int = WINDOW_CELLS) -> None:
        self.sizes = np.array(sizes, np.int64)
        if not self.sizes.sum():
            raise Refused("NO_TRAINING_CELLS", "no cell is left to draw from; give more, or hold fewer out")
        self.batch_size = min(batch_size, int(self.sizes.sum()))
        self.seed, self.window_cells = seed, window_cells
        self._epoch: tuple[int, I64, I64] | None = None
        self._window: tuple[tuple[int, int], tuple[I64, I64]] | None = None

    @property
    def batches_per_epoch(self) -> int:
        """Whole batches that fit."""
        return int(self.sizes.sum()) // self.batch_size

    def batch(self, number: int) -> tuple[int, I64, I64]:
        """Of the batch `number`, from 0: its epoch, and (N,) parts and rows of its cells."""
        epoch, place = divmod(number, self.batches_per_epoch)
        start, stop = place * self.batch_size, (place + 1) * self.batch_size
        _, starts = self._parts(epoch)
        pieces = []
        while start < stop:
            # Windows begin where the first part beyond a multiple of window_cells begins.
            window = int(starts[np.searchsorted(starts, start, side="right") - 1] // self.window_cells)
            begin, parts, rows = self._shuffled(epoch, window)
            end = min(stop, begin + len(parts))
            pieces.append((parts[start - begin : end - begin], rows[start - begin : end - begin]))
            start = end
        return epoch, np.concatenate([part for part, _ in pieces]), np.concatenate([row for _, row in pieces])

    def _parts(self, epoch: int) -> tuple[I64, I64]:
        """Non-empty parts in this epoch's order, and where in the epoch each begins."""
        if self._epoch is None or self._epoch[0] != epoch:
            parts = rng_for(self.seed, f"parts {epoch}").permutation(np.flatnonzero(self.sizes))
            starts = np.cumsum(self.sizes[parts]) - self.sizes[parts]
            self._epoch = epoch, parts, starts
        return self._epoch[1], self._epoch[2]

    def _shuffled(self, epoch: int, window: int) -> tuple[int, I64, I64]:
        """Where a window begins, and the parts and rows of its cells, shuffled."""
        parts, starts = self._parts(epoch)
        inside = np.flatnonzero(starts // self.window_cells == window)
        if self._window is None or self._window[0] != (epoch, window):
            sizes = self.sizes[parts[inside]]
            part = np.repeat(parts[inside], sizes)
            row = np.arange(len(part)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
            shuffle = rng_for(self.seed, f"cells {epoch} {window}").permutation(len(part))
            self._window = (epoch, window), (part[shuffle], row[shuffle])
        return int(starts[inside[0]]), *self._window[1]


@dataclass(frozen=True, slots=True)
class Masker:
    """Hides genes of tokenised cells.

    Attributes:
        tokenizer: pads.
        mask_value: stands for a hidden value.
        fractions: of a cell's genes; one of them is drawn for each cell and epoch.
        batch_tokens: of one example, padding included.
        seed: keys the draws.
    """

    tokenizer: BinnedTokenizer
    mask_value: float
    fractions: tuple[float, ...]
    batch_tokens: int
    seed: int

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
