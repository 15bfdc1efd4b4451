"""Reading and writing scGPT weights in every layout they come in.

Flash-attention names (all official releases), PyTorch's names (ours, and fine-tuned ones), the names of the Hub's
`tdc/scGPT`; wrapped by data parallelism, nested in a training checkpoint, in half or single precision. All become one
state dict of float32 with official names, checked against the settings and the vocabulary. Nothing in a file is
executed, and nothing that does not fit is skipped in silence.
"""

import json
import logging
import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from xfm.core.errors import Refused
from xfm.models.hub_folder import new_folder
from xfm.models.scgpt.files import complete, find_files, read_vocab
from xfm.models.scgpt.network import ScGPTBackbone
from xfm.models.scgpt.settings import Architecture, declare, disagreements, read_args, settle

logger = logging.getLogger(__name__)

NESTS = ("model_state_dict", "state_dict", "model")
_RENAMES = (
    (re.compile(r"^(module\.|_orig_mod\.)+"), ""),
    (re.compile(r"^gene_encoder\."), "encoder."),
    (re.compile(r"^transformer\."), "transformer_encoder."),
    (re.compile(r"^expr_decoder\."), "decoder."),
    (re.compile(r"\.self_attn\.(_impl\.)?Wqkv\."), ".self_attn.in_proj_"),
    (re.compile(r"\.self_attn\._impl\.out_proj\."), ".self_attn.out_proj."),
)
IGNORED = ("flag_encoder.", "grad_reverse_discriminator.")  # generative pre-training and adversary: not for inference
_HEADS = ("decoder", "mvc_decoder", "cls_decoder")


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint, checked: tensors, architecture and vocabulary fit each other."""

    architecture: Architecture  # settled from settings and tensors
    vocab: dict[str, int]  # token to index, special tokens included
    tensors: dict[str, Tensor]  # float32, under official names; exactly what the network of this architecture holds
    layout: str  # "flash", "torch" or "hub", with what wrapped it: "module.", "model_state_dict", ...
    ignored: tuple[str, ...]  # known keys that inference has no use for
    unknown: tuple[str, ...]  # keys nobody here knows
    absent_heads: tuple[str, ...]  # heads this checkpoint does not bring
    overruled: tuple[str, ...]  # a line for each part the settings declare otherwise than the tensors, which decide

    @property
    def pad_id(self) -> int:
        """Token id of padding: the vocabulary's, whatever a settings file says."""
        return self.vocab[self.architecture.pad_token]

    def report(self) -> dict[str, Any]:
        """What was found and what was left out, as JSON values."""
        return {
            "layout": self.layout,
            "ignored_keys": list(self.ignored),
            "unknown_keys": list(self.unknown),
            "absent_heads": list(self.absent_heads),
            "overruled_settings": list(self.overruled),
        }

    def log(self) -> None:
        """One line on what was read, and one on each thing left out."""
        logger.info("read scGPT weights in layout %r: %d tensors", self.layout, len(self.tensors))
        for what, keys in (("no use for", self.ignored), ("unknown", self.unknown)):
            if keys:
                logger.warning("%d tensors left out (%s): %s", len(keys), what, ", ".join(keys))
        for note in self.overruled:
            logger.warning("%s", note)


def read_checkpoint(folder: Path, vocab_path: Path | None = None) -> Checkpoint:
    """Reads a local checkpoint folder.

    Args:
        folder: holds the weights (see `find_files`), args.json or config.json, and normally vocab.json.
        vocab_path: a vocabulary from elsewhere, where the folder has none.

    Raises:
        Refused: a file is missing, ambiguous, broken or unsafe; a tensor of the backbone or part of a head is
            missing; a shape contradicts the settings or the vocabulary; a number is not finite.
    """
    files = find_files(folder, vocab_path)
    args = read_args(folder)
    declared = declare(args)
    tensors, layout = _official_names(*_unwrap(_load(files.weights), files.weights), files.weights)
    architecture = settle(declared, {key: tuple(t.shape) for key, t in tensors.items()}, flash="flash" in layout)
    vocab = read_vocab(files.vocab)
    _check_vocab(vocab, architecture, files.vocab)
    kept, ignored, unknown = _fit(tensors, _expected(architecture), architecture)
    absent = tuple(head for head in _HEADS if not any(key.startswith(f"{head}.") for key in kept))
    overruled = tuple(disagreements(declared, architecture))
    return Checkpoint(architecture, vocab, kept, layout, ignored, unknown, absent, overruled)


def _load(path: Path) -> Any:
    """The content of a weights file; nothing in it is executed.

    Not memory-mapped: a file that is replaced while it is mapped takes the process down.

    Raises:
        Refused: more than tensors inside, or a damaged file.
    """
    with path.open("rb") as file:
        is_cut = file.read(2) == b"PK" and not zipfile.is_zipfile(path)
    if is_cut:
        raise Refused("BROKEN_FILE", f"{path} is cut short: a zip archive without its directory")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=False)
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0]
        raise Refused(
            "UNSAFE_FILE",
            f"{path} holds more than tensors, and loading it could run code ({reason}). Save the state dict alone: "
            "torch.save(model.state_dict(), ...) or safetensors",
        ) from error
    except (SafetensorError, RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise Refused("BROKEN_FILE", f"{path} cannot be read as weights, it may be cut short: {reason}") from error


def _unwrap(content: Any, path: Path) -> tuple[dict[str, Tensor], str]:
    """The state dict inside, and the key it was nested under."""
    if isinstance(content, Mapping):
        nest = next((key for key in NESTS if isinstance(content.get(key), Mapping)), None)
        if nest is not None:
            return _unwrap(content[nest], path)[0], nest
        tensors = {key: value for key, value in content.items() if isinstance(value, Tensor)}
        if tensors and len(tensors) == len(content):
            return tensors, ""
    raise Refused(
        "NO_STATE_DICT",
        f"{path} holds a {type(content).__name__} that is no state dict; a dict of name to tensor is needed, at the "
        f"top or under one of {', '.join(NESTS)}",
    )


def _official_names(tensors: dict[str, Tensor], nest: str, path: Path) -> tuple[dict[str, Tensor], str]:
    """The tensors in float32 under official names, and a word on the layout they came in."""
    renamed: dict[str, Tensor] = {}
    for original, tensor in tensors.items():
        key = original
        for pattern, replacement in _RENAMES:
            key = pattern.sub(replacement, key)
        if key in renamed:
            raise Refused("AMBIGUOUS_TENSOR", f"{path} holds {key} twice, under different names; one is {original}")
        renamed[key] = tensor.float() if tensor.is_floating_point() else tensor
    words = [
        "flash" if any(".Wqkv." in key for key in tensors) else "torch",
        "hub" if any("gene_encoder." in key for key in tensors) else "",
        "module." if any(key.startswith("module.") for key in tensors) else "",
        nest,
    ]
    return renamed, " ".join(word for word in words if word)


def _check_vocab(vocab: dict[str, int], architecture: Architecture, path: Path) -> None:
    rows, key = architecture.n_tokens, "encoder.embedding.weight"
    if len(vocab) != rows or max(vocab.values()) >= rows:
        raise Refused(
            "WRONG_VOCABULARY",
            f"{path} gives {len(vocab)} tokens (special tokens included) with indices up to {max(vocab.values())}, "
            f"so {key} should be ({max(len(vocab), max(vocab.values()) + 1)}, {architecture.dim}); found "
            f"({rows}, {architecture.dim}). This vocabulary belongs to other weights",
        )
    if architecture.pad_token not in vocab:
        raise Refused("WRONG_VOCABULARY", f"{path} lacks the padding token {architecture.pad_token!r} of args.json")


def _expected(architecture: Architecture) -> dict[str, Tensor]:
    with torch.device("meta"):
        return ScGPTBackbone(architecture).state_dict()


def _fit(
    tensors: dict[str, Tensor], expected: dict[str, Tensor], architecture: Architecture
) -> tuple[dict[str, Tensor], tuple[str, ...], tuple[str, ...]]:
    """The tensors the network takes, the ignored keys and the unknown ones."""
    kept: dict[str, Tensor] = {}
    for key, slot in expected.items():
        if key.endswith("num_batches_tracked"):
            kept[key] = tensors.get(key, torch.zeros((), dtype=torch.int64))
            continue
        if key not in tensors:
            raise _missing(key, tuple(slot.shape), tensors, architecture)
        if tensors[key].shape != slot.shape:
            raise Refused(
                "WRONG_SHAPE",
                f"tensor {key}: {tuple(slot.shape)} expected from the settings, found {tuple(tensors[key].shape)}",
            )
        if not bool(torch.isfinite(tensors[key]).all()):
            raise Refused("NOT_FINITE", f"tensor {key} holds NaN or infinite weights")
        kept[key] = tensors[key]
    spare = [key for key in tensors if key not in expected]
    parts = {key.split(".")[0] for key in expected}
    surplus = [key for key in spare if key.split(".")[0] in parts]
    if surplus:
        raise Refused(
            "UNEXPECTED_TENSOR",
            f"tensor {surplus[0]} {tuple(tensors[surplus[0]].shape)} (and {len(surplus) - 1} more) belongs to a part "
            f"of the network that has no such tensor by the settings: {architecture.n_layers} layers (nlayers), "
            f"{architecture.n_layers_cls} in the classification head (n_layers_cls)",
        )
    ignored = tuple(key for key in spare if key.startswith(IGNORED))
    return kept, ignored, tuple(key for key in spare if not key.startswith(IGNORED))


def _missing(key: str, shape: tuple[int, ...], tensors: dict[str, Tensor], architecture: Architecture) -> Refused:
    part = key.split(".")[0]
    there = sorted(name for name in tensors if name.split(".")[0] == part)
    found = f"found of {part}: {', '.join(there[:6]) or 'nothing'}"
    if part in _HEADS:
        return Refused(
            "PARTIAL_HEAD", f"tensor {key} {shape} is missing, though others of that head are there; {found}"
        )
    return Refused(
        "MISSING_TENSOR",
        f"tensor {key} {shape} is missing; the settings ask for {architecture.n_layers} layers of width "
        f"{architecture.dim} with input_emb_style {architecture.value_style!r}; {found}",
    )


def build_network(checkpoint: Checkpoint, *, device: str = "cpu", autocast: bool = False) -> ScGPTBackbone:
    """The network with a checkpoint's weights, in evaluation mode on `device`."""
    with torch.device("meta"):
        network = ScGPTBackbone(checkpoint.architecture, pad_id=checkpoint.pad_id, autocast=autocast)
    network.to_empty(device=device)
    network.load_state_dict(checkpoint.tensors, strict=True)
    return network.eval()


def write_checkpoint(
    folder: Path,
    network: ScGPTBackbone,
    vocab: Mapping[str, int],
    *,
    training: Mapping[str, Any] | None = None,
    replace: bool = False,
) -> None:
    """Writes model.safetensors, args.json and vocab.json under official names; they appear together or not at all.

    Args:
        folder: created; its parent too.
        network: weights are written in float32, whatever device they are on.
        training: further fields for args.json (learning rate, data, ...); architecture fields cannot be changed.
        replace: whether an existing folder is exchanged.

    Raises:
        Refused: the folder exists and `replace` is not set, or the vocabulary does not fit the network.
    """
    whole = complete(vocab, "vocab")
    _check_vocab(whole, network.architecture, folder / "vocab.json")
    with new_folder(folder, replace=replace) as new:
        tensors = {
            key: (tensor.float() if tensor.is_floating_point() else tensor).detach().cpu().contiguous()
            for key, tensor in network.state_dict().items()
        }
        save_file(tensors, new / "model.safetensors", metadata={"format": "pt"})
        args = {**(training or {}), **network.architecture.to_args()}
        (new / "args.json").write_text(json.dumps(args, indent=2) + "\n", encoding="utf-8")
        (new / "vocab.json").write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
