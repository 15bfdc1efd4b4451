"""Which cells make up a batch of alignment, and which other type each is set against; all of it keyed by the step."""

# Shapes: R training rows, T known types, N cells of a whole batch, M of them on this worker.

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from xfm.core.random import rng_for
from xfm.training.order import Order, check_shares

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]
Sampler = Literal["type_balanced", "uniform"]
Negatives = Literal["uniform_types", "balanced"]


@dataclass(frozen=True, slots=True)
class PairBatch:
    """Some cells and what they are."""

    genes: Tensor  # (M, D) embeddings
    types: Tensor  # (M,) which label of the bank is theirs
    others: Tensor | None  # (M,) a label that is not theirs; None where no wrong pairs are made
    total: int  # N

    def to(self, device: str) -> "PairBatch":
        """The same on another device."""
        others = None if self.others is None else self.others.to(device)
        return PairBatch(self.genes.to(device), self.types.to(device), others, self.total)


class TypeDraws:
    """Batches of training rows.

    Args:
        sizes: training rows of each part.
        types: (R,) which label each training row has, in the order of the parts.
        sampler: type_balanced draws a type in proportion to the square root of its rows (Mahajan et al., ECCV 2018),
            then one of its rows, with replacement; uniform shuffles all rows once an epoch.

    Raises:
        Refused: NO_TRAINING_ROWS.
    """

    def __init__(self, sizes: Sequence[int], types: I64, batch_size: int, seed: int, sampler: Sampler) -> None:
        self.order = Order(sizes, batch_size, seed)
        self.types, self.seed, self.sampler = types, seed, sampler
        self._starts = np.cumsum(self.order.sizes) - self.order.sizes
        counts = np.bincount(types)
        chance = counts[types] ** -0.5
        self._reach: F64 = np.cumsum(chance / chance.sum())

    @property
    def batch_size(self) -> int:
        """N; no more than there are rows."""
        return self.order.batch_size

    def batch(self, step: int) -> tuple[I64, I64, I64]:
        """(N,) part numbers, rows and types of the batch of a step, sorted by part and row."""
        if self.sampler == "uniform":
            _, parts, rows = self.order.batch(step)
            chosen = self._starts[parts] + rows
        else:
            drawn = rng_for(self.seed, f"cells {step}").random(self.batch_size)
            # The last sum may fall short of 1 by a rounding.
            chosen = np.minimum(np.searchsorted(self._reach, drawn, side="right"), len(self.types) - 1)
        chosen = np.sort(chosen)
        # A part without training rows begins where the next one does: the last one that begins here has the row.
        parts = np.searchsorted(self._starts, chosen, side="right") - 1
        return parts, chosen - self._starts[parts], self.types[chosen]

    def share(self, step: int, rank: int, world: int) -> tuple[I64, I64, I64]:
        """What of `batch` worker `rank` of `world` computes.

        Raises:
            Refused: FEW_ROWS, a worker would have nothing to do.
        """
        check_shares(self.batch_size, world)
        parts, rows, types = self.batch(step)
        return parts[rank::world], rows[rank::world], types[rank::world]


def other_types(types: I64, frequencies: F64, rng: np.random.Generator) -> I64:
    """A label for each cell that is not its own.

    Args:
        types: (N,) own labels.
        frequencies: (T,) how likely each label is to be drawn, in any unit; 0 for never.
        rng: one number a cell is drawn from it.

    Raises:
        ValueError: a cell has no other label to draw.
    """
    reach = np.cumsum(frequencies)
    own = frequencies[types]
    left = reach[-1] - own
    if (left <= 0).any():
        raise ValueError("a wrong pair needs a second type; all cells have the same")
    drawn = np.minimum(rng.random(len(types)) * left, np.nextafter(left, 0))
    # As if the own label's stretch were cut out of the line.
    drawn += np.where(drawn >= reach[types] - own, own, 0.0)
    found: I64 = np.searchsorted(reach, drawn, side="right").astype(np.int64)
    return found


def frequencies(types: I64, labels: int, negatives: Negatives) -> F64:
    """(labels,) how likely each is as a wrong one: by its training rows, or alike for all that have any."""
    counts = np.bincount(types, minlength=labels).astype(np.float64)
    return counts if negatives == "balanced" else (counts > 0).astype(np.float64)
