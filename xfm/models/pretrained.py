"""Networks and tokenizers of `transformers` out of a checkpoint folder: no network, no code of the checkpoint's own.

Only safetensors are read, always into float32 ("auto", the default of transformers 5, follows the file and would give
half precision on CPUs), and a tensor that is missing is an error instead of a draw from a random generator.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xfm.core.errors import Refused
from xfm.core.random import key64
from xfm.models.hub_folder import SETTINGS

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Subwords

# Text encoders by model type, and where the blocks are in the network that `transformers` builds of one.
FAMILIES = {
    "bert": "encoder.layer",  # BERT, BioBERT, PubMedBERT, MiniLM
    "distilbert": "transformer.layer",
    "roberta": "encoder.layer",
    "xlm-roberta": "encoder.layer",
    "camembert": "encoder.layer",
}


def read_config(folder: Path) -> Any:
    """config.json with every default filled in, as a `PreTrainedConfig`.

    Raises:
        Refused: BAD_SETTINGS.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, TypeError, AttributeError, StrictDataclassError) as problem:
        raise Refused("BAD_SETTINGS", f"{folder / SETTINGS}: {' '.join(str(problem).split())}") from problem


def tower_sizes(config: Any) -> dict[str, Any]:
    """Blocks, width and heads of a tower, as a description names them."""
    return {"n_layers": config.num_hidden_layers, "dim": config.hidden_size, "n_heads": config.num_attention_heads}


def read_network(folder: Path, config: Any, blocks: str, ignored: tuple[str, ...] = ()) -> tuple[Any, list[str]]:
    """The network of a config with the folder's weights, on the CPU in float32, in evaluation mode; and the names of
    tensors that belong to none of its parts.

    Args:
        config: as `read_config` gives it.
        blocks: part of the name of every tensor of a transformer block.
        ignored: starts of the names of tensors that may be missing.

    Raises:
        Refused: BROKEN_WEIGHTS, MISSING_TENSORS or OTHER_SHAPES.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModel

    try:
        with quiet():
            network, found = AutoModel.from_pretrained(
                folder, config=config, dtype=torch.float32, attn_implementation="sdpa", use_safetensors=True,
                local_files_only=True, trust_remote_code=False, output_loading_info=True, ignore_mismatched_sizes=True,
            )  # fmt: skip
    except (SafetensorError, OSError, ValueError, RuntimeError, KeyError) as problem:
        raise Refused("BROKEN_WEIGHTS", f"{folder}: the weights cannot be read: {problem}") from problem
    _check_tensors(folder, blocks, ignored, found)
    return network, sorted(found["unexpected_keys"])


def _check_tensors(folder: Path, blocks: str, ignored: tuple[str, ...], found: Mapping[str, Any]) -> None:
    missing = sorted(name for name in found["missing_keys"] if not name.startswith(ignored))
    beyond = sorted(name for name in found["unexpected_keys"] if blocks in name)
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


def draw_network(config: Any, seed: int) -> Any:
    """The network of a config with weights drawn as `transformers` draws them; in training mode, on the CPU."""
    import torch
    from transformers import AutoModel

    auto: Any = AutoModel
    # Initialisers take no generator. The CPU's is put back; torch.manual_seed would also reseed those of GPUs.
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(key64(seed, "weights"))
        return auto.from_config(config, dtype=torch.float32, attn_implementation="sdpa", trust_remote_code=False)


def read_tokenizer(folder: Path, vocabulary: int) -> Any:
    """The tokenizer as `transformers` builds it, for a network that knows `vocabulary` ids.

    Raises:
        Refused: BAD_TOKENIZER.
    """
    from transformers import AutoTokenizer

    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
        raise Refused("BAD_TOKENIZER", f"{folder}: the tokenizer cannot be read: {problem}") from problem
    if not tokenizer.is_fast:
        raise Refused("BAD_TOKENIZER", f"{folder}: {type(tokenizer).__name__} needs a tokenizer.json")
    largest = max(tokenizer.backend_tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
    if not 0 <= largest < vocabulary:
        raise Refused(
            "BAD_TOKENIZER",
            f"{folder}: the tokenizer's ids reach {largest}, the network knows 0 to {vocabulary - 1}: "
            "they do not belong together",
        )
    return tokenizer


def cut_subwords(subwords: "Subwords", length: int, where: str) -> tuple[int, int]:
    """Makes a tokenizer cut at a length, special tokens included, and not pad; gives how many of them stand in front of
    a text and behind it.

    Raises:
        Refused: BAD_TOKENIZER.
    """
    subwords.no_padding()
    subwords.no_truncation()
    is_special = subwords.encode("a").special_tokens_mask
    before = is_special.index(0) if 0 in is_special else 0
    after = is_special[::-1].index(0) if 0 in is_special else 0
    if before == 0 or length <= before + after:
        raise Refused(
            "BAD_TOKENIZER",
            f"{where}: {before} special tokens stand before a text and {after} behind it; one before is needed, which "
            f"`cls` reads, and room for the text in {length} tokens",
        )
    subwords.enable_truncation(length)
    return before, after


@contextmanager
def quiet() -> Iterator[None]:
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
