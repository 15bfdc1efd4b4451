"""A fusion with a head that tells classes, and an adversary behind its reversed gradient."""

# Shapes: B rows, D numbers of an embedding, F features, K classes, A classes of the attribute.

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from xfm.core.random import key64
from xfm.models.fusion.label_embeddings import TextBank
from xfm.models.fusion.network import Concatenation, FusionModel, FusionOutput
from xfm.nn.reversal import reverse_gradient
from xfm.tasks.adversarial.settings import MISSING, AdversarialClassification

Network = FusionModel | Concatenation


@dataclass(frozen=True, slots=True)
class FusionBatch:
    """B rows as the network takes them."""

    gene: Tensor  # (B, D) float32 embeddings
    text: Tensor  # (B,) places of their words in the bank
    codes: Tensor  # (B,) classes, MISSING where a row has none
    attribute: Tensor  # (B,) classes of the attribute, MISSING where unknown

    def to(self, device: str) -> "FusionBatch":
        """The same rows there."""
        return FusionBatch(*(each.to(device) for each in (self.gene, self.text, self.codes, self.attribute)))


class FasterLinear(nn.Linear):
    """A linear layer that takes larger steps: its weights count `rate` times what is stored (as StyleGAN's do).

    Adam's steps do not depend on the size of gradients, so that a weighted loss changes nothing there.
    """

    def __init__(self, dim_in: int, dim_out: int, rate: float) -> None:
        super().__init__(dim_in, dim_out)
        self.rate = rate
        with torch.no_grad():
            self.weight.div_(rate)
            self.bias.div_(rate)

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim_in) to (B, dim_out)."""
        return functional.linear(x, self.weight * self.rate, self.bias * self.rate)


class AdversarialClassifier(nn.Module):
    """See the top of the file.

    Args:
        network: at step 0; its `features` are read.
        bank: vectors of all words; they are looked up, never encoded here.
        n_attributes: A; unused without an adversary.
        hidden: width of the head.
    """

    def __init__(
        self,
        network: Network,
        bank: TextBank,
        task: AdversarialClassification,
        n_classes: int,
        n_attributes: int,
        hidden: int,
        seed: int,
    ) -> None:
        super().__init__()
        self.network, self.hidden = network, hidden
        self.attribute_in_head, self.n_attributes = task.attribute_in_head, n_attributes
        # Not saved with the weights: they are the encoder's.
        self.register_buffer("text", torch.from_numpy(bank.vectors), persistent=False)
        mask = None if bank.is_token is None else torch.from_numpy(bank.is_token)
        self.register_buffer("is_token", mask, persistent=False)
        width, outputs = network.feature_dim, 1 if n_attributes == 2 else n_attributes
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(key64(seed, "donor head") % 2**63)
            self.head = _two_layers(width + task.attribute_in_head, hidden, n_classes, task.head_dropout)
            self.adversary = (
                _two_layers(width, max(1, hidden // 2), outputs, task.head_dropout, task.adversary_lr)
                if task.is_adversarial
                else None
            )

    def forward(self, cells: FusionBatch, strength: float = 0.0) -> tuple[Tensor, Tensor | None]:
        """(B, K) logits, and the adversary's (B, 1) or (B, A), whose gradient comes back times -`strength`."""
        features = self.features(cells)
        turned = None if self.adversary is None else self.adversary(reverse_gradient(features, strength))
        return self.classify(features, cells.attribute), turned

    def features(self, cells: FusionBatch) -> Tensor:
        """(B, F)."""
        return self.network.features(*self._inputs(cells))

    def classify(self, features: Tensor, attribute: Tensor) -> Tensor:
        """(B, F) features and (B,) attributes to (B, K) logits."""
        if self.attribute_in_head:
            given = attribute.float() / max(1, self.n_attributes - 1)
            features = torch.cat([features, torch.where(attribute == MISSING, 0.5, given)[:, None]], dim=1)
        logits: Tensor = self.head(features)
        return logits

    def attend(self, cells: FusionBatch) -> FusionOutput:
        """With the weights of attention; for a fusion alone."""
        assert isinstance(self.network, FusionModel)
        found: FusionOutput = self.network(*self._inputs(cells), need_weights=True)
        return found

    def _inputs(self, cells: FusionBatch) -> tuple[Tensor, Tensor, Tensor | None]:
        text: Tensor = self.get_buffer("text")
        is_token: Tensor | None = self._buffers["is_token"]
        return text[cells.text], cells.gene, None if is_token is None else is_token[cells.text]


def freeze_unread(classifier: AdversarialClassifier, cells: FusionBatch) -> list[str]:
    """Parameters that no output depends on (the heads of the shared space) are not trained: weight decay would shrink
    them.

    Returns:
        Their names.
    """
    was_training = classifier.training
    classifier.eval()
    named = [(name, parameter) for name, parameter in classifier.named_parameters() if parameter.requires_grad]
    with torch.enable_grad():
        summed = torch.stack([each.sum() for each in classifier(cells, 1.0) if each is not None]).sum()
    found = torch.autograd.grad(summed, [parameter for _, parameter in named], allow_unused=True)
    classifier.train(was_training)
    unread = [(name, parameter) for (name, parameter), grad in zip(named, found, strict=True) if grad is None]
    for _, parameter in unread:
        parameter.requires_grad_(False)
    return [name for name, _ in unread]


def _two_layers(dim_in: int, hidden: int, dim_out: int, dropout: float, rate: float = 1.0) -> nn.Sequential:
    first, last = FasterLinear(dim_in, hidden, rate), FasterLinear(hidden, dim_out, rate)
    return nn.Sequential(first, nn.ReLU(), nn.Dropout(dropout), last)


def adversary_loss(logits: Tensor, codes: Tensor, most: float | None = None) -> Tensor:
    """(B,) loss of each row: 0 where its attribute is not known.

    Args:
        logits: (B, 1) for two classes, of class 1, else (B, A).
        codes: (B,) int64 classes of the attribute, MISSING where unknown.
        most: clip each row's loss there.
    """
    known = codes != MISSING
    if logits.shape[1] == 1:
        target = codes.clamp(min=0).to(torch.float32)
        losses = functional.binary_cross_entropy_with_logits(logits[:, 0].float(), target, reduction="none")
    else:
        losses = functional.cross_entropy(logits.float(), codes.clamp(min=0), reduction="none")
    if most is not None:
        losses = losses.clamp(max=most)
    return torch.where(known, losses, 0.0)
