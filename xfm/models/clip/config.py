"""CLIP as a recipe: which checkpoint; pictures are what it embeds, prompts what it compares them with."""

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from xfm.core.schema import IMAGE
from xfm.models.clip.files import find_clip_files
from xfm.models.hub_checkpoint import HubCheckpoint
from xfm.models.hub_folder import Files

if TYPE_CHECKING:
    from xfm.models.clip.network import CLIPBackbone
    from xfm.tokenizers.image import ImageTokenizer
    from xfm.tokenizers.text import TextTokenizer


class CLIP(HubCheckpoint):
    """Pictures and prompts in one space: OpenAI's ViT-B/32, B/16 and L/14, LAION's, or your own."""

    kind: Literal["clip"] = "clip"
    other_input = "pictures", "hub_images"

    @property
    def reads(self) -> tuple[str, ...]:
        """Columns that a source must give."""
        return (IMAGE,)

    def tokenizer(self, seed: int) -> "ImageTokenizer":  # noqa: ARG002 - nothing is drawn
        """Of pictures; reads settings, no weights.

        Raises:
            Refused: BAD_PREPROCESSOR, or as `loading.read_architecture`.
        """
        from xfm.models.clip.loading import image_tokenizer, read_architecture, read_images

        return image_tokenizer(read_architecture(self.folder).vision_config, read_images(self.folder))

    def prompt_tokenizer(self) -> "TextTokenizer":
        """Of texts, for `CLIPBackbone.texts`: cut at the network's length with the end token kept.

        Raises:
            Refused: BAD_TOKENIZER or BAD_EOS.
        """
        from xfm.models.clip.loading import read_subwords
        from xfm.tokenizers.text import TextTokenizer

        subwords, pad_id, length, before, after = read_subwords(self.folder)
        return TextTokenizer(subwords, pad_id, length, before, after)

    def build(self, device: str) -> "CLIPBackbone":
        """Reads the weights, or draws them; float32.

        Raises:
            Refused: unsafe or broken file, missing tensors.
        """
        from xfm.models.clip.loading import draw_backbone, read_backbone

        if self.random_weights is not None:
            return draw_backbone(self.folder, self.random_weights).to(device)
        return read_backbone(self.folder)[0].to(device)

    def files(self, *, weights: bool) -> Files:
        """See `HubCheckpoint`; what prepares pictures is among them."""
        return find_clip_files(self.folder, weights=weights)

    def architecture(self) -> dict[str, Any]:
        """See `HubCheckpoint`; with the sizes of pictures and prompts."""
        described = _describe(self.folder, self.random_weights is None)
        return described | self.tokenizer(0).describe() | {"max_length": self.prompt_tokenizer().max_length}

    def n_layers(self) -> int:
        """Transformer blocks of the image tower."""
        return int(self._architecture().vision_config.num_hidden_layers)

    def dim(self) -> int:
        """Width of a state of the image tower."""
        return int(self._architecture().vision_config.hidden_size)

    def _architecture(self) -> Any:
        from xfm.models.clip.loading import read_architecture

        return read_architecture(self.folder)


@lru_cache(maxsize=8)
def _sizes(folder: Path, has_weights: bool) -> tuple[int, tuple[str, ...]]:
    """Parameters, and tensors of the checkpoint that no part takes. Reads the weights and lets them go."""
    from xfm.models.clip.loading import draw_backbone, read_backbone

    backbone, unused = read_backbone(folder) if has_weights else (draw_backbone(folder, 0), [])
    return sum(parameter.numel() for parameter in backbone.parameters()), tuple(unused)


def _describe(folder: Path, has_weights: bool) -> dict[str, Any]:
    from xfm.models.clip.loading import eos_rule, read_architecture

    a = read_architecture(folder)
    parameters, unused = _sizes(folder, has_weights)
    towers = {
        name: {"n_layers": tower.num_hidden_layers, "dim": tower.hidden_size, "n_heads": tower.num_attention_heads}
        for name, tower in (("image", a.vision_config), ("text", a.text_config))
    }
    return {
        "architecture": {
            "family": a.model_type,
            **towers["image"],
            "patch_size": a.vision_config.patch_size,
            "text": towers["text"]
            | {"vocabulary": a.text_config.vocab_size, "read_at": eos_rule(a.text_config.eos_token_id)},
            "projection_dim": a.projection_dim,
            "parameters": parameters,
        },
        "unused": list(unused),
    }
