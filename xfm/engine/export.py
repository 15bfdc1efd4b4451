"""One AnnData from an OUTPUT: `obsm["X_scgpt_cls_l07"]` for every stored column, provenance in `uns["xfm"]`.

Memory: every exported column is held once, rows x width x 4 bytes, and one part at a time. All 13 layers of scGPT in
two poolings are 53 kB a cell: a million cells need 53 GB, and 4 GB with `layers=[7]`.
"""

import hashlib
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
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from xfm.core.config import fingerprint
from xfm.core.errors import EnvironmentProblem, Refused
from xfm.core.ledger import MANIFEST, REPORT, RUN, Receipt, parse, part_name
from xfm.core.schema import ROW_ID
from xfm.core.storage import Storage, open_storage
from xfm.engine.same_run import earlier_run

logger = logging.getLogger(__name__)

_LAYER = re.compile(r"(?P<pool>.+)_l(?P<layer>\d{2,})")
_DIGEST = re.compile(r"(sha256:)?[0-9a-f]{40,64}")


def export(output: str, target: str, *, layers: Sequence[int] | None = None, overwrite: bool = False) -> int:
    """Writes the committed shards of an OUTPUT as one AnnData, rows in shard order.

    Args:
        output: folder or URI of the OUTPUT.
        target: local path that ends in .h5ad or .zarr.
        layers: which layers to export; None for all that are stored.
        overwrite: replace an existing target.

    Returns:
        Number of rows.

    Raises:
        Refused: NOT_AN_OUTPUT, NOTHING_COMMITTED, CORRUPT_PART, MIXED_PARTS, DUPLICATE_ROWS, NO_LAYER, BAD_TARGET or
            TARGET_EXISTS; no target is written.
    """
    path = _checked_target(target, overwrite)
    storage = open_storage(output)
    content = storage.read(RUN) if storage.names() else None
    if content is None:
        raise Refused("NOT_AN_OUTPUT", f"{storage.place} has no {RUN}; give the --output of an embed job")
    run = earlier_run(content, storage.place)
    receipts = _in_shard_order(storage)
    obs, columns = _read(storage, receipts, layers)
    _write(path, obs, {_obsm_name(name, run): values for name, values in columns.items()}, _provenance(run, receipts))
    logger.info("exported %d rows and %d columns to %s", obs.num_rows, len(columns), path)
    return int(obs.num_rows)


def _checked_target(target: str, overwrite: bool) -> Path:
    path = Path(target)
    if path.suffix not in (".h5ad", ".zarr") or "://" in target:
        raise Refused("BAD_TARGET", f"cannot export to {target!r}: give a local path that ends in .h5ad or .zarr")
    if not path.absolute().parent.is_dir():
        raise Refused("BAD_TARGET", f"there is no folder {path.absolute().parent} to export into")
    if path.exists() and not overwrite:
        raise Refused("TARGET_EXISTS", f"{path} exists; choose another name or allow overwriting")
    return path


def _in_shard_order(storage: Storage) -> list[Receipt]:
    receipts = list({receipt.key: receipt for receipt in parse(storage.read(MANIFEST), Receipt, MANIFEST)}.values())
    if not receipts:
        raise Refused("NOTHING_COMMITTED", f"{storage.place} has no finished shard; run its job first")
    if storage.size(REPORT) is None:
        logger.warning("%s has no %s: its job has not finished, exporting %d shards in the order of their keys",
                       storage.place, REPORT, len(receipts))  # fmt: skip
        receipts.sort(key=lambda receipt: receipt.key)
    return receipts


def _read(
    storage: Storage, receipts: Sequence[Receipt], layers: Sequence[int] | None
) -> tuple[pa.Table, dict[str, NDArray[np.float32]]]:
    """ROW_ID and obs columns as one table of N rows, and {column: (N, D) float32}."""
    rows = sum(receipt.rows for receipt in receipts)
    obs: list[pa.Table] = []
    columns: dict[str, NDArray[np.float32]] = {}
    widths: dict[str, int] | None = None
    start = 0
    for receipt in receipts:
        part = _verified(storage, receipt)
        found = _vector_columns(part.schema)
        if widths is None:
            widths = found
            columns = {name: np.empty((rows, widths[name]), np.float32) for name in _chosen(widths, layers)}
        elif found != widths:
            odd = sorted(set(found.items()) ^ set(widths.items()))
            raise Refused("MIXED_PARTS", f"part {receipt.key} has other columns than {receipts[0].key}: {odd[:4]}")
        for name, values in columns.items():
            flat = part[name].combine_chunks().flatten().to_numpy(zero_copy_only=False)
            values[start : start + receipt.rows] = flat.reshape(receipt.rows, widths[name])
        obs.append(part.drop_columns(list(found)))
        start += receipt.rows
    try:
        table = pa.concat_tables(obs, promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as problem:
        raise Refused("MIXED_PARTS", f"obs columns of {storage.place} differ between parts: {problem}") from problem
    if pc.count_distinct(table[ROW_ID]).as_py() != rows:
        raise Refused("DUPLICATE_ROWS", f"{storage.place} has {rows} rows but fewer row ids; an AnnData needs one each")
    return table, columns


def _verified(storage: Storage, receipt: Receipt) -> pa.Table:
    """A part whose bytes are those that were committed."""
    data = storage.read(part_name(receipt.key))
    found = "missing" if data is None else hashlib.sha256(data).hexdigest()
    if data is None or found != receipt.sha256:
        raise Refused("CORRUPT_PART", f"{part_name(receipt.key)} in {storage.place} is not what was committed: sha256 "
                      f"{receipt.sha256} in the manifest, {found} on disk. Delete it and run the job again, which "
                      "computes that shard anew")  # fmt: skip
    part = pq.read_table(pa.BufferReader(data))
    if part.num_rows != receipt.rows:
        raise Refused("CORRUPT_PART", f"part {receipt.key} has {part.num_rows} rows, its manifest line {receipt.rows}")
    return part


def _vector_columns(schema: pa.Schema) -> dict[str, int]:
    """Width of every fixed-size-list column."""
    return {field.name: field.type.list_size for field in schema if pa.types.is_fixed_size_list(field.type)}


def _chosen(widths: dict[str, int], layers: Sequence[int] | None) -> list[str]:
    """Columns to export: those of the layers asked for, and those that belong to no layer."""
    layer_of = {name: int(match["layer"]) for name in widths if (match := _LAYER.fullmatch(name))}
    stored = set(layer_of.values())
    if missing := sorted(set(layers or ()) - stored):
        raise Refused("NO_LAYER", f"layer {missing[0]} was asked for; stored are {sorted(stored)}")
    return [name for name in widths if layers is None or name not in layer_of or layer_of[name] in layers]


def _obsm_name(column: str, run: dict[str, Any]) -> str:
    """`cls_l07` -> `X_scgpt_cls_l07`; a column that is no layer keeps its name."""
    if not _LAYER.fullmatch(column):
        return column
    try:
        return f"X_{run['recipe']['config']['backbone']['kind']}_{column}"
    except (KeyError, TypeError) as problem:
        raise Refused("NOT_AN_OUTPUT", f"{RUN} names no backbone (recipe.config.backbone.kind)") from problem


def _provenance(run: dict[str, Any], receipts: Sequence[Receipt]) -> dict[str, Any]:
    """What `uns["xfm"]` holds: run.json as text, and the digests of weights, data and parts by dotted name."""
    hashes = {"fingerprint": str(run["fingerprint"]), "parts": fingerprint({r.key: r.sha256 for r in receipts})}
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
