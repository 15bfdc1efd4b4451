"""The representations that are judged: every layer, combinations of layers, and baselines; one is loaded at a time.

Combinations follow what is done with language models: the mean of all layers, mean and concatenation of the last ones
(Devlin et al., NAACL 2019, table 7), and a learned scalar mix (Peters et al., NAACL 2018, equation 1).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from xfm.core.schema import layer_column

F32 = NDArray[np.float32]
Read = Callable[[str, str], F32]  # (place, column) -> (N, D)
Kind = Literal["layer", "combination", "baseline"]

# Baselines that look at no cell. The third is the largest training class of each one's own set: what knowing the set
# alone says.
MAJORITY, CHANCE, WITHIN_MAJORITY = UNSEEING = ("majority", "chance", "within_majority")
MEAN = "train_mean"  # of numbers, what the largest class is of classes: the mean of training rows
RANDOM = "random"


@dataclass(frozen=True, slots=True)
class Representation:
    """One matrix to judge."""

    name: str  # file-name safe and unique in a job
    kind: Kind  # what it is
    # column: as stored; mean, concat: of several columns; mix: learned weights; none: knows nothing
    how: Literal["column", "mean", "concat", "mix", "none"]
    place: str  # which store its columns lie in: embeddings, random or expression
    columns: tuple[str, ...]  # names in that store
    pool: str | None = None  # pool, layer: of a single layer; None elsewhere
    layer: int | None = None
    label: str | None = None  # the one label that a learned mix was learned for; None where any may be judged


def layers_of(
    pools: Mapping[str, Sequence[int]], place: str, *, kind: Kind, prefix: str = ""
) -> Iterator[Representation]:
    """Every stored layer.

    Args:
        kind: layer, or baseline for a network that has learned nothing.
    """
    for pool, layers in pools.items():
        for layer in layers:
            column = layer_column(pool, layer)
            yield Representation(prefix + column, kind, "column", place, (column,), pool, layer)


def combinations_of(
    pools: Mapping[str, Sequence[int]], wanted: Iterable[str], last_n: int, labels: Sequence[str]
) -> Iterator[Representation]:
    """Combinations of the layers of each pooling; none where there is one layer only.

    Args:
        wanted: any of mean, last_mean, last_concat, scalar_mix.
        last_n: layers that `last_...` takes, the input embedding not counted; all where there are fewer.
        labels: a mix is learned for each.
    """
    for pool, layers in pools.items():
        every = tuple(layer_column(pool, layer) for layer in layers)
        last = tuple(layer_column(pool, layer) for layer in [layer for layer in layers if layer > 0][-last_n:])
        if len(every) < 2:
            continue
        if "mean" in wanted:
            yield Representation(f"{pool}_mean_layers", "combination", "mean", "embeddings", every, pool)
        if "last_mean" in wanted and len(last) > 1:
            yield Representation(f"{pool}_last{len(last)}_mean", "combination", "mean", "embeddings", last, pool)
        if "last_concat" in wanted and len(last) > 1:
            yield Representation(f"{pool}_last{len(last)}_concat", "combination", "concat", "embeddings", last, pool)
        if "scalar_mix" in wanted:
            for number, label in enumerate(labels):
                name = f"{pool}_scalar_mix" + (f"_{number + 1}" if len(labels) > 1 else "")
                yield Representation(name, "combination", "mix", "embeddings", every, pool, label=label)


def load(representation: Representation, read: Read) -> F32:
    """(N, D) of anything but a mix; at most two columns are in memory, but for a concatenation its own."""
    columns = (read(representation.place, column) for column in representation.columns)
    if representation.how == "concat":
        return np.concatenate(list(columns), axis=1)
    total = next(columns)
    for column in columns:
        total = total + column
    return total / np.float32(len(representation.columns)) if len(representation.columns) > 1 else total
