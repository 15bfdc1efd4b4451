"""The tokens that the official package fed to its model, from the same cells."""

import json
from pathlib import Path

import anndata
import numpy as np
import pyarrow as pa
import pytest

from xfm.core.errors import Refused
from xfm.core.schema import COUNTS, DEPTH, GENE_IDS, GENE_TABLE_KEY, INPUT_IDS, REFUSED, ROW_ID, SHARD, VALUES
from xfm.tokenizers.binned import BinnedTokenizer
from xfm.tokenizers.vocabulary import match_genes

FIXTURE = Path(__file__).parents[1] / "fixtures" / "scgpt_tiny"
SPECIALS = ("<pad>", "<cls>", "<eoc>")


def table_bytes(**columns):
    table = pa.table(columns)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def batch_of(matrix, genes):
    """Rows of a CSR matrix in the layout of every cell source."""
    offsets = pa.array(matrix.indptr.astype(np.int64))
    n = matrix.shape[0]
    batch = pa.RecordBatch.from_pydict(
        {
            ROW_ID: pa.array([f"cell{i}" for i in range(n)]),
            SHARD: pa.array(["s"] * n),
            REFUSED: pa.array([None] * n, pa.string()),
            GENE_IDS: pa.LargeListArray.from_arrays(offsets, pa.array(matrix.indices.astype(np.int32))),
            COUNTS: pa.LargeListArray.from_arrays(offsets, pa.array(matrix.data.astype(np.float32))),
        }
    )
    return batch.replace_schema_metadata({GENE_TABLE_KEY: table_bytes(index=pa.array(genes))})


@pytest.fixture(scope="module")
def reference():
    return np.load(FIXTURE / "reference.npz", allow_pickle=False)


@pytest.fixture(scope="module")
def vocabulary():
    return json.loads((FIXTURE / "checkpoint" / "vocab.json").read_text())


@pytest.fixture(scope="module")
def cells():
    adata = anndata.read_h5ad(FIXTURE / "cells.h5ad")
    return batch_of(adata.X.tocsr(), list(adata.var["feature_name"].astype(str)))


def tokenizer_for(vocabulary, **settings):
    genes = {token: index for token, index in vocabulary.items() if token not in SPECIALS}
    return BinnedTokenizer(genes, vocabulary["<cls>"], vocabulary["<pad>"], **settings)


@pytest.mark.parametrize(("ties", "expected"), [("mid", "values_u05"), ("high", "values_u0"), ("low", "values_u1")])
def test_tokens_equal_the_official_package(cells, vocabulary, reference, ties, expected):
    tokenizer = tokenizer_for(vocabulary, ties=ties)
    tokens = tokenizer.collate(tokenizer(cells))
    np.testing.assert_array_equal(tokens.ids.numpy(), reference["gene_ids"])
    np.testing.assert_array_equal(tokens.values.numpy(), reference[expected])
    np.testing.assert_array_equal(tokens.is_token.sum(1).numpy(), reference["lengths"])
    assert not tokens.is_content[:, 0].any()
    np.testing.assert_array_equal(tokens.is_content.sum(1).numpy(), reference["lengths"] - 1)


def test_keyed_ties_stay_between_the_lowest_and_the_highest_bin(cells, vocabulary, reference):
    tokenizer = tokenizer_for(vocabulary, ties="keyed", seed=4)
    values = tokenizer.collate(tokenizer(cells)).values.numpy()
    assert (values <= reference["values_u0"]).all()
    assert (values >= reference["values_u1"]).all()
    assert len(np.unique(values - reference["values_u1"])) > 5


def test_a_slice_of_a_batch_gives_the_tokens_of_its_own_rows(cells, vocabulary):
    tokenizer = tokenizer_for(vocabulary)
    whole = tokenizer(cells)
    part = tokenizer(cells.slice(10, 5).replace_schema_metadata(cells.schema.metadata))
    for name in (INPUT_IDS, VALUES, ROW_ID, DEPTH):
        assert part.column(name).to_pylist() == whole.column(name).slice(10, 5).to_pylist()


def test_tokens_take_the_narrowest_type_that_holds_them(cells, vocabulary):
    tokens = tokenizer_for(vocabulary)(cells)
    assert tokens.schema.field(INPUT_IDS).type.value_type == pa.uint16()
    assert tokens.schema.field(VALUES).type.value_type == pa.int16()
    large = tokenizer_for(vocabulary | {"LAST": 100_000}, cls_value=0.5)(cells)
    assert large.schema.field(INPUT_IDS).type.value_type == pa.int32()
    assert large.schema.field(VALUES).type.value_type == pa.float32()


def test_depth_is_the_sum_over_all_genes_of_the_data(cells, vocabulary):
    adata = anndata.read_h5ad(FIXTURE / "cells.h5ad")
    np.testing.assert_allclose(tokenizer_for(vocabulary)(cells).column(DEPTH).to_numpy(), adata.X.sum(1).A1)


def test_a_cell_without_a_known_gene_is_refused_with_its_reason(vocabulary):
    from scipy.sparse import csr_matrix

    matrix = csr_matrix(np.array([[1, 0, 2], [0, 5, 0], [0, 0, 0]], dtype=np.float32))
    batch = batch_of(matrix, ["ABI1", "not a gene", "ZYX"])
    reasons = tokenizer_for(vocabulary)(batch).column(REFUSED).to_pylist()
    assert reasons[0] is None
    assert reasons[1].startswith("EMPTY")
    assert reasons[2].startswith("EMPTY")


def test_the_identifier_column_with_most_known_genes_is_used(vocabulary):
    genes = pa.table({"index": ["ENSG1.1", "ENSG2.1"], "feature_name": ["ABI1", "ZYX"], "other": ["ABI1", "x"]})
    match = match_genes(genes, vocabulary, 0.5)
    assert (match.column, match.matched, match.total, match.repeated) == ("feature_name", 2, 2, 0)
    assert match.token_of_gene.tolist() == [vocabulary["ABI1"], vocabulary["ZYX"]]


def test_versions_of_accessions_are_ignored_unless_the_vocabulary_has_them():
    genes = pa.table({"index": ["ENSG00000141510.17", "ENSG00000012048.9"]})
    plain = {"ENSG00000141510": 0, "ENSG00000012048": 1}
    assert match_genes(genes, plain, 0.5).matched == 2
    versioned = {"ENSG00000141510.17": 0, "ENSG00000012048.10": 1}
    assert match_genes(genes, versioned, 0.1).token_of_gene.tolist() == [0, -1]


def test_genes_that_share_a_symbol_keep_their_tokens_and_are_counted():
    match = match_genes(pa.table({"index": ["A", "A", "B", "c"]}), {"A": 3, "B": 4, "C": 5}, 0.1)
    assert match.token_of_gene.tolist() == [3, 3, 4, -1]
    assert match.repeated == 2


def test_genes_of_another_species_are_refused_with_examples(vocabulary):
    with pytest.raises(Refused, match=r"(?s)NO_OVERLAP.*0 of 2.*Cd3e.*case-sensitive"):
        match_genes(pa.table({"index": ["Cd3e", "Abi1"]}), vocabulary, 0.1)


def test_batch_labels_are_numbered_and_unknown_ones_refused(cells, vocabulary):
    labels = ["b", "a", "zzz"] + ["a"] * (cells.num_rows - 3)
    batch = cells.append_column("batch", pa.array(labels)).replace_schema_metadata(cells.schema.metadata)
    tokenizer = tokenizer_for(vocabulary, batch_key="batch", batch_labels=("a", "b"))
    tokens = tokenizer(batch)
    assert tokenizer.collate(tokens.slice(0, 2)).condition.tolist() == [1, 0]
    assert tokens.column(REFUSED)[2].as_py().startswith("UNKNOWN_BATCH")
