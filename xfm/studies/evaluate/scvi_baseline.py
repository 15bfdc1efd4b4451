"""scVI as a baseline: the latent means of a variational autoencoder of counts, trained on the training cells alone.

Lopez et al., Nature Methods 2018; two layers, 30 dimensions and a negative binomial likelihood are the settings of
the integration benchmark scib (Luecken et al., Nature Methods 2022). Needs the extra `scvi` (read in scvi-tools 1.4.2).
"""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xfm.core.errors import EnvironmentProblem, Refused

logger = logging.getLogger(__name__)

LATENT, LAYERS, BATCH = 30, 2, 128


def scvi_baseline(
    counts: Any, batches: Sequence[str], is_train: NDArray[np.bool_], seed: int, *, max_epochs: int | None = None
) -> NDArray[np.float32]:
    """Latent means of N cells.

    The encoder is not told a cell's batch, so that cells of a batch without training cells have a place as well.

    Args:
        counts: (N, G) sparse raw counts, usually of the variable genes.
        batches: (N,) technical origin, which the decoder is told in training; all the same where it is unknown.
        is_train: (N,) the cells to train on.
        max_epochs: None for scvi-tools' rule, 8 million / training cells and at most 400.

    Returns:
        (N, 30).

    Raises:
        EnvironmentProblem: scvi-tools is not installed.
        Refused: NOT_COUNTS or TOO_FEW_CELLS.
    """
    scvi: Any = _scvi()
    if counts.data.size and (counts.data.min() < 0 or (counts.data != np.rint(counts.data)).any()):
        raise Refused("NOT_COUNTS", "scVI models raw counts, and these are not whole numbers from 0")
    if int(is_train.sum()) < 3:
        raise Refused("TOO_FEW_CELLS", f"scVI needs 3 training cells, found {int(is_train.sum())}")
    names = np.asarray(batches, dtype=object).astype(str)
    known = names[is_train][0]
    train = _cells(counts[is_train], names[is_train])
    # Any known batch will do: the encoder does not see it.
    everything = _cells(counts, np.full(len(names), known))
    with _own_randomness(scvi, seed), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its framework, on workers of data loaders and on deprecations
        scvi.model.SCVI.setup_anndata(train, batch_key="batch")
        model = scvi.model.SCVI(train, n_layers=LAYERS, n_latent=LATENT, gene_likelihood="nb")
        model.train(
            max_epochs=max_epochs,
            accelerator="cpu",
            train_size=1.0,
            batch_size=_batch_size(len(train)),
            enable_progress_bar=False,
            enable_model_summary=False,
            logger=False,
        )
        latent = np.asarray(model.get_latent_representation(everything), np.float32)
    if not np.isfinite(latent).all():
        raise Refused("NOT_FINITE", "scVI's training diverged: its latent means are not finite; leave it out")
    logger.info("scVI: %d cells, %d genes", len(train), counts.shape[1])
    return latent


def check_available() -> None:
    """Raises EnvironmentProblem unless scvi-tools is installed."""
    if find_spec("scvi") is None:
        raise EnvironmentProblem("the scVI baseline needs scvi-tools: pip install 'xfm[scvi]'")


def _scvi() -> Any:
    try:
        scvi = import_module("scvi")
    except ImportError as problem:
        raise EnvironmentProblem("the scVI baseline needs scvi-tools: pip install 'xfm[scvi]'") from problem
    for chatty in ("scvi", "lightning.pytorch", "lightning.fabric", "lightning_fabric", "pytorch_lightning"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    return scvi


def _batch_size(cells: int) -> int:
    """scvi-tools' 128, or the next below it that leaves no cell alone: batch normalisation needs two."""
    return next(size for size in range(BATCH, 1, -1) if cells % size != 1)


def _cells(counts: Any, batches: NDArray[Any]) -> Any:
    import anndata
    import pandas as pd

    names = pd.Index([str(row) for row in range(counts.shape[0])])
    return anndata.AnnData(counts.copy(), obs=pd.DataFrame({"batch": pd.Categorical(batches)}, index=names))


@contextmanager
def _own_randomness(scvi: Any, seed: int) -> Iterator[None]:
    """scvi-tools draws from the global generators; they are as they were afterwards."""
    import random

    import torch

    state, numpy_state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        scvi.settings.seed = seed
        try:
            yield
        finally:
            random.setstate(state)
            np.random.set_state(numpy_state)
