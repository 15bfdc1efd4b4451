"""The contrastive loss against PyTorch's own cross entropy, and its gradient cut over workers."""

import pytest
import torch
from torch.nn.functional import cross_entropy, normalize

from xfm.tasks.contrastive.settings import (
    LARGEST_SCALE,
    contrastive_gradients,
    contrastive_losses,
    limit_scale,
    soft_targets,
)

SCALE = torch.tensor(3.0)


def pairs(n: int = 6, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return tuple(normalize(torch.randn(n, 5, generator=rng), dim=1) for _ in range(2))


def test_with_distinct_captions_it_is_clips_loss():
    images, texts = pairs()
    logits, truth = SCALE * images @ texts.T, torch.arange(6)
    expected = (cross_entropy(logits, truth) + cross_entropy(logits.T, truth)) / 2
    found = contrastive_losses(images, texts, torch.tensor([7, 3, 9, 1, 0, 4])[:, None], SCALE)
    torch.testing.assert_close(found.mean(), expected)


def test_with_equal_captions_it_is_cross_entropy_with_shares():
    images, texts = pairs()
    captions = torch.tensor([5, 5, 8, 5, 8, 2])[:, None]
    shares = torch.tensor(
        [[1 / 3, 1 / 3, 0, 1 / 3, 0, 0], [1 / 3, 1 / 3, 0, 1 / 3, 0, 0], [0, 0, 1 / 2, 0, 1 / 2, 0],
         [1 / 3, 1 / 3, 0, 1 / 3, 0, 0], [0, 0, 1 / 2, 0, 1 / 2, 0], [0, 0, 0, 0, 0, 1]]
    )  # fmt: skip
    torch.testing.assert_close(soft_targets(captions), shares)
    logits = SCALE * images @ texts.T
    expected = (cross_entropy(logits, shares) + cross_entropy(logits.T, shares)) / 2
    torch.testing.assert_close(contrastive_losses(images, texts, captions, SCALE).mean(), expected)


def test_other_words_for_the_same_thing_share_the_target_too():
    """Words agree for pairs 0 and 1, meanings for 1 and 2; 0 and 2 have nothing in common."""
    targets = soft_targets(torch.tensor([[7, 1], [7, 2], [8, 2], [9, 3]]))
    expected = [[1 / 2, 1 / 2, 0, 0], [1 / 3, 1 / 3, 1 / 3, 0], [0, 1 / 2, 1 / 2, 0], [0, 0, 0, 1]]
    torch.testing.assert_close(targets, torch.tensor(expected))


def test_where_equal_captions_have_equal_vectors_plain_infonce_is_the_same_and_else_it_is_not():
    captions = torch.tensor([5, 5, 8, 5, 8, 2])[:, None]
    images, texts = pairs()

    def gradient(texts, captions):
        leaf = images.clone().requires_grad_()
        loss = contrastive_losses(leaf, texts, captions, SCALE).mean()
        return loss.detach(), *torch.autograd.grad(loss, leaf)

    equal = texts[torch.tensor([0, 0, 2, 0, 2, 5])]
    torch.testing.assert_close(gradient(equal, captions), gradient(equal, torch.arange(6)[:, None]))
    assert not torch.allclose(gradient(texts, captions)[1], gradient(texts, torch.arange(6)[:, None])[1], atol=1e-2)


def test_a_network_that_cannot_tell_pairs_apart_pays_log_n():
    same = torch.ones(6, 5) / 5**0.5
    for captions in (torch.arange(6), torch.tensor([0, 0, 1, 1, 1, 2])):
        losses = contrastive_losses(same, same, captions[:, None], SCALE)
        torch.testing.assert_close(losses, torch.log(torch.tensor(6.0)).repeat(6))


@pytest.mark.parametrize("cuts", [(6,), (3, 3), (4, 2), (1, 2, 3)])
def test_summed_over_workers_the_gradient_is_that_of_the_whole_batch(cuts):
    images, texts = pairs()
    captions, logit_scale = torch.tensor([5, 5, 8, 5, 8, 2])[:, None], torch.tensor(1.3)
    leaves = [t.clone().requires_grad_() for t in (images, texts, logit_scale)]
    loss = contrastive_losses(leaves[0], leaves[1], captions, leaves[2].exp()).mean()
    loss.backward()
    first, parts = 0, []
    for size in cuts:
        parts.append(
            contrastive_gradients(images, texts, captions, logit_scale, first=first, size=size, world=len(cuts))
        )
        first += size
    torch.testing.assert_close(torch.cat([part[0] for part in parts]).mean(), loss.detach())
    torch.testing.assert_close(torch.cat([part[1] for part in parts]), leaves[0].grad)
    torch.testing.assert_close(torch.cat([part[2] for part in parts]), leaves[1].grad)
    torch.testing.assert_close(sum(part[3] for part in parts), leaves[2].grad)


def test_the_scale_of_similarities_stays_at_a_hundred():
    scale = torch.nn.Parameter(torch.tensor(9.0))
    limit_scale(scale)
    assert scale.exp().item() == pytest.approx(LARGEST_SCALE)
    low = torch.nn.Parameter(torch.tensor(2.0))
    limit_scale(low)
    assert low.item() == 2.0
