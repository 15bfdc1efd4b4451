"""Scores of three cells worked out by hand, and the words that go with them."""

import json

import numpy as np
import pytest

from xfm.core.report import Estimate, Report
from xfm.studies.layerwise.report import layerwise_report, score
from xfm.studies.layerwise.scoring import BASELINES, score_columns

RUN = {"recipe": {"weights": {"w": "1"}, "data": {"d": "2"}}, "versions": {"xfm": "0"}}
NAN = float("nan")


def columns_of(modes=("masked",), n_layers=1, cells=3, **given):
    """Every predictor alike, {name: (C, 5)}, except those given."""
    plain = np.tile([2.0, 8.0, 4.0, 0.5, 0.5], (cells, 1))
    return {name: np.array(given.get(name, plain), dtype=float) for name in score_columns(modes, n_layers)}


def best_of(modes=("masked",), layer=1):
    return {(mode, readout): layer for mode in modes for readout in ("decoder", "calibrated", "ridge")}


def report_of(columns, modes=("masked",), n_layers=1, **more):
    scores = score(columns, modes, n_layers, seed=0, resamples=50)
    return layerwise_report(scores, best_of(modes), RUN, more.get("refused", {}), more.get("notes", ()))


#         n   sum e²  sum |e|  pearson  spearman
CELLS = [[1, 4.0, 2.0, NAN, NAN], [2, 2.0, 2.0, 1.0, 1.0], [7, 14.0, 7.0, 0.2, -0.4]]
BASE = [[1, 10.0, 3.0, NAN, NAN], [2, 20.0, 6.0, NAN, NAN], [7, 70.0, 9.0, NAN, NAN]]


def test_scores_of_three_cells_are_those_worked_out_by_hand():
    columns = columns_of(masked_ridge_l01=CELLS, masked_gene_mean=BASE)
    item = score(columns, ("masked",), 1, seed=0, resamples=3000).layer("masked", "ridge", 1)
    assert item.mse.value == pytest.approx(20 / 10)
    assert item.mae.value == pytest.approx(11 / 10)
    assert item.skill["gene_mean"].value == pytest.approx(1 - 20 / 100)  # of sums: the mean of ratios would be 0.767
    assert item.skill["cell_mean"].value == pytest.approx(1 - 20 / 24)
    assert item.pearson.value == pytest.approx((1.0 + 0.2) / 2)  # the cell without one is left out, not 0
    assert item.spearman.value == pytest.approx((1.0 - 0.4) / 2)
    assert item.undefined == 1
    assert item.cell_mse == pytest.approx((7 / 3, np.std([4, 1, 2])))
    assert item.cell_mae == pytest.approx((4 / 3, np.std([2, 1, 1])))
    # Without the first, second or third cell the mean is 16 / 9, 18 / 8 and 6 / 3, and the jackknife's error the root
    # of 2 / 3 of the summed squares of what that changes; t of two degrees of freedom.
    error = np.sqrt(2 / 3 * sum((value - 2) ** 2 for value in (16 / 9, 18 / 8, 6 / 3)))
    assert (item.mse.low, item.mse.high) == pytest.approx((2 - 4.303 * error, 2 + 4.303 * error), rel=0.1)
    # Of two correlations one is left, of which the first cell has none.
    error = np.sqrt(2 / 3 * sum((value - 0.6) ** 2 for value in (0.6, 0.2, 1.0)))
    assert (item.pearson.low, item.pearson.high) == pytest.approx((0.6 - 4.303 * error, 0.6 + 4.303 * error), rel=0.1)


def test_a_correlation_that_no_cell_defines_has_no_value():
    item = score(columns_of(masked_gene_mean=BASE), ("masked",), 1, 0, 50).by_name["masked_gene_mean"]
    assert item.pearson is None
    assert item.spearman is None
    assert item.undefined == 3


def test_the_strongest_baseline_is_the_one_with_the_lowest_error():
    weak, strong = [[2, 9.0, 4, 0, 0]] * 3, [[2, 7.0, 4, 0, 0]] * 3
    columns = columns_of(masked_cell_mean=weak, masked_gene_depth=strong)
    assert score(columns, ("masked",), 1, 0, 10).strongest("masked") == "gene_depth"


@pytest.mark.parametrize(
    ("errors", "words"),
    [
        ([4.0, 5.0, 6.0, 5.0, 4.0, 6.0], "beats the strongest baseline, mean of the cell: skill +0.375 ["),
        (
            [12.0, 13.0, 11.0, 12.0, 13.0, 11.0],
            "is worse than the strongest baseline, mean of the cell: skill -0.500 [",
        ),
        (
            [2.0, 8.0, 13.0, 7.0, 8.0, 8.0],
            "is not told apart from the strongest baseline, mean of the cell: skill +0.0",
        ),
    ],
)
def test_the_headline_claims_what_its_test_supports(errors, words):
    """Six cells whose errors are all smaller, all larger, or some of each than the baseline's 8: p of turning signs
    round is 2 / 64 where all six agree."""
    report = report_of(columns_of(cells=6, masked_ridge_l01=[[2, e, 4, 0, 0] for e in errors]))
    assert words in report.headline
    assert "hidden genes linearly from layer 1 (chosen on other cells)" in report.headline
    assert "the last layer has " in report.headline


def test_three_cells_are_too_few_for_any_claim_and_the_headline_says_how_many_it_takes():
    report = report_of(columns_of(masked_ridge_l01=[[2, e, 4, 0, 0] for e in (4.0, 5.0, 6.0)]))
    assert (
        "whether it beats the strongest baseline, mean of the cell, is not testable: takes 6 groups" in report.headline
    )


def test_one_donor_has_no_interval_and_no_verdict():
    columns = columns_of(cells=6, masked_ridge_l01=[[2, 4.0, 4, 0, 0]] * 6)
    scores = score(columns, ("masked",), 1, seed=0, resamples=50, groups=["one"] * 6)
    report = layerwise_report(scores, best_of(), RUN, {}, ())
    assert "is not testable: takes 6 groups: skill +0.500; the last layer has +0.500." in report.headline
    assert any("Only 1 group is in the test" in warning for warning in report.warnings)
    assert "No interval: 1 group, and it takes 3." in report.to_text()


def test_a_baseline_without_error_leaves_no_skill_and_no_not_a_number():
    perfect = [[2, 0.0, 0.0, 1, 1]] * 3
    report = report_of(columns_of(masked_cell_mean=perfect))
    assert "makes no error" in report.headline
    assert "nan" not in report.to_text().lower()
    assert Report.from_json(report.to_json()).to_text() == report.to_text()


def test_the_report_has_every_predictor_once_per_mode_and_no_nan_in_its_json():
    modes = ("masked", "visible")
    columns = columns_of(modes, 2, masked_gene_mean=BASE, visible_cell_mean=BASE, masked_ridge_l01=CELLS)
    scores = score(columns, modes, 2, seed=0, resamples=50)
    report = layerwise_report(scores, best_of(modes), RUN, {"NOT_COUNTS": 2}, ("A small model.",))
    tables = {table.name: table for table in report.tables}
    assert list(tables) == ["masked_summary", "masked", "visible_summary", "visible", "reference_columns"]
    for mode in modes:
        keys = [(row[0], row[1]) for row in tables[mode].rows]
        assert len(keys) == len(set(keys)) == len(BASELINES) + 3 * 3
        assert len(tables[f"{mode}_summary"].rows) == len(BASELINES) + 3

    def no_constant(word):
        raise AssertionError(word)

    content = json.loads(report.to_json(), parse_constant=no_constant)
    assert content["refused"] == {"NOT_COUNTS": 2}
    assert content["warnings"][0] == "A small model."
    assert any("Correlations are undefined" in warning and "3 of 3" in warning for warning in report.warnings)
    assert any("logit lens" in warning for warning in report.warnings)
    reference = {row[0]: row[1:] for row in tables["reference_columns"].rows}
    assert reference["baseline: mean of the cell"][:4] == pytest.approx([10, 0, 2.4285714, 0.8081220])
    assert reference["baseline: mean of the cell"][4] is None  # a constant has no correlation
    assert reference["layer 0"] == pytest.approx([4, 0, 2, 0, 0.5])
    assert len(reference["layer 0"]) == 5
    ridge = tables["masked"].rows[len(BASELINES) + 2 * 3 + 1]
    assert ridge[:2] == ["ridge readout", 1]
    assert isinstance(ridge[2], Estimate)
    assert ridge[2].value == pytest.approx(2.0)


def test_visible_mode_alone_leads_its_own_report():
    report = report_of(columns_of(("visible",)), ("visible",))
    assert "visible genes" in report.headline
    assert [table.name for table in report.tables] == ["visible_summary", "visible", "reference_columns"]


def test_the_same_seed_gives_the_same_intervals_and_another_does_not():
    columns = columns_of(masked_ridge_l01=np.random.default_rng(0).uniform(1, 9, (3, 5)))
    ends = [score(columns, ("masked",), 1, seed, 7).layer("masked", "ridge", 1).mse for seed in (0, 0, 1)]
    assert ends[0] == ends[1]
    assert ends[0] != ends[2]


def test_cells_that_come_in_alike_dozens_widen_the_interval_as_if_they_were_one():
    once = np.random.default_rng(0).uniform(1, 9, (5, 5))
    dozens = np.repeat(once, 12, axis=0)
    alone = score(columns_of(cells=5, masked_ridge_l01=once), ("masked",), 1, 0, 400)
    together = columns_of(cells=60, masked_ridge_l01=dozens)
    by_group = score(together, ("masked",), 1, 0, 400, groups=[f"donor {i // 12}" for i in range(60)])
    grouped, own = by_group.layer("masked", "ridge", 1).mse, alone.layer("masked", "ridge", 1).mse
    assert (grouped.value, grouped.low, grouped.high) == pytest.approx((own.value, own.low, own.high))
    assert by_group.resampled == "5 groups of cells"
    by_cell = score(together, ("masked",), 1, 0, 400).layer("masked", "ridge", 1).mse
    narrow, wide = (each.high - each.low for each in (by_cell, own))
    assert narrow < wide / 2
