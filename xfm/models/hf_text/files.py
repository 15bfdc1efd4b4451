"""The files of a text checkpoint: weights, settings, tokenizer. Light to import, reads no tensor."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xfm.core.errors import Refused

PATTERNS = ("*.safetensors", "*.json", "*.txt")

# Model types of config.json, and where the blocks are in the network that `transformers` builds of them.
FAMILIES = {
    "bert": "encoder.layer",  # BERT, BioBERT, PubMedBERT, MiniLM
    "distilbert": "transformer.layer",
    "roberta": "encoder.layer",
    "xlm-roberta": "encoder.layer",
    "camembert": "encoder.layer",
}
# These number positions from the padding id + 1, so that many rows of the table hold none.
POSITIONS_AFTER_PADDING = ("roberta", "xlm-roberta", "camembert")

WEIGHTS, INDEX, SETTINGS = "model.safetensors", "model.safetensors.index.json", "config.json"
TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
)
VOCABULARIES = (("tokenizer.json",), ("vocab.txt",), ("vocab.json", "merges.txt"))


@dataclass(frozen=True, slots=True)
class Files:
    """Paths of one checkpoint.

    Attributes:
        weights: the tensors, in one file or several with their index; empty where none are needed.
        settings: config.json.
        tokenizer: all files that a tokenizer is read from.
    """

    weights: tuple[Path, ...]
    settings: Path
    tokenizer: tuple[Path, ...]

    def digests(self) -> dict[str, str]:
        """File name to SHA-256 of its bytes."""
        return {path.name: _sha256(path) for path in (*self.weights, self.settings, *self.tokenizer)}


def find_files(folder: Path, *, weights: bool = True) -> Files:
    """The files of a folder.

    Args:
        weights: whether weights are needed.

    Raises:
        Refused: NO_SETTINGS, NO_WEIGHTS, UNSAFE_WEIGHTS or NO_TOKENIZER.
    """
    settings = folder / SETTINGS
    if not settings.is_file():
        raise Refused("NO_SETTINGS", f"{folder} holds no {SETTINGS}, which says what network the weights belong to")
    if not any(all((folder / name).is_file() for name in names) for names in VOCABULARIES):
        raise Refused(
            "NO_TOKENIZER",
            f"{folder} holds none of tokenizer.json, vocab.txt, or vocab.json with merges.txt: put the tokenizer's "
            "files beside the weights",
        )
    tokenizer = tuple(folder / name for name in TOKENIZER if (folder / name).is_file())
    return Files(_weights(folder) if weights else (), settings, tokenizer)


def _weights(folder: Path) -> tuple[Path, ...]:
    if (folder / WEIGHTS).is_file():
        return (folder / WEIGHTS,)
    if (folder / INDEX).is_file():
        names = set(read_json(folder / INDEX).get("weight_map", {}).values())
        parts = tuple(folder / name for name in sorted(names))
        if parts and all(part.parent == folder and part.is_file() for part in parts):
            return (folder / INDEX, *parts)
        raise Refused("NO_WEIGHTS", f"{folder / INDEX} lists files that are not there: {', '.join(sorted(names))}")
    pickles = sorted(path.name for path in folder.glob("*.bin"))
    convert = (
        'Convert a checkpoint you trust, once: python -c "from transformers import AutoModel, AutoTokenizer as T; '
        "AutoModel.from_pretrained('NAME').save_pretrained('DIR'); T.from_pretrained('NAME').save_pretrained('DIR')\", "
        "and give --backbone.checkpoint DIR"
    )
    if pickles:
        raise Refused(
            "UNSAFE_WEIGHTS",
            f"{folder} holds {', '.join(pickles)} only: a pickle, which can run code when it is read. {convert}",
        )
    raise Refused("NO_WEIGHTS", f"{folder} holds no {WEIGHTS}. Where the repository has pytorch_model.bin: {convert}")


def read_family(settings: Path) -> str:
    """The model type.

    Raises:
        Refused: BAD_SETTINGS or UNKNOWN_FAMILY.
    """
    content = read_json(settings)
    family = content.get("model_type")
    if family not in FAMILIES:
        raise Refused("UNKNOWN_FAMILY", f"{settings}: model_type {family!r} is none of {', '.join(sorted(FAMILIES))}")
    if content.get("is_decoder"):
        raise Refused("UNKNOWN_FAMILY", f"{settings}: is_decoder is set; only encoders are read")
    return str(family)


def read_json(path: Path) -> dict[str, Any]:
    """Raises Refused: BAD_SETTINGS."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as problem:
        raise Refused("BAD_SETTINGS", f"{path} is no JSON: {problem}") from problem
    if not isinstance(content, dict):
        raise Refused("BAD_SETTINGS", f"{path} is no JSON object")
    return content


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
