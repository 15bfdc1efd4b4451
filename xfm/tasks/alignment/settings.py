"""Embeddings of cells beside the words for their types: a space in which both lie close together.

Two losses. `supcon_infonce`, the default, compares each cell with the words of every type in the batch, by vectors that
each side has on its own. Cells of one type are all right for its words; plain InfoNCE (Radford et al., ICML 2021) would
push them apart, as Khosla et al. (Supervised Contrastive Learning, NeurIPS 2020) show, whose sum over positives inside
the logarithm is the one taken here. `margin` is the loss of a public gene-text model: the distance of two vectors that
both have seen both sides, pulled to 0 for a pair that belongs together and pushed beyond a margin for one that does not
(Hadsell, Chopra, LeCun, CVPR 2006).
"""

# Shapes: N cells of a whole batch, K types in it, P width of the shared space, Q pairs, h hidden width.

from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, PositiveFloat, model_validator

from xfm.core.task import TaskSettings
from xfm.models.fusion.sizes import FusionSizes
from xfm.models.fusion.text import AnyText, HashedText

if TYPE_CHECKING:
    from torch import Tensor

TEMPERATURE, LEAST_TEMPERATURE, MOST_TEMPERATURE = 0.07, 0.01, 1.0  # from scratch, and what it is held between
EPSILON = 1e-6  # of a pair's difference, as torch.nn.functional.pairwise_distance: a gradient at distance 0


class Alignment(FusionSizes, TaskSettings):
    """A cell's embedding and the words for its type, drawn together."""

    task: ClassVar[str] = "xfm.tasks.alignment.task:AlignmentTask"
    starts_from: ClassVar[Literal["backbone", "task"]] = "task"

    kind: Literal["alignment"] = "alignment"

    init: str | None = None
    """Fusion checkpoint to start from, with its own sizes and text encoder. Without: from scratch."""

    text_column: str = "cell_type"
    """Column of the words."""

    text: AnyText = HashedText()
    """What turns words into vectors; each different label is encoded once, before training."""

    loss: Literal["supcon_infonce", "margin"] = "supcon_infonce"
    """supcon_infonce: each cell against all types of the batch, by vectors of either side alone. margin: pairs that
    belong together and pairs that do not, by vectors after both sides have met."""

    temperature: float | None = Field(None, ge=LEAST_TEMPERATURE, le=MOST_TEMPERATURE)
    """Of similarities at the first step; it is learned. By default that of --task.init, 0.07 from scratch.
    supcon_infonce alone."""

    margin: PositiveFloat = 1.0
    """Distance beyond which a wrong pair counts for nothing. margin alone."""

    sampler: Literal["type_balanced", "uniform"] = "type_balanced"
    """type_balanced: types by the square root of how frequent they are, with replacement. uniform: every row once an
    epoch."""

    negatives: Literal["uniform_types", "balanced"] = "uniform_types"
    """Which other type makes a wrong pair: each alike, or each as often as it has cells. Alike, a rare type is wrong
    more often than right, and the words alone give a pair away. margin alone."""

    @model_validator(mode="after")
    def _has_two_sides(self) -> Self:
        if self.design != "fusion":
            raise ValueError(f"design {self.design} has no space to align in; alignment takes design fusion")
        return self


def supcon_infonce(
    genes: "Tensor", texts: "Tensor", types: "Tensor", temperature: "Tensor | float"
) -> tuple["Tensor", "Tensor"]:
    """Both halves of the loss of a batch, which is their mean.

    From a cell: cross entropy of its own type among the K types. From a type: minus the logarithm of the share of its
    cells in the sum over all cells. A batch of one type gives 0, and no gradient.

    Args:
        genes: (N, P) unit vectors of cells.
        texts: (K, P) unit vectors of the types that are in the batch, each once.
        types: (N,) which of the K a cell is, every one present.

    Returns:
        () from cells, a mean over them, and () from types, a mean over these, in nats.
    """
    import torch

    logits = genes @ texts.T / temperature
    from_cells = torch.nn.functional.cross_entropy(logits, types)
    is_own = torch.nn.functional.one_hot(types, len(texts)).bool()
    own = logits.masked_fill(~is_own, -torch.inf).logsumexp(dim=0)
    return from_cells, (logits.logsumexp(dim=0) - own).mean()


def supcon_gradients(
    genes: "Tensor", texts: "Tensor", types: "Tensor", log_temperature: "Tensor"
) -> tuple["Tensor", "Tensor", "Tensor", "Tensor"]:
    """The whole batch's loss and its gradient at every vector; each worker goes on with the rows that are its own.

    Args:
        genes, texts, types: as for `supcon_infonce`, the same on every worker; no gradient is needed in them.
        log_temperature: logarithm of the temperature, a parameter.

    Returns:
        (2,) halves, and the gradient of their mean: (N, P) and (K, P) at genes and texts, () at `log_temperature`.
    """
    import torch

    with torch.enable_grad():
        leaves = [each.detach().requires_grad_() for each in (genes, texts, log_temperature)]
        halves = torch.stack(supcon_infonce(leaves[0], leaves[1], types, leaves[2].exp()))
        by_gene, by_text, by_temperature = torch.autograd.grad(halves.mean(), leaves)
    return halves.detach(), by_gene, by_text, by_temperature


def margin_losses(distances: "Tensor", is_match: "Tensor", margin: float) -> "Tensor":
    """The loss of each pair: half the squared distance where it belongs together, else half of what is missing to the
    margin, squared.

    Args:
        distances: (Q,).
        is_match: (Q,) 1 or True for pairs that belong together.

    Returns:
        (Q,); their mean is the loss of a batch.
    """
    match = is_match.to(distances.dtype)
    return (match * distances**2 + (1 - match) * (margin - distances).clamp(min=0) ** 2) / 2


def pair_distances(first: "Tensor", second: "Tensor") -> "Tensor":
    """(Q,) Euclidean distances of (Q, h) vectors, with a gradient even where they are equal."""
    import torch

    return torch.nn.functional.pairwise_distance(first, second, eps=EPSILON)


def limit_temperature(log_temperature: "Tensor") -> None:
    """Keeps it between `LEAST_TEMPERATURE` and `MOST_TEMPERATURE`, in place."""
    from math import log

    log_temperature.data.clamp_(log(LEAST_TEMPERATURE), log(MOST_TEMPERATURE))
