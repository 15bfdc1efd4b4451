"""Who is fitted on, chosen on and scored: train, validation and test, cut between groups of cells, never through one.

A group is a donor, a slide, a data set: whatever must not stand on both sides. Copies of one cell join their groups,
because a copy in training is the answer in the test. Kapoor and Narayanan, Patterns 2023, on leakage between splits.
Data that come split are taken as they come (`split_as_given`), so that numbers compare with published ones; what such
a split leaks is counted.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike, NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import cdist

from xfm.core.errors import Refused
from xfm.core.random import key64, rng_for

TRAIN, VALIDATION, TEST = 0, 1, 2
LEFT_OUT = -1  # a row whose part is not stated
PARTS = ("train", "validation", "test")
# What data sets call their parts, in lower case.
PART_WORDS = {
    "train": TRAIN, "training": TRAIN,
    "validation": VALIDATION, "valid": VALIDATION, "val": VALIDATION, "dev": VALIDATION,
    "test": TEST,
}  # fmt: skip
# The same cell embedded in another shard differs by up to 1e-5 where numbers are about 1. As a share of the column's
# spread, and where that is small (unit norm, a narrow layer) in the column's own units.
SAME_CELL = 1e-4
SAME_CELL_LEAST = 2e-5
# Two cells of a map of few dimensions may come as close as copies do: there only equal vectors are copies.
MIN_DIMENSIONS = 10
# A vector of more cells than this, and than this share of them, is an empty or degenerate cell, not a copied one.
MOST_COPIES, MOST_COPIES_SHARE = 50, 0.01
# Pairs of different cells that may pass for copies by chance, in expectation, over the whole column.
CHANCE_PAIRS = 0.01

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Split:
    """Where each of N cells stands.

    Attributes:
        parts: (N,) TRAIN, VALIDATION or TEST; LEFT_OUT only where a given split says nothing of a row.
        groups: (N,) number of the group that a cell was drawn with.
    """

    parts: NDArray[np.int8]
    groups: I64

    def where(self, part: int) -> I64:
        """Positions of one part's cells."""
        return np.flatnonzero(self.parts == part)

    def cells(self) -> tuple[int, int, int]:
        """How many cells are in train, validation and test."""
        train, validation, test = np.bincount(self.parts[self.parts != LEFT_OUT], minlength=3).tolist()
        return train, validation, test


def split_cells(keys: Sequence[str], copies: I64, seed: int, validation: float, test: float) -> Split:
    """Draws whole groups by key until test and validation hold their share of cells, as nearly as groups allow.

    Args:
        keys: the group of each of N cells, or its row id where cells stand for themselves.
        copies: (N,) the same number for copies of the same cell; groups that share a cell become one.
        seed: keys the draw: the same groups split alike on every machine and for every model.
        validation: share of cells to choose on.
        test: share of cells to score.

    Raises:
        Refused: TOO_FEW_GROUPS; fewer than three, or tied into fewer by copies. Three are always enough.
    """
    names, numbers = np.unique(np.asarray(keys, dtype=object).astype(str), return_inverse=True)
    numbers, copies = numbers.astype(np.int64), np.asarray(copies, np.int64)
    groups = _joined(numbers, copies)
    n_groups = int(groups.max(initial=-1)) + 1
    if n_groups < 3:
        raise Refused("TOO_FEW_GROUPS", _too_few(len(names), n_groups, numbers, copies))
    # A merged group goes by the first name in it.
    first = np.full(n_groups, len(names), np.int64)
    np.minimum.at(first, groups, numbers)
    order = np.argsort([key64(seed, f"split\x1f{names[name]}") for name in first], kind="stable")
    sizes = np.bincount(groups, minlength=n_groups)
    part_of = np.full(n_groups, TRAIN, np.int8)
    for part, share, kept in ((TEST, test, 2), (VALIDATION, validation, 1)):
        left = order[part_of[order] == TRAIN]
        part_of[left[_drawn(sizes[left], share * len(groups), len(left) - kept)]] = part
    return Split(part_of[groups], groups)


def split_as_given(
    values: Sequence[str | None], keys: Sequence[str], copies: I64, seed: int, validation: float
) -> Split:
    """The split that the data state. Where they name no validation rows, a share of the training rows becomes them.

    The stated parts are kept, also where copies or a group stand in two of them: `straddling` counts both. Copies and
    groups are drawn as a whole where validation rows are carved, and resampled as a whole.

    Args:
        values: of each of N rows: train, validation (valid, val, dev) or test, in any case; None or empty for a row
            that no part states: it is LEFT_OUT.
        keys: as for `split_cells`.
        copies: as for `split_cells`.
        seed: keys the draw of validation rows.
        validation: share of the training rows that become validation rows; unused where the data have such rows.

    Raises:
        Refused: BAD_SPLIT for other words, or without training or test rows; TOO_FEW_GROUPS where training rows are
            of one group and none can be carved.
    """
    parts = _stated(values)
    names, numbers = np.unique(np.asarray(keys, dtype=object).astype(str), return_inverse=True)
    groups = _joined(numbers.astype(np.int64), np.asarray(copies, np.int64))
    if (parts == VALIDATION).any():
        return Split(parts, groups)
    training = np.flatnonzero(parts == TRAIN)
    own, position = np.unique(groups[training], return_inverse=True)
    if len(own) < 2:
        raise Refused("TOO_FEW_GROUPS", f"the data name no validation rows, and their {len(training):,} training rows "
                      "are one group: no validation rows can be carved from them. Leave out --group")  # fmt: skip
    first = np.full(len(own), len(names), np.int64)
    np.minimum.at(first, position, numbers[training])
    order = np.argsort([key64(seed, f"split\x1f{names[name]}") for name in first], kind="stable")
    sizes = np.bincount(position)[order]
    carved = order[_drawn(sizes, validation * len(training), len(own) - 1)]
    parts[training[np.isin(position, carved)]] = VALIDATION
    return Split(parts, groups)


def is_stated(values: Sequence[str | None], part: int) -> bool:
    """Whether some row is said to be in a part."""
    return any(value is not None and PART_WORDS.get(str(value).strip().lower()) == part for value in values)


def _stated(values: Sequence[str | None]) -> NDArray[np.int8]:
    """(N,) parts by their words. Raises Refused: BAD_SPLIT."""
    words = ["" if value is None else str(value).strip().lower() for value in values]
    found = {word: words.count(word) for word in sorted(set(words) - {""})}
    shown = ", ".join(f"{word} ({count:,})" for word, count in list(found.items())[:8]) or "no value at all"
    if strange := [word for word in found if word not in PART_WORDS]:
        raise Refused("BAD_SPLIT", f"expected train, validation (valid, val, dev) or test, found {strange[0]!r} among "
                      f"{shown}")  # fmt: skip
    parts = np.array([PART_WORDS.get(word, LEFT_OUT) for word in words], np.int8)
    for part in (TRAIN, TEST):
        if not (parts == part).any():
            raise Refused("BAD_SPLIT", f"no row is said to be {PARTS[part]}, found {shown}. Name another column, or "
                          "none to draw a split")  # fmt: skip
    return parts


def straddling(parts: NDArray[np.int8], numbers: I64) -> int:
    """Test rows whose number (of a copy, of a group) some training row bears too."""
    return int(np.isin(numbers[parts == TEST], numbers[parts == TRAIN]).sum())


def _drawn(sizes: I64, target: float, most: int) -> list[int]:
    """Which of the groups, given in the order of their keys, make up a part of `target` cells: 1 to `most` of them.

    Each group that still fits is taken, a larger one is passed over. At the end the one that brings the part nearest
    to its target joins, unless that overshoots by more than stopping short undershoots. Where all groups are too
    large it is the smallest. Sizes and keys decide; labels are not seen.
    """
    taken: list[int] = []
    filled = 0
    for position, size in enumerate(sizes.tolist()):
        if filled + size <= target and len(taken) < most:
            taken.append(position)
            filled += size
    left = np.setdiff1d(np.arange(len(sizes)), taken)
    if len(taken) < most and len(left):
        off = np.abs(filled + sizes[left] - target)
        nearest = int(np.argmin(off))
        if not taken or off[nearest] <= target - filled:
            taken.append(int(left[nearest]))
    return taken


def _too_few(n_names: int, n_groups: int, numbers: I64, copies: I64) -> str:
    need = "train, validation and test need at least 3 groups of rows"
    if n_names < 3:
        return f"{need}, found {n_names}: name a --group column with more values, or leave it out to split row by row"
    # Cells whose copies stand in more than one group.
    pairs = np.unique(np.stack([copies, numbers]), axis=1)
    shared, counts = np.unique(pairs[0], return_counts=True)
    tying = int(np.isin(copies, shared[counts > 1]).sum())
    return (
        f"{need}; {n_names:,} groups are tied into {n_groups} by {tying:,} copies of rows: remove the copies, or name "
        "a --group column whose groups share no row"
    )


def same_vectors(vectors: F32, seed: int, *, stored: DTypeLike = np.float32) -> I64:
    """(N, D) vectors to (N,) numbers, alike for cells whose vectors are alike up to rounding.

    Equal vectors are joined first. Then, with 10 dimensions or more, vectors that differ in no dimension by more than
    the largest of 1e-4 of the column's spread, 2e-5, and two steps of the stored type at the dimension's largest
    value; less where ordinary neighbours are that close (`_by_chance`). With fewer dimensions only equal ones count.

    No evidence of copies, so that each cell has its own number: a vector of more than 50 cells and more than 1 % of
    them (empty or degenerate cells), and a column whose every dimension is constant up to rounding.

    Args:
        vectors: (N, D).
        seed: keys the direction that cells are sorted along and the sample that neighbours are seen in.
        stored: the type the vectors were stored in, e.g. float16, whose rounding they carry.
    """
    vectors = np.ascontiguousarray(vectors + np.float32(0), np.float32)  # -0 becomes 0
    cells, dimensions = vectors.shape
    if not cells or not dimensions:
        return np.arange(cells)
    rows = vectors.view(np.dtype((np.void, vectors.itemsize * dimensions))).ravel()
    index, inverse = np.unique(rows, return_index=True, return_inverse=True)[1:]
    distinct = vectors[index]
    steps = 2 * _eps(stored) * np.abs(distinct).max(axis=0).astype(np.float64)
    spreads = distinct.std(axis=0, dtype=np.float64)
    if (spreads <= steps).all():
        return np.arange(cells)
    numbers = np.arange(len(distinct))
    if dimensions >= MIN_DIMENSIONS:
        spread = float(np.sqrt(np.mean(np.square(spreads))))
        tolerance = np.maximum(steps, max(SAME_CELL * spread, SAME_CELL_LEAST))
        numbers = _near(distinct, tolerance * _by_chance(distinct, tolerance, seed), seed)
    return _plausible(numbers[inverse.reshape(cells)])


def _eps(stored: DTypeLike) -> float:
    """Step of a floating type at 1; float32, in which vectors come, or coarser."""
    dtype = np.dtype(stored)
    coarse = float(np.finfo(dtype).eps) if np.issubdtype(dtype, np.floating) else 0.0
    return max(coarse, float(np.finfo(np.float32).eps))


def _by_chance(vectors: F32, tolerance: F64, seed: int) -> float:
    """Factor, at most 1, by which a tolerance shrinks so that different cells are not taken for copies.

    In a keyed sample the median distances to the 8th and 16th neighbour, r and s, tell how the number of neighbours
    falls with distance, as distance ** d with d = log 2 / log(s / r) (Levina and Bickel, NIPS 2004). The tolerance
    stays where `CHANCE_PAIRS` are expected, and below a tenth of r. Few neighbours, so that they are of one cell type;
    more than a cell has copies.
    """
    cells = len(vectors)
    n_seen = min(cells, 4096)
    k = min(8, n_seen // 3)
    if not k:
        return 0.0
    seen = vectors[rng_for(seed, "neighbours").permutation(cells)[:n_seen]] / tolerance
    distances = np.sort(cdist(seen[:512], seen, "chebyshev"), axis=1)[:, [k, 2 * k]]  # 0 is the cell itself
    near, far = (float(each) for each in np.median(distances, axis=0))
    if not near > 0:
        return 0.0
    expected = 0.5 * cells * k * cells / n_seen  # pairs that are as near as `near`
    by_dimension = near * (CHANCE_PAIRS / expected) ** (np.log2(far / near)) if far > near else near
    return float(min(1.0, by_dimension, near / 10))


def _near(vectors: F32, tolerance: F64, seed: int) -> I64:
    """(N,) numbers, alike for vectors within the tolerance in every dimension, or tied by others that are.

    Cells are sorted along one random direction, where near ones are neighbours. Pairs are compared in the eight
    widest dimensions first, then in full, and not at all where others have tied them already.
    """
    cells = len(vectors)
    if not (tolerance > 0).all():
        return np.arange(cells)
    direction = rng_for(seed, "copies").standard_normal(vectors.shape[1])
    along = (vectors - vectors.mean(axis=0, dtype=np.float64)) @ (direction / tolerance)
    order = np.argsort(along, kind="stable")
    along, gap = along[order], float(np.abs(direction).sum())
    widest = np.argsort(-vectors.std(axis=0, dtype=np.float64) / tolerance)[:8]
    few = np.ascontiguousarray(vectors[:, widest])
    pairs, labels = [np.empty((2, 0), np.int64)], np.arange(cells)
    start = np.arange(cells)  # whoever is farther than the gap from one neighbour is from the next
    for step in range(1, cells):
        start = start[start < cells - step]
        start = start[along[start + step] - along[start] <= gap]
        if not len(start):
            break
        left, right = order[start], order[start + step]
        untied = labels[left] != labels[right]
        left, right = left[untied], right[untied]
        for values, limits in ((few, tolerance[widest]), (vectors, tolerance)):
            same = (np.abs(values[left] - values[right]) <= limits).all(axis=1)
            left, right = left[same], right[same]
        if len(left):
            pairs.append(np.stack([left, right]))
        if step & (step - 1) == 0:
            labels = _components(np.hstack(pairs), cells)
    return _components(np.hstack(pairs), cells)


def _plausible(numbers: I64) -> I64:
    """Numbers of more cells than are ever copied fall apart into single cells."""
    counts = np.bincount(numbers)
    many = np.flatnonzero((counts > max(MOST_COPIES, MOST_COPIES_SHARE * len(numbers)))[numbers])
    numbers = numbers.copy()
    numbers[many] = len(counts) + np.arange(len(many))
    return np.unique(numbers, return_inverse=True)[1].astype(np.int64).reshape(len(numbers))


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
