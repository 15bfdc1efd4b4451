"""The files of a checkpoint folder: which one holds the weights, their digests, and the vocabulary.

Light to import: tokenizers and the driver read vocabularies and digests without torch.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from xfm.core.errors import Refused
from xfm.models.hub_folder import digests
from xfm.models.scgpt.settings import settings_of

SPECIALS = ("<pad>", "<cls>", "<eoc>")
WEIGHTS = ("model.safetensors", "best_model.pt")


@dataclass(frozen=True, slots=True)
class Files:
    """Paths of one checkpoint."""

    weights: Path  # the tensors
    settings: Path  # args.json or config.json
    vocab: Path  # token to index; may lie outside the folder

    def digests(self) -> dict[str, str]:
        """File name to SHA-256 of its bytes."""
        return digests((self.weights, self.settings, self.vocab))


def find_files(folder: Path, vocab_path: Path | None = None) -> Files:
    """Picks the weights (model.safetensors, else best_model.pt, else the only *.pt), the settings and the vocabulary.

    Raises:
        Refused: no such folder, no or several candidates for the weights, no settings, no vocabulary.
    """
    if not folder.is_dir():
        raise Refused(
            "NO_CHECKPOINT", f"{folder} is no folder; a checkpoint is a folder with weights, args.json and vocab.json"
        )
    weights = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None) or _only_pt(folder)
    settings = settings_of(folder)
    vocab = vocab_path or folder / "vocab.json"
    if not vocab.is_file():
        raise Refused(
            "NO_VOCABULARY",
            f"no vocabulary at {vocab}. Give one with --backbone.vocab FILE: the vocab.json "
            "of the official whole-human checkpoint (60697 tokens) fits tdc/scGPT, which ships none",
        )
    return Files(weights, settings, vocab)


def _only_pt(folder: Path) -> Path:
    candidates = sorted(folder.glob("*.pt"))
    if len(candidates) == 1:
        return candidates[0]
    if not candidates:
        raise Refused("NO_WEIGHTS", f"{folder} holds no weights: {' or '.join(WEIGHTS)} or a single *.pt is needed")
    names = ", ".join(path.name for path in candidates)
    raise Refused(
        "AMBIGUOUS_WEIGHTS",
        f"{folder} holds several candidates for the weights: {names}. Name one of them "
        f"{WEIGHTS[1]} or keep it alone in a folder",
    )


def read_vocab(path: Path) -> dict[str, int]:
    """Token to index, from a JSON object, or a list of tokens in order; missing specials are appended.

    <pad>, <cls> and <eoc> get the next free indices in that order, as the official loader gives them.

    Raises:
        Refused: no JSON of that form, an index that is negative or no whole number, an index or token that repeats.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_unique_keys)
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise Refused("BAD_VOCABULARY", f"{path} is no JSON: {error}") from error
    if isinstance(content, list):
        content = _unique_keys([(token, index) for index, token in enumerate(content)])
    if isinstance(content, dict) and isinstance(content.get("token2idx"), dict):
        content = content["token2idx"]
    if not isinstance(content, dict) or not content:
        raise Refused("BAD_VOCABULARY", f"{path}: an object of token to index, or a list of tokens, is needed")
    return complete(content, str(path))


def complete(vocab: Mapping[str, int], where: str) -> dict[str, int]:
    """The same vocabulary, checked, with missing special tokens appended. Raises as `read_vocab`."""
    owner: dict[int, str] = {}
    for token, index in vocab.items():
        if type(index) is not int or index < 0 or type(token) is not str:
            raise Refused(
                "BAD_VOCABULARY", f"{where}: token {token!r} has index {index!r}; whole numbers from 0 up are needed"
            )
        if index in owner:
            raise Refused("BAD_VOCABULARY", f"{where}: index {index} stands for both {owner[index]!r} and {token!r}")
        owner[index] = token
    whole = dict(vocab)
    for token in SPECIALS:
        if token not in whole:
            whole[token] = max(whole.values()) + 1
    return whole


def gene_tokens(vocab: Mapping[str, int]) -> dict[str, int]:
    """The vocabulary without special tokens."""
    return {token: index for token, index in vocab.items() if token not in SPECIALS}


def _unique_keys(pairs: list[tuple[str, int]]) -> dict[str, int]:
    vocab: dict[str, int] = {}
    for token, index in pairs:
        if not isinstance(token, str):
            raise Refused("BAD_VOCABULARY", f"token {token!r} is no string")
        if token in vocab:
            raise Refused("BAD_VOCABULARY", f"token {token!r} stands twice in the vocabulary")
        vocab[token] = index
    return vocab
