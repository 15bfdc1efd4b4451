"""Losses as sums, so that batches cut into pieces, or spread over workers, add up to the loss of the whole.

Cui et al., Nature Methods 2024, Methods: gene expression prediction, L = 1/|M| sum over M of (predicted - target)^2.
"""

# Shapes: B rows, T tokens, K classes.

from torch import Tensor
from torch.nn import functional


def squared_error(predicted: Tensor, target: Tensor, chosen: Tensor) -> Tensor:
    """(B,) summed squared error of each (B, T) row over its chosen positions; whatever stands at others, NaN included,
    has no influence."""
    return (predicted - target).masked_fill(~chosen, 0.0).square().sum(dim=1)


def class_loss(logits: Tensor, codes: Tensor) -> Tensor:
    """Cross entropy in nats of (B, K) logits and (B,) int64 classes, summed over rows."""
    return functional.cross_entropy(logits.float(), codes, reduction="sum")
