"""What is fitted from sums equals what numpy and scikit-learn fit on the rows themselves."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge as Reference

from xfm.core.errors import Refused
from xfm.studies.layerwise.readouts import PENALTIES, fit_affine, fit_gene_baselines, fit_ridge, raw_mse


def rows(n, dim, seed, noise=0.5):
    """Features whose means are large beside their spread, as in a transformer's residual stream."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, dim)) * rng.uniform(0.1, 3, dim) + rng.normal(scale=20, size=dim)
    weights = np.random.default_rng(99).normal(size=dim)
    return x, x @ weights + 3 + rng.normal(scale=noise, size=n)


def gram(x, y):
    z = np.column_stack([x, np.ones(len(x)), y])
    return z.T @ z


def moments(p, t):
    return np.array([len(p), p.sum(), t.sum(), p @ p, p @ t, t @ t])


def gene_sums(gene, target, depth, size):
    """(size, 6), gene by gene."""
    out = np.zeros((size, 6))
    for g, t, d in zip(gene, target, depth, strict=True):
        out[g] += [1, t, d, d * d, t * d, t * t]
    return out


@pytest.mark.parametrize("noise", [0.05, 30.0])
def test_a_ridge_from_sums_is_the_ridge_of_scikit_learn_on_the_rows(noise):
    x1, y1 = rows(60, 8, 1, noise)
    x2, y2 = rows(80, 8, 2, noise)
    ours = fit_ridge((gram(x1, y1), gram(x2, y2)))

    def reference(x, y, penalty):
        scale = ((x - x.mean(0)) ** 2).sum() / x.shape[1]
        return Reference(alpha=penalty * scale, solver="svd").fit(x, y)

    errors = [np.mean((reference(x1, y1, penalty).predict(x2) - y2) ** 2) for penalty in PENALTIES]
    assert ours.penalty == PENALTIES[int(np.argmin(errors))]
    assert ours.validation_mse == pytest.approx(min(errors), rel=1e-6)
    both = reference(np.vstack([x1, x2]), np.concatenate([y1, y2]), ours.penalty)
    np.testing.assert_allclose(ours.weights, both.coef_, rtol=1e-6, atol=1e-9)
    assert ours.shift == pytest.approx(both.intercept_, rel=1e-6)


def test_noise_asks_for_a_larger_penalty():
    clean = fit_ridge((gram(*rows(40, 20, 1, 0.01)), gram(*rows(40, 20, 2, 0.01))))
    noisy = fit_ridge((gram(*rows(40, 20, 1, 60.0)), gram(*rows(40, 20, 2, 60.0))))
    assert clean.penalty < noisy.penalty


def test_constant_features_predict_the_mean_target():
    target = np.array([1.0, 2, 6, 7])
    whole = gram(np.full((4, 3), 5.0), target)
    ridge = fit_ridge((whole, whole))
    assert not ridge.weights.any()
    assert ridge.shift == pytest.approx(target.mean())


@pytest.mark.parametrize("empty", [0, 1])
def test_a_ridge_without_rows_in_one_half_is_refused_and_says_which_flag_helps(empty):
    halves = [gram(*rows(20, 3, 1)), gram(*rows(20, 3, 2))]
    halves[empty] = np.zeros((5, 5))
    with pytest.raises(Refused, match="--fit_cells"):
        fit_ridge((halves[0], halves[1]))


def test_calibration_is_the_line_of_polyfit():
    rng = np.random.default_rng(0)
    p = rng.normal(12, 3, 200)
    t = 4 - 0.3 * p + rng.normal(size=200)
    line = fit_affine(moments(p, t))
    np.testing.assert_allclose([line.scale, line.shift], np.polyfit(p, t, 1), rtol=1e-9)
    assert raw_mse(moments(p, t)) == pytest.approx(np.mean((p - t) ** 2))


def test_a_constant_prediction_is_calibrated_to_the_mean_target():
    t = np.array([1.0, 5, 9, 50])
    line = fit_affine(moments(np.full(4, 0.1), t))
    assert (line.scale, line.shift) == (0.0, pytest.approx(t.mean()))


def test_gene_and_depth_is_polyfit_gene_by_gene():
    rng = np.random.default_rng(0)
    gene = np.repeat([1, 3], [40, 25])
    depth = rng.uniform(6, 9, 65)
    target = np.where(gene == 1, 5 * depth - 2, 60 - 3 * depth) + rng.normal(size=65)
    fitted = fit_gene_baselines(gene_sums(gene, target, depth, 5))
    for g in (1, 3):
        slope, intercept = np.polyfit(depth[gene == g], target[gene == g], 1)
        assert fitted.by_gene(np.array([g]))[0] == pytest.approx(target[gene == g].mean())
        expected = intercept + slope * 7.5
        assert fitted.by_gene_and_depth(np.array([g]), 7.5)[0] == pytest.approx(expected, rel=1e-7)


def test_an_unseen_gene_gets_the_overall_mean_and_a_rare_one_no_slope():
    gene = np.array([0] * 9 + [1] * 10 + [2] * 12)
    depth = np.concatenate([np.arange(9.0), np.arange(10.0), np.full(12, 4.0)])
    target = np.concatenate([np.arange(9.0), np.arange(10.0), np.arange(12.0)])
    fitted = fit_gene_baselines(gene_sums(gene, target, depth, 4))
    everything = np.arange(4)
    np.testing.assert_allclose(fitted.by_gene(everything), [4, 4.5, 5.5, target.mean()])
    # Gene 0 was seen nine times, gene 2 at one depth only: neither says anything of depth. Gene 1 follows it exactly.
    np.testing.assert_allclose(fitted.by_gene_and_depth(everything, 20.0), [4, 20, 5.5, target.mean()])


def test_shrunken_means_are_those_of_a_one_way_analysis_of_variance():
    """Three genes with 2, 3 and 5 cells, by hand: sigma² is the mean square within, tau² what the mean square between
    has beyond it, over the effective number of cells (Searle, 10 - 38 / 10, by 2 degrees of freedom)."""
    gene = np.repeat([0, 1, 2], [2, 3, 5])
    target = np.array([1.0, 3, 10, 12, 14, 5, 6, 7, 8, 9])
    means = np.array([2.0, 12, 7])
    within = (2 + 8 + 10) / 7
    between = (2 * (2 - 7.5) ** 2 + 3 * (12 - 7.5) ** 2 + 5 * (7 - 7.5) ** 2) / 2
    tau = (between - within) / ((10 - 38 / 10) / 2)
    kept = tau / (tau + within / np.array([2, 3, 5]))
    found = fit_gene_baselines(gene_sums(gene, target, np.ones(10), 4)).shrunken
    np.testing.assert_allclose(found, [*(7.5 + kept * (means - 7.5)), 7.5])


def test_genes_that_are_alike_are_drawn_to_one_mean_and_err_less_for_it():
    rng = np.random.default_rng(0)
    gene, truth = np.repeat(np.arange(200), 4), rng.normal(20, 0.3, 200)
    fitted = fit_gene_baselines(gene_sums(gene, truth[gene] + 5 * rng.normal(size=800), np.ones(800), 200))
    plain, shrunken = (np.mean((each - truth) ** 2) for each in (fitted.mean, fitted.shrunken))
    assert shrunken < plain / 10


def test_no_gene_at_all_is_refused():
    with pytest.raises(Refused, match="NO_FIT_CELLS"):
        fit_gene_baselines(np.zeros((3, 6)))


def test_sums_of_shards_add_up_to_the_fit_on_all_rows():
    x, y = rows(120, 6, 3)
    cuts = [slice(0, 10), slice(10, 75), slice(75, 120)]
    other = gram(*rows(50, 6, 4))
    whole, merged = fit_ridge((gram(x, y), other)), fit_ridge((sum(gram(x[c], y[c]) for c in cuts), other))
    np.testing.assert_allclose(merged.weights, whole.weights, rtol=1e-7)
    assert fit_affine(sum(moments(x[c, 0], y[c]) for c in cuts)).scale == pytest.approx(
        fit_affine(moments(x[:, 0], y)).scale, rel=1e-9
    )
