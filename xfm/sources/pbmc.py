"""700 real blood cells that come with scanpy, as the counts they were measured as.

10x Genomics' 68k PBMC, thinned to 700 cells and 765 genes: `scanpy.datasets.pbmc68k_reduced`. Its `.raw` holds
log1p(count * 10000 / n_counts), rounded to three decimals. The counts are recovered exactly: putting them through the
formula again gives every stored value within its rounding, and the next whole number would be further off.
"""

from typing import Any

import numpy as np

from xfm.core.errors import Refused

ROUNDING = 0.0006  # half a unit of the third decimal, and what float32 adds to it


def pbmc_counts() -> Any:
    """An AnnData of 700 cells x 765 genes with raw counts in X and the data set's own obs columns.

    Raises:
        Refused: the bundled data are no longer what they were.
    """
    import anndata
    import scanpy
    import scipy.sparse

    source = scanpy.datasets.pbmc68k_reduced()
    logged = scipy.sparse.csr_matrix(source.raw.X, dtype=np.float64)
    totals = source.obs["n_counts"].to_numpy(dtype=np.float64)
    per_entry = np.repeat(totals, np.diff(logged.indptr))
    counts = logged.copy()
    counts.data = np.round(np.expm1(logged.data) * per_entry / 1e4)
    again = np.log1p(counts.data * 1e4 / per_entry)
    if np.abs(again - logged.data).max() > ROUNDING or counts.data.min() < 1:
        raise Refused("NOT_COUNTS", "scanpy's bundled pbmc68k_reduced does not give back its counts any more")
    var = source.raw.var[[]].copy()
    var["feature_name"] = source.raw.var_names.astype(str)
    return anndata.AnnData(X=counts.astype(np.float32), obs=source.obs.copy(), var=var)
