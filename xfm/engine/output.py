"""The commit protocol: shard files, manifest, quarantine, lease and resume.

    worker   parts/KEY.parquet   temporary name, fsync, rename; the bytes are a function of the table alone
    driver   quarantine.jsonl    the refused rows of that shard
    driver   manifest.jsonl      one line: from here on the shard is committed

A crash between two steps leaves a shard that is not committed; the next run removes its traces and does it again,
with the same bytes. `finish` brings both files into shard order, so a run that was killed ends like one that was not.
After the manifest-committer protocol of Hadoop (SPARK-9899 tells what happens without).
"""

import hashlib
import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from xfm.core.config import fingerprint
from xfm.core.errors import EnvironmentProblem, Refused
from xfm.core.ledger import (
    MANIFEST,
    PARTS,
    QUARANTINE,
    REPORT,
    RUN,
    Receipt,
    Refusal,
    checked_name,
    distinct,
    intact,
    part_name,
    render,
)
from xfm.core.storage import open_storage
from xfm.engine.lease import lease_for
from xfm.engine.resume_check import check_same_recipe, earlier_run

logger = logging.getLogger(__name__)

_OURS = {RUN, MANIFEST, QUARANTINE, PARTS, REPORT, "report.html", "plots"}


def write_part(uri: str, key: str, table: pa.Table) -> tuple[str, int]:
    """Publishes the rows of one shard. Runs on a worker, any number of times: equal tables give equal bytes.

    Args:
        uri: `Output.uri`; a relative path would mean another folder on another worker.

    Returns:
        SHA-256 and length of the file.

    Raises:
        EnvironmentProblem: no space left or not writable; nothing is published.
    """
    storage = open_storage(uri)
    if storage.uri != uri:
        raise ValueError(f"{uri!r} is relative to this process; pass Output.uri, here {storage.uri!r}")
    # Dictionaries and statistics help strings; for columns of floats they cost time and bytes.
    plain = [field.name for field in table.schema if not pa.types.is_nested(field.type)]
    sink = pa.BufferOutputStream()
    pq.write_table(table.combine_chunks(), sink, compression="zstd", use_dictionary=plain, write_statistics=plain)
    data = sink.getvalue().to_pybytes()
    storage.write(part_name(key), data)
    return hashlib.sha256(data).hexdigest(), len(data)


class Output:
    """The driver's hold on one OUTPUT. A context manager: entering takes the lease and finds out what is done.

    Attributes:
        uri: absolute; what workers pass to `write_part`.
        place: the same without query and credentials, for messages, logs and tags.

    Args:
        uri: a local folder or a URI such as s3://bucket/prefix.
        run: written to run.json. `job` names the job, `recipe` holds all that can change a result; where rows come
            from files, `recipe["data"]["files"]` maps each path to its digest.
        flush_s: at most this much of the manifest is lost when the driver of a bucket output dies.
        beat_s: rhythm of the lease of a bucket output.
        joint: every number depends on all input files together, so none of them may change between starts.
    """

    def __init__(
        self, uri: str, run: Mapping[str, Any], *, flush_s: float = 5.0, beat_s: float = 5.0, joint: bool = False
    ) -> None:
        self._storage = open_storage(uri)
        self.uri, self.place = self._storage.uri, self._storage.place
        self._lease = lease_for(self._storage, beat_s)
        self._joint = joint
        self._run: dict[str, Any] = json.loads(json.dumps(dict(run)))
        self._run |= {"fingerprint": fingerprint(self._run["recipe"]), "attempts": 1}
        self._receipts: dict[str, Receipt] = {}
        self._refusals: dict[str, list[Refusal]] = {}
        self._flush_s, self._flushed, self._dirty = flush_s, time.monotonic(), False

    def __enter__(self) -> "Output":
        """Takes the lease, checks that OUTPUT is ours, and removes what crashed runs left.

        Raises:
            Refused: OUTPUT_UNUSABLE, FOREIGN_OUTPUT, LOCKED or OTHER_RUN; OUTPUT is left as it was.
            EnvironmentProblem: it cannot be written.
        """
        there = self._storage.names()
        if RUN not in there and there & _OURS:
            raise Refused(
                "FOREIGN_OUTPUT",
                f"{self.place} was not written by xfm (no {RUN}) but has {', '.join(sorted(there & _OURS))}, "
                "which would be overwritten; give another --output",
            )
        self._storage.create()
        self._lease.acquire()
        try:
            self._resume()
        except BaseException:
            self._lease.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Writes what a bucket output still holds back and gives up the lease."""
        try:
            if self._dirty and not (isinstance(problem, Refused) and problem.code == "LEASE_LOST"):
                self._flush()
        finally:
            self._lease.release()

    @property
    def attempt(self) -> int:
        """How many runs have entered this OUTPUT, this one included."""
        return int(self._run["attempts"])

    @property
    def committed(self) -> dict[str, Receipt]:
        """Finished shards by key: a manifest line, all its quarantine lines, and a part of the right length."""
        return dict(self._receipts)

    def quarantined(self) -> list[Refusal]:
        """Refused rows of committed shards, and whole shards refused in this run."""
        return [refusal for refusals in self._refusals.values() for refusal in refusals]

    def adopt(self, refusals: Sequence[Refusal]) -> None:
        """Writes the quarantine of a job whose stages have OUTPUTs of their own."""
        self._refusals = {}
        for refusal in refusals:
            self._refusals.setdefault(refusal.shard, []).append(refusal)
        self._flush()

    def record(self, receipt: Receipt, refusals: Sequence[Refusal] = ()) -> None:
        """Commits a shard whose part is written: its refusals first, then its manifest line.

        Raises:
            EnvironmentProblem: the part is not where the driver looks, or the manifest cannot be written.
            Refused: LEASE_LOST.
            ValueError: the shard is committed already with other bytes.
        """
        key, name = receipt.key, part_name(receipt.key)
        if known := self._receipts.get(key):
            if known.sha256 != receipt.sha256:
                raise ValueError(f"shard {key} was computed twice with different results: {known} and {receipt}")
            return
        fresh = distinct(key, refusals)
        receipt = replace(receipt, refused=len(fresh), seconds=round(receipt.seconds, 3))
        earlier = self._refusals.pop(key, [])  # of an attempt in this run that was refused as a whole
        if fresh:
            self._refusals[key] = fresh
        if self._storage.appends:
            if self._storage.size(name) != receipt.bytes:
                raise EnvironmentProblem(
                    f"{name}, {receipt.bytes:,} bytes, was written by a worker but the driver does not see it in "
                    f"{self.place}. A local --output must be a folder that all nodes share"
                )
            self._lease.check()
            if earlier:
                self._storage.write(QUARANTINE, render(self.quarantined()))
            elif fresh:
                self._storage.append(QUARANTINE, render(fresh))
            self._storage.append(MANIFEST, render([receipt]))
        self._receipts[key] = receipt
        self._flush_now_and_then()

    def refuse_shard(self, refusals: Sequence[Refusal]) -> None:
        """Quarantines a shard as a whole. It has no manifest line and is tried again by the next run.

        Raises:
            Refused: LEASE_LOST.
            EnvironmentProblem: the quarantine cannot be written.
        """
        key = refusals[0].shard
        if key in self._receipts:
            raise ValueError(f"shard {key} is committed and cannot be refused: {refusals[0]}")
        known = self._refusals.get(key, [])
        fresh = [refusal for refusal in distinct(key, refusals) if refusal not in known]
        if fresh and self._storage.appends:
            self._lease.check()
            self._storage.append(QUARANTINE, render(fresh))
        self._refusals[key] = known + fresh
        self._flush_now_and_then()

    def finish(self, order: Sequence[str]) -> None:
        """Rewrites manifest and quarantine in shard order, whatever order the workers finished in.

        Args:
            order: keys of all shards of the source.

        Raises:
            ValueError: a committed shard is not in `order`.
        """
        known = set(order)
        if strangers := [key for key in (*self._receipts, *self._refusals) if key not in known]:
            raise ValueError(f"the source does not list {strangers[:3]}, which {self.place} has")
        self._receipts = {key: self._receipts[key] for key in order if key in self._receipts}
        self._refusals = {key: self._refusals[key] for key in order if key in self._refusals}
        self._flush()

    def write_json(self, name: str, value: object) -> None:
        """Writes e.g. `report.json`. NaN is not JSON: use None for what is undefined."""
        self.write_bytes(name, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())

    def write_bytes(self, name: str, data: bytes) -> None:
        """Writes e.g. `report.html` or `checkpoint/adapter/adapter_config.json`, whole or not at all."""
        places = name.split("/")
        if name in (RUN, MANIFEST, QUARANTINE) or places[0] == PARTS:
            raise ValueError(f"{name} belongs to the commit protocol")
        self._storage.write("/".join(checked_name(each) for each in places), data)

    def local_copy(self, name: str, folder: Path) -> Path:
        """A file of OUTPUT as a local path: itself where OUTPUT is a folder, else a copy in `folder`."""
        if self._storage.appends:
            return Path(self.uri, name)
        data = self._storage.read(name)
        if data is None:
            raise FileNotFoundError(f"{self.place}/{name}")
        copy = folder / name.rpartition("/")[2]
        copy.write_bytes(data)
        return copy

    def read_part(self, key: str) -> pa.Table:
        """The rows of a committed shard.

        Raises:
            FileNotFoundError: the shard is not committed.
        """
        data = self._storage.read(part_name(key))
        if data is None:
            raise FileNotFoundError(f"{self.place}/{part_name(key)}")
        return pq.read_table(pa.BufferReader(data))

    def _resume(self) -> None:
        """Reads first and refuses; only then changes anything."""
        found = self._storage.read(RUN)
        sizes = self._storage.sizes(PARTS)
        if found is not None:
            self._receipts, self._refusals = intact(self._storage.read(MANIFEST), self._storage.read(QUARANTINE), sizes)
            earlier = earlier_run(found, self.place)
            check_same_recipe(
                earlier["recipe"], self._run["recipe"], self._receipts.values(), self.place, joint=self._joint
            )
            self._run["attempts"] = int(earlier.get("attempts", 1)) + 1
            if self._receipts and earlier.get("versions") != self._run.get("versions"):
                logger.warning("this run continues one made with other versions: %s -> %s", earlier.get("versions"),
                               self._run.get("versions"))  # fmt: skip
        self._storage.write(RUN, (json.dumps(self._run, indent=2) + "\n").encode())
        self._storage.remove(REPORT)  # its presence means success, and this run has not succeeded yet
        self._storage.sweep()
        whole = {f"{key}.parquet" for key in self._receipts}
        for name in sizes:
            if name.endswith(".parquet") and name not in whole:
                logger.info("removing %s/%s: its shard was not committed", PARTS, name)
                self._storage.remove(f"{PARTS}/{name}")
        self._flush()

    def _flush(self) -> None:
        """Rewrites both files from memory, quarantine first."""
        self._lease.check()
        self._storage.write(QUARANTINE, render(self.quarantined()))
        self._storage.write(MANIFEST, render(self._receipts.values()))
        self._flushed, self._dirty = time.monotonic(), False

    def _flush_now_and_then(self) -> None:
        if self._storage.appends:
            return
        self._dirty = True
        if time.monotonic() - self._flushed >= self._flush_s:
            self._flush()
