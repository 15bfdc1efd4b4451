"""Predictions of a stored head, against the package `transformers` reading the same folder."""

import shutil

import numpy as np
import pytest
import torch
from scipy.special import softmax
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tests.tasks.classification.sentiment import tokenised
from tests.text_examples import NAMES, sentences, write_encoder
from xfm.compute.embed import Embedder
from xfm.core.errors import Refused
from xfm.models.hf_text.config import HFText
from xfm.models.reductions import Pool
from xfm.tasks.classification.learner import ClassificationRecipe
from xfm.tasks.classification.settings import Classification
from xfm.training.tokens import TokenParts


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("predict")
    start = HFText(checkpoint=str(write_encoder(folder / "start", family="distilbert")))
    task = Classification(head="mlp")
    recipe = ClassificationRecipe(start, task, TokenParts("", (), ()), 16, 400, 3, 0, {}, NAMES)
    recipe.write(folder / "out", recipe.network(), {})
    return folder / "out"


def embedder(checkpoint, **more):
    settings = {"batch_tokens": 60, "device": "cpu", "seed": 0, "predictions": True} | more
    return Embedder(HFText(checkpoint=str(checkpoint)), [Pool("cls")], settings.pop("layers", (0,)), **settings)


def test_predictions_are_those_of_the_package_that_reads_the_same_folder(checkpoint):
    texts, labels = sentences(20)
    tokens = tokenised(HFText(checkpoint=str(checkpoint)), texts, [NAMES[label] for label in labels])
    out = embedder(checkpoint)(tokens)
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint).eval()
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    with torch.inference_mode():
        logits = model(**tokenizer(texts, padding=True, return_tensors="pt")).logits.numpy()
    found = np.array(out["probabilities"].to_pylist())
    np.testing.assert_allclose(found, softmax(logits, axis=1), rtol=1e-4, atol=1e-6)
    assert out["predicted"].to_pylist() == [NAMES[code] for code in logits.argmax(axis=1)]
    assert out.column_names[-1] == "cls_l00"


def test_a_prediction_does_not_depend_on_the_rows_beside_it(checkpoint):
    texts, labels = sentences(12)
    tokens = tokenised(HFText(checkpoint=str(checkpoint)), texts, [NAMES[label] for label in labels])
    together, alone = embedder(checkpoint, batch_tokens=400)(tokens), embedder(checkpoint, batch_tokens=1)(tokens)
    found = [np.array(each["probabilities"].to_pylist()) for each in (together, alone)]
    np.testing.assert_allclose(*found, rtol=0, atol=1e-5)


def test_a_checkpoint_without_a_head_is_refused_by_name(tmp_path):
    start = write_encoder(tmp_path / "start", family="distilbert")
    with pytest.raises(Refused, match=r"NO_HEAD.*head.safetensors"):
        embedder(start)


@pytest.mark.parametrize(("content", "said"), [("{", "is not JSON"), ("[]", "dim"), ('{"dim": 32}', "dropout, head")])
def test_a_damaged_description_of_a_head_is_refused_by_name(checkpoint, tmp_path, content, said):
    folder = tmp_path / "out"
    shutil.copytree(checkpoint, folder)
    (folder / "head.json").write_text(content)
    with pytest.raises(Refused, match=rf"BAD_HEAD.*{said}"):
        embedder(folder)
