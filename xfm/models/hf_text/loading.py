"""Tokenizers and networks out of a checkpoint folder, by `transformers`: no network, no code of the checkpoint's own.

Only safetensors are read, always into float32 ("auto", the default of transformers 5, follows the file and would give
half precision on CPUs), and a tensor that is missing is an error instead of a draw from a random generator.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xfm.core.errors import Refused
from xfm.core.random import key64
from xfm.models.hf_text.files import FAMILIES, POSITIONS_AFTER_PADDING, find_files, read_family

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
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    settings = find_files(folder, weights=False).settings
    read_family(settings)
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, TypeError, StrictDataclassError) as problem:
        raise Refused("BAD_SETTINGS", f"{settings}: {problem}") from problem


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
    from transformers import AutoTokenizer

    architecture = read_architecture(folder)
    try:
        with _quiet():
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
        raise Refused("BAD_TOKENIZER", f"{folder}: the tokenizer cannot be read: {problem}") from problem
    if not tokenizer.is_fast:
        raise Refused("BAD_TOKENIZER", f"{folder}: {type(tokenizer).__name__} needs a tokenizer.json")
    subwords = tokenizer.backend_tokenizer
    largest = max(subwords.get_vocab(with_added_tokens=True).values(), default=-1)
    if not 0 <= largest < architecture.vocab_size:
        raise Refused(
            "BAD_TOKENIZER",
            f"{folder}: the tokenizer's ids reach {largest}, the network knows 0 to {architecture.vocab_size - 1}: "
            "they do not belong together",
        )
    limit = _positions(architecture)
    if max_length is not None and max_length > limit:
        raise Refused("TOO_LONG", f"--backbone.max_length {max_length}: this network has {limit} positions")
    length = max_length or min(LONGEST, limit, tokenizer.model_max_length)
    subwords.no_padding()
    subwords.no_truncation()
    is_special = subwords.encode("a").special_tokens_mask
    before = is_special.index(0) if 0 in is_special else 0
    after = is_special[::-1].index(0) if 0 in is_special else 0
    if before == 0 or length <= before + after:
        raise Refused(
            "BAD_TOKENIZER",
            f"{folder}: {before} special tokens stand before a text and {after} behind it; one before is needed, which "
            f"`cls` reads, and room for the text in {length} tokens",
        )
    subwords.enable_truncation(length)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else architecture.pad_token_id
    return subwords, int(pad or 0), length, before, after


def _positions(architecture: Any) -> int:
    """Tokens that the table of positions has room for."""
    skipped = architecture.pad_token_id + 1 if architecture.model_type in POSITIONS_AFTER_PADDING else 0
    return int(architecture.max_position_embeddings - skipped)


def read_network(folder: Path) -> tuple[Any, list[str]]:
    """The network on the CPU, without a head, and the names of tensors that belong to none of its parts.

    Raises:
        Refused: BROKEN_WEIGHTS, MISSING_TENSORS or OTHER_SHAPES, or as `read_architecture` and `find_files`.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModel

    architecture = read_architecture(folder)
    find_files(folder)
    try:
        with _quiet():
            network, found = AutoModel.from_pretrained(
                folder, config=architecture, dtype=torch.float32, attn_implementation="sdpa", use_safetensors=True,
                local_files_only=True, trust_remote_code=False, output_loading_info=True, ignore_mismatched_sizes=True,
            )  # fmt: skip
    except (SafetensorError, OSError, ValueError, RuntimeError, KeyError) as problem:
        raise Refused("BROKEN_WEIGHTS", f"{folder}: the weights cannot be read: {problem}") from problem
    _check_tensors(folder, architecture.model_type, found)
    return _without_head(network), sorted(found["unexpected_keys"])


def _check_tensors(folder: Path, family: str, found: Mapping[str, Any]) -> None:
    """Raises Refused: MISSING_TENSORS or OTHER_SHAPES, where config.json describes another network than the weights."""
    missing = sorted(name for name in found["missing_keys"] if not name.startswith(HEAD))
    beyond = sorted(name for name in found["unexpected_keys"] if f"{FAMILIES[family]}." in name)
    for names, what in ((missing, "asks for"), (beyond, "has no block for")):
        if names:
            raise Refused(
                "MISSING_TENSORS",
                f"{folder}: config.json {what} {len(names)} tensors that the weights {'lack' if missing else 'hold'}, "
                f"e.g. {', '.join(names[:3])}; is it that of these weights?",
            )
    if wrong := sorted((name, tuple(file), tuple(network)) for name, file, network in found["mismatched_keys"]):
        name, file, network = wrong[0]
        raise Refused(
            "OTHER_SHAPES",
            f"{folder}: {name} is {file} in the weights and {network} by config.json, one of {len(wrong)} such tensors",
        )


def draw_network(folder: Path, seed: int) -> Any:
    """The same network with weights drawn as `transformers` draws them; in training mode, on the CPU."""
    import torch
    from transformers import AutoModel

    auto: Any = AutoModel
    architecture = read_architecture(folder)
    # Initialisers take no generator. The CPU's is put back; torch.manual_seed would also reseed those of GPUs.
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(key64(seed, "weights"))
        return _without_head(
            auto.from_config(architecture, dtype=torch.float32, attn_implementation="sdpa", trust_remote_code=False)
        )


def _without_head(network: Any) -> Any:
    if hasattr(network, "pooler"):
        network.pooler = None
    return network


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bar and no table of unused tensors: the report says what was not used."""
    from transformers import utils

    logging: Any = utils.logging
    level, is_shown = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if is_shown:
            logging.enable_progress_bar()
