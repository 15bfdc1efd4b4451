"""CLIP as a recipe: which checkpoint; pictures are what it embeds, prompts what it compares them with."""

import logging
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import pyarrow as pa
from pydantic import NonNegativeInt, field_validator

from xfm.core.config import Config, fingerprint
from xfm.core.errors import Refused
from xfm.core.hub import Fetched, fetch_folder
from xfm.core.schema import IMAGE
from xfm.models.clip.files import find_clip_files
from xfm.models.hub_folder import PATTERNS, digests, read_json

if TYPE_CHECKING:
    from xfm.models.clip.network import CLIPBackbone
    from xfm.tokenizers.image import ImageTokenizer
    from xfm.tokenizers.text import TextTokenizer

logger = logging.getLogger(__name__)


class CLIP(Config):
    """Pictures and prompts in one space: OpenAI's ViT-B/32, B/16 and L/14, LAION's, or your own."""

    kind: Literal["clip"] = "clip"

    checkpoint: str
    """Folder with model.safetensors, config.json, preprocessor_config.json and the tokenizer's files; or hf://OWNER/NAME[@REVISION]."""

    random_weights: NonNegativeInt | None = None
    """Seed of fresh weights in place of the checkpoint's: same architecture and tokens, nothing learned."""

    @field_validator("checkpoint")
    @classmethod
    def _absolute(cls, path: str) -> str:
        """Workers run in folders of their own."""
        return path if path.startswith("hf://") else str(Path(path).expanduser().absolute())

    @classmethod
    def neutral_fields(cls) -> set[str]:
        """Where the files lie; `identity` says what they are."""
        return {"checkpoint"}

    @property
    def reads(self) -> tuple[str, ...]:
        """Columns that a source must give."""
        return (IMAGE,)

    @property
    def folder(self) -> Path:
        """The checkpoint on this machine, fetched where it is the Hub's."""
        return self._fetched().folder

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

    def identity(self) -> dict[str, Any]:
        """File digests, and the commit of a Hub checkpoint; of fresh weights what they follow from."""
        fetched = self._fetched()
        files = find_clip_files(fetched.folder, weights=self.random_weights is None)
        identity: dict[str, Any] = dict(digests(files))
        if self.random_weights is not None:
            identity |= {
                "weights": "random",
                "seed": self.random_weights,
                "architecture": fingerprint(read_json(files.settings)),
            }
        return identity | ({"revision": fetched.revision} if fetched.revision else {})

    def describe(self) -> dict[str, Any]:
        """Sizes, and what of the checkpoint is not used.

        Raises:
            Refused: as `build`, `tokenizer` and `prompt_tokenizer`.
        """
        described = _describe(self.folder, self.random_weights is None)
        described |= self.tokenizer(0).describe() | {"max_length": self.prompt_tokenizer().max_length}
        if self.random_weights is not None:
            described["weights"] = f"random, seed {self.random_weights}"
            logger.warning(
                "fresh weights from seed %d: nothing that %s learned is used", self.random_weights, self.folder
            )
        return described

    def n_layers(self) -> int:
        """Transformer blocks of the image tower."""
        return int(self._architecture().vision_config.num_hidden_layers)

    def dim(self) -> int:
        """Width of a state of the image tower."""
        return int(self._architecture().vision_config.hidden_size)

    def check_genes(self, genes: pa.Table) -> dict[str, Any]:
        """Refuses every gene table.

        Raises:
            Refused: OTHER_INPUT.
        """
        raise Refused(
            "OTHER_INPUT",
            f"the source gives cells with {genes.num_rows} genes; --backbone.kind {self.kind} reads pictures, e.g. "
            "those of --source.kind hub_images",
        )

    def check_decoder(self) -> None:
        """Raises Refused: NO_DECODER, since no expression can be decoded from pictures."""
        raise Refused("NO_DECODER", f"--backbone.kind {self.kind} has no expression decoder; use embed and evaluate")

    def randomised(self, seed: int) -> Self:
        """This recipe with fresh weights."""
        return self.model_copy(update={"random_weights": seed})

    def _fetched(self) -> Fetched:
        return fetch_folder(self.checkpoint, PATTERNS)

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
