"""A small encoder from scratch, as other programs read it."""

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from transformers import AutoModel, AutoTokenizer

from tests.text_examples import sentences
from xfm.models.hf_text.config import HFText
from xfm.models.hf_text.fresh import FreshDistilBERT

SMALL = FreshDistilBERT(layers=2, dim=16, heads=2, ffn=32, vocabulary=100, max_length=32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return SMALL.write(tmp_path_factory.mktemp("fresh"), sentences()[0])


def test_transformers_and_we_read_the_same_network(folder: Path):
    theirs, ours = AutoModel.from_pretrained(folder).eval(), HFText(checkpoint=str(folder))
    text = sentences()[0][0]
    ids = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")
    with torch.inference_mode():
        expected = theirs(**ids, output_hidden_states=True).hidden_states
    assert (ours.n_layers(), ours.dim()) == (len(expected) - 1, expected[0].shape[-1]) == (2, 16)


def test_words_of_the_texts_are_known(folder: Path):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert "film" in tokenizer.tokenize("a film about love")
    assert tokenizer("a film")["input_ids"][0] == tokenizer.cls_token_id


def test_seed_and_texts_decide_alone(tmp_path: Path, folder: Path):
    again = SMALL.write(tmp_path / "again", reversed(sentences()[0]))
    other = SMALL.model_copy(update={"seed": 1}).write(tmp_path / "other", sentences()[0])
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        assert (again / name).read_bytes() == (folder / name).read_bytes(), name
    assert (other / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()
    assert (other / "model.safetensors").read_bytes() != (folder / "model.safetensors").read_bytes()


def test_heads_must_divide_the_width():
    with pytest.raises(ValidationError, match="64 does not divide into 3 heads"):
        FreshDistilBERT(heads=3)
