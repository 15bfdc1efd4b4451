"""CLIP: an image tower and a text tower that meet in one space; the image tower is read block by block.

Radford et al., ICML 2021. The modules and their arithmetic are those of `transformers`: the states are the image
tower's `hidden_states`, `texts` the projected text features. `lens` reads any layer as if it were the last
(nostalgebraist, 2020, "logit lens"), so that zero-shot classification works on every layer. Nothing here switches
gradients off, and adapters may take the place of linear modules.
"""

# Shapes: B rows, T patches and the class token, D width of the image tower, P width of the common space.

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from xfm.core.backbone import Backbone
from xfm.core.tokenizer import Tokens
from xfm.models.clip.files import MEAN, STD

GROUP_TOKENS = 512  # tokens that pass a block together on CPUs, so that what lies between stays in their cache


class CLIPBackbone(Backbone):
    """Both towers.

    Args:
        network: a `transformers.CLIPModel`.
        mean: of red, green and blue, which pictures are normalised by.
        std: likewise.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: Any, mean: Sequence[float] = MEAN, std: Sequence[float] = STD) -> None:
        super().__init__()
        self.network = network
        self.n_layers = int(network.config.vision_config.num_hidden_layers)
        self.dim = int(network.config.vision_config.hidden_size)
        self.projection_dim = int(network.config.projection_dim)
        self.register_buffer("mean", torch.tensor(mean).reshape(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).reshape(3, 1, 1), persistent=False)

    @property
    def blocks(self) -> nn.ModuleList:
        """The image tower's transformer blocks, the first applied first."""
        blocks = self.network.vision_model.encoder.layers
        assert isinstance(blocks, nn.ModuleList)
        return blocks

    @property
    def scale(self) -> Tensor:
        """() what cosines are multiplied by: 100 in OpenAI's checkpoints."""
        scale: Tensor = self.network.logit_scale.exp()
        return scale

    def layers(self, tokens: Tokens) -> Iterator[Tensor]:
        """Yields n_layers + 1 states (B, T, D) of the image tower, 0 after `pre_layrnorm`; see `Backbone.layers`."""
        assert tokens.pixels is not None
        tower = self.network.vision_model
        rows, length = tokens.ids.shape
        group = max(1, GROUP_TOKENS // length) if tokens.pixels.device.type == "cpu" else max(1, rows)
        states = [
            tower.pre_layrnorm(tower.embeddings(self.normalised(part))) for part in torch.split(tokens.pixels, group)
        ]
        yield torch.cat(states)
        for block in self.blocks:
            states = [block(state, None) for state in states]
            yield torch.cat(states)

    def normalised(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S) uint8 to what the image tower was trained on, float32."""
        return (pixels.float() / 255 - self.mean) / self.std

    def lens(self, state: Tensor) -> Tensor:
        """(B, T, D) state of any layer to (B, P) unit vectors; of the last layer, the image's embedding."""
        pooled = self.network.vision_model.post_layernorm(state[:, 0])
        return functional.normalize(self.network.visual_projection(pooled), dim=-1)

    def images(self, tokens: Tokens) -> Tensor:
        """(B, P) unit vectors."""
        return self.lens(deque(self.layers(tokens), maxlen=1)[0])

    def texts(self, ids: Tensor, is_token: Tensor) -> Tensor:
        """Texts as unit vectors.

        Args:
            ids: (B, K) of `CLIP.prompt_tokenizer`.
            is_token: (B, K), False at padding.

        Returns:
            (B, P).
        """
        found = self.network.get_text_features(input_ids=ids, attention_mask=is_token.long())
        # Projected already; on towers of one width a second projection would pass unnoticed.
        return functional.normalize(found.pooler_output, dim=-1)
