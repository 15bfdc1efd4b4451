"""From a source's rows to tokens: bad rows are named, promises are held."""

from dataclasses import replace

import anndata
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import scipy.sparse

from tests.studies.layerwise.layer_cases import FakeConfig
from xfm.compute.read import RefusedRow, read_tokens
from xfm.core.errors import ShardRefused
from xfm.core.schema import DEPTH, INPUT_IDS, REFUSED, ROW_ID, VALUES
from xfm.sources.h5ad.source import H5ad


@pytest.fixture
def source(tmp_path):
    """Six cells, four known genes and a stranger; cell c is empty, cell e has only the stranger."""
    counts = np.zeros((6, 5), np.float32)
    counts[:, :3] = np.random.default_rng(0).integers(1, 9, (6, 3))
    counts[2] = 0
    counts[4] = [0, 0, 0, 0, 7]
    var = pd.DataFrame(index=["G1", "G2", "G3", "G4", "unheard"])
    cells = anndata.AnnData(scipy.sparse.csr_matrix(counts), obs=pd.DataFrame(index=list("abcdef")), var=var)
    cells.write_h5ad(tmp_path / "cells.h5ad")
    return H5ad(path=str(tmp_path / "cells.h5ad"))


def test_good_rows_become_tokens_and_bad_ones_say_why(source):
    (shard,) = source.shards()
    result = read_tokens(source, FakeConfig().tokenizer(0), shard)
    assert result.tokens[ROW_ID].to_pylist() == ["a", "b", "d", "f"]
    assert REFUSED not in result.tokens.column_names
    assert {INPUT_IDS, VALUES, DEPTH} <= set(result.tokens.column_names)
    assert [row.row_id for row in result.refused] == ["c", "e"]
    assert all(isinstance(row, RefusedRow) and row.reason.startswith("EMPTY: ") for row in result.refused)
    assert result.refused[1].stage == "tokenise"


def test_another_number_of_rows_than_promised_is_refused(source):
    (shard,) = source.shards()
    with pytest.raises(ShardRefused, match=r"ROWS_CHANGED.*9 rows promised, 6 read"):
        read_tokens(source, FakeConfig().tokenizer(0), replace(shard, rows=9))


def test_a_source_that_gives_nothing_is_refused(source):
    class Silent:
        def read(self, shard):
            return iter(())

    (shard,) = source.shards()
    with pytest.raises(ShardRefused, match="NO_ROWS"):
        read_tokens(Silent(), FakeConfig().tokenizer(0), replace(shard, rows=None))


def test_batches_of_a_shard_are_joined_in_order(source):
    class InTwo:
        def read(self, shard):
            for batch in source.read(shard):
                yield batch.slice(0, 2)
                yield batch.slice(2)

    (shard,) = source.shards()
    whole, joined = (read_tokens(s, FakeConfig().tokenizer(0), shard) for s in (source, InTwo()))
    assert pa.Table.equals(joined.tokens.combine_chunks(), whole.tokens.combine_chunks())
    assert joined.refused == whole.refused
