"""One gene axis for files that name their genes differently.

As `tokenizers/vocabulary.py` matches a gene table with a model's vocabulary, gene tables are matched with each other:
by the columns that share most. Accessions lose their version; the second gene of a name meets the other files' second.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from xfm.core.errors import Refused
from xfm.tokenizers.vocabulary import VERSIONED

Key = tuple[str, int]  # name, and how many genes before had it


def common_genes(
    tables: Sequence[pa.Table],
) -> tuple[tuple[str, ...], list[NDArray[np.int32]], tuple[str, ...]]:
    """The genes that every table holds, in the order of the first.

    Args:
        tables: one string column per kind of identifier, one row a gene.

    Returns:
        Names; for each table the place of each of its genes, -1 for those that others lack; notes.

    Raises:
        Refused: NO_COMMON_GENES.
    """
    if len(tables) == 1:
        name = max(tables[0].column_names, key=lambda name: len(set(_names(tables[0], name)) - {None}))
        names = [gene or f"gene {number}" for number, gene in enumerate(_names(tables[0], name))]
        return tuple(names), [np.arange(len(names), dtype=np.int32)], ()
    keys = [{name: _keys(_names(table, name)) for name in table.column_names} for table in tables]
    chosen = max((_nearest(column, keys) for column in keys[0].values()), key=lambda choice: len(_shared(choice)))
    shared = _shared(chosen)
    if not shared:
        shown = "; ".join(", ".join(f"{name} {_names(t, name)[:2]}" for name in t.column_names) for t in tables[:2])
        raise Refused("NO_COMMON_GENES", f"no gene is in all of {len(tables)} gene tables of the source: {shown}")
    place = {key: number for number, key in enumerate(key for key in chosen[0] if key in shared)}
    axes = [np.full(table.num_rows, -1, np.int32) for table in tables]
    for axis, column in zip(axes, chosen, strict=True):
        for key, gene in column.items():
            axis[gene] = place.get(key, -1)
    most = max(table.num_rows for table in tables)
    notes = (f"{len(place):,} genes are in all of {len(tables)} gene tables; the largest has {most:,}",)
    return tuple(name for name, _ in place), axes, notes


def _names(table: pa.Table, name: str) -> list[str | None]:
    return [None if gene is None else VERSIONED.sub(r"\1", gene) for gene in table[name].to_pylist()]


def _keys(names: Sequence[str | None]) -> dict[Key, int]:
    """Row of each gene that has a name."""
    seen: dict[str, int] = {}
    keys: dict[Key, int] = {}
    for row, name in enumerate(names):
        if name is not None:
            keys[name, seen.setdefault(name, 0)] = row
            seen[name] += 1
    return keys


def _nearest(reference: dict[Key, int], keys: Sequence[dict[str, dict[Key, int]]]) -> list[dict[Key, int]]:
    """A column of the first table, and of each other table the one that shares most with it."""
    others = [max(table.values(), key=lambda column: len(reference.keys() & column.keys())) for table in keys[1:]]
    return [reference, *others]


def _shared(columns: Sequence[dict[Key, int]]) -> set[Key]:
    return set(columns[0]).intersection(*columns[1:])
