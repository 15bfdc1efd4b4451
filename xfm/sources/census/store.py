"""Writes cells as a small local store in the layout of CELLxGENE Census, for demonstrations and tests.

    URI/census_data/homo_sapiens           a SOMA Experiment
        obs                                soma_joinid, obs_id, is_primary_data, nnz, raw_sum, and those of `adata.obs`
        ms/RNA/var                         soma_joinid, var_id, feature_id, feature_name, ...
        ms/RNA/X/raw                       sparse float32 counts
        ms/RNA/obsm/NAME                   the arrays of `adata.obsm`

About 120 cells a second and core, so it is meant for thousands of cells. All links inside are relative: the folder
may be moved.
"""

import logging
from pathlib import Path
from typing import Any

from xfm.core.errors import Refused

logger = logging.getLogger(__name__)


def write_census_store(
    adata: Any, uri: str | Path, *, organism: str = "homo_sapiens", measurement: str = "RNA", x_name: str = "raw"
) -> None:
    """Write an AnnData as a store that `Census(uri=...)` and cellxgene-census read.

    Args:
        adata: raw counts in X; `feature_id` and `feature_name` are taken from var, else from var_names. A boolean
            obs column `is_primary_data` is kept, else every cell is primary. obsm is written as it is.
        uri: a folder that does not exist yet.
        organism, measurement, x_name: names of the Experiment, its measurement and the count layer.

    Raises:
        Refused: X holds something other than counts, or the folder exists.
    """
    import tiledbsoma
    import tiledbsoma.io

    folder = Path(uri)
    if folder.exists():
        raise Refused("STORE_EXISTS", f"{folder} exists already; a store is written once. Remove it or name another.")
    experiment, cells = str(folder / "census_data" / organism), _census_like(adata)
    # `create` and `open(..., "w")` each take their own timestamp. A dictionary column written through a handle that
    # was pinned to an earlier time keeps its codes and loses its dictionary (tiledbsoma 2.3): filters find nothing.
    root: Any
    with tiledbsoma.Collection.create(str(folder)) as root:
        root.add_new_collection("census_data").close()
    tiledbsoma.io.from_anndata(experiment, cells, measurement, X_layer_name=x_name, use_relative_uri=True)
    data: Any
    with tiledbsoma.open(str(folder / "census_data"), "w") as data, tiledbsoma.open(experiment) as written:
        data.set(organism, written, use_relative_uri=True)
    logger.info("wrote %d cells x %d genes to %s", adata.n_obs, adata.n_vars, folder)


def _census_like(adata: Any) -> Any:
    """A copy with the obs and var columns of Census, counts as CSR float32, and nothing else but obsm."""
    import anndata
    import numpy as np
    import scipy.sparse

    counts = scipy.sparse.csr_matrix(adata.X, dtype=np.float64)
    counts.eliminate_zeros()
    data = counts.data
    if not (np.isfinite(data).all() and (data >= 0).all() and (data == np.floor(data)).all()):
        raise Refused("NOT_COUNTS", "X of the AnnData holds values that are no counts; a Census store holds raw counts")
    obs, var = adata.obs.copy(), adata.var.copy()
    if "is_primary_data" not in obs:
        obs["is_primary_data"] = True
    obs["is_primary_data"] = obs["is_primary_data"].astype(bool)
    obs["nnz"] = np.diff(counts.indptr).astype(np.int64)
    obs["raw_sum"] = np.asarray(counts.sum(axis=1)).ravel()
    for name in ("feature_id", "feature_name"):
        if name not in var:
            var[name] = adata.var_names.astype(str)
    obsm = {key: np.asarray(value, dtype=np.float32) for key, value in adata.obsm.items()}
    return anndata.AnnData(X=counts.astype(np.float32), obs=obs, var=var, obsm=obsm)
