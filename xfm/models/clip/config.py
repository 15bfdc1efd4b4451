"""CLIP as a recipe: which checkpoint; it embeds pictures and compares them with prompts. Light to import."""

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from xfm.core.errors import Refused
from xfm.core.schema import IMAGE
from xfm.models import pretrained
from xfm.models.clip.files import Preparation, find_clip_files, read_preparation
from xfm.models.hub_folder import SETTINGS, Files, HubCheckpoint, read_json
from xfm.tokenizers.text import TextTokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Subwords

    from xfm.models.clip.network import CLIPBackbone
    from xfm.tokenizers.image import ImageTokenizer

# A text's embedding is read at its end token. With this number in config.json, that of every checkpoint converted
# before July 2023, transformers looks for the largest id instead of for the end token's.
BY_LARGEST_ID = 2


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
            Refused: BAD_PREPROCESSOR, or as `read_architecture`.
        """
        return image_tokenizer(read_architecture(self.folder).vision_config, read_images(self.folder))

    def prompt_tokenizer(self) -> TextTokenizer:
        """Of texts, for `CLIPBackbone.texts`: cut at the network's length with the end token kept.

        Raises:
            Refused: BAD_TOKENIZER or BAD_EOS.
        """
        return TextTokenizer(*read_subwords(self.folder))

    def build(self, device: str) -> "CLIPBackbone":
        """Reads the weights, or draws them; float32.

        Raises:
            Refused: unsafe or broken file, missing tensors.
        """
        return _backbone(self.folder, self.random_weights)[0].to(device)

    def files(self, *, weights: bool) -> Files:
        """See `HubCheckpoint`; what prepares pictures is among them."""
        return find_clip_files(self.folder, weights=weights)

    def architecture(self) -> dict[str, Any]:
        """See `HubCheckpoint`; with the sizes of pictures and prompts."""
        a = read_architecture(self.folder)
        parameters, unused = _sizes(self.folder, self.random_weights is None)
        read_at = "largest id" if a.text_config.eos_token_id == BY_LARGEST_ID else "first end token"
        text = {"vocabulary": a.text_config.vocab_size, "read_at": read_at}
        architecture = {"family": a.model_type, **pretrained.tower_sizes(a.vision_config)}
        architecture |= {"patch_size": a.vision_config.patch_size, "text": pretrained.tower_sizes(a.text_config) | text}
        architecture |= {"projection_dim": a.projection_dim, "parameters": parameters}
        described = {"architecture": architecture, "unused": list(unused)}
        return described | self.tokenizer(0).describe() | {"max_length": self.prompt_tokenizer().max_length}

    def n_layers(self) -> int:
        """Transformer blocks of the image tower."""
        return int(read_architecture(self.folder).vision_config.num_hidden_layers)

    def dim(self) -> int:
        """Width of a state of the image tower."""
        return int(read_architecture(self.folder).vision_config.hidden_size)


@lru_cache(maxsize=8)
def read_architecture(folder: Path) -> Any:
    """config.json with every default filled in, as a `CLIPConfig`.

    Raises:
        Refused: NO_SETTINGS, BAD_SETTINGS or UNKNOWN_FAMILY.
    """
    settings = find_clip_files(folder, weights=False).settings
    family = read_json(settings).get("model_type")
    if family != "clip":
        raise Refused("UNKNOWN_FAMILY", f"{settings}: model_type {family!r}; --backbone.kind clip reads 'clip'")
    config = pretrained.read_config(folder)
    vision = config.vision_config
    sizes = vision.image_size, vision.patch_size
    if not all(isinstance(size, int) and size > 0 for size in sizes) or vision.num_channels != 3:
        raise Refused(
            "BAD_SETTINGS",
            f"{settings}: image_size {sizes[0]}, patch_size {sizes[1]}, num_channels {vision.num_channels}; squares in "
            "three colours are read",
        )
    return config


@lru_cache(maxsize=8)
def read_images(folder: Path) -> Preparation:
    """How pictures are prepared.

    Raises:
        Refused: BAD_PREPROCESSOR, or as `read_architecture`.
    """
    preparation, size = read_preparation(folder), read_architecture(folder).vision_config.image_size
    if preparation.size != size:
        raise Refused(
            "BAD_PREPROCESSOR",
            f"{folder}: pictures are cropped to {preparation.size} pixels, the network sees {size}: they do not belong "
            "together",
        )
    return preparation


def image_tokenizer(vision: Any, preparation: Preparation) -> "ImageTokenizer":
    """For the `vision_config` of an architecture."""
    from xfm.tokenizers.image import ImageTokenizer

    return ImageTokenizer(preparation.size, preparation.edge, (vision.image_size // vision.patch_size) ** 2 + 1)


@lru_cache(maxsize=8)
def read_subwords(folder: Path) -> tuple["Subwords", int, int, int, int]:
    """The tokenizer of prompts, as the fields of `TextTokenizer`: cuts at the network's length, keeping the end token.

    Raises:
        Refused: BAD_TOKENIZER, BAD_EOS, or as `read_architecture`.
    """
    text = read_architecture(folder).text_config
    tokenizer = pretrained.read_tokenizer(folder, text.vocab_size)
    length = min(text.max_position_embeddings, tokenizer.model_max_length)
    before, after = pretrained.cut_subwords(tokenizer.backend_tokenizer, length, str(folder))
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    _check_eos(folder, text.eos_token_id, tokenizer, pad)
    return tokenizer.backend_tokenizer, int(pad), length, before, after


def _check_eos(folder: Path, configured: Any, tokenizer: Any, pad: Any) -> None:
    """Whether texts are read where they end; otherwise all of them would get nearly the same embedding.

    Raises:
        Refused: BAD_TOKENIZER, texts do not end in an end token, or BAD_EOS.
    """
    end = tokenizer.eos_token_id
    if end is None or pad is None or tokenizer.backend_tokenizer.encode("a").ids[-1] != end:
        raise Refused("BAD_TOKENIZER", f"{folder}: the tokenizer puts no end token behind a text, where CLIP reads it")
    where = f"{folder / SETTINGS}: text_config.eos_token_id {configured}"
    mend = f"set it to {end}, the id of {tokenizer.eos_token!r}"
    if configured != BY_LARGEST_ID:
        if configured != end:
            raise Refused("BAD_EOS", f"{where} is not the tokenizer's end token: texts would be read elsewhere; {mend}")
        return
    largest = max(tokenizer.backend_tokenizer.get_vocab(with_added_tokens=True).values())
    if end != largest:
        raise Refused(
            "BAD_EOS",
            f"{where} makes transformers read a text at its largest id, but ids reach {largest} beyond the end "
            f"token's; {mend}",
        )


def _backbone(folder: Path, seed: int | None) -> tuple["CLIPBackbone", list[str]]:
    """The network on the CPU in evaluation mode, and the names of tensors that belong to none of its parts; with
    weights drawn as `transformers` draws them where there is a seed."""
    from xfm.models.clip.network import CLIPBackbone

    architecture, preparation = read_architecture(folder), read_images(folder)
    if seed is None:
        find_clip_files(folder)
        network, unused = pretrained.read_network(folder, architecture, "encoder.layers.")
    else:
        network, unused = pretrained.draw_network(architecture, seed), []
    return CLIPBackbone(network, preparation.mean, preparation.std).eval(), unused


@lru_cache(maxsize=8)
def _sizes(folder: Path, has_weights: bool) -> tuple[int, tuple[str, ...]]:
    """Parameters, and tensors of the checkpoint that no part takes. Reads the weights and lets them go."""
    backbone, unused = _backbone(folder, None if has_weights else 0)
    return sum(parameter.numel() for parameter in backbone.parameters()), tuple(unused)
