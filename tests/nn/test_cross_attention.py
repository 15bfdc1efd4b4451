"""Two sides that attend to each other, against the formulas: as the public model has it, and by default."""

from itertools import product

import numpy as np
import pytest
import torch

from tests.attention_formula import attend, norm
from xfm.nn.cross_attention import CrossModalAttention

# Shapes: B 4 rows, N 3 latents of either side, h 8.

OPTIONS = [{"is_shared": shared, "is_parallel": parallel, "pool": pool}
           for shared, parallel, pool in product([True, False], [True, False], ["attended", "residual"])]  # fmt: skip


@pytest.fixture
def sides():
    return torch.randn(2, 4, 3, 8, generator=torch.Generator().manual_seed(1)).unbind()


def across(**options):
    torch.manual_seed(0)
    module = CrossModalAttention(8, 2, 0.4, **options)
    for parameter in module.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.3)
    return module.eval()


def public_model(module, text, gene):
    """One attention `A` for both: Ta = A(T, G), T' = LN1(T + Ta), Ga = A(G, T'); the means of Ta and Ga."""
    text_given, text_weights = attend(module.text_attends, text, gene)
    gene_given, gene_weights = attend(module.text_attends, gene, norm(text + text_given, module.norm_text))
    return text_given.mean(0), gene_given.mean(0), text_weights, gene_weights


def corrected(module, text, gene):
    """Each side its own attention to what the other was; the means of LN(T + Ta) and LN(G + Ga)."""
    text_given, text_weights = attend(module.text_attends, text, gene)
    gene_given, gene_weights = attend(module.gene_attends, gene, text)
    text_after, gene_after = norm(text + text_given, module.norm_text), norm(gene + gene_given, module.norm_gene)
    return text_after.mean(0), gene_after.mean(0), text_weights, gene_weights


@pytest.mark.parametrize(("options", "formulas"), [
    ({"is_shared": True, "is_parallel": False, "pool": "attended"}, public_model),
    ({"is_shared": False, "is_parallel": True, "pool": "residual"}, corrected),
], ids=["public", "default"])  # fmt: skip
def test_it_computes_what_the_formulas_say(sides, options, formulas):
    module = across(**options)
    found = module(*sides, need_weights=True)
    for row in range(4):
        expected = formulas(module, *(side[row].double().numpy() for side in sides))
        for tensor, numbers in zip(found, expected, strict=True):
            np.testing.assert_allclose(tensor[row].detach().numpy(), numbers, atol=1e-5)
    assert module(*sides)[2:] == (None, None)


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(map(str, options.values())))
def test_no_parameter_is_left_without_a_gradient(sides, options):
    module = across(**options)
    text, gene, _, _ = module(*sides)
    weights = torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(2))
    (text * weights[0] + gene * weights[1]).sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 1e-5, name


def test_a_shared_attention_is_one_module(sides):
    shared, own = (across(is_shared=is_shared, is_parallel=True, pool="residual") for is_shared in (True, False))
    count = [sum(parameter.numel() for parameter in module.parameters()) for module in (shared, own)]
    assert count[1] - count[0] == 4 * (8 * 8 + 8)  # queries, keys, values, output
    text, gene, _, _ = shared(sides[0], sides[0])
    assert not torch.allclose(text, gene)  # by their norms alone
    shared.norm_gene.load_state_dict(shared.norm_text.state_dict())
    torch.testing.assert_close(*shared(sides[0], sides[0])[:2])


def test_in_parallel_the_gene_side_does_not_hear_what_the_text_side_became(sides):
    for is_parallel in (True, False):
        module = across(is_shared=False, is_parallel=is_parallel, pool="residual")
        before = module(*sides)[1]
        module.norm_text.weight.data.mul_(2)
        assert torch.equal(module(*sides)[1], before) == is_parallel
