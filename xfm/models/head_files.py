"""A trained head as files beside its network: tensors, and what they mean. No pickle.

head.safetensors   of a `Head`
head.json          its shape and pooling, and its outputs: `classes` in their order, or `target`: mean and sd
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from xfm.models.head_settings import HeadSettings
from xfm.models.headed import Head

HEAD, ABOUT = "head.safetensors", "head.json"
SHAPE = ("head", "dropout", "pool", "mode")  # of the settings, as head.json keeps it


def write_head(folder: Path, head: Head, settings: HeadSettings, dim: int, about: Mapping[str, Any]) -> None:
    """Writes both files into a checkpoint.

    Args:
        folder: of the checkpoint.
        head: trained.
        settings: as it was trained.
        dim: width of the network's states.
        about: label, classes or target, and what else is to be kept.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in head.state_dict().items()}
    save_file(tensors, folder / HEAD, metadata={"format": "pt"})
    shape = {"dim": dim} | {name: getattr(settings, name) for name in SHAPE}
    (folder / ABOUT).write_text(json.dumps(shape | dict(about), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_head(folder: Path, about: Mapping[str, Any] | None = None) -> Head:
    """The head of a checkpoint, in evaluation mode.

    Args:
        folder: of the checkpoint.
        about: content of head.json where it has been read.
    """
    about = about or json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    n_outputs = len(about["classes"]) if "classes" in about else 1
    head = Head(about["dim"], n_outputs, about["head"], about["dropout"], seed=0)
    head.load_state_dict(load_file(folder / HEAD))
    return head.eval()
