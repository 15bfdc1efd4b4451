"""Who is fitted on, chosen on and scored: train, validation and test, cut between groups of cells, never through one.

A group is a donor, a slide, a data set: whatever must not stand on both sides. Copies of one cell join their groups,
because a copy in training is the answer in the test. Kapoor and Narayanan, Patterns 2023, on leakage between splits.
Data that come split are taken as they come (`split_as_given`), so that numbers compare with published ones; what such
a split leaks is counted.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xfm.core.errors import Refused
from xfm.core.parts import LEFT_OUT, PARTS, TEST, TRAIN, VALIDATION, Part, part_of
from xfm.core.random import key64
from xfm.judging.copies import components

I64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Split:
    """Where each of N cells stands."""

    parts: NDArray[np.int8]  # (N,) TRAIN, VALIDATION or TEST; LEFT_OUT only where a given split says nothing of a row
    groups: I64  # (N,) number of the group that a cell was drawn with

    def where(self, part: Part) -> I64:
        """Positions of one part's cells."""
        return np.flatnonzero(self.parts == part)

    def cells(self) -> tuple[int, int, int]:
        """How many cells are in train, validation and test."""
        train, validation, test = (int((self.parts == part).sum()) for part in PARTS)
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


def is_stated(values: Sequence[str | None], part: Part) -> bool:
    """Whether some row is said to be in a part."""
    return any(value is not None and part_of(str(value)) is part for value in values)


def _stated(values: Sequence[str | None]) -> NDArray[np.int8]:
    """(N,) parts by their words. Raises Refused: BAD_SPLIT."""
    words = ["" if value is None else str(value).strip().lower() for value in values]
    found = {word: words.count(word) for word in sorted(set(words) - {""})}
    shown = ", ".join(f"{word} ({count:,})" for word, count in list(found.items())[:8]) or "no value at all"
    if strange := [word for word in found if part_of(word) is None]:
        raise Refused("BAD_SPLIT", f"expected train, validation (valid, val, dev) or test, found {strange[0]!r} among "
                      f"{shown}")  # fmt: skip
    parts = np.array([part_of(word) if word else LEFT_OUT for word in words], np.int8)
    for part in (TRAIN, TEST):
        if not (parts == part).any():
            raise Refused("BAD_SPLIT", f"no row is said to be {part.word}, found {shown}. Name another column, or "
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


def _joined(numbers: I64, copies: I64) -> I64:
    """Groups that hold copies of one cell, merged."""
    cells, n_groups = len(numbers), int(numbers.max(initial=-1)) + 1
    graph = np.stack([numbers, copies + n_groups])
    nodes = components(graph, n_groups + int(copies.max(initial=-1)) + 1)[numbers]
    return np.unique(nodes, return_inverse=True)[1].astype(np.int64).reshape(cells)
