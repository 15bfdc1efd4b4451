"""Scores, verdict and words of a zero-shot job on guesses whose truth is planted."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score

from tests.zero_shot_examples import NAMES, guesses_part
from xfm.core.errors import Refused
from xfm.core.parts import TEST
from xfm.judging.eval_set import EvalSet, labels_of
from xfm.judging.score import SCHEMA
from xfm.judging.split import Split, split_as_given
from xfm.models.clip.prompts import ClassPrompts
from xfm.studies.zero_shot.chosen_rows import RowChoice
from xfm.studies.zero_shot.classifier import TextClassifier
from xfm.studies.zero_shot.figures import draw
from xfm.studies.zero_shot.headline import cautions, headline
from xfm.studies.zero_shot.report import zero_shot_report
from xfm.studies.zero_shot.rows import guess_blindly, judged_of, table_of_parts
from xfm.studies.zero_shot.scores import question_of, score_all

ROWS = 140
LABELS = [NAMES[i % 7] for i in range(ROWS)]
GOOD = {"lens_l00": 0.0, "lens_l01": 0.4, "lens_l02": 0.9, "one_template_l02": 0.5}
PROMPTS = ClassPrompts(classes=(*NAMES, "unicorn"), templates=("a {}", "the {}")).prompts()
BASELINES = ("majority", "chance")


def asked(part, random=None, *, choice=None, group=None, obs=("label",), resamples=200):
    table = table_of_parts([part], [*obs, *([group] if group else [])])
    judged = judged_of(table, "label", choice or RowChoice(), group=group, validation=0.2, seed=0,
                       resamples=resamples, noun="images")  # fmt: skip
    question = question_of(judged, PROMPTS, table.obs["label"])
    random = None if random is None else table_of_parts([random], ["label"]).ordered_as(table.row_ids)
    return question, score_all(question, table, random, BASELINES)


@pytest.fixture(scope="module")
def found():
    part = guesses_part(LABELS, GOOD)
    random = guesses_part(LABELS, {"lens_l00": 0.0, "lens_l01": 0.0, "lens_l02": 0.0}, seed=1)
    return part, *asked(part, random.take(np.arange(ROWS)[::-1].copy()))


def test_scores_are_those_of_scikit_learn_and_the_last_layer_is_the_classifier(found):
    part, _, results = found
    predicted = np.stack(part["lens_l02_classes"].to_pylist())[:, 0]
    truth = [NAMES.index(label) for label in LABELS]
    assert results.scores["zero_shot", "accuracy"].value == pytest.approx(accuracy_score(truth, predicted))
    assert results.scores["zero_shot", "balanced_accuracy"].value == pytest.approx(
        balanced_accuracy_score(truth, predicted)
    )
    assert [each.name for each in results.layers("parts")] == ["lens_l00", "lens_l01", "zero_shot"]
    assert results.scores["majority", "accuracy"].value == pytest.approx(1 / 7)
    assert results.scores["majority", "acc5"].value == pytest.approx(5 / 7)
    assert "ece" in {metric for name, metric in results.scores if name == "zero_shot"}
    assert "ece" not in {metric for name, metric in results.scores if name == "lens_l01"}


def test_random_weights_meet_the_same_rows_whatever_their_order(found):
    part, _, _ = found
    shuffled = part.take(np.random.default_rng(0).permutation(ROWS))
    _, again = asked(part, shuffled)
    twin = next(each for each in again.layers("random") if each.layer == 2)
    np.testing.assert_array_equal(again.guesses[twin.name].ranked, again.guesses["zero_shot"].ranked)
    assert table_of_parts([part.slice(1)], ["label"]).ordered_as(part["row_id"].to_pylist()) is None


def test_what_is_planted_is_found_and_said(found):
    _, question, results = found
    assert all(duel.verdict == "beats" for duel in results.duels.values())
    assert set(results.duels) == {"one_template", "majority", "chance", "random"}
    said = headline(question, results)
    assert f"{100 * results.scores['zero_shot', 'accuracy'].value:.1f} %" in said
    assert "8 classes of label" in said
    assert "beats" in said
    assert "not told apart" not in said


def test_a_classifier_that_guesses_is_not_praised():
    question, results = asked(guesses_part(LABELS, {"lens_l00": 0.0, "lens_l01": 0.0}))
    said = headline(question, results)
    assert "is not told apart from the largest class and guessing by frequency" in said
    assert "beats" not in said


def test_two_groups_can_tell_nothing():
    groups = ["one" if i < ROWS // 2 else "two" for i in range(ROWS)]
    question, results = asked(guesses_part(LABELS, GOOD, shot=groups), group="shot")
    assert "it is not testable against" in headline(question, results)
    assert "which takes 7 groups" in headline(question, results)  # of three rivals: 3 x 2 / 2**7 is below .05
    assert any("Only 2 groups are in the test" in line for line in cautions(question, results, "shot"))


def test_a_class_that_no_row_is_of_is_mentioned(found):
    _, question, results = found
    lines = list(cautions(question, results, None))
    assert any("No image is of unicorn" in line for line in lines)
    assert any("No --group was named" in line for line in lines)


def test_rows_and_split_have_the_digests_of_an_evaluation_of_the_same_rows():
    """All rows are test rows here; there, the very same rows, labels and split by `labels_of` and `Split`."""
    question, _ = asked(guesses_part(LABELS, GOOD))
    ids = tuple(f"row-{i}" for i in range(ROWS))
    order = np.random.default_rng(0).permutation(ROWS)  # stored in another order
    labels = labels_of(pa.array([LABELS[i] for i in order]), "label", 10)
    groups = np.unique([ids[i] for i in order], return_inverse=True)[1]  # in the order of their names, as drawn
    split = Split(np.full(ROWS, TEST, np.int8), groups)
    other = EvalSet(np.arange(ROWS), tuple(ids[i] for i in order), (labels,), split, seed=0, resamples=200)
    assert question.judged.cells_digest() == other.cells_digest()
    assert question.judged.label_digests() == other.label_digests()
    assert question.judged.split_digest() == other.split_digest()


def test_data_that_come_split_are_scored_where_they_say_test():
    parts = ["train"] * 70 + ["test"] * 70
    part = guesses_part(LABELS, GOOD, split=parts)
    question, results = asked(part, choice=RowChoice("split"), obs=("label", "split"))
    given = split_as_given(parts, [f"row-{i}" for i in range(ROWS)], np.arange(ROWS), 0, 0.2)
    np.testing.assert_array_equal(question.judged.split.parts, given.parts)
    predicted = np.stack(part["lens_l02_classes"].to_pylist())[:, 0]
    truth = np.array([NAMES.index(label) for label in LABELS])
    assert results.scores["zero_shot", "accuracy"].value == pytest.approx((predicted == truth)[70:].mean())
    table = pa.concat_tables(results.tables)
    assert table.schema == SCHEMA
    rows = table.filter(pc.equal(table["split"], "validation"))
    assert set(rows["cells"].to_pylist()) == {int((given.parts == 1).sum())}
    with pytest.raises(Refused, match=r"BAD_SPLIT: --split split: .*no row is said to be train"):
        asked(guesses_part(LABELS, GOOD, split=["test"] * ROWS), choice=RowChoice("split"), obs=("label", "split"))


def test_the_largest_class_is_that_of_training_rows_where_there_are_any():
    labels = ["red"] * 60 + ["blue"] * 20 + ["blue"] * 50 + ["red"] * 10
    part = guesses_part(labels, GOOD, split=["train"] * 80 + ["test"] * 60)
    _, results = asked(part, choice=RowChoice("split"), obs=("label", "split"))
    assert results.scores["majority", "accuracy"].value == pytest.approx(10 / 60)
    _, results = asked(part.drop_columns(["split"]))
    assert results.scores["majority", "accuracy"].value == pytest.approx(70 / 140)


def test_nothing_to_score_and_nothing_to_tell_apart_are_refused():
    with pytest.raises(Refused, match="NO_ROWS"):
        table_of_parts([guesses_part(LABELS, GOOD).slice(0, 0)], ["label"])
    with pytest.raises(Refused, match=r"ONE_CLASS.*red"):
        asked(guesses_part(["red"] * 20, GOOD))
    with pytest.raises(Refused, match="NO_GROUPS"):
        asked(guesses_part(LABELS, GOOD, shot=["na"] * ROWS), group="shot")


def test_blind_guesses_follow_the_frequencies_they_know():
    known = np.repeat(np.arange(3), [10, 60, 30]).astype(np.int32)
    truth = np.zeros(4000, np.int32)
    rng = np.random.default_rng(0)
    assert guess_blindly("majority", truth[:2], known, 4, rng).ranked.tolist() == [[1, 2, 0, 3]] * 2
    drawn = guess_blindly("chance", truth, known, 4, rng).ranked[:, 0]
    np.testing.assert_allclose(np.bincount(drawn, minlength=4) / 4000, [0.1, 0.6, 0.3, 0], atol=0.03)


def test_the_report_shows_all_of_it(found, tmp_path):
    _, question, results = found
    run = {
        "recipe": {"weights": {"w": "1"}, "data": {"files": {}}, "cells": "c", "split": "s", "classifier": "k"},
        "versions": {},
    }
    made = TextClassifier(np.eye(8, dtype=np.float32), PROMPTS, {"w": "1"}, cut=2)
    report = zero_shot_report(
        run, question, results, made, scale=20.0, rows="all images of the source", group=None,
        notes=["Published: 98.46, different weights."], warnings=[], refused={"BAD_IMAGE": 1}, seconds=2.0,
    )  # fmt: skip
    assert report.warnings[0] == "Published: 98.46, different weights."
    assert any("cut: 2" in line for line in report.warnings)
    assert report.provenance["prompts"]["unicorn"] == ["a unicorn", "the unicorn"]
    assert report.provenance["rows"]["scored"] == "all images of the source"
    by_name = {table.name: table for table in report.tables}
    assert [row[0] for row in by_name["zero_shot_layers"].rows] == [0, 1, 2]
    assert by_name["zero_shot_layers"].rows[2][1] == report.numbers["accuracy"]
    assert sum(row[2] for row in by_name["zero_shot_classes"].rows) == ROWS
    assert sum(row[1] for row in by_name["zero_shot_reliability"].rows) == ROWS
    wrong = ROWS - round(report.numbers["accuracy"].value * ROWS)
    assert sum(row[2] for row in by_name["zero_shot_confused"].rows) == wrong
    assert report.from_json(report.to_json()).headline == report.headline
    figures = draw(question, results, tmp_path)
    assert [figure.name for figure in figures] == [
        "zero_shot_layers", "zero_shot_classes", "zero_shot_confusion", "zero_shot_reliability",
    ]  # fmt: skip
    for figure in figures:
        assert (tmp_path / figure.png).stat().st_size > 5000
    lines = (tmp_path / "plots" / "zero_shot_layers.csv").read_text().splitlines()
    assert sum(line.startswith("logit lens,") for line in lines) == 3
