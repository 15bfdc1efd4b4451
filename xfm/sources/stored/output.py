"""Embeddings in the OUTPUT of an embed job: Parquet parts, of which a read touches one column.

The manifest says which parts there are, in which order, and what bytes they must have (`core/ledger.py`). All bytes
are compared with it once, where the embeddings are opened; later reads, on other workers, compare lengths.
"""

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from xfm.core.config import fingerprint
from xfm.core.errors import EnvironmentProblem, Refused
from xfm.core.ledger import MANIFEST, REPORT, RUN, Receipt, parse, part_name
from xfm.core.schema import ROW_ID
from xfm.core.storage import Storage, open_storage
from xfm.sources.gene_table import missing
from xfm.sources.stored.columns import F32, StoredEmbeddings, check_unique, layer_columns

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StoredOutput(StoredEmbeddings):
    """Committed shards of an OUTPUT."""

    uri: str  # what `open_storage` takes; absolute
    receipts: tuple[Receipt, ...]  # the parts, in the order of their rows
    others: tuple[str, ...]  # columns that hold no vectors, ROW_ID left out

    def row_ids(self) -> list[str]:
        ids: list[str] = self._table([ROW_ID])[ROW_ID].to_pylist()
        check_unique(ids, self.place, "every row needs a name of its own")
        return ids

    def is_finished(self) -> bool:
        return open_storage(self.uri).size(REPORT) is not None

    def obs_names(self) -> list[str]:
        return list(self.others)

    def obs(self, names: Sequence[str]) -> pa.Table:
        known = self.obs_names()
        for name in names:
            if name not in known and name != ROW_ID:
                there = missing("obs column", name, known) if known else f"no obs column {name!r}, nor any other"
                again = f"run embed again with --source.obs {','.join([*known, name])} into another --output"
                keeps = "embed keeps the obs columns that --source.obs names"
                raise Refused("NO_COLUMN", f"{self.place}: {there}. {keeps}; if the data have it, {again}")
        return self._table(names)

    def identity(self) -> dict[str, Any]:
        return {"rows": self.rows, "parts": fingerprint({receipt.key: receipt.sha256 for receipt in self.receipts})}

    def origin(self) -> dict[str, Any]:
        return read_run(open_storage(self.uri))

    def part(self, number: int, names: Sequence[str], *, verify: bool = False) -> pa.Table:
        """Columns of one part, and no bytes of others; `verify` compares all with the manifest, not the length alone.

        Raises:
            Refused: CORRUPT_PART or MIXED_PARTS.
        """
        receipt = self.receipts[number]
        with _parquet(open_storage(self.uri), receipt, verify) as file:
            self._check_columns(receipt, file.schema_arrow)
            part = file.read(columns=names)
        if part.num_rows != receipt.rows:
            found = f"{part.num_rows} rows, its manifest line {receipt.rows}"
            raise Refused("CORRUPT_PART", f"part {receipt.key} has {found}")
        return part.select(names)

    def _check_columns(self, receipt: Receipt, schema: pa.Schema) -> None:
        mine = {column.key: column.dim for column in self.columns} | dict.fromkeys(self.others)
        found = vector_widths(schema) | dict.fromkeys(_others(schema))
        if found != mine:
            odd = [name for name in (found | mine) if found.get(name, 0) != mine.get(name, 0)]
            which = f"part {receipt.key} in {self.place} has other columns than {self.receipts[0].key}"
            raise Refused("MIXED_PARTS", f"{which}; they differ in {', '.join(odd[:4])}")

    def _table(self, names: Sequence[str]) -> pa.Table:
        """Columns of all parts. Types that differ between parts become one where nothing is lost by it."""
        tables = [self.part(number, names) for number in range(len(self.receipts))]
        try:
            return pa.concat_tables(tables, promote_options="permissive").unify_dictionaries()
        except (pa.ArrowInvalid, pa.ArrowTypeError) as problem:
            raise Refused("MIXED_PARTS", f"obs columns of {self.place} differ between parts: {problem}") from problem

    def _pieces(self) -> Sequence[tuple[int, int]]:
        ends = list(accumulate(receipt.rows for receipt in self.receipts))
        return list(zip([0, *ends[:-1]], ends, strict=True))

    def _load(self, piece: int, keys: Sequence[str]) -> dict[str, F32]:
        part = self.part(piece, keys)
        return {key: vectors(part[key]) for key in keys}


def open_output(uri: str, *, verify: bool = True) -> StoredOutput:
    """The embeddings of an OUTPUT; `verify` compares every byte with the manifest now.

    Raises:
        Refused: NOT_AN_OUTPUT, NOTHING_COMMITTED, NO_EMBEDDINGS, CORRUPT_PART or MIXED_PARTS.
    """
    storage = open_storage(uri)
    run = read_run(storage)
    receipts = _in_shard_order(storage, str(run.get("job", "unknown")))
    with _parquet(storage, receipts[0], verify) as file:
        widths, others = vector_widths(file.schema_arrow), _others(file.schema_arrow)
    if not widths:
        what = f"the OUTPUT of a job {run.get('job')!r}, holds no embeddings"
        raise Refused("NO_EMBEDDINGS", f"{storage.place}, {what}; give that of an embed job")
    rows = sum(receipt.rows for receipt in receipts)
    stored = StoredOutput(storage.place, layer_columns(widths, ()), rows, storage.uri, receipts, others)
    for number in range(len(receipts)) if verify else ():
        stored.part(number, [], verify=True)
    return stored


def read_run(storage: Storage) -> dict[str, Any]:
    """run.json.

    Raises:
        Refused: NOT_AN_OUTPUT.
    """
    content = storage.read(RUN) if storage.names() else None
    if content is None:
        raise Refused("NOT_AN_OUTPUT", f"{storage.place} has no {RUN}; give the --output of an embed job")
    try:
        run = json.loads(content)
    except ValueError:
        run = None
    if not isinstance(run, dict) or not isinstance(run.get("recipe"), dict) or "fingerprint" not in run:
        raise Refused("NOT_AN_OUTPUT", f"{storage.place}/{RUN} was not written by xfm or is damaged")
    return run


def vector_widths(schema: pa.Schema) -> dict[str, int]:
    """Width of every fixed-size-list column."""
    return {field.name: field.type.list_size for field in schema if pa.types.is_fixed_size_list(field.type)}


def _others(schema: pa.Schema) -> tuple[str, ...]:
    widths = vector_widths(schema)
    return tuple(name for name in schema.names if name != ROW_ID and name not in widths)


def vectors(column: pa.ChunkedArray) -> F32:
    """A fixed-size-list column as (n, D)."""
    flat = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat, np.float32).reshape(len(column), column.type.list_size)


def _in_shard_order(storage: Storage, job: str) -> tuple[Receipt, ...]:
    receipts = list({receipt.key: receipt for receipt in parse(storage.read(MANIFEST), Receipt, MANIFEST)}.values())
    if not receipts:
        why = f"of a job {job!r}, has no finished shard"
        raise Refused("NOTHING_COMMITTED", f"{storage.place}, {why}; run the job first")
    if storage.size(REPORT) is None:
        logger.warning("%s has no %s: its job has not finished, using %d shards in the order of their keys",
                       storage.place, REPORT, len(receipts))  # fmt: skip
        receipts.sort(key=lambda receipt: receipt.key)
    return tuple(receipts)


@contextmanager
def _parquet(storage: Storage, receipt: Receipt, verify: bool) -> Iterator[Any]:
    """A part as a pq.ParquetFile. EnvironmentProblem: its bytes are right and yet cannot be read."""
    with _whole(storage, receipt) if verify else _at_any_offset(storage, receipt) as stream:
        try:
            yield pq.ParquetFile(stream)
        except (pa.ArrowInvalid, OSError) as problem:
            _whole(storage, receipt)
            raise EnvironmentProblem(f"{storage.place}: part {receipt.key} could not be read: {problem}") from problem


def _whole(storage: Storage, receipt: Receipt) -> Any:
    """All bytes of a part, compared with the manifest."""
    data = storage.read(part_name(receipt.key))
    found = "missing" if data is None else hashlib.sha256(data).hexdigest()
    if data is None or found != receipt.sha256:
        raise _corrupt(storage, receipt, f"sha256 {receipt.sha256}", found)
    return pa.BufferReader(data)


def _at_any_offset(storage: Storage, receipt: Receipt) -> Any:
    """A part of the right length."""
    size = storage.size(part_name(receipt.key))
    if size != receipt.bytes:
        found = "missing" if size is None else f"{size:,} bytes"
        raise _corrupt(storage, receipt, f"{receipt.bytes:,} bytes", found)
    return storage.open(part_name(receipt.key))


def _corrupt(storage: Storage, receipt: Receipt, wanted: str, found: str) -> Refused:
    what = f"{part_name(receipt.key)} in {storage.place} is not what was committed"
    advice = "Delete it and run the job again, which computes that shard anew"
    return Refused("CORRUPT_PART", f"{what}: {wanted} in the manifest, {found} on disk. {advice}")
