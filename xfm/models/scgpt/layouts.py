"""The layouts scGPT weights come in, brought to one: official names, float32.

Flash-attention names (all official releases), PyTorch's names (ours, and fine-tuned ones), the names of the Hub's
`tdc/scGPT`; wrapped by data parallelism, nested in a training checkpoint, in half or single precision.
"""

import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from xfm.core.errors import Refused

NESTS = ("model_state_dict", "state_dict", "model")
_RENAMES = (
    (re.compile(r"^(module\.|_orig_mod\.)+"), ""),
    (re.compile(r"^gene_encoder\."), "encoder."),
    (re.compile(r"^transformer\."), "transformer_encoder."),
    (re.compile(r"^expr_decoder\."), "decoder."),
    (re.compile(r"\.self_attn\.(_impl\.)?Wqkv\."), ".self_attn.in_proj_"),
    (re.compile(r"\.self_attn\._impl\.out_proj\."), ".self_attn.out_proj."),
)


def load(path: Path) -> Any:
    """The content of a weights file; nothing in it is executed.

    Not memory-mapped: a file that is replaced while it is mapped takes the process down.

    Raises:
        Refused: more than tensors inside, or a damaged file.
    """
    zipped = zipfile.is_zipfile(path)
    if not zipped and _starts_zip(path):
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


def unwrap(content: Any, path: Path) -> tuple[dict[str, Tensor], str]:
    """The state dict inside, and the key it was nested under."""
    if isinstance(content, Mapping):
        nest = next((key for key in NESTS if isinstance(content.get(key), Mapping)), None)
        if nest is not None:
            return unwrap(content[nest], path)[0], nest
        tensors = {key: value for key, value in content.items() if isinstance(value, Tensor)}
        if tensors and len(tensors) == len(content):
            return tensors, ""
    raise Refused(
        "NO_STATE_DICT",
        f"{path} holds a {type(content).__name__} that is no state dict; a dict of name to tensor is needed, at the "
        f"top or under one of {', '.join(NESTS)}",
    )


def official_names(tensors: dict[str, Tensor], nest: str, path: Path) -> tuple[dict[str, Tensor], str]:
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


def _starts_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"PK"
