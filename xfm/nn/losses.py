"""Losses as sums, so that batches cut into pieces, or spread over workers, add up to the loss of the whole.

Cui et al., Nature Methods 2024, Methods: gene expression prediction, L = 1/|M| sum over M of (predicted - target)^2.
"""

# Shapes: B rows, T tokens, K classes.

from torch import Tensor
from torch.nn import functional


def squared_error(predicted: Tensor, target: Tensor, chosen: Tensor) -> Tensor:
    """Summed squared error of each row over its chosen positions.

    A sum and not a mean, so that batches cut into pieces, or spread over workers, add up to the loss of the whole.

    Args:
        predicted, target: (B, T); whatever stands at positions not chosen, NaN included, has no influence.
        chosen: (B, T) bool.

    Returns:
        (B,).
    """
    return (predicted - target).masked_fill(~chosen, 0.0).square().sum(dim=1)


def class_loss(logits: Tensor, codes: Tensor) -> Tensor:
    """Cross entropy in nats, summed over rows.

    A sum and not a mean, so that batches cut into pieces, or spread over workers, add up to the loss of the whole.

    Args:
        logits: (B, K).
        codes: (B,) int64 classes.
    """
    return functional.cross_entropy(logits.float(), codes, reduction="sum")
