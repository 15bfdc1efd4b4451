"""Planted truths: an answer is found where it lies, none is claimed where none is, and cutting changes nothing."""

import numpy as np
import pyarrow.compute as pc
import pytest
import torch
from scipy.stats import rankdata

from tests.rounding import UNIT
from tests.studies.layerwise.layer_cases import (
    CLS,
    FakeConfig,
    fit_and_score,
    make_design,
    noise,
    noise_states,
    random_cells,
    token_table,
)
from xfm.compute.read import read_tokens
from xfm.core.schema import ROW_ID
from xfm.metrics.regression import LEAST_SPREAD
from xfm.metrics.resampling import ratios
from xfm.models.scgpt.config import ScGPT
from xfm.sources.h5ad.source import H5ad
from xfm.studies.layerwise.report import score
from xfm.studies.layerwise.scoring import READOUTS, LayerReader

# How far predictions move, relative to their terms, when a network of twelve blocks adds in another order (batch, CPU,
# threads): up to some 10 units of float32's last place, 2**-23. See LEAST_SPREAD, below which no correlation is given.
ROUNDING = 16 * UNIT
MEAN_OF_GENE = np.random.default_rng(11).permutation(CLS) % 40 + 5


def by_gene(genes, rng):
    return MEAN_OF_GENE[genes] + rng.integers(-4, 5, len(genes))


def planted(layer, ids, values):
    """Six layers of noise; layer 3 also holds what it was shown and what is usual for the gene."""
    state = noise_states(layer, ids, values)
    if layer == 3:
        usual = torch.from_numpy(np.append(MEAN_OF_GENE, [0, 0])).float()[ids]
        state[..., 2] = 0.2 * values + 0.1 * noise(ids, values, 77)
        state[..., 3] = 0.1 * usual + 2
    return state


def test_a_planted_layer_is_found_in_both_modes_from_the_fitting_cells_alone():
    config = FakeConfig(planted, layers=6, width=4)
    _, best, columns, _ = fit_and_score(config, make_design(), [token_table(random_cells(80, 1, by_gene))])
    scores = score(columns, ("masked", "visible"), 6, seed=0, resamples=100)
    for mode in ("masked", "visible"):
        assert best[mode, "ridge"] == 3
        errors = [scores.layer(mode, "ridge", layer).mse.value for layer in range(7)]
        assert int(np.argmin(errors)) == 3
        assert errors[3] < 0.2 * min(errors[:3] + errors[4:])
        assert scores.layer(mode, "ridge", 3).skill["cell_mean"].low > 0
    # The bin is usual +- 4: what is left of it in masked mode is the variance of nine equally likely steps, 6.7.
    assert scores.layer("masked", "ridge", 3).mse.value == pytest.approx(6.7, abs=1)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_states_that_say_nothing_do_not_beat_the_mean_of_the_gene(seed):
    config = FakeConfig(noise_states, layers=2, width=4)
    cells = random_cells(120, 100 + seed, by_gene)
    _, _, columns, _ = fit_and_score(config, make_design(modes=("masked",), seed=seed), [token_table(cells)])
    scores = score(columns, ("masked",), 2, seed=seed, resamples=200)
    for layer in range(3):
        assert scores.layer("masked", "ridge", layer).skill["gene_mean"].high < 0


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_shuffled_bins_leave_no_skill_over_the_gene_beyond_its_interval(seed):
    config = FakeConfig(planted, layers=3, width=4)
    cells = random_cells(120, 200 + seed)
    _, best, columns, _ = fit_and_score(config, make_design(modes=("masked",), seed=seed), [token_table(cells)])
    # The mean of a gene seen in a few fitting cells is itself noisy, so the constant that a ridge falls back on may
    # beat it; what it must not beat is the best that can be done here, the mean of all bins.
    total = columns["masked_decoder_l00"][:, 0].sum()
    constant = np.var(np.concatenate([bins for _, bins in cells]))
    error = columns[f"masked_ridge_l{best['masked', 'ridge']:02d}"][:, 1].sum() / total
    assert error == pytest.approx(constant, rel=0.15)
    assert score(columns, ("masked",), 3, 0, 200).layer("masked", "ridge", 3).skill["cell_mean"].low < 0.1


def test_baselines_need_no_model():
    table = [token_table(random_cells(40, 5, by_gene))]
    a = fit_and_score(FakeConfig(noise_states, width=4), make_design(), table)[2]
    b = fit_and_score(FakeConfig(planted, width=4), make_design(), table)[2]
    for name in ("cell_mean", "gene_mean", "gene_depth"):
        for mode in ("masked", "visible"):
            np.testing.assert_array_equal(a[f"{mode}_{name}"], b[f"{mode}_{name}"])


@pytest.fixture(scope="module")
def real(tiny_scgpt):
    """A recipe, and the tokens of 64 real cells as one table."""
    config = ScGPT(checkpoint=str(tiny_scgpt / "checkpoint"))
    source = H5ad(path=str(tiny_scgpt / "cells.h5ad"))
    (shard,) = source.shards()
    return config, read_tokens(source, config.tokenizer(0), shard).tokens.slice(0, 24)


def test_scores_do_not_depend_on_batches_or_shards(real):
    config, table = real
    design = make_design(modes=("masked",))
    whole = fit_and_score(config, design, [table])
    shards = [table.slice(0, 1), table.slice(1, 13), table.slice(14)]
    cut = fit_and_score(config, make_design(modes=("masked",), batch_tokens=300), shards)
    assert cut[3] == whole[3]
    assert cut[1] == whole[1]
    compared = 0
    for number, row in enumerate(whole[3]):
        reader = LayerReader(config, design, None)
        for name, predicted, target, size, terms in predictions(reader, whole[0], table, row):
            one, other = cut[2][name][number], whole[2][name][number]
            # Rounding may decide whether predictions differ by more than rounding, right at that limit only.
            limit = LEAST_SPREAD * size * len(target) ** 0.5
            if abs(spread(predicted) - limit) > limit * ROUNDING / LEAST_SPREAD:
                np.testing.assert_array_equal(np.isnan(one), np.isnan(other), err_msg=name)
                compared += 1
            tolerance = moves(predicted, target, ROUNDING * terms)
            assert not (abs(one - other) > tolerance).any(), (name, one, other, tolerance)
    assert compared > 0.9 * len(whole[3]) * len(READOUTS) * (config.n_layers() + 1)
    for name in ("masked_cell_mean", "masked_gene_mean", "masked_gene_depth"):  # no model: sums of float64
        np.testing.assert_allclose(cut[2][name], whole[2][name], rtol=1e-9, atol=1e-9, err_msg=name)


def predictions(reader, readouts, table, row):
    """Of one cell: every readout's column, predictions, truths, the size of predictions and of what they sum up."""
    (cells,) = reader.cells(table.filter(pc.equal(table[ROW_ID], row)))
    target = cells.bins[cells.scored("masked")]
    for layer, state, predicted in reader.states(cells, "masked"):
        affine, ridge = readouts.affine["masked", layer], readouts.ridge["masked", layer]
        features = state.double().numpy()
        size, read = rms(predicted), rms(np.sqrt(features**2 @ ridge.weights**2))
        terms = max(size, 1.0)  # the decoder sums up terms of order 1, which cancel to 0.1 in the last layer
        yield f"masked_decoder_l{layer:02d}", predicted, target, size, terms
        scaled = affine.scale * predicted + affine.shift
        yield f"masked_calibrated_l{layer:02d}", scaled, target, abs(affine.scale) * size, abs(affine.scale) * terms
        yield f"masked_ridge_l{layer:02d}", features @ ridge.weights + ridge.shift, target, read, read


def rms(vector):
    return np.sqrt(np.mean(vector**2))


def spread(vector):
    return np.linalg.norm(vector - vector.mean())


def moves(predicted, target, moved):
    """(5,) the most that the sums of one cell move when each of its predictions moves by about `moved`."""
    n, error = len(target), abs(predicted - target)
    # A rank moves by as many places as there are predictions that may come to stand on the other side.
    places = (abs(predicted[:, None] - predicted) <= 2 * moved).sum(axis=1) - 1
    # A correlation is the cosine of an angle, which moves by no more than the step of a vector over its length.
    steps = ratios(np.array([moved * n**0.5, np.linalg.norm(places)]),
                   np.array([spread(predicted), spread(rankdata(predicted))]))  # fmt: skip
    return np.array([0, 2 * error.sum() * moved + n * moved**2, n * moved, *(steps + 1e-12)])


@pytest.mark.parametrize(("width", "is_given"), [(2.0**-21, False), (2.0**-8, True)])
def test_predictions_that_differ_by_rounding_alone_have_no_correlation(width, is_given):
    def nearly_constant(layer, ids, values):
        return 3 + 3 * width * noise_states(layer, ids, values)

    config = FakeConfig(nearly_constant, layers=1, width=4)
    _, _, columns, rows = fit_and_score(config, make_design(modes=("masked",)), [token_table(random_cells(60, 2))])
    scores = score(columns, ("masked",), 1, seed=0, resamples=20)
    for readout in READOUTS:
        of = scores.layer("masked", readout, 1)
        assert (of.pearson is not None, of.spearman is not None) == (is_given, is_given)
        assert of.undefined == (0 if is_given else len(rows))
        assert np.isfinite(of.mse.value)


def test_another_seed_hides_other_genes():
    table = token_table(random_cells(6, 3))
    hidden = []
    for seed in (0, 0, 1):
        (batch,) = LayerReader(FakeConfig(), make_design(seed=seed), None).cells(table)
        hidden.append(batch.hidden.tolist())
    assert hidden[0] == hidden[1]
    assert hidden[0] != hidden[2]
