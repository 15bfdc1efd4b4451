"""A backbone with a head on its last state, and how much of it is trained."""

# Shapes: B rows, D width of a row's vector, K outputs: classes, or one number.

from collections import deque
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from xfm.core.backbone import Backbone
from xfm.core.random import key64
from xfm.core.tokenizer import Tokens
from xfm.models.adapters import LoRA, add_lora, freeze, keep_last, set_dropout
from xfm.models.head_settings import HeadName, HeadSettings
from xfm.models.reductions import Pool

INITIAL_STD = 0.02  # of the head's weights, as the package draws them


class Head(nn.Module):
    """(B, D) to (B, K), with dropout before the last layer. Weights are drawn as the package draws them: normal with
    deviation 0.02, biases 0."""

    def __init__(self, dim: int, n_outputs: int, name: HeadName, dropout: float, seed: int) -> None:
        super().__init__()
        self.pre_classifier = nn.Linear(dim, dim) if name == "mlp" else None
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(dim, n_outputs)
        generator = torch.Generator().manual_seed(key64(seed, "head"))
        for layer in (self.pre_classifier, self.classifier):
            if layer is not None:
                nn.init.normal_(layer.weight, std=INITIAL_STD, generator=generator)
                nn.init.zeros_(layer.bias)

    def forward(self, vectors: Tensor) -> Tensor:
        """(B, D) to (B, K)."""
        if self.pre_classifier is not None:
            vectors = functional.relu(self.pre_classifier(vectors))
        logits: Tensor = self.classifier(self.dropout(vectors))
        return logits


class HeadedBackbone(nn.Module):
    """Rows to what a head says of them; of the backbone only `layers` is called. Modules that are `frozen` stay in
    evaluation mode while the rest trains."""

    def __init__(self, backbone: Backbone, pool: Pool, head: Head, frozen: Sequence[nn.Module] = ()) -> None:
        super().__init__()
        self.backbone, self.head, self.pool = backbone, head, pool
        self._frozen = tuple(frozen)
        self._is_fixed = not any(parameter.requires_grad for parameter in backbone.parameters())

    def forward(self, tokens: Tokens) -> Tensor:
        """(B, K)."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self._is_fixed):
            last = deque(self.backbone.layers(tokens), maxlen=1)[0]
            (vectors,) = self.pool(last, tokens, self.backbone).values()
        logits: Tensor = self.head(vectors.float())
        return logits

    def train(self, mode: bool = True) -> "HeadedBackbone":
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self


def put_head(backbone: Backbone, task: HeadSettings, n_outputs: int, seed: int) -> HeadedBackbone:
    """A backbone, as its checkpoint has it and changed in place, with its head at step 0.

    Raises:
        Refused: NO_LORA or FEW_BLOCKS.
    """
    head = Head(backbone.dim, n_outputs, task.head, task.dropout, seed)
    frozen: Sequence[nn.Module] = ()
    if task.network_dropout is not None:
        set_dropout(backbone, task.network_dropout)
    if task.mode == "lora":
        add_lora(backbone, lora_of(task, seed))
    elif task.mode == "last_n":
        frozen = keep_last(backbone, task.last_n)
    elif task.mode == "head":
        freeze(backbone)
        frozen = (backbone,)
    # Running statistics would be those of one worker's passes: they stay as pretrained.
    fixed = [module for module in backbone.modules() if isinstance(module, _BatchNorm)]
    return HeadedBackbone(backbone, Pool(task.pool), head, [*frozen, *fixed])


def lora_of(task: HeadSettings, seed: int) -> LoRA:
    """The recipe of low-rank updates."""
    return LoRA(task.rank, task.alpha, task.lora_dropout, seed=seed)


def freeze_unreached(headed: HeadedBackbone, tokens: Tokens) -> list[str]:
    """Parameters that no output depends on (decoders, another tower) are not trained: weight decay would shrink them.

    Takes a network at step 0 and the tokens of any row; gives the names of these parameters.
    """
    named = [(name, parameter) for name, parameter in headed.named_parameters() if parameter.requires_grad]
    headed.eval()
    with torch.enable_grad():
        summed = headed(tokens).sum()
    found = torch.autograd.grad(summed, [parameter for _, parameter in named], allow_unused=True)
    unreached = [(name, parameter) for (name, parameter), grad in zip(named, found, strict=True) if grad is None]
    for _, parameter in unreached:
        parameter.requires_grad_(False)
    return [name for name, _ in unreached]
