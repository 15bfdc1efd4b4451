"""Tokenizers and networks of text encoders out of a checkpoint folder."""

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xfm.core.errors import Refused
from xfm.models import pretrained
from xfm.models.hf_text.files import FAMILIES, POSITIONS_AFTER_PADDING, read_family
from xfm.models.hub_folder import find_files

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Subwords

LONGEST = 512  # tokens; what these families were trained on, whatever their tables could hold
HEAD = "pooler."  # on top of the last state, in BERT and RoBERTa; no layer


@lru_cache(maxsize=8)
def read_architecture(folder: Path) -> Any:
    """config.json with every default filled in, as a `PreTrainedConfig`.

    Raises:
        Refused: NO_SETTINGS, BAD_SETTINGS or UNKNOWN_FAMILY.
    """
    read_family(find_files(folder, weights=False).settings)
    return pretrained.read_config(folder)


@lru_cache(maxsize=8)
def read_subwords(folder: Path, max_length: int | None) -> tuple["Subwords", int, int, int, int]:
    """The tokenizer that cuts at a length and does not pad.

    Args:
        folder: of the checkpoint.
        max_length: None for the model's own limit, at most 512.

    Returns:
        The tokenizer, the id of padding, the length, and how many special tokens stand in front and behind.

    Raises:
        Refused: BAD_TOKENIZER, TOO_LONG, or as `read_architecture`.
    """
    architecture = read_architecture(folder)
    tokenizer = pretrained.read_tokenizer(folder, architecture.vocab_size)
    limit = _positions(architecture)
    if max_length is not None and max_length > limit:
        raise Refused("TOO_LONG", f"--backbone.max_length {max_length}: this network has {limit} positions")
    length = max_length or min(LONGEST, limit, tokenizer.model_max_length)
    before, after = pretrained.cut_subwords(tokenizer.backend_tokenizer, length, str(folder))
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else architecture.pad_token_id
    return tokenizer.backend_tokenizer, int(pad or 0), length, before, after


def _positions(architecture: Any) -> int:
    """Tokens that the table of positions has room for."""
    skipped = architecture.pad_token_id + 1 if architecture.model_type in POSITIONS_AFTER_PADDING else 0
    return int(architecture.max_position_embeddings - skipped)


def read_network(folder: Path) -> tuple[Any, list[str]]:
    """The network on the CPU, without a head, and the names of tensors that belong to none of its parts.

    Raises:
        Refused: BROKEN_WEIGHTS, MISSING_TENSORS or OTHER_SHAPES, or as `read_architecture` and `find_files`.
    """
    architecture = read_architecture(folder)
    find_files(folder)
    blocks = f"{FAMILIES[architecture.model_type]}."
    network, unused = pretrained.read_network(folder, architecture, blocks, (HEAD,))
    return _without_head(network), unused


def draw_network(folder: Path, seed: int) -> Any:
    """The same network with weights drawn as `transformers` draws them; in training mode, on the CPU."""
    return _without_head(pretrained.draw_network(read_architecture(folder), seed))


def _without_head(network: Any) -> Any:
    if hasattr(network, "pooler"):
        network.pooler = None
    return network
