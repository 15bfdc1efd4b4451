"""One AnnData from an OUTPUT: `obsm["X_scgpt_cls_l07"]` for every stored column, provenance in `uns["xfm"]`.

Memory: every exported column is held once, rows x width x 4 bytes, and one part at a time. All 13 layers of scGPT in
two poolings are 53 kB a cell: a million cells need 53 GB, and 4 GB with `layers=[7]`.
"""

import json
import logging
import os
import re
import secrets
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from xfm.core.config import fingerprint
from xfm.core.errors import EnvironmentProblem, Refused
from xfm.core.ledger import RUN
from xfm.core.schema import ROW_ID
from xfm.sources.stored.columns import LAYER, check_unique
from xfm.sources.stored.output import StoredOutput, open_output, vectors

logger = logging.getLogger(__name__)

_DIGEST = re.compile(r"(sha256:)?[0-9a-f]{40,64}")


def export(output: str, target: str, *, layers: Sequence[int] | None = None, overwrite: bool = False) -> int:
    """Writes the committed shards of an OUTPUT as one AnnData, rows in shard order.

    Args:
        target: local path that ends in .h5ad or .zarr.
        layers: which layers to export; None for all that are stored.
        overwrite: replace an existing target.

    Returns:
        Number of rows.

    Raises:
        Refused: NOT_AN_OUTPUT, NOTHING_COMMITTED, NO_EMBEDDINGS, CORRUPT_PART, MIXED_PARTS, DUPLICATE_ROWS, NO_LAYER,
            BAD_TARGET or TARGET_EXISTS; no target is written.
    """
    path = _checked_target(target, overwrite)
    stored = open_output(output, verify=False)  # below, where every byte is read anyway
    run = stored.origin()
    columns = _read(stored, layers)
    obs = stored.obs([ROW_ID, *stored.obs_names()])
    check_unique(obs[ROW_ID].to_pylist(), stored.place, "an AnnData needs a name for each")
    _write(path, obs, {_obsm_name(name, run): values for name, values in columns.items()}, _provenance(run, stored))
    logger.info("exported %d rows and %d columns to %s", stored.rows, len(columns), path)
    return stored.rows


def _checked_target(target: str, overwrite: bool) -> Path:
    path = Path(target)
    if path.suffix not in (".h5ad", ".zarr") or "://" in target:
        raise Refused("BAD_TARGET", f"cannot export to {target!r}: give a local path that ends in .h5ad or .zarr")
    if not path.absolute().parent.is_dir():
        raise Refused("BAD_TARGET", f"there is no folder {path.absolute().parent} to export into")
    if path.exists() and not overwrite:
        raise Refused("TARGET_EXISTS", f"{path} exists; choose another name or allow overwriting")
    return path


def _read(stored: StoredOutput, layers: Sequence[int] | None) -> dict[str, NDArray[np.float32]]:
    """{column: (N, D)} of the chosen layers, and of columns that belong to none; every part is verified."""
    known = {column.layer for column in stored.columns if column.layer is not None}
    if missing := sorted(set(layers or ()) - known):
        raise Refused("NO_LAYER", f"layer {missing[0]} was asked for; stored are {sorted(known)}")
    chosen = [column for column in stored.columns if layers is None or column.layer is None or column.layer in layers]
    columns = {column.key: np.empty((stored.rows, column.dim), np.float32) for column in chosen}
    start = 0
    for number, receipt in enumerate(stored.receipts):
        part = stored.part(number, list(columns), verify=True)
        for name, values in columns.items():
            values[start : start + receipt.rows] = vectors(part[name])
        start += receipt.rows
    return columns


def _obsm_name(column: str, run: dict[str, Any]) -> str:
    """`cls_l07` -> `X_scgpt_cls_l07`; a column that is no layer keeps its name."""
    if not LAYER.fullmatch(column):
        return column
    try:
        backbone = run["recipe"]["config"]["backbone"]
        untrained = "_random" if backbone.get("random_weights") is not None else ""
        return f"X_{backbone['kind']}{untrained}_{column}"
    except (KeyError, TypeError) as problem:
        raise Refused("NOT_AN_OUTPUT", f"{RUN} names no backbone (recipe.config.backbone.kind)") from problem


def _provenance(run: dict[str, Any], stored: StoredOutput) -> dict[str, Any]:
    """What `uns["xfm"]` holds: run.json as text, and the digests of weights, data and parts by dotted name."""
    hashes = {"fingerprint": str(run["fingerprint"]), "parts": stored.identity()["parts"]}
    for section in ("weights", "data"):
        hashes |= _digests(run["recipe"].get(section), section)
    return {"run": json.dumps(run), "hashes": hashes}


def _digests(value: Any, name: str) -> dict[str, str]:
    """Digests and releases below a value. `files` becomes one digest of them all: h5ad keys may hold no slash."""
    if isinstance(value, dict) and name.endswith(".files"):
        return {name: fingerprint(value)}
    if isinstance(value, dict):
        return {key: text for field, item in value.items() for key, text in _digests(item, f"{name}.{field}").items()}
    last = name.rpartition(".")[2]
    keep = isinstance(value, str) and (_DIGEST.fullmatch(value) or last in ("release", "revision"))
    return {name.replace("/", "|"): value} if keep else {}


def _frame(obs: pa.Table) -> Any:
    """An obs frame with row ids as index. Integers and booleans with gaps stay what they are; times become text."""
    import pandas as pd

    nullable = {pa.int8(): pd.Int8Dtype(), pa.int16(): pd.Int16Dtype(), pa.int32(): pd.Int32Dtype(),
                pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}  # fmt: skip
    data = {}
    for name in obs.column_names:
        column = obs[name].unify_dictionaries()
        if pa.types.is_temporal(column.type) or pa.types.is_decimal(column.type):
            column = column.cast(pa.string())
        elif pa.types.is_nested(column.type) or pa.types.is_binary(column.type):
            raise Refused("OBS_TYPE", f"obs column {name!r} is {column.type}; an AnnData holds numbers and text")
        types = nullable if column.null_count else {}
        data[name] = column.to_pandas(types_mapper=types.get)
    index = pd.Index(data.pop(ROW_ID), name=ROW_ID)
    return pd.DataFrame({name: values.array for name, values in data.items()}, index=index)


def _write(path: Path, obs: pa.Table, obsm: dict[str, NDArray[np.float32]], provenance: dict[str, Any]) -> None:
    """Writes under a temporary name and renames: a target that exists is whole."""
    import anndata

    cells = anndata.AnnData(obs=_frame(obs), obsm=obsm, uns={"xfm": provenance})
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.{secrets.token_hex(4)}{path.suffix}")
    try:
        if path.suffix == ".h5ad":
            cells.write_h5ad(temporary)
        else:
            with anndata.settings.override(zarr_write_format=3, auto_shard_zarr_v3=False), warnings.catch_warnings():
                # anndata writes consolidated metadata, which zarr calls an extension of its format.
                warnings.filterwarnings("ignore", message="Consolidated metadata")
                cells.write_zarr(temporary)
        if path.is_dir():
            shutil.rmtree(path)  # a folder cannot be renamed over a full one
        os.replace(temporary, path)
    except OSError as problem:
        raise EnvironmentProblem(f"cannot write {path}: {problem}") from problem
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        else:
            temporary.unlink(missing_ok=True)
