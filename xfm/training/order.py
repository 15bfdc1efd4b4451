"""Which rows make up which batch: a function of (seed, epoch), the same for any number of workers.

A run that was killed goes on with the very batch it would have seen. Rows are shuffled in two steps, as streaming
loaders do: all parts, then the rows of a window of parts, so that memory holds one window however many rows there are.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from xfm.core.errors import Refused
from xfm.core.random import rng_for

I64 = NDArray[np.int64]
WINDOW_ROWS = 65_536
BUCKET_BATCHES = 20


class Order:
    """Which rows make up which batch.

    Args:
        sizes: rows of each part.
        batch_size: rows of a batch; an epoch leaves out the rest that fills no batch, each time another one.
        window_rows: about how many rows are shuffled with each other.

    Raises:
        Refused: NO_TRAINING_ROWS.
    """

    def __init__(self, sizes: Sequence[int], batch_size: int, seed: int, window_rows: int = WINDOW_ROWS) -> None:
        self.sizes = np.array(sizes, np.int64)
        if not self.sizes.sum():
            raise Refused("NO_TRAINING_ROWS", "no row is left to train on; give more, or hold fewer out")
        self.batch_size = min(batch_size, int(self.sizes.sum()))
        self.seed, self.window_rows = seed, window_rows
        self._epoch: tuple[int, I64, I64] | None = None
        self._window: tuple[tuple[int, int], tuple[I64, I64]] | None = None

    @property
    def batches_per_epoch(self) -> int:
        """Whole batches that fit."""
        return int(self.sizes.sum()) // self.batch_size

    def batch(self, number: int) -> tuple[int, I64, I64]:
        """Of the batch `number`, from 0: its epoch, and (N,) parts and rows of its members."""
        epoch, place = divmod(number, self.batches_per_epoch)
        start, stop = place * self.batch_size, (place + 1) * self.batch_size
        _, starts = self._parts(epoch)
        pieces = []
        while start < stop:
            # Windows begin where the first part beyond a multiple of window_rows begins.
            window = int(starts[np.searchsorted(starts, start, side="right") - 1] // self.window_rows)
            begin, parts, rows = self._shuffled(epoch, window)
            end = min(stop, begin + len(parts))
            pieces.append((parts[start - begin : end - begin], rows[start - begin : end - begin]))
            start = end
        return epoch, np.concatenate([part for part, _ in pieces]), np.concatenate([row for _, row in pieces])

    def share(self, number: int, rank: int, world: int) -> tuple[int, I64, I64]:
        """Of the batch `number` what worker `rank` of `world` computes.

        Raises:
            Refused: FEW_ROWS, a worker would have nothing to do.
        """
        check_shares(self.batch_size, world)
        epoch, parts, rows = self.batch(number)
        return epoch, parts[rank::world], rows[rank::world]

    def _parts(self, epoch: int) -> tuple[I64, I64]:
        """Non-empty parts in this epoch's order, and where in the epoch each begins."""
        if self._epoch is None or self._epoch[0] != epoch:
            parts = rng_for(self.seed, f"parts {epoch}").permutation(np.flatnonzero(self.sizes))
            starts = np.cumsum(self.sizes[parts]) - self.sizes[parts]
            self._epoch = epoch, parts, starts
        return self._epoch[1], self._epoch[2]

    def _shuffled(self, epoch: int, window: int) -> tuple[int, I64, I64]:
        """Where a window begins, and the parts and rows of its members, shuffled."""
        parts, starts = self._parts(epoch)
        inside = np.flatnonzero(starts // self.window_rows == window)
        if self._window is None or self._window[0] != (epoch, window):
            sizes = self.sizes[parts[inside]]
            part = np.repeat(parts[inside], sizes)
            row = np.arange(len(part)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
            shuffle = rng_for(self.seed, f"cells {epoch} {window}").permutation(len(part))
            begin = int(starts[inside[0]])
            self._window = (epoch, window), self._arranged(part[shuffle], row[shuffle], begin, f"{epoch} {window}")
        return int(starts[inside[0]]), *self._window[1]

    def _arranged(self, parts: I64, rows: I64, begin: int, key: str) -> tuple[I64, I64]:  # noqa: ARG002
        """The shuffled rows of one window, as they stay here."""
        return parts, rows


class BucketOrder(Order):
    """Batches of rows of similar lengths, which need little padding, in shuffled order.

    Shuffled rows are taken `bucket_batches` batches at a time, sorted by length, cut into batches, and the batches
    shuffled: a row meets others of its length, drawn anew each epoch. `lengths` are the tokens of each row, one array a
    part.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        batch_size: int,
        seed: int,
        lengths: Sequence[NDArray[np.integer]],
        window_rows: int = WINDOW_ROWS,
        bucket_batches: int = BUCKET_BATCHES,
    ) -> None:
        super().__init__(sizes, batch_size, seed, window_rows)
        self.bucket_batches = bucket_batches
        self._starts = np.cumsum(self.sizes) - self.sizes
        self._lengths = np.concatenate([each[:size] for each, size in zip(lengths, sizes, strict=True)])

    def _arranged(self, parts: I64, rows: I64, begin: int, key: str) -> tuple[I64, I64]:
        """Rows before the window's first whole batch, and behind its last, stay where they are."""
        size = self.batch_size
        head = -begin % size
        whole = max(0, len(parts) - head) // size
        lengths = self._lengths[self._starts[parts] + rows]
        order = np.arange(len(parts))
        for first in range(0, whole, self.bucket_batches):
            low, high = head + first * size, head + min(first + self.bucket_batches, whole) * size
            by_length = low + np.argsort(lengths[low:high], kind="stable")
            batches = by_length.reshape(-1, size)
            order[low:high] = rng_for(self.seed, f"buckets {key} {first}").permutation(batches).ravel()
        return parts[order], rows[order]


def check_shares(batch_size: int, world: int) -> None:
    """Raises Refused: FEW_ROWS, a worker would have nothing to do."""
    if batch_size < world:
        raise Refused("FEW_ROWS", f"{world} workers cannot share {batch_size} rows a batch; give fewer --workers")
