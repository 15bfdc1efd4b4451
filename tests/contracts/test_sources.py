"""What every source promises, over all entries of the registry."""

import json
import pickle
import re

import pyarrow as pa
import pytest
from examples import SOURCES, example
from pydantic import ValidationError

from xfm.core import registry
from xfm.core.schema import GENE_IDS, GENE_TABLE_KEY, ROW_ID, SHARD


@pytest.fixture(scope="module", params=sorted(registry.SOURCES))
def source(request, tmp_path_factory):
    return example(SOURCES, request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def batches(source):
    """{shard key: its batches}."""
    return {shard.key: list(source.read(shard)) for shard in source.shards()}


def test_every_shard_gives_the_rows_it_promised(source, batches):
    assert batches
    for shard in source.shards():
        found = sum(batch.num_rows for batch in batches[shard.key])
        assert found > 0
        assert shard.rows in (None, found)


def test_keys_are_unique_file_names_and_ranges_do_not_overlap(source):
    shards = source.shards()
    assert len({shard.key for shard in shards}) == len(shards)
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,149}", shard.key) for shard in shards)
    last = {}
    for shard in shards:
        assert last.get(shard.path, 0) <= shard.start <= shard.stop
        last[shard.path] = shard.stop


def test_reading_twice_gives_the_same_shards_and_rows(source, batches):
    again = source.shards()
    assert list(again) == list(source.shards())
    for shard in again:
        rows = list(source.read(shard))
        assert len(rows) == len(batches[shard.key])
        for new, old in zip(rows, batches[shard.key], strict=True):
            assert new.equals(old, check_metadata=True)


def test_row_ids_are_unique_strings_and_every_row_names_its_shard(source, batches):
    ids = [row for shard in batches.values() for batch in shard for row in batch[ROW_ID].to_pylist()]
    assert len(set(ids)) == len(ids)
    assert all(isinstance(row, str) and row for row in ids)
    for key, shard in batches.items():
        for batch in shard:
            assert set(batch[SHARD].to_pylist()) == {key}


def test_batches_have_the_columns_that_the_schema_states(source, batches):
    assert {ROW_ID, SHARD} <= set(source.schema.names)
    assert source.schema.field(ROW_ID).type == source.schema.field(SHARD).type == pa.string()
    for shard in batches.values():
        for batch in shard:
            assert batch.schema.names == source.schema.names
            assert batch.schema.types == source.schema.types


@pytest.mark.parametrize("name", ["row_id", "cls_l00", "xfm:shard"])
def test_a_column_that_every_part_has_cannot_be_carried_beside_it(source, name):
    if "obs" not in type(source).model_fields:
        pytest.skip("carries no columns")
    with pytest.raises(ValidationError, match=r"is what OUTPUT calls a column of its own|Input should be"):
        type(source)(**(source.model_dump() | {"obs": (name,)}))


def test_cells_carry_their_gene_table(source, batches):
    for shard in batches.values():
        for batch in shard:
            if GENE_IDS not in batch.schema.names:
                pytest.skip("no cells")
            genes = pa.ipc.open_stream(pa.py_buffer(batch.schema.metadata[GENE_TABLE_KEY])).read_all()
            assert all(field.type == pa.string() for field in genes.schema)
            ids = batch[GENE_IDS].flatten().to_numpy()
            assert ids.min() >= 0
            assert ids.max() < genes.num_rows
            if source.genes() is not None:
                assert source.genes().num_rows == genes.num_rows


def test_a_source_travels_and_says_what_its_data_are(source):
    other = pickle.loads(pickle.dumps(source))  # noqa: S301 - our own bytes
    assert other == source
    assert list(other.shards()) == list(source.shards())
    identity = source.identity()
    assert identity == other.identity() == json.loads(json.dumps(identity))
    assert identity
    assert type(source).model_validate(json.loads(source.model_dump_json())) == source
