"""Frozen, fine-tuned and zero-shot classifiers of the same rows on one board: who stands there, tested how."""

from dataclasses import replace

import numpy as np
import pytest

from tests.evaluate_outputs import score, spread, write_evaluate
from xfm.core.errors import Refused
from xfm.core.storage import open_storage
from xfm.studies.compare.boards import compare
from xfm.studies.compare.gather import read_run
from xfm.studies.compare.report import compare_report, leaderboard_markdown, leaderboard_table
from xfm.studies.compare.tables import model_of_row

SHIFT = spread(0.0, seed=7)
GIVEN = {"split": "split", "group": None}  # data that come split


@pytest.fixture
def make(tmp_path):
    def made(name, scores, metrics=("primary",), **more):
        settings = GIVEN | more.pop("settings", {})
        rows = [row for each in scores for row in each]
        write_evaluate(tmp_path / name, rows, settings=settings, label="tone", noun="sentences", **more)
        return read_run(name, open_storage(str(tmp_path / name)), metrics)

    return made


def own(name, value, validation, task="probe", **more):
    noise = 0.001 * np.random.default_rng([*name.encode(), *task.encode()]).standard_normal(len(SHIFT))
    return score(name, value, validation=validation, draws=value + SHIFT + noise, task=task, label="tone", **more)


def frozen(more=()):
    """Two layers that probe and SVM rank the other way round, kNN beside them, and what knows nothing."""
    return [
        own("mean_l01", 0.76, 0.77), own("mean_l02", 0.74, 0.75),
        own("mean_l01", 0.73, 0.72, "svm"), own("mean_l02", 0.77, 0.78, "svm"),
        own("mean_l01", 0.60, 0.61, "knn"), own("mean_l02", 0.62, 0.63, "knn"),
        own("majority", 0.33, 0.33), own("majority", 0.33, 0.33, "svm"), *more,
    ]  # fmt: skip


def tuned(value=0.80, validation=0.81, **more):
    """A fine-tuned model, which is no layer of anything."""
    rows = own("finetuned", value, validation, "finetune", **more)
    return [[row | {"kind": "layer", "pool": "", "layer": None} for row in rows]]


def rows_of(board):
    return [(row.runs[0].name, row.representation, row.classifier) for row in board.rows]


def test_frozen_and_fine_tuned_models_stand_on_one_board_and_are_subtracted(make):
    runs = [make("frozen", frozen(), choice="mean_l01"), make("tuned", tuned(), job="finetune")]
    board, plain = compare(runs)
    assert board.name == "tone by any classifier"
    assert list(map(str, board.columns)) == ["macro F1, test"]
    assert rows_of(board) == [
        ("tuned", "finetuned", "fine-tuned"),
        ("frozen", "mean_l02 (best, last)", "SVM"),  # the run's choice was the probe's; the SVM chose its own layer
        ("frozen", "mean_l01 (best)", "probe"),
        ("frozen", "mean_l02 (last)", "probe"),
        ("frozen", "majority", ""),
    ]
    gaps = [row.against.difference.value for row in board.rows[1:]]
    assert gaps == pytest.approx([-0.03, -0.04, -0.06, -0.47])
    # The draws moved together, so that no resample tells otherwise; Holm over four tests.
    assert [row.against.p for row in board.rows[1:]] == pytest.approx([4 * 2 / 201] * 4)
    # One training says nothing of how its seed matters: against what looks at nothing alone there is a verdict.
    assert [row.against.words for row in board.rows[1:]] == ["not testable: takes 2 seeds or more"] * 3 + ["worse"]
    assert plain.name == "tone"
    assert {row.runs[0].name for row in plain.rows} == {"frozen"}
    assert list(map(str, plain.columns)) == ["probe macro F1, test", "SVM macro F1, test", "kNN macro F1, test"]


def test_rows_are_ranked_on_validation_whoever_wins_on_test(make):
    runs = [make("frozen", frozen(), choice="mean_l01"), make("tuned", tuned(0.95, 0.70), job="finetune")]
    board = compare(runs)[0]
    assert [row.rank_by for row in board.rows] == [0.78, 0.77, 0.75, 0.70, 0.33]
    assert board.rows[3].measures[board.columns[0]].value == 0.95


def test_a_zero_shot_run_of_the_same_rows_joins_and_one_of_other_rows_is_refused(make):
    said = [[row | {"task": "zero_shot", "pool": "lens", "layer": 4} for row in rows] for rows in tuned(0.70, 0.71)]
    runs = [make("tuned", tuned(), job="finetune"), make("said", said, job="zero_shot", weights="clip")]
    (board,) = compare(runs)
    assert rows_of(board) == [("tuned", "finetuned", "fine-tuned"), ("said", "finetuned (last)", "zero-shot")]
    assert board.rows[1].against.difference.value == pytest.approx(-0.10)
    other = make("other", tuned(), job="finetune", cells="other")
    with pytest.raises(Refused, match="OTHER_DATA"):
        compare([*runs, other])


def test_zero_shot_runs_alone_are_compared_by_what_they_report_and_beside_others_by_what_all_have(make):
    def says(name, accuracy, f1):
        rows = [*own(name, f1, None, "zero_shot"), *own(name, accuracy, None, "zero_shot", metric="accuracy")]
        return [[row | {"kind": "layer", "pool": "lens", "layer": 4} for row in rows]]

    runs = [make(f"said{i}", says("zero_shot", *each), job="zero_shot", weights=f"w{i}")
            for i, each in enumerate([(0.70, 0.60), (0.65, 0.62)])]  # fmt: skip
    (board,) = compare(runs)
    assert list(map(str, board.columns)) == ["accuracy, test"]
    assert [row.runs[0].name for row in board.rows] == ["said0", "said1"]
    text = " ".join(compare_report([board], runs, [], [], {}).warnings)
    assert "looks better than it would on other sentences." in text
    (mixed,) = compare([*runs, make("tuned", tuned(), job="finetune")])
    assert list(map(str, mixed.columns)) == ["macro F1, test"]
    assert [row.measures[mixed.columns[0]].value for row in mixed.rows] == [0.80, 0.62, 0.60]


def test_what_fine_tuning_began_with_is_not_called_fine_tuned_and_has_a_model(make):
    start = [row | {"kind": "baseline", "pool": "", "layer": None} for row in own("zero_shot", 0.7, 0.7, "finetune")]
    board = compare([make("tuned", [*tuned(), start, own("majority", 0.3, 0.3, "finetune")], job="finetune")])[0]
    assert [row.classifier for row in board.rows] == ["fine-tuned", "zero-shot", ""]
    models = [model_of_row(row) for row in board.rows]
    assert models[0] == models[1]
    assert models[2] is None


def test_without_anything_but_a_probe_there_is_no_second_board(make):
    scores = [rows for rows in frozen() if rows[0]["task"] in ("probe", "knn")]
    assert [board.name for board in compare([make("frozen", scores)])] == ["tone"]
    # Two classifiers of one run already have something to say, after the board of representations.
    assert [board.name for board in compare([make("both", frozen())])] == ["tone", "tone by any classifier"]


def test_a_run_that_its_svm_chose_for_is_read_so(make):
    scores = [rows for rows in frozen() if rows[0]["task"] == "svm"]
    run = make("svm", scores, choice=None, settings={"choose_by": "svm"})
    assert str(run.chooses) == "SVM macro F1"
    (board,) = compare([run])
    assert [row.representation for row in board.rows] == ["mean_l02 (best, last)", "majority"]
    assert str(board.columns[0]) == "SVM macro F1, test"


def test_seeds_of_a_fine_tuned_model_are_one_row(make):
    runs = [make(f"s{seed}", tuned(0.80 + 0.01 * seed), job="finetune", seed=seed) for seed in range(3)]
    board = compare([*runs, make("frozen", frozen(), choice="mean_l01")])[0]
    row = board.rows[0]
    assert (row.seeds, row.measures[board.columns[0]].value) == ((0, 1, 2), pytest.approx(0.81))
    assert row.measures[board.columns[0]].sd == pytest.approx(0.01)
    # The frozen run shares the split of seed 0 alone.
    assert board.rows[1].against.needs == "2 seeds or more"


def test_guesses_of_seeds_that_share_a_split_are_one_row_and_one_test(make):
    """Fine-tuning draws its split by a seed of its own: there, --seed moves the weights alone."""
    rows = [*tuned(), own("majority", 0.33, 0.33, "finetune")]
    seeds = [make(f"s{seed}", rows, job="finetune", seed=seed) for seed in range(3)]
    runs = [replace(run, split="alike") for run in (*seeds, make("frozen", frozen(), choice="mean_l01"))]
    board = compare(runs)[0]
    (guess,) = [row for row in board.rows if row.representation == "majority"]
    assert (len(guess.runs), set(guess.shared_with)) == (1, {"s0", "s1", "s2"})
    assert board.rows[0].measures[board.columns[0]].sd == pytest.approx(0)
    assert not any("different splits" in line for line in compare_report([board], runs, [], [], {}).warnings)


def test_every_metric_that_is_asked_for_has_a_board_and_all_reach_page_and_files(make):
    def with_accuracy(scores):
        return [*scores, *([row | {"metric": "accuracy"} for row in rows] for rows in scores)]

    asked = ("f1", "accuracy")
    runs = [
        make("frozen", with_accuracy(frozen()), asked, choice="mean_l01"),
        make("tuned", with_accuracy(tuned()), asked, job="finetune"),
    ]
    boards = compare(runs, asked)
    assert [(board.classified, len(board.rows)) for board in boards] == [("f1", 5), ("accuracy", 5), ("", 3)]
    report = compare_report(boards, runs, [], [], {})
    names = [table.name for table in report.tables]
    assert names[:3] == ["tone_A_any_f1_summary", "tone_A_any_accuracy_summary", "tone_A_summary"]
    assert len(set(names)) == len(names)
    table = report.tables[0]
    assert table.columns[:4] == ["representation", "classifier", "model", "macro F1, test"]
    assert [row[1] for row in table.rows][:3] == ["fine-tuned", "SVM", "probe"]
    assert "finetuned (fine-tuned) leads 5 rows on tone by any classifier" in report.headline
    assert (
        "on test sentences; it beats 1 of 4 tested rows beyond noise and is not testable against 3" in report.headline
    )
    assert "which takes 2 seeds or more" in report.headline
    both = next(table for table in report.tables if table.name == "runs")
    assert {row[0]: row[2] for row in both.rows} == {"frozen": "A", "tuned": "A"}
    lines = leaderboard_table(boards).to_pylist()
    assert {line["task"] for line in lines} == {"probe", "svm", "knn", "finetune"}
    assert "| fine-tuned |" in leaderboard_markdown(report, boards, runs, {})


def test_other_validation_rows_of_the_same_given_split_stand_together_untested(make):
    """One run carved its validation rows, the other's were named: the test rows are the same, the splits are not."""
    settings = {"validation": 0.3}
    runs = [make("a", tuned(), job="finetune"), make("b", tuned(0.7), job="finetune", seed=1, settings=settings)]
    (board,) = compare(runs)
    assert len(board.rows) == 2
    assert board.rows[1].against is None
    assert np.isclose(board.rows[1].measures[board.columns[0]].value, 0.7)
