"""What a worker of an evaluation does: load one representation from where it is stored, and judge it or draw it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from xfm.core.errors import Refused
from xfm.core.schema import ROW_ID
from xfm.judging.eval_set import EvalSet
from xfm.judging.judge import judge
from xfm.judging.representations import F32, Read, Representation, load
from xfm.judging.score import Score, table_of
from xfm.sources.stored.columns import StoredEmbeddings
from xfm.studies.evaluate.scalar_mix import Mix, mix_layers


@dataclass(frozen=True, slots=True)
class WorkPlace:
    """Where columns lie."""

    store: StoredEmbeddings  # OUTPUT or AnnData
    rows: NDArray[np.int64]  # (N,) positions of the judged cells there, rising
    # (N,) which of the rows read is each judged cell; None where they come in order
    order: NDArray[np.int64] | None = None


@dataclass(frozen=True, slots=True)
class Work:
    """What all workers share."""

    places: Mapping[str, WorkPlace]  # by name: embeddings, random, expression
    judged: EvalSet  # the cells and how they are judged
    representations: Mapping[str, Representation]  # by name
    tasks: tuple[str, ...]  # what to score

    def reader(self) -> Read:
        """Reads one column of the judged cells."""

        def read(place: str, column: str) -> F32:
            where = self.places[place]
            vectors = where.store.read(column, where.rows)
            return vectors if where.order is None else vectors[where.order]

        return read


def place_of(store: StoredEmbeddings, row_ids: tuple[str, ...]) -> WorkPlace:
    """Finds the judged cells in a store that may hold others, in another order.

    Raises:
        Refused: MISSING_ROWS; one of them is not there.
    """
    at = {row: number for number, row in enumerate(store.row_ids())}
    lacking = [row for row in row_ids if row not in at]
    if lacking:
        raise Refused(
            "MISSING_ROWS",
            f"{store.place} lacks {len(lacking):,} of {len(row_ids):,} rows, e.g. {lacking[0]}: were rows renamed?",
        )
    positions = np.array([at[row] for row in row_ids], np.int64)
    rows = np.sort(positions)
    order = np.searchsorted(rows, positions)
    return WorkPlace(store, rows, None if np.array_equal(order, np.arange(len(order))) else order)


def judge_named(work: Work, name: str) -> pa.Table:
    """The scores of one representation, as rows of `judge.SCHEMA`.

    Raises:
        Refused: NOT_FINITE; the store holds numbers that are none.
    """
    representation = work.representations[name]
    labels = [label for label in work.judged.labels if representation.label in (None, label.name)]
    # A mix was learned for one label: it is no representation of anything else.
    targets = work.judged.targets if representation.label is None else ()
    # Clusters of all cells would agree with the labels of training cells by heart.
    tasks = work.tasks if representation.how != "mix" else tuple(task for task in work.tasks if task != "clustering")
    vectors, mix = vectors_of(work, representation)

    def scores() -> Iterator[Score]:
        yield from judge(vectors, work.judged, tasks, labels, targets, unseeing=name)
        if mix is not None:
            for column, weight in zip(representation.columns, mix.weights, strict=True):
                note = f"best after {mix.steps} steps"
                yield Score("mix", labels[0].name, column, "train", float(weight), None, len(work.judged.rows), 0, note)

    return table_of(representation, scores())


def vectors_of(work: Work, representation: Representation) -> tuple[F32 | None, Mix | None]:
    """(N, D) of the judged cells; None for a baseline that knows nothing of them. A mix comes with its weights."""
    if representation.how == "none":
        return None, None
    if representation.how != "mix":
        return load(representation, work.reader()), None
    label = next(label for label in work.judged.labels if label.name == representation.label)
    return mix_layers(
        work.reader(), representation.place, representation.columns, label.codes, work.judged.split.parts,
        work.judged.seed,
    )  # fmt: skip


def draw_named(work: Work, name: str) -> pa.Table:
    """UMAP coordinates of one representation: row_id, x, y."""
    from xfm.plots.umap import umap_coordinates

    vectors, _ = vectors_of(work, work.representations[name])
    assert vectors is not None
    xy = umap_coordinates(vectors, work.judged.seed)
    return pa.table({ROW_ID: list(work.judged.row_ids), "x": xy[:, 0], "y": xy[:, 1]})
