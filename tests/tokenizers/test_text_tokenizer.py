"""Subword tokens: those of transformers, with special tokens told from content by their place."""

import numpy as np
import pyarrow as pa
import pytest

from tests.text_examples import sentences, write_encoder
from xfm.core.errors import Refused
from xfm.core.schema import INPUT_IDS, REFUSED, ROW_ID, SHARD, TEXT
from xfm.models.hf_text.config import HFText


@pytest.fixture(scope="module", params=["bert", "roberta"])
def checkpoint(request, tmp_path_factory):
    return write_encoder(tmp_path_factory.mktemp(request.param), request.param)


def batch(texts, refused=None, shard="s-0"):
    n = len(texts)
    columns = {
        ROW_ID: [f"r{i}" for i in range(n)], SHARD: [shard] * n, REFUSED: refused or [None] * n, TEXT: texts,
        "label": ["x"] * n,
    }  # fmt: skip
    return pa.RecordBatch.from_pydict({name: pa.array(column, pa.string()) for name, column in columns.items()})


@pytest.mark.parametrize("max_length", [8, None])
def test_ids_are_those_of_transformers(checkpoint, max_length):
    from transformers import AutoTokenizer

    texts = [*sentences(12)[0], "Ünknown wörds [MASK] <mask> ☃", "film " * 200]
    tokenizer = HFText(checkpoint=str(checkpoint), max_length=max_length).tokenizer(0)
    reference = AutoTokenizer.from_pretrained(checkpoint)
    assert tokenizer.max_length == (max_length or reference.model_max_length)
    expected = reference(texts, truncation=True, max_length=tokenizer.max_length, padding=False)["input_ids"]
    out = tokenizer(batch(texts))
    assert out[INPUT_IDS].to_pylist() == expected
    assert out.schema.names == [ROW_ID, SHARD, "label", REFUSED, INPUT_IDS]
    assert out[REFUSED].null_count == len(texts)


def test_a_batch_is_padded_and_only_content_is_content(checkpoint):
    from transformers import AutoTokenizer

    texts = ["a film", "a dull film about war ☃", "love"]
    tokenizer, reference = HFText(checkpoint=str(checkpoint)).tokenizer(0), AutoTokenizer.from_pretrained(checkpoint)
    expected = reference(texts, padding=True, return_special_tokens_mask=True, return_tensors="np")
    tokens = tokenizer.collate(tokenizer(batch(texts)))
    np.testing.assert_array_equal(tokens.ids.numpy(), expected["input_ids"])
    np.testing.assert_array_equal(tokens.is_token.numpy(), expected["attention_mask"] == 1)
    np.testing.assert_array_equal(tokens.is_content.numpy(), expected["special_tokens_mask"] == 0)
    assert tokens.values is None


def test_words_that_are_unknown_or_look_special_are_content(tmp_path):
    tokenizer = HFText(checkpoint=str(write_encoder(tmp_path, "bert"))).tokenizer(0)
    tokens = tokenizer.collate(tokenizer(batch(["☃ [SEP] ☃"])))
    assert tokens.is_content.tolist() == [[False, True, True, True, False]]


def test_texts_that_are_cut_are_counted_by_shard(checkpoint):
    tokenizer = HFText(checkpoint=str(checkpoint), max_length=6).tokenizer(0)
    tokenizer(batch(["a", "a film about love and war and war"]))
    tokenizer(batch(["film " * 50] * 2, shard="s-1"))
    tokenizer(batch(["a film about love and war and war"], shard="s-1"))
    assert tokenizer.describe() == {"max_length": 6, "truncated": {"s-0": 1, "s-1": 3}}
    whole = HFText(checkpoint=str(checkpoint)).tokenizer(0)
    whole(batch(["a film about love"]))
    assert whole.describe()["truncated"] == {}


def test_a_text_without_a_token_is_refused_and_earlier_refusals_stay(tmp_path):
    tokenizer = HFText(checkpoint=str(write_encoder(tmp_path, "bert"))).tokenizer(0)
    out = tokenizer(batch(["\u200b\x00", None, "a film"], [None, "EMPTY_TEXT: none", None]))
    reasons = out[REFUSED].to_pylist()
    assert reasons[0].startswith("EMPTY: ")
    assert reasons[1:] == ["EMPTY_TEXT: none", None]
    assert out[INPUT_IDS][1].as_py() == []


def test_cells_are_refused(tmp_path):
    tokenizer = HFText(checkpoint=str(write_encoder(tmp_path, "bert"))).tokenizer(0)
    with pytest.raises(Refused, match=r"NO_TEXT.*only row_id, shard, refused"):
        tokenizer(batch(["a"]).select([ROW_ID, SHARD, REFUSED]))
