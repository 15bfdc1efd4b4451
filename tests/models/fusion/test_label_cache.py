"""Each different label is encoded once, and what a cache holds is what an encoder would say."""

import io
import logging

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.fusion_examples import TYPES, tiny_fusion
from tests.rounding import assert_same_but_rounding
from tests.text_examples import write_encoder
from xfm.core.errors import Refused
from xfm.core.storage import open_storage
from xfm.models.fusion.label_embeddings import FILE, encode_labels, from_bytes
from xfm.models.fusion.text import BertText, HashedText

CELLS = [*TYPES, TYPES[0], TYPES[2]]


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return str(write_encoder(tmp_path_factory.mktemp("encoder"), "bert"))


@pytest.fixture
def cache(tmp_path):
    storage = open_storage(str(tmp_path / "output"))
    storage.create()
    return storage


@pytest.fixture
def asked(monkeypatch):
    """What encoders were asked, call by call."""
    calls = []
    for kind in (BertText, HashedText):
        encode = kind.encode
        monkeypatch.setattr(
            kind, "encode", lambda self, labels, encode=encode: calls.append(list(labels)) or encode(self, labels)
        )
    return calls


def same(one, other):
    assert one.keys() == other.keys()
    for label, found in one.items():
        np.testing.assert_allclose(found.vectors, other[label].vectors, atol=1e-5)
        assert found.n_tokens == other[label].n_tokens


@pytest.mark.parametrize("level", ["label", "tokens"])
def test_a_label_is_encoded_once(bert, cache, asked, level):
    fields = {"text": {"kind": "bert", "checkpoint": bert, "level": level, "pooling": "mean"}}
    first = tiny_fusion(**fields).bank_of(CELLS, cache)
    assert asked == [sorted(TYPES)]
    again = tiny_fusion(**fields).bank_of(CELLS[::-1], cache)
    assert len(asked) == 1
    assert again.digest() == first.digest()
    assert first.labels == tuple(sorted(TYPES))
    more = tiny_fusion(**fields).bank_of(["microglia", *CELLS], cache)
    assert asked[1:] == [["microglia"]]
    assert more.labels == ("astrocyte", "microglia", *TYPES[1:])
    encoder = tiny_fusion(**fields).text
    same(encode_labels(encoder, more.labels, cache), encode_labels(encoder, more.labels, None))


def test_another_template_pooling_level_or_checkpoint_is_another_key(bert, cache, asked, tmp_path):
    other = str(write_encoder(tmp_path / "other", "distilbert"))
    encoders = [
        BertText(checkpoint=bert), BertText(checkpoint=bert, template="a {}"), BertText(checkpoint=other),
        BertText(checkpoint=bert, pooling="mean"), BertText(checkpoint=bert, level="tokens"), HashedText(),
        HashedText(dim=8),
    ]  # fmt: skip
    for encoder in encoders:
        encode_labels(encoder, TYPES, cache)
    assert len(asked) == len(encoders)
    for encoder in encoders:  # all of them live in one file
        same(encode_labels(encoder, TYPES, cache), encode_labels(encoder, TYPES, None))
    assert len(asked) == 2 * len(encoders)  # those without a cache


def test_the_file_can_be_read_by_anyone(bert, cache):
    encoder = BertText(checkpoint=bert, level="tokens", template="a {}")
    found = encode_labels(encoder, TYPES, cache)
    rows = pq.read_table(io.BytesIO(cache.read(FILE))).to_pylist()
    assert [row["label"] for row in rows] == sorted(TYPES)
    for row in rows:
        assert (row["encoder"], row["template"], row["level"]) == ("bert", "a {}", "tokens")
        assert row["n_tokens"] == len(row["tokens"])
        np.testing.assert_allclose(row["tokens"], found[row["label"]].vectors)
        assert_same_but_rounding(np.array(row["vector"]), np.mean(row["tokens"], axis=0), 16)


def cut(content):
    return content[: len(content) // 2]


def other_numbers(content):
    """Vectors exchanged, as a careless edit would, under the digest of the old ones."""
    table = pq.read_table(io.BytesIO(content))
    stream = io.BytesIO()
    place = table.column_names.index("vector")
    pq.write_table(table.set_column(place, table.schema.field(place), table["vector"].take([1, 0, 2])), stream)
    return stream.getvalue()


def other_columns(content):
    stream = io.BytesIO()
    pq.write_table(pa.table({"label": ["astrocyte"], "vector": [[1.0, 2.0]]}), stream)
    return stream.getvalue()


@pytest.mark.parametrize("damage", [cut, other_numbers, other_columns, lambda content: b""])
def test_a_damaged_cache_is_made_anew_and_never_used(cache, asked, damage, caplog):
    encoder = HashedText(dim=8)
    wanted = encode_labels(encoder, TYPES, cache)
    cache.write(FILE, damage(cache.read(FILE)))
    with pytest.raises(ValueError, match=r"Parquet|digest|columns"):
        from_bytes(cache.read(FILE))
    with caplog.at_level(logging.WARNING):
        same(encode_labels(encoder, TYPES, cache), wanted)
    assert "made anew" in caplog.text
    assert len(asked) == 2
    same(encode_labels(encoder, TYPES, cache), wanted)
    assert len(asked) == 2


def test_a_failed_encoding_leaves_the_cache_as_it_was(cache, monkeypatch):
    encode_labels(HashedText(), TYPES, cache)
    before = cache.read(FILE)

    def broken(self, labels):
        raise Refused("BROKEN", "no")

    monkeypatch.setattr(HashedText, "encode", broken)
    with pytest.raises(Refused):
        encode_labels(HashedText(), ["microglia"], cache)
    assert cache.read(FILE) == before


@pytest.mark.parametrize("labels", [[], ["astrocyte", " "]])
def test_no_label_and_empty_labels_are_refused(labels):
    with pytest.raises(Refused) as refused:
        encode_labels(HashedText(), labels, None)
    assert refused.value.code == "NO_TEXT"
