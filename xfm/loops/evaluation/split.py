"""Who is fitted on, chosen on and scored: train, validation and test, cut between groups of cells, never through one.

A group is a donor, a slide, a data set: whatever must not stand on both sides. Copies of one cell join their groups,
because a copy in training is the answer in the test. Kapoor and Narayanan, Patterns 2023, on leakage between splits.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from xfm.core.errors import Refused
from xfm.core.random import key64, rng_for

TRAIN, VALIDATION, TEST = 0, 1, 2
PARTS = ("train", "validation", "test")
# Of the spread of a column. The same cell embedded in another shard differs by 1e-5; no two other cells are as close.
SAME_CELL = 1e-4

I64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Split:
    """Where each of N cells stands.

    Attributes:
        parts: (N,) TRAIN, VALIDATION or TEST.
        groups: (N,) number of the group that a cell was drawn with.
    """

    parts: NDArray[np.int8]
    groups: I64

    def where(self, part: int) -> I64:
        """Positions of one part's cells."""
        return np.flatnonzero(self.parts == part)

    def cells(self) -> tuple[int, int, int]:
        """How many cells are in train, validation and test."""
        train, validation, test = np.bincount(self.parts, minlength=3).tolist()
        return train, validation, test


def split_cells(keys: Sequence[str], copies: I64, seed: int, validation: float, test: float) -> Split:
    """Draws whole groups by key until validation and test hold their share of cells.

    Args:
        keys: the group of each of N cells, or its row id where cells stand for themselves.
        copies: (N,) the same number for copies of the same cell; groups that share a cell become one.
        seed: keys the draw: the same groups split alike on every machine and for every model.
        validation: share of cells to choose on.
        test: share of cells to score.

    Raises:
        Refused: TOO_FEW_GROUPS; fewer than three, or one so large that a part stays empty.
    """
    names, numbers = np.unique(np.asarray(keys, dtype=object).astype(str), return_inverse=True)
    groups = _joined(numbers.astype(np.int64), np.asarray(copies, np.int64))
    n_groups = int(groups.max()) + 1 if len(groups) else 0
    if n_groups < 3:
        raise Refused(
            "TOO_FEW_GROUPS",
            f"train, validation and test need at least 3 groups of cells, found {n_groups}: name a --group column with "
            "more values, or leave it out to split by cell",
        )
    # A merged group goes by the first name in it.
    first = np.full(n_groups, len(names), np.int64)
    np.minimum.at(first, groups, numbers)
    order = np.argsort([key64(seed, f"split\x1f{names[name]}") for name in first], kind="stable")
    sizes = np.bincount(groups, minlength=n_groups)[order]
    cells = len(groups)
    before = np.cumsum(sizes) - sizes
    part_of = np.full(n_groups, TRAIN, np.int8)
    n_test = max(1, int(np.count_nonzero(before < test * cells)))
    after = before - before[n_test] if n_test < n_groups else before
    n_validation = max(1, int(np.count_nonzero((after >= 0) & (after < validation * cells))))
    if n_test + n_validation >= n_groups:
        largest = int(sizes.max())
        raise Refused(
            "TOO_FEW_GROUPS",
            f"{n_groups} groups, the largest with {largest:,} of {cells:,} cells, leave no group to train on beside a "
            f"test share of {test:g} and a validation share of {validation:g}: lower them or name another --group",
        )
    part_of[order[:n_test]] = TEST
    part_of[order[n_test : n_test + n_validation]] = VALIDATION
    return Split(part_of[groups], groups)


def same_vectors(vectors: NDArray[np.float32], seed: int) -> I64:
    """(N, D) vectors to (N,) numbers, alike for cells whose vectors are alike up to rounding.

    Cells are sorted along one random direction, where copies are neighbours, and compared in full there. Where all
    vectors are alike the column says nothing about copies: every cell gets its own number.
    """
    cells = len(vectors)
    spread = float(np.sqrt(np.mean(np.square(vectors - vectors.mean(axis=0))))) if cells else 0.0
    if spread <= SAME_CELL * float(np.abs(vectors).max(initial=1e-30)):
        return np.arange(cells)
    tolerance = SAME_CELL * spread
    direction = rng_for(seed, "copies").standard_normal(vectors.shape[1])
    along = vectors.astype(np.float64) @ direction
    order = np.argsort(along, kind="stable")
    gap = tolerance * float(np.abs(direction).sum())
    pairs: list[NDArray[np.int64]] = []
    for step in range(1, cells):
        near = np.flatnonzero(along[order[step:]] - along[order[:-step]] <= gap)
        if not len(near):
            break
        left, right = order[near], order[near + step]
        same = np.abs(vectors[left] - vectors[right]).max(axis=1) <= tolerance
        pairs.append(np.stack([left[same], right[same]]))
    return _components(np.hstack(pairs) if pairs else np.empty((2, 0), np.int64), cells)


def _joined(numbers: I64, copies: I64) -> I64:
    """Groups that hold copies of one cell, merged."""
    cells, n_groups = len(numbers), int(numbers.max(initial=-1)) + 1
    graph = np.stack([numbers, copies + n_groups])
    nodes = _components(graph, n_groups + int(copies.max(initial=-1)) + 1)[numbers]
    return np.unique(nodes, return_inverse=True)[1].astype(np.int64).reshape(cells)


def _components(pairs: I64, nodes: int) -> I64:
    graph = coo_matrix((np.ones(pairs.shape[1], np.int8), (pairs[0], pairs[1])), shape=(nodes, nodes))
    labels: I64 = connected_components(graph, directed=False)[1].astype(np.int64)
    return labels
