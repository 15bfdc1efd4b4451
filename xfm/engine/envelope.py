"""What travels through Ray for one shard: its table, its refused rows, its timings, or why there is none."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from xfm.compute.read import RefusedRow


@dataclass(slots=True)
class Envelope:
    """One shard on its way."""

    key: str  # key, path: of the shard, and the file it lies in
    path: str
    table: pa.Table | None = None  # tokens, then results; None where the shard was refused or its part is written
    refused: list[RefusedRow] = field(default_factory=list)  # rows that were not computed
    error: tuple[str, str] | None = None  # (code, message) where the whole shard was refused
    stage: str = ""  # where it was refused: read, embed, ...
    seconds: dict[str, float] = field(default_factory=dict)  # spent per stage
    notes: dict[str, Any] = field(default_factory=dict)  # what the tokenizer has to say for the report
    rows: int = 0  # rows, sha256, size: of the written part
    sha256: str = ""
    size: int = 0

    def to_table(self) -> pa.Table:
        """One row: the table as Arrow IPC bytes, everything else as JSON."""
        body = pa.py_buffer(b"")
        if self.table is not None:
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, self.table.schema) as writer:
                writer.write_table(self.table)
            body = sink.getvalue()
        head = {name: getattr(self, name) for name in self.__slots__ if name not in ("table", "refused")}
        head["refused"] = [asdict(row) for row in self.refused]
        ends = pa.py_buffer(np.array([0, body.size], dtype=np.int64))
        bodies = pa.Array.from_buffers(pa.large_binary(), 1, [None, ends, body])  # no copy of what may be 100 MB
        columns = [pa.array([json.dumps(head)]), bodies, pa.array([self.table is not None])]
        return pa.table(columns, names=["head", "body", "has_table"])

    @classmethod
    def from_table(cls, row: pa.Table) -> "Envelope":
        """Zero-copy: the table points into the row's buffer."""
        head = json.loads(row["head"][0].as_py())
        head["refused"] = [RefusedRow(**item) for item in head["refused"]]
        head["error"] = tuple(head["error"]) if head["error"] else None
        table = None
        if row["has_table"][0].as_py():
            table = pa.ipc.open_stream(row["body"][0].as_buffer()).read_all()
        return cls(table=table, **head)
