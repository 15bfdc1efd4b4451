"""Images beside their captions: the objective that CLIP is pretrained with.

Each image must find its caption among those of the whole batch, and each caption its image: two cross entropies over
the same matrix of similarities, averaged (Radford et al., ICML 2021, figure 3). A batch may hold several captions that
fit an image: the same words again, or other words for the same thing. The target of a row is then spread evenly over
all of them, while plain InfoNCE would punish an image for being near words that describe it. For equal words alone that
changes nothing, as a test shows: they have equal vectors, hence the same sum over the batch and the same gradient.
"""

# Shapes: N pairs of a whole batch, M of them on this worker, P width of the shared space, C columns of ids.

from math import log
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, PositiveInt

from xfm.core.task import TaskSettings
from xfm.models.clip.fresh import CLIPSizes

if TYPE_CHECKING:
    from torch import Tensor

LARGEST_SCALE = 100.0  # of similarities; above it CLIP's training became unstable (Radford et al., section 2.5)
FEWEST_TOKENS = 514  # every byte inside a word and at its end, and the two special tokens


class Contrastive(CLIPSizes, TaskSettings):
    """CLIP on pictures and captions."""

    task: ClassVar[str] = "xfm.tasks.contrastive.task:ContrastiveTask"
    starts_from: ClassVar[Literal["backbone", "task"]] = "task"

    kind: Literal["contrastive"] = "contrastive"

    init: str | None = None
    """CLIP to start from (DIR or hf://OWNER/NAME), with its own vocabulary and sizes. Without: from scratch."""

    caption: str = "caption"
    """Column of the captions."""

    match: str | None = None
    """Column whose equal values mean that one's caption is right for the other's picture too, in training and when
    retrieval is measured, e.g. a class; by default only equal captions do."""

    vocabulary_size: PositiveInt = Field(1000, ge=FEWEST_TOKENS)
    """Byte pairs at most, learned from the training captions; used only from scratch."""

    @property
    def sizes(self) -> CLIPSizes:
        """Of both towers."""
        return CLIPSizes(**{name: getattr(self, name) for name in CLIPSizes.model_fields})


def soft_targets(captions: "Tensor") -> "Tensor":
    """What each row of the similarity matrix should look like after a softmax.

    Args:
        captions: (N, C) integers; two captions are alike where any of the C agree.

    Returns:
        (N, N) float32 rows that sum to 1, symmetric in which entries are not zero.
    """
    equal = (captions[:, None, :] == captions[None, :, :]).any(dim=2)
    return equal.float() / equal.sum(dim=1, keepdim=True)


def contrastive_losses(images: "Tensor", texts: "Tensor", captions: "Tensor", scale: "Tensor") -> "Tensor":
    """The loss of each pair: half its image's cross entropy over all texts, half its text's over all images.

    A sum over pairs divided by N is the loss of the batch. It is not 0 for a perfect network where captions repeat:
    the entropy of the targets stays.

    Args:
        images, texts: (N, P) unit vectors, row i of both from pair i.
        captions: (N, C) integers; two captions are alike where any of the C agree.
        scale: of the similarities, exp(logit_scale).

    Returns:
        (N,) in nats; log N for a network that cannot tell pairs apart.
    """
    logits = scale * images @ texts.T
    targets = soft_targets(captions)
    by_image = -(targets * logits.log_softmax(dim=1)).sum(dim=1)
    by_text = -(targets * logits.T.log_softmax(dim=1)).sum(dim=1)
    return (by_image + by_text) / 2


def contrastive_gradients(
    images: "Tensor", texts: "Tensor", captions: "Tensor", logit_scale: "Tensor", *, first: int, size: int, world: int
) -> tuple["Tensor", "Tensor", "Tensor", "Tensor"]:
    """The whole batch's loss, and one worker's share of its gradient.

    Every worker holds all features and computes all of the loss, but takes the gradient at its own rows alone. The
    gradient at a feature is a partial derivative of the whole loss, so each worker's backward pass through its own
    rows is exact, and the sum over workers is the gradient of the batch. The scale is everybody's: each worker gives
    the world-th part of its gradient, so that the sum counts it once.

    Args:
        images, texts: (N, P) unit vectors of the batch, the same on every worker; no gradient is needed in them.
        captions: (N, C) integers; two captions are alike where any of the C agree.
        logit_scale: its logarithm, a parameter.

    Returns:
        (M,) losses of this worker's pairs; (M, P) and (M, P) gradients of the batch's mean loss at its images and
        texts; and () its part of the gradient at `logit_scale`.
    """
    import torch

    with torch.enable_grad():
        leaves = (
            images.detach().requires_grad_(),
            texts.detach().requires_grad_(),
            logit_scale.detach().requires_grad_(),
        )
        losses = contrastive_losses(leaves[0], leaves[1], captions, leaves[2].exp())
        by_image, by_text, by_scale = torch.autograd.grad(losses.mean(), leaves)
    own = slice(first, first + size)
    return losses.detach()[own], by_image[own], by_text[own], by_scale / world


def limit_scale(logit_scale: "Tensor") -> None:
    """Keeps the scale of similarities at `LARGEST_SCALE` or below, in place."""
    logit_scale.data.clamp_(max=log(LARGEST_SCALE))
