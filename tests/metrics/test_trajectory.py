"""Pseudotime against scanpy and known time; its scores against scipy, residuals, and cells repeated by hand."""

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kendalltau, rankdata, spearmanr

from xfm.core.errors import Refused
from xfm.metrics.neighbours import neighbours
from xfm.metrics.resampling import GroupDraws
from xfm.metrics.trajectory import pseudotime, root_cell, trajectory_scores


def curve(cells, width=10, noise=0.05, seed=0):
    """Cells along a bent line, and their true times in [0, 1]."""
    rng = np.random.default_rng(seed)
    times = rng.random(cells)
    bends = np.sin(3 * times[:, None] * np.abs(rng.normal(size=(1, width))))
    return (bends + noise * rng.normal(size=(cells, width))).astype(np.float32), times


def scanpy_dpt(representation, root):
    """Pseudotime as scanpy's tutorial computes it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what scanpy and its imports warn of is theirs
        import scanpy
        from anndata import AnnData

        cells = AnnData(representation)
        scanpy.pp.neighbors(cells, 15, use_rep="X")
        scanpy.tl.diffmap(cells, 15)
        cells.uns["iroot"] = root
        scanpy.tl.dpt(cells)
    return cells.obs["dpt_pseudotime"].to_numpy()


@pytest.fixture(scope="module")
def krumsiek():
    """640 cells of four simulated runs of 160 steps: values of 11 genes, and the step."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import scanpy

        cells = scanpy.datasets.krumsiek11()
    return np.asarray(cells.X), np.arange(640) % 160.0


def test_simulated_blood_is_ordered_as_it_was_simulated(krumsiek):
    representation, times = krumsiek
    found = pseudotime(representation, 0)
    assert found.reason == ""
    assert np.isfinite(found.values).all()
    assert found.values[0] == 0
    assert found.values.max() == 1
    assert spearmanr(found.values, times).statistic >= 0.9
    assert trajectory_scores(found.values, times, None, GroupDraws(np.arange(640), 0, 20))["spearman"].value >= 0.9


def test_pseudotime_is_that_of_scanpy_slow_components_or_not(krumsiek):
    for representation, slow in ((krumsiek[0], 2), (curve(400)[0], 0), (curve(2000)[0], 1)):
        found = pseudotime(representation, 5)
        assert found.slow == slow
        # Of 30,000 neighbours one may be as far away as the next but for rounding, and moves the cells around it.
        away = np.abs(found.values - scanpy_dpt(representation, 5))
        assert np.quantile(away, 0.99) < 1e-4
        assert away.max() < 1e-3


def test_a_long_thin_trajectory_is_lost_in_scanpys_precision_and_kept_in_double():
    representation, times = curve(2000)
    root = root_cell(representation, is_root=times < 0.02)
    assert abs(spearmanr(pseudotime(representation, root).values, times).statistic) < 0.1
    assert spearmanr(pseudotime(representation, root, exact=True).values, times).statistic > 0.99


def test_without_slow_components_all_weights_are_scanpys_weights():
    representation, _ = curve(400)
    found = pseudotime(representation, 3)
    assert found.slow == 0
    # scanpy adds the steady state, whose step from cell to cell is small.
    np.testing.assert_allclose(pseudotime(representation, 3, exact=True).values, found.values, atol=1e-3)


def test_cells_without_a_path_to_the_root_are_unreachable_and_change_nothing_else():
    representation, times = curve(300)
    root = root_cell(representation, is_root=times < 0.05)
    far = np.random.default_rng(1).normal(size=(60, 10)).astype(np.float32) + 100
    both = np.vstack([far[:25], representation, far[25:]])
    alone, found = pseudotime(representation, root).values, pseudotime(both, root + 25).values
    np.testing.assert_allclose(found[25:325], alone, atol=1e-4)
    assert np.isinf(np.delete(found, np.arange(25, 325))).all()
    times = np.concatenate([np.full(25, 0.3), times, np.full(35, 0.7)])
    scores = trajectory_scores(found, times, None, GroupDraws(np.arange(360), 0, 30))
    assert scores["unreachable"].value == pytest.approx(60 / 360)
    assert scores["spearman"].value == pytest.approx(spearmanr(alone, times[25:325]).statistic, abs=1e-4)


def test_shift_and_scale_do_not_matter_so_that_a_collapsed_layer_keeps_its_order():
    representation, _ = curve(300)
    expected = pseudotime(representation, 3).values
    for changed in (representation.astype(np.float64) + 1e3, representation * 1e-6, representation * np.float32(1e6)):
        np.testing.assert_allclose(pseudotime(changed, 3).values, expected, atol=1e-3)


def test_neighbours_that_are_known_are_not_searched_again():
    representation, _ = curve(300)
    expected = pseudotime(representation, 3).values
    nonsense = np.random.default_rng(0).normal(size=(300, 2))
    np.testing.assert_array_equal(pseudotime(nonsense, 3, found=neighbours(representation, 40)).values, expected)


@pytest.mark.parametrize(
    ("representation", "reason"),
    [
        (np.full((50, 3), 0.1), "the same for all cells"),
        (np.zeros((50, 0)), "the same for all cells"),
        (np.full((50, 3), np.nan), "not finite"),
        (np.where(np.eye(50) > 0, np.inf, 1.0), "not finite"),
        (np.arange(50.0)[:, None] * 1e300, "not finite"),
        (np.arange(15.0)[:, None], "15 distinct cells, 16 are needed"),
        (np.repeat(np.eye(4), 30, axis=0), "4 distinct cells, 16 are needed"),
        (np.append(np.arange(15), np.arange(100) + 1e4)[:, None], "only 15 cells hang together with the root"),
    ],
)
def test_a_representation_that_cannot_order_cells_says_why(representation, reason):
    found = pseudotime(representation, 0)
    assert np.isnan(found.values).all()
    assert len(found.values) == len(representation)
    assert reason in found.reason
    scores = trajectory_scores(
        found.values, np.arange(len(representation)) % 3.0, None, GroupDraws(np.arange(len(representation)), 0, 4)
    )
    assert all(np.isnan(score.value) and np.isnan(score.draws).all() for score in scores.values())


def test_a_root_that_is_no_cell_is_refused():
    with pytest.raises(ValueError, match="root cell 5 asked for, 5 cells"):
        pseudotime(np.ones((5, 2)), 5)


def test_the_root_is_the_cell_with_the_least_squared_distance_to_all_of_the_earliest():
    representation, times = curve(80)
    times = np.floor(times * 4) + 7
    times[times == 8] = np.nan
    earliest = np.flatnonzero(times == 7)
    points = representation[earliest].astype(float)
    squared = ((points[:, None] - points[None]) ** 2).sum(axis=(1, 2))
    assert root_cell(representation, times=times) == earliest[squared.argmin()]
    assert root_cell(representation, is_root=times == 7) == earliest[squared.argmin()]
    assert root_cell(np.ones((4, 2)), is_root=np.array([False, False, True, True])) == 2


def test_without_a_cell_to_start_from_there_is_no_root():
    for found in ({"times": np.full(3, np.nan)}, {"is_root": np.zeros(3, dtype=bool)}):
        with pytest.raises(Refused, match="NO_ROOT"):
            root_cell(np.ones((3, 2)), **found)
    with pytest.raises(ValueError, match="neither times nor root cells"):
        root_cell(np.ones((3, 2)))


def cells_of(rng, cells=240, n_times=6):
    """Pseudotime with ties and unreachable cells, times with unknown ones, log depth that goes with both."""
    times = rng.integers(0, n_times, cells) * 2.5
    depth = np.round(rng.normal(size=cells) + 0.1 * times, 1)
    found = np.round(times + 4 * rng.normal(size=cells) + 2 * depth, 1)
    found[rng.permutation(cells)[:20]] = np.inf
    times[rng.permutation(cells)[:15]] = np.nan
    return found, times, depth


def residual_correlation(a, b, given):
    """Correlation of what is left of ranks after regression on the ranks of the given."""
    design = np.stack([np.ones(len(given)), rankdata(given)], axis=1)
    left = [rankdata(x) - design @ np.linalg.lstsq(design, rankdata(x), rcond=None)[0] for x in (a, b)]
    return np.corrcoef(*left)[0, 1]


def median_tau(found, times):
    medians = pd.Series(found).groupby(times).median()
    return kendalltau(medians.index, medians).statistic


@pytest.mark.parametrize("seed", range(4))
def test_scores_are_those_of_scipy(seed):
    found, times, depth = cells_of(np.random.default_rng(seed))
    scores = trajectory_scores(found, times, depth, GroupDraws(np.arange(240), 0, 5))
    used = np.isfinite(found) & np.isfinite(times)
    assert scores["spearman"].value == pytest.approx(spearmanr(found[used], times[used]).statistic, abs=1e-12)
    expected = residual_correlation(found[used], times[used], depth[used])
    assert scores["partial_spearman"].value == pytest.approx(expected, abs=1e-10)
    assert scores["kendall"].value == pytest.approx(median_tau(found[used], times[used]), abs=1e-12)
    assert scores["unreachable"].value == pytest.approx(20 / 240)


@pytest.mark.usefixtures("bootstrap_of_few_groups")
@pytest.mark.parametrize("n_groups", [9, 240], ids=["donors", "each cell its own group"])
def test_draws_are_scores_of_cells_repeated_as_often_as_their_group_is_drawn(n_groups):
    rng = np.random.default_rng(8)
    found, times, depth = cells_of(rng)
    times[np.flatnonzero(np.isfinite(times) & np.isfinite(found))[0]] = 99.0  # one cell: some resamples lack its time
    draws = GroupDraws(rng.permutation(np.arange(240) % n_groups), 0, 70)
    scores = trajectory_scores(found, times, depth, draws)
    used = np.isfinite(found) & np.isfinite(times)
    ranks = np.full((2, 240), np.nan)
    ranks[:, used] = rankdata(found[used]), rankdata(times[used])
    for number, weights in enumerate(np.vstack(list(draws.blocks()))):
        cells = np.repeat(np.arange(240), weights[draws.codes])
        kept = cells[used[cells]]
        drawn = {name: score.draws[number] for name, score in scores.items()}
        assert drawn["spearman"] == pytest.approx(np.corrcoef(ranks[:, kept])[0, 1], abs=1e-12)
        assert drawn["kendall"] == pytest.approx(median_tau(found[kept], times[kept]), abs=1e-12)
        assert drawn["unreachable"] == pytest.approx(np.isinf(found[cells]).mean())
        if n_groups == 240:  # ranking anew hardly matters unless a resample is far from the whole
            assert drawn["spearman"] == pytest.approx(spearmanr(found[kept], times[kept]).statistic, abs=0.03)


def test_pseudotime_that_is_only_depth_has_no_partial_correlation_left():
    rng = np.random.default_rng(0)
    times = rng.random(2000)
    depth = times + rng.normal(size=2000)
    found = np.exp(depth + 0.3 * rng.normal(size=2000))
    scores = trajectory_scores(found, times, depth, GroupDraws(np.arange(2000), 0, 10))
    assert scores["spearman"].value > 0.2
    assert abs(scores["partial_spearman"].value) < 3 / np.sqrt(2000)


def test_scores_that_are_not_defined_are_nan_and_the_others_stay():
    draws, depth = GroupDraws(np.arange(6), 0, 50), np.array([2.0, 1, 5, 4, 3, 6])
    rising = np.arange(6.0)
    names = ("spearman", "partial_spearman", "kendall", "unreachable")

    def defined(found, times, log_depth=depth):
        scores = trajectory_scores(found, times, log_depth, draws)
        assert tuple(scores) == names
        return [name for name in names if np.isfinite(scores[name].value)]

    assert defined(rising, rising) == list(names)
    assert defined(np.zeros(6), rising) == ["unreachable"]
    assert defined(rising, np.zeros(6)) == ["unreachable"]
    assert defined(rising, np.full(6, np.nan)) == ["unreachable"]
    assert defined(np.full(6, np.inf), rising) == ["unreachable"]
    assert defined(rising, depth, depth) == ["spearman", "kendall", "unreachable"]  # depth is time: nothing is left
    assert defined(rising, rising[::-1].copy(), np.ones(6)) == ["spearman", "kendall", "unreachable"]
    assert "partial_spearman" not in trajectory_scores(rising, rising, None, draws)


@pytest.mark.parametrize("sign", [1, -1])
def test_depth_that_ranks_cells_as_time_does_leaves_nothing_whatever_the_rounding(sign):
    for cells in range(4, 60):
        found = np.random.default_rng(cells).normal(size=cells)
        times = np.arange(cells) ** 2.0
        score = trajectory_scores(found, times, sign * np.sqrt(times), GroupDraws(np.arange(cells), 0, 1))
        assert np.isnan(score["partial_spearman"].value)


@pytest.mark.usefixtures("bootstrap_of_few_groups")
def test_a_resample_of_one_time_point_has_no_correlation_and_no_number_in_its_place():
    scores = trajectory_scores(np.array([0.1, 0.2, 0.9]), np.array([0.0, 0, 1]), None, GroupDraws(np.arange(3), 0, 200))
    drawn = np.vstack(list(GroupDraws(np.arange(3), 0, 200).blocks()))
    one_time = (drawn[:, 2] == 0) | (drawn[:, 2] == 3)
    assert 20 < one_time.sum() < 180
    for name in ("spearman", "kendall"):
        np.testing.assert_array_equal(np.isnan(scores[name].draws), one_time)


def test_lengths_and_depths_that_do_not_fit_are_refused():
    draws = GroupDraws(np.arange(3), 0, 5)
    with pytest.raises(ValueError, match="3 pseudotimes, 2 times and 3 groups"):
        trajectory_scores(np.zeros(3), np.zeros(2), None, draws)
    for depth in (np.zeros(2), np.array([1, 2, np.inf])):
        with pytest.raises(ValueError, match="one finite log depth"):
            trajectory_scores(np.zeros(3), np.zeros(3), depth, draws)
