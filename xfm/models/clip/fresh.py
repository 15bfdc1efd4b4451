"""CLIP before its first step of training: sizes, byte pairs learned from captions, and weights drawn from a seed."""

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Self

import pyarrow as pa
from pydantic import PositiveInt, field_validator, model_validator

from xfm.core.config import Config, fingerprint
from xfm.core.errors import Refused
from xfm.core.schema import IMAGE
from xfm.models.clip.files import MEAN, STD, Preparation

if TYPE_CHECKING:
    from xfm.models.clip.network import CLIPBackbone
    from xfm.tokenizers.image import ImageTokenizer
    from xfm.tokenizers.text import TextTokenizer

START, END = "<|startoftext|>", "<|endoftext|>"


class CLIPSizes(Config):
    """Sizes of both towers; by default those of a small network that learns 32-pixel pictures on a CPU."""

    image_size: PositiveInt = 32
    """Edge of the square that is seen, in pixels."""

    patch_size: PositiveInt = 8
    """Edge of a patch, in pixels."""

    image_width: PositiveInt = 96
    """Width of a state of the image tower."""

    image_layers: PositiveInt = 4
    """Blocks of the image tower."""

    image_heads: PositiveInt = 4
    """Attention heads of the image tower."""

    text_width: PositiveInt = 64
    """Width of a state of the text tower."""

    text_layers: PositiveInt = 3
    """Blocks of the text tower."""

    text_heads: PositiveInt = 4
    """Attention heads of the text tower."""

    text_length: PositiveInt = 16
    """Tokens of a caption, start and end included; longer ones are cut."""

    projection_dim: PositiveInt = 64
    """Width of the space in which pictures and captions meet."""

    @model_validator(mode="after")
    def _divide(self) -> Self:
        towers = ("image", self.image_width, self.image_heads), ("text", self.text_width, self.text_heads)
        for tower, width, heads in towers:
            if width % heads:
                raise ValueError(f"{tower}_width {width} is no multiple of {tower}_heads {heads}")
        if self.image_size % self.patch_size:
            raise ValueError(f"image_size {self.image_size} is no multiple of patch_size {self.patch_size}")
        if self.text_length < 3:
            raise ValueError(f"text_length {self.text_length} leaves no room between start and end")
        return self


class FreshCLIP(Config):
    """An untrained CLIP (Radford et al., ICML 2021)."""

    # byte pairs in the order of their ids, <|startoftext|> and <|endoftext|> last; see `byte_pairs`
    tokens: tuple[str, ...]
    merges: tuple[str, ...]  # pairs in the order in which they are joined, a space between the two parts
    sizes: CLIPSizes = CLIPSizes()  # of both towers
    seed: int = 0  # of the initial weights

    @field_validator("tokens")
    @classmethod
    def _ends(cls, tokens: tuple[str, ...]) -> tuple[str, ...]:
        if tokens[-2:] != (START, END):
            raise ValueError(f"the last two tokens must be {START} and {END}, not {tokens[-2:]}")
        return tokens

    @classmethod
    def from_captions(
        cls, captions: Iterable[str], sizes: CLIPSizes, *, seed: int = 0, vocabulary_size: int = 1000
    ) -> Self:
        """With byte pairs learned from captions; the same for the same captions, whatever their order."""
        tokens, merges = byte_pairs(captions, vocabulary_size)
        return cls(tokens=tokens, merges=merges, sizes=sizes, seed=seed)

    @property
    def reads(self) -> tuple[str, ...]:
        """Columns that a source must give."""
        return (IMAGE,)

    @property
    def preparation(self) -> Preparation:
        """Pictures are normalised as OpenAI's are."""
        return Preparation(self.sizes.image_size, self.sizes.image_size, MEAN, STD)

    def tokenizer(self, seed: int) -> "ImageTokenizer":  # noqa: ARG002 - nothing is drawn
        from xfm.tokenizers.image import ImageTokenizer

        s = self.sizes
        return ImageTokenizer(s.image_size, s.image_size, (s.image_size // s.patch_size) ** 2 + 1)

    def prompt_tokenizer(self) -> "TextTokenizer":
        """Of captions."""
        from xfm.models.pretrained import cut_subwords
        from xfm.tokenizers.text import TextTokenizer

        tokenizer = self.hub_tokenizer()
        before, after = cut_subwords(tokenizer.backend_tokenizer, self.sizes.text_length, "the captions")
        return TextTokenizer(tokenizer.backend_tokenizer, tokenizer.pad_token_id, self.sizes.text_length, before, after)

    def hub_tokenizer(self) -> Any:
        """As `transformers` has it."""
        from transformers import CLIPTokenizer

        vocabulary = {token: index for index, token in enumerate(self.tokens)}
        merges: list[Any] = [tuple(pair.split(" ")) for pair in self.merges]
        return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=self.sizes.text_length)

    def build(self, device: str) -> "CLIPBackbone":
        """The network with initial weights, the same on every worker and machine; in evaluation mode."""
        from xfm.models.clip.network import CLIPBackbone
        from xfm.models.pretrained import draw_network

        prepared = self.preparation
        return CLIPBackbone(draw_network(self.hub_config(), self.seed), prepared.mean, prepared.std).to(device).eval()

    def hub_config(self) -> Any:
        """As `transformers` has it. The end token is named: by default texts would all be read at their start."""
        from transformers import CLIPConfig

        s, last = self.sizes, len(self.tokens) - 1
        text = {
            "vocab_size": len(self.tokens), "max_position_embeddings": s.text_length, "hidden_size": s.text_width,
            "intermediate_size": 4 * s.text_width, "num_hidden_layers": s.text_layers,
            "num_attention_heads": s.text_heads, "projection_dim": s.projection_dim,
            "bos_token_id": last - 1, "eos_token_id": last, "pad_token_id": last,
        }  # fmt: skip
        vision = {
            "image_size": s.image_size, "patch_size": s.patch_size, "hidden_size": s.image_width,
            "intermediate_size": 4 * s.image_width, "num_hidden_layers": s.image_layers,
            "num_attention_heads": s.image_heads, "projection_dim": s.projection_dim,
        }  # fmt: skip
        return CLIPConfig(text_config=text, vision_config=vision, projection_dim=s.projection_dim)

    def identity(self) -> dict[str, Any]:
        """What stands in for the digest of weights: sizes, seed and the digest of the byte pairs."""
        pairs = {"tokens": list(self.tokens), "merges": list(self.merges)}
        return {"initial": self.sizes.model_dump(mode="json"), "seed": self.seed, "vocabulary": fingerprint(pairs)}

    def describe(self) -> dict[str, Any]:
        return {"architecture": self.sizes.model_dump(mode="json") | {"vocabulary": len(self.tokens)}}

    def n_layers(self) -> int:
        """Transformer blocks of the image tower."""
        return self.sizes.image_layers

    def dim(self) -> int:
        """Width of a state of the image tower."""
        return self.sizes.image_width

    def check_genes(self, genes: pa.Table) -> dict[str, Any]:
        raise Refused("OTHER_INPUT", f"the source gives cells with {genes.num_rows} genes; CLIP reads pictures")

    def randomised(self, seed: int) -> Self:
        return self.model_copy(update={"seed": seed})


def byte_pairs(captions: Iterable[str], size: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Byte pairs as OpenAI's CLIP has them, learned from captions.

    Args:
        captions: their order does not matter.
        size: of the vocabulary at most; 514 tokens, every byte inside and at the end of a word and the two special
            tokens, are always there.

    Returns:
        Tokens in the order of their ids, the end token last as in OpenAI's: with it, the older rule of `transformers`,
        which reads a text at its largest id, is right too. And the merges.

    Source: Sennrich et al., ACL 2016, over bytes (Radford et al., 2019).
    """
    from tokenizers import Tokenizer, models, trainers
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTokenizer

    empty = CLIPTokenizer(vocab=None).backend_tokenizer
    trained = Tokenizer(models.BPE(unk_token=END, end_of_word_suffix="</w>"))
    trained.normalizer, trained.pre_tokenizer = empty.normalizer, empty.pre_tokenizer
    letters = sorted(ByteLevel.alphabet())
    # Declared special, they get their ids here; otherwise as words bring them, and rare endings not at all.
    endings = [f"{letter}</w>" for letter in letters]
    trainer = trainers.BpeTrainer(
        vocab_size=max(size, len(letters + endings) + 2) - 2, initial_alphabet=letters, end_of_word_suffix="</w>",
        special_tokens=endings, show_progress=False,
    )  # fmt: skip
    trained.train_from_iterator(sorted(captions), trainer)
    model = json.loads(trained.to_str())["model"]
    pairs = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    learned = [token for token, _ in sorted(model["vocab"].items(), key=lambda item: item[1])]
    return tuple(dict.fromkeys([*letters, *learned, START, END])), tuple(pairs)
