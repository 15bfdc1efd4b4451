"""Classes of cells as a picture can show them: the most frequent ones, a colour each, the rest gathered.

The first eight colours are Okabe and Ito's (2008), readable with every kind of colour vision. Each later one is the
furthest from those before it in OKLab (Ottosson 2020), to normal sight and to simulated deuteranopia (Machado et al.
2009) alike, in the manner of Glasbey et al. 2007. Thirty colours cannot be told apart one by one: names help.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PALETTE = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#1B1F24", "#F0E442", "#87004B", "#4B0FA5",
    "#785A00", "#8778FF", "#4BD287", "#875A78", "#FF96FF", "#0F4B78", "#B44BB4", "#96A55A", "#4B4BD2", "#1E5A00",
    "#C32D4B", "#C3A5D2", "#782DA5", "#C369F0", "#B4D25A", "#0F78F0", "#006969", "#9687C3", "#873C3C", "#FF69A5",
)  # fmt: skip
OTHER = "#B4BAC2"
NO_LABEL = "(no label)"


@dataclass(frozen=True, slots=True)
class Classes:
    """The classes of N cells."""

    names: list[str]  # most frequent first, then "other (n classes)" where there were too many
    counts: list[int]  # cells of each
    codes: NDArray[np.intp]  # (N,) index into names
    colours: list[str]  # one a name
    gathered: int  # how many classes the last name stands for; 0 where every class has its own


def group_classes(labels: Sequence[str] | NDArray[np.str_], most: int = len(PALETTE)) -> Classes:
    """Sorts classes by frequency, equals by name, and gathers all beyond `most` - 1 as one if there are more.

    Args:
        labels: (N,) one a cell; an empty one is a class of its own.
        most: names at most, "other" included.

    Raises:
        ValueError: no cells, or room for fewer than two names.
    """
    if len(labels) == 0 or most < 2:
        raise ValueError(f"classes of {len(labels)} cells under at most {most} names: give a cell and two names")
    found, inverse, counts = np.unique(np.asarray(labels, dtype=np.str_), return_inverse=True, return_counts=True)
    order = np.lexsort((found, -counts))
    names = [str(found[index]) or NO_LABEL for index in order]
    sizes = [int(counts[index]) for index in order]
    rank = np.empty(len(order), dtype=np.intp)
    rank[order] = np.arange(len(order))
    codes = rank[inverse.reshape(-1)]
    if len(names) <= most:
        return Classes(names, sizes, codes, _colours(len(names)), 0)
    kept, gathered = most - 1, len(names) - most + 1
    names = [*names[:kept], f"other ({gathered:,} classes)"]
    sizes = [*sizes[:kept], sum(sizes[kept:])]
    return Classes(names, sizes, np.minimum(codes, kept), [*_colours(kept), OTHER], gathered)


def _colours(number: int) -> list[str]:
    return [PALETTE[index % len(PALETTE)] for index in range(number)]
