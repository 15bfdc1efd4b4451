import numpy as np
import pyarrow as pa
import pytest

from xfm.compute.read import read_tokens
from xfm.sources.stored.source import Embeddings
from xfm.sources.synthetic.atlas import Atlas
from xfm.studies.evaluate.source import AsGiven, VectorPart, stored_name


def test_rows_reach_a_part_as_the_source_gave_them():
    source = Atlas(n_cells=300, shard_rows=200)
    shard = source.shards()[1]
    read = read_tokens(source, AsGiven().tokenizer(0), shard)
    part = VectorPart("geneformer")(read.tokens)
    assert part.column_names == ["row_id", *source.obs, "split", "geneformer"]
    flat = part["geneformer"].combine_chunks().flatten().to_numpy()
    np.testing.assert_array_equal(flat.reshape(-1, source.dim), source.vectors(np.arange(200, 300)))
    assert part["sex"].to_pylist() == source.columns(np.arange(200, 300))["sex"]
    assert read.refused == []


def test_vectors_are_called_what_the_source_calls_them():
    assert stored_name(Atlas()) == "embedding"
    assert stored_name(Embeddings(path="out", column="mean_l07")) == "mean_l07"
    assert stored_name(Embeddings(path="out", column="label", obs=("label",))) == "embedding"
    assert stored_name(Embeddings(path="out", column="row_id")) == "embedding"


def test_nothing_takes_such_rows_for_tokens():
    table = pa.table({"row_id": ["a", "b"]})
    with pytest.raises(TypeError, match="no tokens"):
        AsGiven().collate(table)
    assert AsGiven().lengths(table).tolist() == [1, 1]
