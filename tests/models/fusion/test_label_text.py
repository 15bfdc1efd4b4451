"""Vectors of labels: hashed ones by their laws, those of an encoder against `transformers`."""

import hashlib

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from tests.rounding import assert_same_but_rounding
from tests.text_examples import write_encoder
from xfm.core.errors import Refused
from xfm.models.fusion.label_embeddings import TextBank
from xfm.models.fusion.text import BertText, HashedText

LABELS = ["a bright film", "a dull story about war", "love"]


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """With much dropout, which only training may show."""
    folder = tmp_path_factory.mktemp("encoder")
    return write_encoder(folder, "bert", hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5)


def vectors(encoder, labels):
    return np.concatenate([found.vectors for found in encoder.encode(labels)])


def last_states(folder, text):
    """(T, width), and where special tokens are, by `transformers` itself."""
    from transformers import AutoModel, AutoTokenizer

    given = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt", return_special_tokens_mask=True)
    special = given.pop("special_tokens_mask")[0].bool()
    with torch.no_grad():
        return AutoModel.from_pretrained(folder).eval()(**given).last_hidden_state[0], special


def test_labels_that_share_words_are_near_and_others_are_not():
    found = vectors(
        HashedText(), ["oligodendrocyte", "oligodendrocyte precursor cell", "neuron", "T cell", "microglia"]
    )
    cosines = found @ found.T
    np.testing.assert_allclose(np.diag(cosines), 1, atol=1e-5)
    assert cosines[0, 1] > 0.6
    others = [cosines[0, 2], cosines[0, 3], cosines[0, 4], cosines[2, 3], cosines[2, 4], cosines[3, 4]]
    assert max(map(abs, others)) < 0.2
    assert cosines[1, 3] > 0.15  # both say "cell"


def test_cosines_of_hashed_labels_are_near_those_of_their_counts():
    def counts(text):
        words = text.split()
        marked = [f"<{word}>" for word in words]
        return [*words, *(word[i : i + 3] for word in marked for i in range(len(word) - 2))]

    labels = ["naive b cell", "memory b cell", "b cell", "plasma cell", "vascular leptomeningeal cell"]
    features = sorted({feature for label in labels for feature in counts(label)})
    table = np.array([[counts(label).count(feature) for feature in features] for label in labels], float)
    table /= np.linalg.norm(table, axis=1, keepdims=True)
    wide = vectors(HashedText(dim=20_000), labels)
    # The error of a signed random projection is about 1 / sqrt(dim).
    np.testing.assert_allclose(wide @ wide.T, table @ table.T, atol=4 / np.sqrt(20_000))


def test_hashed_vectors_are_the_same_on_every_machine_and_in_every_company():
    alone = vectors(HashedText(dim=64), ["astrocyte"])
    assert np.array_equal(vectors(HashedText(dim=64), ["neuron", "astrocyte"])[1:], alone)
    digest = hashlib.sha256(np.sign(alone).astype("<i1").tobytes()).hexdigest()
    assert digest[:16] == "d546ac4a39711d1f"


def test_signs_count_and_letter_size_does_not():
    plus, minus, large = vectors(HashedText(), ["CD4+ T cell", "CD4- T cell", "cd4+ t CELL"])
    assert plus @ minus < 0.98
    assert np.array_equal(plus, large)
    (odd,) = HashedText(dim=8).encode(["+"])
    assert np.linalg.norm(odd.vectors) == pytest.approx(1)


def test_a_word_is_a_token_of_hashed_labels():
    both, one = HashedText(level="tokens").encode(["precursor cell", "cell"])
    assert both.vectors.shape == (2, 768)
    assert (both.n_tokens, one.n_tokens) == (2, 1)
    np.testing.assert_array_equal(both.vectors[1], one.vectors[0])
    np.testing.assert_allclose(np.linalg.norm(both.vectors, axis=1), 1, atol=1e-6)


def test_the_template_is_what_is_read():
    templated = HashedText(template="a {} of the brain")
    np.testing.assert_array_equal(vectors(templated, ["cell {}"]), vectors(HashedText(), ["a cell {} of the brain"]))
    for template in ("no place", "{} and {}"):
        with pytest.raises(ValidationError, match=r"must hold \{\} once"):
            HashedText(template=template)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_an_encoder_says_what_transformers_says_at_its_last_layer(bert, pooling):
    found = BertText(checkpoint=str(bert), pooling=pooling, template="{} .").encode(LABELS)
    for label, one in zip(LABELS, found, strict=True):
        state, special = last_states(bert, f"{label} .")
        expected = state[0] if pooling == "cls" else state[~special].mean(0)
        assert_same_but_rounding(one.vectors[0], expected, 128)
        assert one.n_tokens == int((~special).sum())


def test_tokens_of_an_encoder_are_those_that_are_not_special(bert):
    encoder = BertText(checkpoint=str(bert), level="tokens")
    found = encoder.encode(LABELS)
    for label, one in zip(LABELS, found, strict=True):
        state, special = last_states(bert, label)
        assert_same_but_rounding(one.vectors, state[~special], 128)
    bank = TextBank.of(dict(zip(LABELS, found, strict=True)), encoder.about())
    assert bank.vectors.shape == (3, max(one.n_tokens for one in found), 32)
    assert bank.is_token.sum(1).tolist() == [one.n_tokens for one in found]
    assert (bank.vectors[~bank.is_token] == 0).all()
    for label, one in bank.parts().items():
        np.testing.assert_array_equal(one.vectors, found[LABELS.index(label)].vectors)


def test_a_frozen_encoder_runs_without_dropout(bert):
    encoder = BertText(checkpoint=str(bert))
    assert np.array_equal(vectors(encoder, LABELS), vectors(encoder, LABELS))
    state, _ = last_states(bert, LABELS[0])
    torch.manual_seed(0)
    from transformers import AutoModel, AutoTokenizer

    noisy = AutoModel.from_pretrained(bert).train()
    with torch.no_grad():
        trained = noisy(**AutoTokenizer.from_pretrained(bert)(LABELS[0], return_tensors="pt")).last_hidden_state[0]
    assert (trained[0] - state[0]).abs().max() > 0.1  # what a network in training mode would have said


def test_long_labels_are_cut_and_those_without_a_token_refused(bert):
    (short,) = BertText(checkpoint=str(bert), max_length=6).encode(["love war love war love war"])
    assert short.n_tokens == 4
    with pytest.raises(Refused, match="nothing of the text becomes a token") as refused:
        BertText(checkpoint=str(bert)).encode(["love", "\u200b"])
    assert refused.value.code == "EMPTY"


def test_settings_and_weights_are_the_key_and_the_place_of_the_files_is_not(bert, tmp_path):
    import shutil

    one = BertText(checkpoint=str(bert))
    moved = BertText(checkpoint=shutil.copytree(bert, tmp_path / "moved").as_posix())
    other = BertText(checkpoint=str(write_encoder(tmp_path / "other", "distilbert")))
    assert one.key() == moved.key()
    variants = [BertText(checkpoint=str(bert), **more) for more in
                ({"pooling": "mean"}, {"template": "a {}"}, {"level": "tokens"}, {"max_length": 9})]  # fmt: skip
    keys = {encoder.key() for encoder in (one, other, HashedText(), HashedText(dim=8), *variants)}
    assert len(keys) == 8
    assert one.about()["checkpoint"] == str(bert)
