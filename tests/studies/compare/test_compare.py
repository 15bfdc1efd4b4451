"""Leaderboards from runs whose numbers are known: means, intervals, order, tests and refusals computed by hand."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from tests.evaluate_outputs import score, spread, write_evaluate, write_reported
from xfm.core.errors import Refused
from xfm.core.storage import open_storage
from xfm.studies.compare.boards import compare
from xfm.studies.compare.finished_run import Metric, RunRefused, data_digest, family_of, read_scores
from xfm.studies.compare.gather import read_run
from xfm.studies.compare.report import compare_report, leaderboard_markdown, leaderboard_table

SHIFT = spread(0.0, seed=7)  # resamples of groups, the same for every representation


@pytest.fixture
def make(tmp_path):
    """Writes an OUTPUT and reads it back as compare does."""

    def made(name, scores, metrics=("primary",), **more):
        write_evaluate(tmp_path / name, [row for rows in scores for row in rows], **more)
        return read_run(name, open_storage(str(tmp_path / name)), metrics)

    return made


def layers(last, best, seed_noise=0.0, own=0):
    """Two layers: cls_l01 with `best`, cls_l02 with `last`; draws move together, but for noise of their own."""
    noise = 0.001 * np.random.default_rng(own).standard_normal(len(SHIFT))
    return [
        score("cls_l01", best + seed_noise, validation=best + 0.01, draws=best + seed_noise + SHIFT + noise),
        score("cls_l02", last + seed_noise, validation=last + 0.01, draws=last + seed_noise + SHIFT - noise),
    ]


def names(board):
    return [row.representation for row in board.rows]


def test_rows_are_ranked_on_validation_cells_whatever_test_cells_say(make):
    run = make(
        "a",
        [
            score("cls_l01", 0.70, validation=0.90, draws=0.70 + SHIFT),
            score("cls_l02", 0.95, validation=0.60, draws=0.95 + SHIFT),
            score("hvg", 0.80, validation=0.75, draws=0.80 + SHIFT),
        ],
    )
    (board,) = compare([run])
    assert names(board) == ["cls_l01 (best)", "hvg", "cls_l02 (last)"]
    assert board.ranked_by == "validation"
    assert [row.rank_by for row in board.rows] == [0.90, 0.75, 0.60]


def test_the_runs_own_choice_goes_before_the_best_on_validation(make):
    scores = layers(0.7, 0.8)
    assert names(compare([make("a", scores)])[0])[0] == "cls_l01 (best)"
    assert names(compare([make("b", scores, choice="cls_l02")])[0]) == ["cls_l02 (best, last)"]


def test_without_validation_scores_nothing_is_called_best_and_the_shown_number_ranks(make):
    run = make("a", [score("cls_l01", 0.7, draws=SHIFT), score("cls_l02", 0.8), score("hvg", 0.75)])
    (board,) = compare([run])
    assert names(board) == ["cls_l02 (last)", "hvg"]
    assert board.ranked_by == "shown"


def test_last_is_the_deepest_layer_and_of_two_poolings_the_better_on_validation(make):
    run = make(
        "a",
        [
            score("cls_l03", 0.9, validation=0.5),
            score("mean_l03", 0.1, validation=0.6),
            score("mean_l01", 0.2, validation=0.7),
        ],
    )
    (board,) = compare([run], representations=("last",))
    assert names(board) == ["mean_l03 (last)"]


def test_of_many_random_layers_stands_the_best_on_validation(make):
    random = [
        score("random_cls_l00", 0.9, validation=0.2),
        score("random_cls_l01", 0.1, validation=0.4),
        score("random_mean_l01", 0.3, validation=0.3),
    ]
    (board,) = compare([make("a", [*layers(0.7, 0.8), *random])], representations=("baselines",))
    assert names(board) == ["random_cls_l01"]


def test_all_and_names_show_every_representation_asked_for_once(make):
    run = make("a", [*layers(0.7, 0.8), score("hvg", 0.75, validation=0.7)])
    (board,) = compare([run], representations=("all",))
    assert sorted(names(board)) == ["cls_l01 (best)", "cls_l02 (last)", "hvg"]
    (board,) = compare([run], representations=("hvg", "cls_l02"))
    assert sorted(names(board)) == ["cls_l02", "hvg"]


def test_seeds_of_one_recipe_become_one_row_with_mean_and_sd(make):
    values = [0.70, 0.76, 0.73]
    runs = []
    for seed, value in enumerate(values):
        draws = spread(value, seed=seed)
        runs.append(
            make(f"s{seed}", [score("cls_l01", value, validation=value, draws=draws, cells=40 + seed)], seed=seed)
        )
    (board,) = compare(runs, representations=("best",))
    (row,) = board.rows
    (measure,) = row.measures.values()
    assert row.seeds == (0, 1, 2)
    assert measure.value == pytest.approx((0.70 + 0.76 + 0.73) / 3)
    assert measure.sd == pytest.approx(0.03)  # deviations -.03, .03, 0: sqrt(.0018 / 2)
    assert measure.values == tuple(values)
    assert measure.cells == 40


def test_where_rows_bring_no_luck_the_interval_over_seeds_is_students(make):
    values = [0.70, 0.76, 0.73]
    runs = [
        make(f"s{seed}", [score("cls_l01", value, validation=value, draws=value + 1e-4 * SHIFT)], seed=seed)
        for seed, value in enumerate(values)
    ]
    (measure,) = compare(runs, representations=("best",))[0].rows[0].measures.values()
    low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert (measure.low, measure.high) == pytest.approx((low, high), abs=0.03 * (high - low))


def test_a_single_run_keeps_its_own_interval_and_has_no_sd(make):
    run = make("a", [score("cls_l01", 0.7, validation=0.7, draws=SHIFT, ends=(0.61, 0.77))])
    (measure,) = compare([run])[0].rows[0].measures.values()
    assert (measure.low, measure.high, measure.sd) == (0.61, 0.77, None)


def test_runs_of_other_recipes_are_rows_of_their_own(make):
    runs = [make("a", layers(0.7, 0.8), weights="one"), make("b", layers(0.6, 0.9), weights="two")]
    (board,) = compare(runs, representations=("best",))
    assert [(row.runs[0].name, row.seeds) for row in board.rows] == [("b", (0,)), ("a", (0,))]
    assert board.rows[0].runs[0].weights != board.rows[1].runs[0].weights


def test_differences_are_paired_within_the_resamples_and_corrected_for_their_number(make):
    first = score("cls_l01", 0.80, validation=0.9, draws=0.80 + SHIFT)
    # Always about 0.05 below: no draw on the other side, so p is 2 / (200 + 1).
    below = score("cls_l02", 0.75, validation=0.8, draws=0.75 + SHIFT + np.where(np.arange(200) % 2, 0.01, -0.01))
    # Above in 20 of 200 resamples, below in 180: p is 2 * (20 + 1) / 201.
    side = np.where(np.arange(200) < 20, 0.01, -0.03)
    even = score("hvg", 0.78, validation=0.7, draws=0.80 + SHIFT + side)
    (board,) = compare([make("a", [first, below, even], choice="cls_l01")])
    assert board.rows[0].against is None
    down, near = board.rows[1].against, board.rows[2].against
    assert down.difference.value == pytest.approx(-0.05)
    assert (down.difference.low, down.difference.high) == pytest.approx((-0.06, -0.04), abs=1e-6)
    # Holm by hand: the smaller p times 2, the larger one times 1.
    assert down.p == pytest.approx(2 * 2 / 201)
    assert near.p == pytest.approx(42 / 201)
    assert (near.difference.low, near.difference.high) == pytest.approx((-0.03, 0.01), abs=1e-6)
    assert near.difference.value == pytest.approx(-0.02)
    assert (down.verdict, near.verdict) == ("worse", "not told apart")


def test_draws_of_other_splits_or_other_numbers_of_resamples_are_not_subtracted(make):
    runs = [
        make("a", [score("cls_l01", 0.9, validation=0.9, draws=SHIFT)], seed=0),
        make("b", [score("cls_l01", 0.8, validation=0.8, draws=SHIFT)], seed=1, weights="b"),
        make("c", [score("cls_l01", 0.7, validation=0.7, draws=SHIFT[:100])], seed=0, weights="c"),
        make("d", [score("cls_l01", 0.6, validation=0.6)], seed=0, weights="d"),
        make("e", [score("cls_l01", 0.5, validation=0.5, draws=SHIFT, cells=39)], seed=0, weights="e"),
    ]
    (board,) = compare(runs, representations=("best",))
    assert [row.against for row in board.rows] == [None] * 5
    report = compare_report([board], runs, [], [], {})
    assert "no other row could be tested" in report.headline
    assert any("4 of 4 rows share no split" in warning for warning in report.warnings)
    assert any("different seeds (0; 1)" in warning for warning in report.warnings)


def test_seeds_are_paired_each_with_its_own_and_put_together(make):
    runs = []
    for seed, gap in enumerate([0.02, 0.04]):
        draws = spread(0.0, seed=seed)
        runs.append(make(f"a{seed}", [score("cls_l01", 0.9, validation=0.9, draws=0.9 + draws)], seed=seed))
        lower = [score("cls_l01", 0.9 - gap, validation=0.8, draws=0.9 - gap + draws)]
        runs.append(make(f"b{seed}", lower, seed=seed, weights="b"))
    (board,) = compare(runs, representations=("best",))
    against = board.rows[1].against
    # Differences of -.02 and -.04, the same whatever rows are drawn: what is left is a t test of two numbers.
    low, high = stats.t.interval(0.95, 1, -0.03, 0.01)
    assert against.difference.value == pytest.approx(-0.03)
    assert (against.difference.low, against.difference.high) == pytest.approx((low, high), rel=0.15)  # of 200 draws
    assert against.p == pytest.approx(2 * stats.t.sf(3, 1), abs=0.02)
    assert against.verdict == "not told apart"


def test_a_baseline_that_every_run_found_alike_stands_once(make):
    hvg = score("hvg", 0.75, validation=0.7, draws=0.75 + SHIFT)
    runs = [make(name, [*layers(0.7, 0.8), hvg], weights=name) for name in "abc"]
    (board,) = compare(runs, representations=("best", "baselines"))
    (row,) = [row for row in board.rows if row.kind == "baseline"]
    assert (row.runs[0].name, row.shared_with) == ("a", ("b", "c"))
    assert len(board.rows) == 4
    other = make("d", [*layers(0.7, 0.8), score("hvg", 0.751, validation=0.7)], weights="d")
    (board,) = compare([*runs, other], representations=("baselines",))
    assert len(board.rows) == 2


def test_other_cells_never_stand_in_the_same_column(make):
    runs = [
        make("a", layers(0.7, 0.8)),
        make("b", layers(0.7, 0.8), weights="b"),
        make("c", layers(0.7, 0.8), cells="other"),
    ]
    with pytest.raises(Refused) as refusal:
        compare(runs)
    assert refusal.value.code == "OTHER_DATA"
    text = str(refusal.value)
    assert "(a, b)" in text
    assert "(c)" in text
    assert runs[0].data[:8] in text
    assert runs[2].data[:8] in text
    assert "--columns data" in text


def test_another_label_judged_beside_it_makes_no_other_data_of_a_label(make):
    alone = make("a", layers(0.7, 0.8))
    beside = make("b", layers(0.6, 0.9), cells="with disease", weights="b")
    runs = [replace(run, data_by_label={"cell_type": "same"}) for run in (alone, beside)]
    (board,) = compare(runs)
    assert {run.name for row in board.rows for run in row.runs} == {"a", "b"}
    assert str(board.data).startswith("A: ")
    assert "same" in str(board.data)
    with pytest.raises(Refused, match="OTHER_DATA"):
        compare([runs[0], replace(runs[1], data_by_label={"cell_type": "other"})])


def test_the_same_cells_split_by_another_rule_are_other_data(make):
    runs = [make("a", layers(0.7, 0.8)), make("b", layers(0.7, 0.8), settings={"group": None})]
    with pytest.raises(Refused, match=r"split by donor.*split by single rows"):
        compare(runs)


def test_labels_that_only_one_data_set_has_are_not_in_each_others_way(make):
    other = [row | {"label": "disease"} for rows in layers(0.5, 0.6) for row in rows]
    runs = [make("a", layers(0.7, 0.8)), make("b", [other], cells="other", label="disease")]
    boards = compare(runs)
    assert [(board.label, board.name) for board in boards] == [("cell_type", "cell_type"), ("disease", "disease")]


def test_by_data_every_data_set_has_columns_of_its_own(make):
    runs = [
        make("a", layers(0.70, 0.80)),
        make("b", layers(0.30, 0.40), cells="other", embedded="other"),
        make("c", layers(0.75, 0.85), weights="c"),
    ]
    boards = compare(runs, is_by_data=True, representations=("best",))
    assert [(board.name, len(board.rows)) for board in boards] == [("cell_type on A", 2), ("cell_type on B", 1)]
    report = compare_report(boards, runs, [], [], {})
    overview = report.tables[0]
    assert overview.columns == [
        "representation",
        "model",
        "A: layer",
        "A: probe macro F1, test",
        "B: layer",
        "B: probe macro F1, test",
    ]
    assert [row[0] for row in overview.rows] == ["best", "best"]
    assert [row[3].value for row in overview.rows] == pytest.approx([0.85, 0.80])
    # The model of run a was judged on both; c was not.
    assert overview.rows[0][5] is None
    assert overview.rows[1][5].value == pytest.approx(0.40)


def test_metrics_are_those_asked_for_and_the_first_one_ranks(make):
    scores = [
        score("cls_l01", 0.9, validation=0.9),
        score("cls_l02", 0.8, validation=0.8),
        score("cls_l01", 0.3, validation=0.3, task="knn", metric="accuracy"),
        score("cls_l02", 0.4, validation=0.4, task="knn", metric="accuracy"),
        score("cls_l01", 0.5, task="clustering", metric="normalized_mutual_info", split="all"),
    ]
    (board,) = compare([make("a", scores)])
    assert list(map(str, board.columns)) == ["probe macro F1, test", "clustering NMI, all"]
    wanted = ("knn.accuracy", "f1")
    (board,) = compare([make("b", scores, wanted)], wanted)
    assert list(map(str, board.columns)) == ["kNN accuracy, test", "probe macro F1, test"]
    assert names(board) == ["cls_l02 (last)", "cls_l01 (best)"]
    (board,) = compare([make("c", scores, ("all",))], ("all",))
    assert len(board.columns) == 3


def test_a_row_that_lacks_a_metric_shows_a_dash_and_comes_last(make):
    scores = [*layers(0.7, 0.8), score("hvg", None, metric="f1")]
    (board,) = compare([make("a", scores)])
    assert "hvg" not in names(board)
    scores = [*layers(0.7, 0.8), score("hvg", None), score("hvg", 0.9, task="knn")]
    (board,) = compare([make("b", scores)])
    assert names(board)[-1] == "hvg"
    table = compare_report([board], [], [], [], {}).tables[0]
    assert table.rows[-1][table.columns.index("probe macro F1, test")] is None


@pytest.mark.parametrize(
    ("asked", "code", "hint"),
    [
        ({"metrics": ("probe.f2",)}, "NO_METRIC", "Did you mean probe.f1"),
        ({"metrics": ("macro f1",)}, "NO_METRIC", "Did you mean f1"),
        ({"labels": ("celltype",)}, "NO_LABEL", "Did you mean cell_type"),
        ({"representations": ("cls_l1",)}, "NO_REPRESENTATION", "Did you mean cls_l01"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(make, asked, code, hint):
    with pytest.raises(Refused, match=hint) as refusal:
        compare([make("a", layers(0.7, 0.8))], **asked)
    assert refusal.value.code == code


def test_numbers_of_reports_are_listed_and_ranked_only_by_a_name(tmp_path):
    values = {"a": 0.5, "b": 0.3}
    for name, loss in values.items():
        stated = {"validation loss": loss, "steps": 100, "skill": {"value": 0.2, "low": 0.1, "high": 0.3}, "why": "x"}
        write_reported(tmp_path / name, "pretrain", stated, seed=ord(name))
    asked = ("validation loss",)
    for metrics, order in [(("primary",), ["a", "b"]), (asked, ["b", "a"])]:
        runs = [read_run(name, open_storage(str(tmp_path / name)), metrics) for name in values]
        runs = [run if run.name == "a" else replaced(run) for run in runs]
        (board,) = compare(runs, metrics)
        assert [row.runs[0].name for row in board.rows] == order
    assert board.ranked_by == "shown"
    assert list(map(str, board.columns)) == ["validation loss"]
    runs = [read_run(name, open_storage(str(tmp_path / name))) for name in values]
    (board,) = compare(runs)
    (row,) = board.rows  # they differ in the seed alone
    found = {str(column): measure for column, measure in row.measures.items()}
    assert found["validation loss"].value == pytest.approx(0.4)
    assert found["validation loss"].sd == pytest.approx(np.sqrt(0.02))
    assert (found["skill"].low, found["skill"].high) == (None, None)  # of two seeds without draws
    assert "why" not in found


def replaced(run):
    """The same run as one of another recipe."""
    from dataclasses import replace

    return replace(run, family="other")


def leaders(make, metric, values, task="integration"):
    """What is first on the board, of layers with these numbers; and the board."""
    rows = [score(f"cls_l{at:02d}", value, task=task, metric=metric, split="all") for at, value in enumerate(values)]
    (board,) = compare([make("a", rows, (metric,))], (metric,), representations=("all",))
    return board.rows[0].measures[board.columns[0]].value, board


def test_the_best_mixing_of_batches_leads_and_not_the_worst(make):
    """PCR is the share of variance that the batch explains: 0 is best."""
    assert leaders(make, "pcr", [0.9, 0.05, 0.5])[0] == 0.05


def test_of_what_leaks_the_nearest_to_chance_leads(make):
    assert leaders(make, "auroc", [0.3, 0.9, 0.45], "leakage")[0] == 0.45


def test_rows_are_not_ranked_by_a_metric_that_is_not_known(make):
    """Of a later version, or of another project: which way is better is not guessed from its name."""
    _, board = leaders(make, "batch_error_loss", [0.3, 0.1, 0.2])
    assert board.ranked_by == ""
    report = compare_report([board], [], [], [], {})
    assert "not ranked" in report.headline
    assert any("which way batch_error_loss is better is not known" in said for said in report.warnings)
    assert {row[0] for row in report.tables[0].rows} == {"cls_l00", "cls_l01", "cls_l02 (last)"}  # without a rank
    assert "not ranked" in report.tables[0].caption


def test_what_was_judged_is_the_cells_a_run_states_else_its_data():
    stated = {"recipe": {"cells": "c" * 64, "data": {"digest": "x"}}}
    assert data_digest(stated) == "c" * 64
    other = {"recipe": {"data": {"digest": "y"}}}
    assert data_digest({"recipe": {"data": {"digest": "x"}}}) != data_digest(other)


def test_a_family_ignores_seeds_at_any_depth_and_nothing_else():
    recipe = {"config": {"seed": 1, "k": 5}, "weights": {"initial": {"dim": 8}, "seed": 1}, "split": "abc"}
    same = {"config": {"seed": 2, "k": 5}, "weights": {"initial": {"dim": 8}, "seed": 2}, "split": "xyz"}
    assert family_of(recipe) == family_of(same)
    assert family_of(recipe) != family_of({**same, "config": {"seed": 2, "k": 6}})


def test_weights_of_a_learned_mix_are_no_scores(make):
    mix = score("cls_scalar_mix", 0.3, task="mix", metric="cls_l01", split="train")
    run = make("a", [*layers(0.7, 0.8), mix], ("all",))
    assert Metric("mix", "cls_l01") not in run.metrics
    assert list(map(str, compare([run], ("all",))[0].columns)) == ["probe macro F1, test"]


def test_a_file_that_holds_no_scores_is_refused():
    with pytest.raises(RunRefused, match="cannot be read"):
        read_scores(b"no parquet", "runs/a", ["primary"])


def test_the_headline_claims_only_what_a_test_supports(make):
    worse = score("cls_l02", 0.70, validation=0.7, draws=0.70 + SHIFT)
    even = score("hvg", 0.79, validation=0.6, draws=0.79 + SHIFT[::-1])
    run = make("a", [score("cls_l01", 0.8, validation=0.8, draws=0.8 + SHIFT), worse, even])
    boards = compare([run])
    headline = compare_report(boards, [run], [], [], {}).headline
    assert headline.startswith("scgpt")
    assert "cls_l01 (best) leads 3 rows on cell_type with probe macro F1 0.800 [0.780, 0.820] on test cells" in headline
    assert "it beats 1 of 2 tested rows beyond noise and is not told apart from 1." in headline


def test_groups_too_few_for_so_many_tests_are_named_with_how_many_it_takes(make):
    scores = [score(f"cls_l{n:02d}", 0.8 - n / 100, validation=0.8 - n / 100, groups=6,
                    draws=0.8 - n / 100 + SHIFT * (1 + n)) for n in range(4)]  # fmt: skip
    run = make("a", scores)
    boards = compare([run], representations=("all",))
    # Six groups give at best p = 2 / 2**6 = .031, and of 3 tests .094. Seven give .047, eight .023.
    report = compare_report(boards, [run], [], [], {})
    assert "is not testable against 3, which takes 7 groups" in report.headline
    assert any("Only 6 groups" in warning for warning in report.warnings)


def test_the_parquet_holds_every_number_of_the_leaderboard(make):
    runs = [make(f"s{seed}", layers(0.7, 0.8, 0.01 * seed), seed=seed, seconds={"cls_l01": 3.0}) for seed in (0, 1)]
    boards = compare(runs)
    rows = leaderboard_table(boards).to_pylist()
    assert [(row["rank"], row["role"], row["representations"]) for row in rows] == [
        (1, "best", ["cls_l01", "cls_l01"]),
        (2, "last", ["cls_l02", "cls_l02"]),
    ]
    assert rows[0]["value"] == pytest.approx(0.805)
    assert rows[0]["values"] == pytest.approx([0.80, 0.81])
    assert rows[0]["sd"] == pytest.approx(np.sqrt(0.00005))
    assert rows[0]["seeds"] == [0, 1]
    assert rows[0]["seconds"] == 3.0
    assert rows[1]["seconds"] is None
    assert rows[0]["difference"] is None
    assert rows[1]["difference"] == pytest.approx(-0.1)
    assert rows[1]["p"] == pytest.approx(2 / 201)
    assert rows[0]["fingerprints"] == [run.fingerprint for run in runs]
    assert rows[0]["cells_digests"] == [run.data for run in runs]


def test_names_from_data_cannot_break_the_markdown(make):
    run = make("a|b](x)", layers(0.7, 0.8))
    boards = compare([run])
    report = compare_report(boards, [run], [], [], {})
    text = leaderboard_markdown(report, boards, [run], {run.fingerprint: "../a b/report.html"})
    assert "[a\\|b)(x)](../a%20b/report.html)" in text
    header, rule, first = text.split("\n\n")[3].splitlines()[:3]
    assert header.count("|") == rule.count("|") == first.replace("\\|", "").count("|")
