"""A text encoder of `transformers`, block by block.

Devlin et al., NAACL 2019 (BERT); Sanh et al., 2019 (DistilBERT); Liu et al., 2019 (RoBERTa). The modules and their
arithmetic are those of the package; the states are its `hidden_states`. Walking over the blocks ourselves lets a caller
stop early, and lets a CPU compute a large batch in groups of rows whose intermediate tensors stay in its cache.
"""

# Shapes: B rows, T tokens, D width.

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from xfm.core.backbone import Backbone
from xfm.core.tokenizer import Tokens
from xfm.models.pretrained import FAMILIES

GROUP_TOKENS = 512  # padded tokens that pass a block together on CPUs


class TextBackbone(Backbone):
    """A network of one of `FAMILIES`.

    Args:
        network: as `AutoModel` builds it, without its pooler.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        self.n_layers = int(network.config.num_hidden_layers)
        self.dim = int(network.config.hidden_size)

    @property
    def blocks(self) -> nn.ModuleList:
        blocks = self.network.get_submodule(FAMILIES[self.network.config.model_type])
        assert isinstance(blocks, nn.ModuleList)
        return blocks

    def layers(self, tokens: Tokens) -> Iterator[Tensor]:
        from transformers.masking_utils import create_bidirectional_mask

        shape, groups = tokens.ids.shape, _groups(tokens)
        states = [self.network.embeddings(input_ids=tokens.ids[rows, :length]) for rows, length in groups]
        masks = [
            create_bidirectional_mask(
                config=self.network.config, inputs_embeds=state, attention_mask=tokens.is_token[rows, :length]
            )
            for state, (rows, length) in zip(states, groups, strict=True)
        ]
        yield _joined(states, shape[1])
        for block in self.blocks:
            states = [block(state, mask) for state, mask in zip(states, masks, strict=True)]
            yield _joined(states, shape[1])


def _groups(tokens: Tokens) -> list[tuple[slice, int]]:
    """Consecutive rows and the length of the longest; all rows on a GPU, up to GROUP_TOKENS padded tokens on CPUs."""
    rows, longest = tokens.ids.shape
    if tokens.ids.device.type != "cpu":
        return [(slice(0, rows), longest)]
    groups: list[tuple[slice, int]] = []
    start, width = 0, 0
    for row, length in enumerate(tokens.is_token.sum(dim=1).tolist()):
        if row > start and (row - start + 1) * max(width, length) > GROUP_TOKENS:
            groups.append((slice(start, row), width))
            start, width = row, 0
        width = max(width, length)
    return [*groups, (slice(start, rows), width)]


def _joined(states: list[Tensor], longest: int) -> Tensor:
    """One (b, t, D) per group to (B, T, D)."""
    return torch.cat([functional.pad(state, (0, 0, 0, longest - state.shape[1])) for state in states])
