"""What a regression leaves behind: scores, predictions, checkpoint, report; and which rows are refused or left out."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from sklearn.metrics import mean_absolute_error, r2_score
from transformers import AutoModelForSequenceClassification

from tests.tasks.classification.sentiment import Memory, tokenised
from tests.tasks.classification.test_finetuning_results import run_of
from tests.tasks.regression.ages import ages, learner, memory, target_rows
from tests.text_examples import write_encoder
from xfm.compute.predict import HeadReader
from xfm.core.errors import Refused
from xfm.core.parts import TEST, TRAIN, VALIDATION
from xfm.core.report import Estimate
from xfm.judging.labelled import SplitWithContent
from xfm.judging.representations import MEAN
from xfm.judging.score import SCHEMA
from xfm.models.hf_text.config import HFText
from xfm.tasks.regression.report import draw, regression_report
from xfm.tasks.regression.rows import prediction_table, regression_rows, score_table
from xfm.tasks.regression.settings import Regression
from xfm.tasks.regression.task import read_regression
from xfm.training.settings import Settings, Trained

RUN = {"recipe": {"weights": {"model.safetensors": "1"}, "data": {"files": {}}, "cells": "c"}, "versions": {}}
SETTINGS = Settings(
    steps=8, batch_size=16, lr=1e-3, warmup=0, schedule="linear", weight_decay=0.0, clip=1.0, log_every=4,
    checkpoint_every=4, max_seconds=None, seed=0, watch="validation_r2", patience=3,
)  # fmt: skip


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return HFText(checkpoint=str(write_encoder(tmp_path_factory.mktemp("results") / "distilbert", "distilbert")))


@pytest.fixture(scope="module")
def rows(config):
    return memory(config, missing=5)


@pytest.fixture(scope="module")
def known(rows):
    return target_rows(rows)


@pytest.fixture(scope="module")
def outcome(rows):
    rng = np.random.default_rng(0)
    return {
        part.word: rng.normal(size=(sum(rows.parts().count(part)), 1)).astype(np.float32) for part in (VALIDATION, TEST)
    }


def table_of(rows, part):
    return rows.take(*rows.parts().everything(part))


def truth(rows, part):
    return table_of(rows, part)["label"].to_numpy()


def row(table, representation, metric, split="test"):
    wanted = {"representation": representation, "metric": metric, "split": split}
    (found,) = [each for each in table.to_pylist() if wanted.items() <= each.items()]
    return found


def test_scores_are_those_of_scikit_learn_in_the_unit_of_the_column(rows, known, outcome):
    scores, training = score_table(outcome, known, "full"), truth(rows, TRAIN)
    training = training[np.isfinite(training)]
    assert scores.schema == SCHEMA
    assert set(scores["task"].to_pylist()) == {"finetune"}
    for part in (VALIDATION, TEST):
        values = truth(rows, part)
        held = np.isfinite(values)
        found = training.mean() + training.std() * outcome[part.word][held, 0].astype(np.float64)
        r2, mae = (row(scores, "finetuned_full", name, part.word) for name in ("r2", "mae"))
        assert r2["value"] == pytest.approx(r2_score(values[held], found))
        assert mae["value"] == pytest.approx(mean_absolute_error(values[held], found))
        assert mae["low"] < mae["value"] < mae["high"]
        assert (r2["cells"], len(r2["draws"])) == (held.sum(), 200)
        assert 1 < r2["groups"] <= 25, "donors are drawn"
        guess = row(scores, MEAN, "r2", part.word)["value"]
        assert guess == pytest.approx(r2_score(values[held], np.full(held.sum(), training.mean())), abs=1e-12)
        assert guess <= 0


def test_predictions_name_each_row(rows, known, outcome):
    table = prediction_table(outcome, known)
    assert table.column_names == ["row_id", "part", "true", "predicted"]
    test = table.filter(pc.equal(table["part"], "test"))
    assert test["row_id"].to_pylist() == table_of(rows, TEST)["row_id"].to_pylist()
    np.testing.assert_array_equal(test["true"].to_numpy(), truth(rows, TEST))
    own = known.scale.mean + known.scale.deviation * outcome["test"][:, 0].astype(np.float64)
    np.testing.assert_allclose(test["predicted"].to_numpy(), own)


def test_the_report_says_how_well_next_to_the_mean_and_draws(known, outcome, tmp_path):
    history = [{"step": 4, "epoch": 1.0, "loss": 0.7, "validation_loss": 0.69, "validation_r2": 0.5}]
    trained = Trained({}, 8, 2.0, 4, history, outcome, is_out_of_time=False, is_stopped=True)
    scores = score_table(outcome, known, "full")
    report = regression_report(run_of(trained, known, SETTINGS), Regression(), scores)
    assert isinstance(report.numbers["test R²"], Estimate)
    assert report.numbers["epoch kept"] == 1.0
    assert len(report.tables[0].rows) == 4
    assert "5 sentences have no label and were left out." in report.warnings
    assert f"errs by {row(scores, MEAN, 'mae')['value']:.3g}" in report.headline
    assert report.provenance["choice"]["label"]["representation"] == "finetuned_full"
    figures = draw(history, known, outcome, tmp_path)
    assert [figure.name for figure in figures] == ["loss", "predicted"]
    assert all((tmp_path / figure.png).stat().st_size > 5000 for figure in figures)
    drawn = (tmp_path / figures[1].csv).read_text().splitlines()
    assert len(drawn) == 1 + len(known.held(TEST))


@pytest.mark.parametrize(("mode", "head"), [("full", "linear"), ("lora", "mlp")])
def test_a_checkpoint_read_again_predicts_the_same(config, rows, tmp_path, mode, head):
    task = Regression(mode=mode, head=head, rank=2)
    of = learner(config.checkpoint, task, rows)
    generator = torch.Generator().manual_seed(0)
    for parameter in of.network.parameters():
        if parameter.requires_grad:
            parameter.data += 0.02 * torch.randn(parameter.shape, generator=generator)
    before, tokens = of.outputs(TEST)[0], of.tokenizer.collate(table_of(rows, TEST))
    of.recipe.write(tmp_path / "out", of.network, {"lr": 1})
    written = HFText(checkpoint=str(tmp_path / "out"))
    network, scale = read_regression(tmp_path / "out", written.build("cpu"))
    assert scale == of.recipe.scale
    with torch.inference_mode():
        torch.testing.assert_close(network(tokens), before, rtol=1e-4, atol=1e-5)
    about = json.loads((tmp_path / "out" / "head.json").read_text())
    assert about["target"] == {"mean": scale.mean, "sd": scale.deviation}
    # As `embed --predictions` reads it.
    said = HeadReader(written, "cpu").columns(before.numpy())["predicted"].to_numpy()
    np.testing.assert_allclose(said, scale.mean + scale.deviation * before.double().numpy()[:, 0])
    if head == "mlp":
        model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()
        assert model.config.id2label == {0: "label"}
        with torch.inference_mode():
            theirs = model(input_ids=tokens.ids, attention_mask=tokens.is_token.long()).logits
        torch.testing.assert_close(theirs, before, rtol=1e-4, atol=1e-5)


def read(config, labels):
    texts = [f"{text} {i}" for i, text in enumerate(ages(len(labels))[0])]
    splits = [("train", "train", "validation", "test")[i % 4] for i in range(len(labels))]
    store = Memory([SplitWithContent(0, 0.2, split="split")(tokenised(config, texts, labels, split=splits))])
    return regression_rows(store, "label", None, seed=0, resamples=10, noun="sentences")


def test_the_scale_is_that_of_training_rows_that_have_a_number(config):
    found = read(config, pa.array([1.0, 3.0, 50.0, 60.0, None, 8.0, 70.0, 80.0]))
    assert (found.scale.mean, found.scale.deviation) == (4.0, pytest.approx(np.std([1, 3, 8])))
    assert "1 sentences have no label and were left out." in found.warnings


def test_text_that_says_no_number_is_left_out_and_counted(config):
    found = read(config, ["1", "2", "3", "4", "old", "6", "7", "8", "9", "10", "nan", "2"])
    assert any("that is no finite number (e.g. 'old')" in each for each in found.warnings)
    assert any(each.startswith("1 sentences have no label") for each in found.warnings)


@pytest.mark.parametrize(
    ("labels", "code"),
    [
        (["neg", "pos"] * 6, "NOT_NUMERIC"),
        ([True, False] * 6, "NOT_NUMERIC"),
        ([7] * 12, "CONSTANT_TARGET"),
        ([1.0, 2.0, 3.0, None] * 3, "CONSTANT_TARGET"),
        ([1.0, 2.0, 3.0, None, 1.0, 2.0, 4.0, None], "NO_ROWS"),
    ],
)
def test_what_cannot_be_learned_is_refused(config, labels, code):
    with pytest.raises(Refused, match=r"--task\.label label") as refused:
        read(config, labels)
    assert refused.value.code == code
