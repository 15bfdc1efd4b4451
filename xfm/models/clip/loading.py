"""Network and prompt tokenizer out of a CLIP checkpoint folder."""

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xfm.core.errors import Refused
from xfm.models import pretrained
from xfm.models.clip.files import Preparation, find_clip_files, read_preparation
from xfm.models.hub_folder import SETTINGS, read_json

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Subwords

    from xfm.models.clip.network import CLIPBackbone
    from xfm.tokenizers.image import ImageTokenizer

# A text's embedding is read at its end token. With this number in config.json, that of every checkpoint converted
# before July 2023, transformers looks for the largest id instead of for the end token's.
BY_LARGEST_ID = 2


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
    """The tokenizer of prompts: cuts at the network's length, keeping the end token, and does not pad.

    Returns:
        The tokenizer, the id of padding, the length, and how many special tokens stand in front and behind.

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


def eos_rule(configured: Any) -> str:
    """Where a text is read, in words."""
    return "largest id" if configured == BY_LARGEST_ID else "first end token"


def read_backbone(folder: Path) -> tuple["CLIPBackbone", list[str]]:
    """The network on the CPU in evaluation mode, and the names of tensors that belong to none of its parts.

    Raises:
        Refused: BROKEN_WEIGHTS, MISSING_TENSORS or OTHER_SHAPES, or as `read_images`.
    """
    architecture, preparation = read_architecture(folder), read_images(folder)
    find_clip_files(folder)
    network, unused = pretrained.read_network(folder, architecture, "encoder.layers.")
    return _backbone(network, preparation), unused


def draw_backbone(folder: Path, seed: int) -> "CLIPBackbone":
    """The same network with weights drawn as `transformers` draws them; on the CPU, in evaluation mode."""
    return _backbone(pretrained.draw_network(read_architecture(folder), seed), read_images(folder))


def _backbone(network: Any, preparation: Preparation) -> "CLIPBackbone":
    from xfm.models.clip.network import CLIPBackbone

    return CLIPBackbone(network, preparation.mean, preparation.std).eval()
