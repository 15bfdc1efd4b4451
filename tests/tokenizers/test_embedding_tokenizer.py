"""Rows that are vectors beside words: what is kept, what is refused, and what a batch looks like."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from xfm.core.errors import Refused
from xfm.core.schema import EMBEDDING, REFUSED, ROW_ID
from xfm.tokenizers.embedding import EmbeddingTokenizer, vectors_of

LABELS = ("B cell", "T cell")


def batch(vectors, texts, reasons=None):
    return pa.RecordBatch.from_pydict({
        ROW_ID: [f"cell-{i}" for i in range(len(texts))],
        REFUSED: pa.array(reasons or [None] * len(texts), pa.string()),
        EMBEDDING: pa.array(vectors, pa.list_(pa.float32(), 2)), "type": pa.array(texts, pa.string()),
    })  # fmt: skip


def refused(tokenizer, *columns):
    return [reason and reason.partition(":")[0] for reason in tokenizer(batch(*columns)).column(REFUSED).to_pylist()]


def test_bad_rows_say_why_and_keep_an_earlier_reason():
    vectors = [[1, 2], None, [1, float("nan")], [float("inf"), 0], [1, None], [1, 2], [1, 2], [1, 2], None]
    texts = ["B cell"] * 5 + [None, " ", "monocyte", "T cell"]
    reasons = [None] * 8 + ["TORN: before"]
    expected = [None, "NO_EMBEDDING", *["NOT_FINITE"] * 3, "NO_TEXT", "NO_TEXT", "UNKNOWN_LABEL", "TORN"]
    assert refused(EmbeddingTokenizer("type", LABELS), vectors, texts, reasons) == expected
    open_ones = [None if code == "UNKNOWN_LABEL" else code for code in expected]
    assert refused(EmbeddingTokenizer("type"), vectors, texts, reasons) == open_ones
    assert refused(EmbeddingTokenizer("type", LABELS).for_training(), vectors, texts, reasons) == open_ones


def test_nothing_else_of_a_row_changes():
    given = batch([[1, 2], [3, 4]], ["B cell", "monocyte"])
    out = EmbeddingTokenizer("type", LABELS)(given)
    assert out.schema.names == given.schema.names
    for name in (ROW_ID, EMBEDDING, "type"):
        assert out.column(out.schema.get_field_index(name)).equals(given.column(given.schema.get_field_index(name)))


def test_a_row_has_two_tokens_and_its_vector():
    tokens = EmbeddingTokenizer("type", LABELS).collate(batch([[1, 2], [3, 4], [5, 6]], ["T cell", "B cell", "T cell"]))
    assert tokens.ids.tolist() == [[0, 1], [0, 0], [0, 1]]
    assert tokens.vectors.tolist() == [[[1, 2]], [[3, 4]], [[5, 6]]]
    assert tokens.is_token.all()
    assert tokens.is_content.all()
    assert (tokens.ids.dtype, tokens.vectors.dtype) == (torch.int64, torch.float32)
    assert EmbeddingTokenizer("type").collate(batch([[1, 2]], ["monocyte"])).ids.tolist() == [[0, 0]]
    assert EmbeddingTokenizer("type").lengths(pa.table({"a": [1, 2, 3]})).tolist() == [2, 2, 2]


def test_words_that_have_no_place_are_not_given_one():
    with pytest.raises(Refused, match="'monocyte' is none of the 2 labels"):
        EmbeddingTokenizer("type", LABELS).for_training().collate(batch([[1, 2]], ["monocyte"]))


def test_a_source_that_does_not_carry_the_words_is_refused():
    with pytest.raises(Refused, match=r"'cell_type'.*carries row_id, refused, embedding, type"):
        EmbeddingTokenizer("cell_type")(batch([[1, 2]], ["B cell"]))


def test_vectors_keep_their_rows_in_slices_and_chunks():
    column = pa.array([[1, 2], None, [5, 6], [7, 8]], pa.list_(pa.float32(), 2))
    wanted = np.array([[1, 2], [np.nan, np.nan], [5, 6], [7, 8]], np.float32)
    np.testing.assert_array_equal(vectors_of(column), wanted)
    np.testing.assert_array_equal(vectors_of(column.slice(2, 2)), wanted[2:])
    np.testing.assert_array_equal(vectors_of(column.slice(1, 2)), wanted[1:3])
    np.testing.assert_array_equal(vectors_of(pa.chunked_array([column.slice(0, 1), column.slice(1)])), wanted)
    assert vectors_of(column.slice(0, 0)).shape == (0, 2)
