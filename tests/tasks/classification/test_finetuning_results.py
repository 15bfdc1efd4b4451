"""What a fine-tuning leaves behind: scores, predictions, checkpoint, report, spread over seeds."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file
from sklearn import metrics
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tests.tasks.classification.sentiment import learner, memory
from tests.text_examples import NAMES, sentences, write_encoder
from xfm.core.parts import TEST, VALIDATION
from xfm.core.report import Estimate
from xfm.judging.classifier_report import classes, score
from xfm.judging.classifier_scores import name_of, predicted, prediction_table, score_table
from xfm.judging.labelled import Labelled, labelled_rows
from xfm.judging.score import SCHEMA
from xfm.judging.seeds import seeds_report
from xfm.models.headed import HeadedBackbone
from xfm.models.hf_text.config import HFText
from xfm.models.reductions import Pool
from xfm.models.scgpt.config import ScGPT
from xfm.tasks.classification.learner import ClassificationRecipe
from xfm.tasks.classification.report import by_frequency, draw, finetune_report
from xfm.tasks.classification.settings import Classification
from xfm.training.settings import Settings, Trained
from xfm.training.task import TrainingRun
from xfm.training.tokens import TokenParts

RUN = {"recipe": {"weights": {"model.safetensors": "1"}, "data": {"files": {}}, "cells": "c"}, "versions": {}}
SETTINGS = Settings(
    steps=8, batch_size=16, lr=1e-3, warmup=0, schedule="linear", weight_decay=0.0, clip=1.0, log_every=4,
    checkpoint_every=4, max_seconds=None, seed=0, watch="validation_f1", patience=3,
)  # fmt: skip


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return write_encoder(tmp_path_factory.mktemp("results") / "distilbert", "distilbert")


@pytest.fixture(scope="module")
def rows(encoder):
    return memory(HFText(checkpoint=str(encoder)))


@pytest.fixture(scope="module")
def labelled(rows):
    return labelled_rows(rows, "label", None, seed=0, resamples=200, noun="sentences")


@pytest.fixture(scope="module")
def outcome(rows):
    rng = np.random.default_rng(0)
    sizes = {"validation": sum(rows.parts().count(VALIDATION)), "test": sum(rows.parts().count(TEST))}
    return {part: rng.normal(size=(size, 2)).astype(np.float32) for part, size in sizes.items()}


def truth(rows, part):
    numbers, places = rows.parts().everything(part)
    return [NAMES.index(name) for name in rows.take(numbers, places)["label"].to_pylist()]


def run_of(what: Trained, rows: Any, settings: Settings = SETTINGS) -> TrainingRun:
    """Four batches an epoch."""
    parts = TokenParts("", ("a",), ((4 * settings.batch_size, 0, 0),))
    return TrainingRun(what, settings, parts, rows, {}, RUN, {}, {})


def trained(outcome, **more):
    history = [{"step": 4, "epoch": 1.0, "loss": 0.7, "validation_loss": 0.69, "validation_f1": 0.5}]
    settings = {"weights": {}, "steps": 8, "seconds": 2.0, "best_step": 4, "history": history, "outcome": outcome}
    return Trained(**(settings | {"is_out_of_time": False, "is_stopped": True} | more))


def test_scores_are_those_of_scikit_learn_with_intervals_around_them(rows, labelled, outcome):
    scores = score_table(outcome, labelled, "full")
    assert scores.schema == SCHEMA
    assert set(scores["task"].to_pylist()) == {"finetune"}
    for split, part in (("validation", VALIDATION), ("test", TEST)):
        own, guess = truth(rows, part), outcome[split].argmax(1)
        found = {name: score(scores, name_of("full"), name, split) for name in ("accuracy", "f1", "balanced_accuracy")}
        assert found["accuracy"].value == pytest.approx(metrics.accuracy_score(own, guess))
        assert found["f1"].value == pytest.approx(metrics.f1_score(own, guess, average="macro"))
        assert found["balanced_accuracy"].value == pytest.approx(metrics.balanced_accuracy_score(own, guess))
        assert found["f1"].low < found["f1"].value < found["f1"].high
    assert set(scores["representation"].to_pylist()) == {"finetuned_full", "majority", "chance"}


def test_rows_without_a_class_are_not_scored(labelled, outcome):
    """The first validation row and the last test row lose their class."""
    lost = [np.flatnonzero(labelled.judged.split.parts == part)[place] for part, place in ((1, 0), (2, -1))]
    codes = labelled.label.codes.copy()
    codes[lost] = -1
    fewer = Labelled(replace(labelled.judged, labels=(replace(labelled.label, codes=codes),)), ())
    found = predicted(outcome, fewer)
    assert found.validation.tolist() == outcome["validation"][1:].argmax(1).tolist()
    assert found.test.tolist() == outcome["test"][:-1].argmax(1).tolist()
    assert prediction_table(outcome, fewer)["label"].null_count == 2


def test_predictions_name_each_row_with_its_probabilities(rows, labelled, outcome):
    table = prediction_table(outcome, labelled)
    numbers, places = rows.parts().everything(TEST)
    test = table.filter(pa.compute.equal(table["part"], "test"))
    assert test["row_id"].to_pylist() == rows.take(numbers, places)["row_id"].to_pylist()
    shares = np.stack(test["probabilities"].to_numpy())
    np.testing.assert_allclose(shares, torch.tensor(outcome["test"]).softmax(1), atol=1e-6)
    assert test["label"].to_pylist() == [NAMES[code] for code in truth(rows, TEST)]


def test_the_report_says_how_well_beside_guesses_and_which_epoch_was_kept(labelled, outcome, tmp_path):
    scores = score_table(outcome, labelled, "full")
    report = finetune_report(run_of(trained(outcome), labelled), Classification(), scores)
    assert report.numbers["epoch kept"] == 1.0
    assert report.numbers["epochs"] == 2.0
    assert isinstance(report.numbers["test macro F1"], Estimate)
    assert any("Only" in warning and "intervals are wide" in warning for warning in report.warnings)
    assert [table.name for table in report.tables] == ["summary", "classes"]
    assert report.provenance["choice"]["label"]["representation"] == "finetuned_full"
    figures = draw(trained(outcome).history, labelled, outcome, tmp_path)
    assert all((tmp_path / figure.png).stat().st_size > 5000 for figure in figures)


def test_each_class_has_the_scores_of_scikit_learn(rows, labelled, outcome):
    table = classes(outcome, labelled)
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        truth(rows, TEST), outcome["test"].argmax(1)
    )
    for name, _, count, *own in table.rows:
        code = NAMES.index(name)
        assert count == support[code]
        assert own == pytest.approx([precision[code], recall[code], f1[code]])


def test_guessing_by_frequency_has_the_entropy_of_the_classes(labelled):
    codes = labelled.label.codes[labelled.held(0)]
    assert by_frequency(labelled) == pytest.approx(
        metrics.log_loss(codes, np.tile(np.bincount(codes) / len(codes), (len(codes), 1)))
    )


@pytest.mark.parametrize("mode", ["full", "lora"])
@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_a_checkpoint_read_again_gives_the_same_logits(encoder, rows, tmp_path, mode, head):
    task = Classification(mode=mode, head=head, rank=2)
    of = learner(encoder, task, rows=rows)
    generator = torch.Generator().manual_seed(0)
    for parameter in of.network.parameters():
        if parameter.requires_grad:
            parameter.data += 0.02 * torch.randn(parameter.shape, generator=generator)
    before = of.logits(TEST)[0]
    of.recipe.write(tmp_path / "out", of.network, {"lr": 1})
    read = HFText(checkpoint=str(tmp_path / "out"))
    assert read.tokenizer(0)
    about = json.loads((tmp_path / "out" / "head.json").read_text())
    assert tuple(about["classes"]) == NAMES
    of.network.head.load_state_dict(load_file(tmp_path / "out" / "head.safetensors"))
    of.network = HeadedBackbone(read.build("cpu"), Pool(about["pool"]), of.network.head).eval()
    torch.testing.assert_close(of.logits(TEST)[0], before, rtol=1e-4, atol=1e-5)
    assert (tmp_path / "out" / "adapter" / "adapter_config.json").exists() == (mode == "lora")
    if head == "mlp":
        _check_reference(tmp_path / "out", of.logits(TEST)[0], rows)


def _check_reference(folder, logits, rows):
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert model.config.id2label == dict(enumerate(NAMES))
    texts = dict(zip([f"row{i}" for i in range(120)], sentences(120)[0], strict=True))
    numbers, places = rows.parts().everything(TEST)
    own = [texts[name] for name in rows.take(numbers, places)["row_id"].to_pylist()]
    with torch.inference_mode():
        theirs = model(**tokenizer(own, padding=True, return_tensors="pt")).logits
    torch.testing.assert_close(theirs, logits, rtol=1e-4, atol=1e-5)


def test_a_classifier_of_cells_is_a_checkpoint_of_cells(tiny_scgpt, tmp_path):
    config = ScGPT(checkpoint=str(tiny_scgpt / "checkpoint"))
    task = Classification(mode="last_n", last_n=1, pool="mean")
    recipe = ClassificationRecipe(config, task, TokenParts("", (), ()), 16, 400, 0, 0, {}, ("a", "b", "c"))
    network = recipe.network()
    tensors = {name: tensor.clone() for name, tensor in network.backbone.state_dict().items()}
    recipe.write(tmp_path / "out", network, {})
    read = ScGPT(checkpoint=str(tmp_path / "out")).build("cpu")
    for name, tensor in read.state_dict().items():
        assert torch.equal(tensor, tensors[name]), name
    assert json.loads((tmp_path / "out" / "head.json").read_text())["classes"] == ["a", "b", "c"]
    assert load_file(tmp_path / "out" / "head.safetensors")["classifier.weight"].shape == (3, read.dim)


def test_the_spread_over_seeds_is_mean_and_sd_by_hand(labelled, outcome):
    values = (0.7, 0.8, 0.9)
    table = score_table(outcome, labelled, "full")
    names, splits = table["metric"].to_pylist(), table["split"].to_pylist()

    def with_f1(value):
        changed = [value if (m, s) == ("f1", "test") else v
                   for m, s, v in zip(names, splits, table["value"].to_pylist(), strict=True)]  # fmt: skip
        return table.set_column(table.column_names.index("value"), "value", pa.array(changed, pa.float64()))

    report = seeds_report({i: with_f1(v) for i, v in enumerate(values)}, "finetuned_full", "label", [], RUN, {})
    assert report.numbers["test macro F1, mean"] == pytest.approx(0.8)
    assert report.numbers["test macro F1, sd"] == pytest.approx(0.1)
    assert report.numbers["test accuracy, sd"] == pytest.approx(0.0)
    assert "0.800 ± 0.100" in report.headline
    alone = seeds_report({4: table}, "finetuned_full", "label", [], RUN, {})
    assert "test macro F1, sd" not in alone.numbers
    assert "rough" in " ".join(alone.warnings)
