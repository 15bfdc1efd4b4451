"""The table of an ablation from runs whose numbers are known: means, spread, paired differences, reasons, links."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from tests.evaluate_outputs import score, spread, write_evaluate
from xfm.core.errors import Refused
from xfm.core.ledger import Refusal
from xfm.core.report import DASH
from xfm.core.storage import open_storage
from xfm.studies.ablation.files import ablation_markdown, ablation_table, members_table, published_table, summary_table
from xfm.studies.ablation.report import ablation_report, draw_ablation
from xfm.studies.ablation.table import Asked, ablation
from xfm.studies.compare.gather import read_run

ACCURACY = "accuracy"


@pytest.fixture
def make(tmp_path):
    """A run of one member and seed: a trained network, an untrained one beside it, and what its features leak."""

    def made(name, accuracy, *, seed=0, f1=None, leak=None, job="finetune", task="finetune", own=0, split="s", **more):
        noise = 0.002 * np.random.default_rng(own).standard_normal(200)
        draws = spread(accuracy, seed=7) + noise
        rows = [
            score("cls_l01", accuracy, validation=0.1, draws=draws, task=task, metric=ACCURACY, label="donor_id"),
            score("majority", 0.2, task=task, metric=ACCURACY, label="donor_id"),
        ]
        if f1 is not None:
            rows.append(score("cls_l01", f1, draws=spread(f1, seed=8), task=task, label="donor_id"))
        if leak is not None:
            rows.append(score("cls_l01", leak, draws=spread(leak, seed=9), task="leakage", metric="auroc", label="sex"))
        folder = tmp_path / f"{name}-{seed}"
        write_evaluate(folder, [row for each in rows for row in each], seed=seed, weights=name, label="donor_id",
                       job=job, **more)  # fmt: skip
        run = read_run(
            f"members/{name}/seed-{seed}", open_storage(str(folder)), ("all",), tracked=f"run-of-{name}-{seed}"
        )
        return replace(run, split=split)

    return made


@pytest.fixture
def rows(make):
    """Three members: a reference of two seeds, one of two seeds that is .1 better, and baselines of one."""
    raw = make("raw", 0.5, task="probe", job="evaluate")
    return [
        Asked(
            "better", {"adversary": "yes"},
            (make("b", 0.70, leak=0.6, f1=0.6), make("b", 0.74, seed=1, leak=0.8, f1=0.7, own=1)),
            published={ACCURACY: 0.583},
        ),
        Asked("vanilla", {"adversary": "no"}, (make("v", 0.60, own=2), make("v", 0.64, seed=1, own=3))),
        Asked("regression", {}, (raw,), "probe"),
        Asked("majority", {}, (raw,), "probe", "majority"),
        Asked("broken", {}, (), lacking="the member broken failed, BAD: why"),
    ]  # fmt: skip


def column(table, name):
    return next(each for each in table.columns if each.metric.name == name)


def test_a_row_is_the_mean_and_the_spread_of_its_seeds(rows):
    table = ablation(rows, "vanilla")
    measure = table.rows[0].measures[column(table, ACCURACY)]
    assert measure.value == pytest.approx(0.72)
    assert measure.sd == pytest.approx(0.04 / np.sqrt(2))
    # Of two seeds: t of one degree of freedom, and beside it the rows bring little.
    low, high = stats.t.interval(0.95, 1, 0.72, 0.04 / 2)
    assert (measure.low, measure.high) == pytest.approx((low, high), abs=0.1 * (high - low))
    single = table.rows[2].measures[column(table, ACCURACY)]
    assert (single.value, single.sd) == (pytest.approx(0.5), None)
    assert [row.asked.title for row in table.rows] == ["better", "vanilla", "regression", "majority", "broken"]


def test_rows_are_tested_against_the_named_one_on_shared_resamples(rows):
    table = ablation(rows, "vanilla")
    better, vanilla, regression, majority, broken = (row.against for row in table.rows)
    assert vanilla is majority is broken is None  # the row itself, one without draws, and one without runs
    assert (better.difference.value, better.seeds) == (pytest.approx(0.10), 2)
    # Both means have an error of .04 / 2: their difference of .1 is one of 3.5 errors, on one degree of freedom.
    assert better.p == pytest.approx(2 * stats.t.sf(0.1 / (0.02 * np.sqrt(2)), 1), abs=0.06)  # of 200 draws
    assert better.verdict == "not told apart"
    assert regression.difference.value == pytest.approx(-0.12)
    assert regression.words == "not testable: takes 2 seeds or more"


def test_other_rows_are_not_tested_and_the_page_says_so(make):
    rows = [Asked("a", {}, (make("a", 0.7),)), Asked("b", {}, (make("b", 0.7, cells="others"),))]
    table = ablation(rows, "a")
    assert table.rows[1].against is None
    assert "2 different sets of rows" in " ".join(table.notes)
    assert "Not tested, for want of shared rows, split and resamples: b." in table.notes
    apart = [Asked("a", {}, (make("c", 0.7),)), Asked("b", {}, (make("d", 0.7, split="other"),))]
    assert ablation(apart, "a").rows[1].against is None


def test_what_a_row_does_not_have_is_a_dash_with_its_reason(rows):
    table = summary_table(ablation(rows, "vanilla"))
    assert table.columns[:4] == ["row", "adversary", "seeds", "accuracy"]
    leaks = table.columns.index("leakage AUROC of sex")
    cells = {row[0]: row[leaks] for row in table.rows}
    assert cells["better"] == "0.700 ± 0.141"
    assert [cells[name][:3] for name in ("vanilla", "regression", "majority", "broken")] == ["- ["] * 4
    assert cells["vanilla"] == cells["regression"] != cells["majority"]
    number = cells["majority"].strip("- []")
    assert f"[{number}] looks at no cell" in table.note
    assert "the member broken failed, BAD: why" in table.note
    assert {row[0]: row[table.columns.index("adversary")] for row in table.rows}["majority"] == DASH


def test_a_seed_without_the_metric_leaves_the_row_without_it(make):
    both = Asked("a", {}, (make("a", 0.7, f1=0.6), make("a", 0.7, seed=1)))
    table = ablation([both, Asked("b", {}, (make("b", 0.5, f1=0.5),))])
    assert column(table, "f1") not in table.rows[0].measures
    assert "or not for every seed" in table.rows[0].reasons[column(table, "f1")]


def test_published_numbers_stand_beside_and_are_called_so(rows):
    table = published_table(ablation(rows, "vanilla"))
    assert table.columns == ["row", "accuracy, published, different data", "accuracy, here"]
    assert table.rows == [["better", 0.583, pytest.approx(0.72)]]
    assert published_table(ablation(rows[1:], "vanilla")) is None


def test_every_number_leads_to_its_run(rows):
    table = ablation(rows, "vanilla")
    report = ablation_report(table, "t (synthetic)", ["A note."], [Refusal("m", "m", "member", "BAD", "why")], {})
    pages = {run.fingerprint: f"{run.name}/report.html" for row in rows for run in row.runs}
    text = ablation_markdown(report, table, pages)
    assert "# t (synthetic)" in text
    line = next(line for line in text.splitlines() if line.startswith("| better | yes | 2 |"))
    for seed in (0, 1):
        assert f"[seed {seed}](members/b/seed-{seed}/report.html) (MLflow run run-of-b-{seed})" in line
    runs = members_table(table)
    assert [row[2] for row in runs.rows if row[0] == "better"] == pytest.approx([0.70, 0.74])
    assert report.refused == {"BAD": 1}
    assert report.warnings[0] == "A note."
    lines = [row for row in ablation_table(table).to_pylist() if row["metric"] == ACCURACY]
    assert [row["value"] for row in lines] == pytest.approx([0.72, 0.62, 0.5, 0.2, None])
    assert lines[0]["mlflow"] == ["run-of-b-0", "run-of-b-1"]
    assert (lines[0]["published"], lines[0]["against"]) == (0.583, "vanilla")
    assert lines[0]["difference"] == pytest.approx(0.10)
    assert lines[4]["missing"] == "the member broken failed, BAD: why"


def test_the_headline_says_only_what_a_test_supports(rows):
    report = ablation_report(ablation(rows, "vanilla"), "t", [], [], {})
    assert report.headline == (
        "vanilla tells donor_id with accuracy 0.620 ± 0.028. Of 2 rows set against it, 0 are better, 0 are worse, 1 is "
        "not told apart (better), and 1 is not testable (regression)."
    )


def test_the_picture_has_its_numbers_beside_it(rows, tmp_path):
    figure, curve = draw_ablation(ablation(rows, "vanilla"), tmp_path)
    heads, line = (text.split(",") for text in (tmp_path / curve.csv).read_text().splitlines())
    assert heads[3:7:3] == ["donor_id accuracy (test)", "leakage AUROC of sex"]
    assert (line[0], float(line[3]), float(line[6])) == ("better", pytest.approx(0.72), pytest.approx(0.7))
    lines = (tmp_path / figure.csv).read_text().splitlines()
    assert (tmp_path / figure.png).stat().st_size > 5000
    assert [line.split(",")[1] for line in lines[1:]] == ["better", "vanilla", "regression", "majority"]


def test_a_trade_off_joins_the_rows_of_a_series_by_the_curves_numbers(make, tmp_path):
    rows = [
        Asked(f"s{number}", {"dose": str(number)}, (make(f"s{number}", 0.7, leak=0.6),), series="doses")
        for number in (3, 1)
    ]  # fmt: skip
    rows.append(Asked("alone", {"dose": "2"}, (make("alone", 0.7, leak=0.9),)))
    _, curve = draw_ablation(ablation(rows), tmp_path, "dose")
    lines = [line.split(",")[:3] for line in (tmp_path / curve.csv).read_text().splitlines()]
    assert lines == [["name", "series", "strength"], ["s3", "doses", "3.0"], ["s1", "doses", "1.0"],
                     ["alone", "other rows", ""]]  # fmt: skip
    assert "Lines join rows of one series in the order of dose." in curve.caption
    _, plain = draw_ablation(ablation(rows), tmp_path)
    assert "Lines join" not in plain.caption
    assert {line.split(",")[2] for line in (tmp_path / plain.csv).read_text().splitlines()[1:]} == {""}


def test_a_row_whose_scores_cannot_be_told_lacks_them_and_the_others_stay(make, rows):
    with pytest.raises(Refused, match="NOTHING_TO_COMPARE"):
        ablation([rows[-1]])
    odd = Asked("a", {}, (make("x", 0.5),), "knn")
    with pytest.raises(Refused, match=r"NOTHING_TO_COMPARE.*NO_SCORES.*no scores of task knn.*say task and repres"):
        ablation([odd])
    table = ablation([*rows, odd], "vanilla")
    assert [row.asked.title for row in table.rows if row.measures] == ["better", "vanilla", "regression", "majority"]
    assert "NO_SCORES" in next(iter(table.rows[-1].reasons.values()))


def test_a_reference_row_without_a_number_is_said_to_have_none(rows):
    table = ablation([row._replace(runs=(), lacking="it failed") if row.title == "vanilla" else row for row in rows],
                     "vanilla")  # fmt: skip
    report = ablation_report(table, "t", [], [], {})
    assert "vanilla has no number" in report.headline
    assert not [row for row in table.rows if row.against]


def test_rows_that_tell_different_labels_stand_in_no_table(make, rows):
    run = make("y", 0.5)
    about_types = replace(run, scores=[replace(each, label="cell_type") for each in run.scores])
    other = Asked("types", {}, (about_types,))
    with pytest.raises(Refused, match=r"OTHER_LABELS.*types: cell_type"):
        ablation([*rows, other], "vanilla")
