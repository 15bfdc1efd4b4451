"""What each output of the network is a function of, what learns, and weights that follow from a seed."""

from itertools import product

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from tests.attention_formula import linear, numbers, resample
from xfm.models.fusion.network import Concatenation, FusionModel, build_network
from xfm.models.fusion.sizes import FusionSizes

# Shapes: B 5 rows, gene_dim 12, text_dim 10, L 3 text vectors, N 4 latents, h 16, P 6.

TINY = {"hidden": 16, "heads": 2, "latents": 4, "projection": 6}
PUBLIC = {"pool": "attended", "share_attention": True, "parallel": False}


@pytest.fixture
def text():
    return torch.randn(5, 10, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def gene():
    return torch.randn(5, 12, generator=torch.Generator().manual_seed(2))


def network(**sizes):
    built = build_network(FusionSizes(**(TINY | sizes)), 12, 10, 0)
    assert isinstance(built, FusionModel)
    return built.eval()


@pytest.mark.parametrize("sizes", [{}, PUBLIC], ids=["default", "public"])
def test_a_side_alone_has_a_vector_and_after_they_met_both_know_both(text, gene, sizes):
    model = network(**sizes)
    other_text, other_gene = text.flip(0), gene.flip(0)
    assert torch.equal(model.encode_gene(gene), model.encode_gene(gene))
    torch.testing.assert_close(model.encode_gene(gene).norm(dim=1), torch.ones(5))
    torch.testing.assert_close(model.encode_text(text).norm(dim=1), torch.ones(5))
    met = model(text, gene)
    for changed in (model(other_text, gene), model(text, other_gene)):
        assert (changed.text - met.text).abs().max() > 1e-3
        assert (changed.gene - met.gene).abs().max() > 1e-3
    assert torch.equal(model.features(text, gene), torch.cat([met.text, met.gene], dim=1))
    assert model.features(text, gene).shape == (5, model.feature_dim)


def test_vectors_for_retrieval_are_those_of_the_formula(text, gene):
    model = network(gene_chunks=3)
    for encoded, resampler, project, inputs in (
        (model.encode_text(text), model.resample_text, model.project_text, numbers(text)[:, None]),
        (model.encode_gene(gene), model.resample_gene, model.project_gene, numbers(gene).reshape(5, 3, 4)),
    ):
        for row in range(5):
            vector = linear(resample(resampler, inputs[row])[0].mean(0), project)
            np.testing.assert_allclose(encoded[row].detach(), vector / np.sqrt(vector @ vector), atol=1e-5)


def test_weights_come_back_where_they_are_wanted(text, gene):
    model = network(gene_chunks=3, layers=2)
    plain = model(text, gene)
    assert (plain.text_to_gene, plain.gene_to_text) == (None, None)
    found = model(text, gene, need_weights=True)
    resampled_text, resampled_gene = (
        resampler(side, need_weights=True)[1]
        for resampler, side in ((model.resample_text, text), (model.resample_gene, model.chunks(gene)))
    )
    assert [weights.shape for weights in resampled_gene] == [(5, 4, 3)] * 2
    assert [weights.shape for weights in resampled_text] == [(5, 4, 1)] * 2
    for weights in (found.text_to_gene, found.gene_to_text, *resampled_gene, *resampled_text):
        torch.testing.assert_close(weights.sum(-1), torch.ones(5, 4))
    torch.testing.assert_close(found.text, plain.text)


def test_padding_of_a_text_changes_nothing(gene):
    model = network()
    text = torch.randn(5, 3, 10, generator=torch.Generator().manual_seed(3))
    held = torch.tensor([[True, True, False]] * 5)
    torch.testing.assert_close(
        model.features(text, gene, held), model.features(text[:, :2], gene), rtol=1e-5, atol=1e-5
    )
    torch.testing.assert_close(model.encode_text(text, held), model.encode_text(text[:, :2]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("sizes", [
    {"pool": pool, "share_attention": shared, "parallel": parallel}
    for pool, shared, parallel in product(["attended", "residual"], [True, False], [True, False])
], ids=lambda sizes: "-".join(map(str, sizes.values())))  # fmt: skip
def test_everything_learns_from_features_and_the_projections_from_alignment_alone(text, gene, sizes):
    def trained(loss):
        model = network(**sizes)
        loss(model).backward()
        return {name for name, parameter in model.named_parameters() if parameter.grad is not None}

    everything = {name for name, _ in network(**sizes).named_parameters()}
    projections = {f"project_{side}.{part}" for side in ("text", "gene") for part in ("weight", "bias")}
    assert projections < everything
    assert trained(lambda model: model.features(text, gene).square().sum()) == everything - projections
    aligned = trained(lambda model: (model.encode_text(text) * model.encode_gene(gene)).sum())
    assert aligned == {name for name in everything if not name.startswith("cross.")}


def test_weights_follow_from_the_seed_and_leave_the_global_generator_alone():
    sizes = FusionSizes(**TINY)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one = build_network(sizes, 12, 10, 0).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    same, other = build_network(sizes, 12, 10, 0).state_dict(), build_network(sizes, 12, 10, 1).state_dict()
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["resample_gene.latents"], other["resample_gene.latents"])
    assert not torch.equal(one["resample_gene.latents"], one["resample_text.latents"])


def test_a_concatenation_is_its_inputs():
    text, gene = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0, 5.0]])
    for inputs, expected in (("both", [1.0, 2, 3, 4, 5]), ("gene", [3.0, 4, 5]), ("text", [1.0, 2])):
        model = build_network(FusionSizes(design="concat", inputs=inputs), 3, 2, 0)
        assert isinstance(model, Concatenation)
        assert model.features(text, gene).tolist() == [expected]
        assert model.feature_dim == len(expected)
        assert list(model.parameters()) == []
    tokens = torch.tensor([[[1.0, 2.0], [3.0, 6.0], [99.0, 99.0]]])
    held = torch.tensor([[True, True, False]])
    assert build_network(FusionSizes(design="concat", inputs="text"), 3, 2, 0).features(
        tokens, gene, held
    ).tolist() == [[2.0, 4.0]]


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ValidationError, match="hidden 10 is no multiple of heads 4"):
        FusionSizes(hidden=10, heads=4)
    with pytest.raises(ValidationError, match="a fusion reads both"):
        FusionSizes(inputs="gene")
    with pytest.raises(ValueError, match=r"12 numbers .* 5 equal chunks"):
        network(gene_chunks=5)
