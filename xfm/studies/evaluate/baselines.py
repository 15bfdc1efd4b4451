"""The baselines from expression as one table, stored like embeddings so that they are judged by the same code."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from xfm.core.errors import Refused
from xfm.core.parts import TRAIN
from xfm.core.schema import DEPTH, ROW_ID
from xfm.core.source import Source
from xfm.judging.eval_set import EvalSet
from xfm.studies.evaluate.expression import expression_baselines

HVG, PCA, SCVI = EXPRESSION = ("hvg", "pca", "scvi")


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which baselines of which cells."""

    source: Source  # that the cells were embedded from
    judged: EvalSet  # the cells and their split
    names: tuple[str, ...]  # of EXPRESSION


def expression_table(wanted: Wanted, _key: str) -> pa.Table:
    """row_id, depth (total counts, null where the source holds log values) and a column of vectors a baseline.

    Raises:
        Refused: the source cannot be read as expression of these cells.
        EnvironmentProblem: scVI is asked for and not installed.
    """
    judged = wanted.judged
    is_train = judged.split.parts == TRAIN
    found = expression_baselines(wanted.source, judged.row_ids, is_train)
    columns = {ROW_ID: pa.array(judged.row_ids, pa.string())}
    depth = np.full(len(is_train), np.nan) if found.depth is None else found.depth
    columns[DEPTH] = pa.array(depth, pa.float64(), from_pandas=True)
    if HVG in wanted.names:
        columns[HVG] = _vectors(found.hvg)
    if PCA in wanted.names:
        columns[PCA] = _vectors(found.pca)
    if SCVI in wanted.names:
        from xfm.studies.evaluate.scvi_baseline import scvi_baseline

        if found.counts is None:
            raise Refused(
                "NOT_COUNTS", "scVI models raw counts, and the source holds log values: leave out the baseline scvi"
            )
        batches = ["all"] * len(is_train) if judged.batch is None else judged.batch.words()
        columns[SCVI] = _vectors(scvi_baseline(found.counts, batches, is_train, judged.seed))
    return pa.table(columns)


def _vectors(values: NDArray[np.float32]) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])
