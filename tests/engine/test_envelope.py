"""A shard's envelope comes out of Ray as it went in."""

import pyarrow as pa

from xfm.compute.read import RefusedRow
from xfm.engine.envelope import Envelope


def test_everything_in_an_envelope_survives_the_way():
    schema = pa.schema(
        [("row_id", pa.string()), ("x", pa.list_(pa.float32(), 2))], metadata={b"xfm.genes": b"\x00\xff"}
    )
    table = pa.table({"row_id": ["a", "µ"], "x": [[1.0, 2.0], [3.0, 4.0]]}, schema=schema)
    sent = Envelope(
        "s-000001", "/data/µ.h5ad", table, [RefusedRow("b", "read", "NOT_COUNTS: 0.5")], seconds={"read": 0.1},
        notes={"genes": [{"column": "x", "overlap": 0.5}]}, rows=2, sha256="ff", size=9,
    )  # fmt: skip
    row = sent.to_table()
    assert row.num_rows == 1
    got = Envelope.from_table(row)
    assert got == sent
    assert got.table.schema.equals(schema, check_metadata=True)


def test_a_refused_shard_has_no_table_and_an_empty_one_is_still_a_table():
    refused = Envelope("k", "", error=("TRUNCATED", "file ends early"), stage="read")
    assert Envelope.from_table(refused.to_table()) == refused
    empty = Envelope("k", "", pa.table({"x": pa.array([], pa.int8())}))
    got = Envelope.from_table(empty.to_table())
    assert got.table.num_rows == 0
    assert got.table.schema == empty.table.schema


def test_reading_an_envelope_copies_no_table():
    table = pa.table({"x": pa.array(range(100_000))})
    row = Envelope("k", "", table).to_table()
    before = pa.total_allocated_bytes()
    got = Envelope.from_table(row)
    assert pa.total_allocated_bytes() - before < 10_000
    assert got.table.equals(table)


def test_envelopes_of_several_shards_are_rows_of_one_schema():
    tables = [Envelope("a", "").to_table(), Envelope("b", "", pa.table({"x": [1]})).to_table()]
    rows = pa.concat_tables(tables)
    assert [Envelope.from_table(rows.slice(i, 1)).key for i in range(2)] == ["a", "b"]
