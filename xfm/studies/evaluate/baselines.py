"""What expression itself says: log-normalised variable genes and their principal components, as baselines.

An embedding that does not beat them adds nothing (Kedzierska et al., Genome Biology 2025; Boiarsky et al., Nature
Machine Intelligence 2024). The steps are scanpy's: counts to 10,000 a cell, log1p, variable genes of flavor "seurat",
PCA without scaling. Genes and components are fitted on training cells alone and applied to all. They are stored like
embeddings, so that they are judged by the same code.
"""

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from xfm.core.errors import Refused
from xfm.core.parts import TRAIN
from xfm.core.schema import DEPTH, ROW_ID
from xfm.core.source import Source
from xfm.judging.eval_set import EvalSet
from xfm.studies.evaluate.expression_matrix import Measured, read_expression

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


logger = logging.getLogger(__name__)

TARGET_SUM = 1e4

F32 = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Expression:
    """Baselines of N cells."""

    hvg: F32  # (N, G) log-normalised expression of the variable genes
    pca: F32  # (N, P) their principal components
    genes: tuple[str, ...]  # names of the G variable genes
    counts: Any | None  # (N, G) sparse counts of the variable genes; None where the source holds other values
    depth: NDArray[np.float64] | None  # (N,) total counts over all genes; None where the source holds other values
    notes: tuple[str, ...]  # what a reader should know


def expression_baselines(
    source: Source, row_ids: Sequence[str], is_train: Mask, *, genes: int = 2000, components: int = 50
) -> Expression:
    """Reads the cells named and fits on those for training. Nothing is drawn at random.

    Memory: about 40 bytes an entry; 20,000 cells with 2,200 expressed genes each take 1.7 GB.

    Args:
        is_train: (N,) the cells that genes and components may be fitted on.
        genes: variable genes, fewer where there are not as many.
        components: of the PCA, fewer where cells or genes do not allow as many.

    Raises:
        Refused: as `read_expression`; TOO_FEW_CELLS or NO_VARIABLE_GENES.
    """
    return fit_expression(
        read_expression(source, row_ids), is_train, is_log=holds_log(source), genes=genes, components=components
    )


def holds_log(source: Source) -> bool:
    """Whether a source declares its values as log-normalised."""
    return getattr(source, "values", "counts") == "log"


def fit_expression(measured: Measured, is_train: Mask, *, is_log: bool, genes: int, components: int) -> Expression:
    """As `expression_baselines`, of a matrix in memory."""
    if int(is_train.sum()) < 3:
        raise Refused("TOO_FEW_CELLS", f"variable genes need 3 training cells, found {int(is_train.sum())}")
    is_counts = not is_log and bool((measured.values.data == np.rint(measured.values.data)).all())
    logged = measured.values if is_log else log_normalised(measured.values, measured.totals)
    chosen = variable_genes(logged[is_train], genes)
    values = logged[:, chosen]
    pca = principal_components(values, is_train, components)
    notes = [*measured.notes, f"{len(chosen):,} variable genes of {len(measured.genes):,}, {pca.shape[1]} components"]
    if not is_counts:
        notes.append("the source holds log values, used as they are" if is_log else "the source holds no whole counts")
    logger.info("expression: %s", "; ".join(notes))
    return Expression(
        values.toarray(),
        pca,
        tuple(measured.genes[gene] for gene in chosen),
        measured.values[:, chosen] if is_counts else None,
        measured.totals if is_counts else None,
        tuple(notes),
    )


def log_normalised(counts: Any, totals: NDArray[np.float64]) -> Any:
    """log1p of counts to 10,000 a cell, (N, G) sparse; a cell without counts stays zero."""
    scale = np.divide(TARGET_SUM, totals, out=np.zeros_like(totals), where=totals > 0).astype(np.float32)
    data = counts.data * np.repeat(scale, np.diff(counts.indptr))
    return type(counts)((np.log1p(data, out=data), counts.indices, counts.indptr), shape=counts.shape)


def variable_genes(logged: Any, genes: int) -> NDArray[np.int64]:
    """Rising numbers of the most variable genes of some cells, (N, G) sparse.

    Raises:
        Refused: NO_VARIABLE_GENES.

    Source: scanpy.pp.highly_variable_genes, flavor "seurat" (Satija et al., Nature Biotechnology 2015).
    """
    import anndata
    import scanpy

    with warnings.catch_warnings():
        # A gene that does not vary has no dispersion, and is none to choose.
        warnings.filterwarnings("ignore", message="invalid value encountered in log", category=RuntimeWarning)
        table = scanpy.pp.highly_variable_genes(anndata.AnnData(logged), flavor="seurat", inplace=False)
    dispersions = table["dispersions_norm"].to_numpy(np.float64)
    ranked = np.sort(dispersions[np.isfinite(dispersions)])[::-1]
    if not len(ranked):
        raise Refused(
            "NO_VARIABLE_GENES", f"none of {logged.shape[1]:,} genes varies between {logged.shape[0]:,} cells"
        )
    return np.flatnonzero(dispersions >= ranked[min(genes, len(ranked)) - 1])  # NaN is not


def principal_components(values: Any, is_train: Mask, components: int) -> F32:
    """(N, P) coordinates of all cells on the components of the training cells; exact, from their covariance."""
    from sklearn.decomposition import PCA

    train = values[is_train].astype(np.float64)
    model = PCA(min(components, *train.shape), svd_solver="covariance_eigh").fit(train)
    return np.asarray(model.transform(values.astype(np.float64)), np.float32)
