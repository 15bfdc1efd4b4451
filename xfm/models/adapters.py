"""What of a network is trained: all of it, its last blocks, nothing, or low-rank updates of its attention.

LoRA (Hu et al., ICLR 2022): W x becomes W x + (alpha / rank) B A x with B = 0 at first, so that an adapted network
begins as the pretrained one. On queries, keys and values, as Zanella and Ben Ayed (CVPR workshops 2024) found best for
CLIP. The layers are those of the package `peft`, put in place, so that a backbone walks over its blocks as before.
Scaling the update by a share between 0 and 1 goes back to the pretrained network in steps (Wortsman et al., CVPR 2022,
for whole networks).
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from xfm.core.backbone import Backbone
from xfm.core.errors import Refused
from xfm.core.random import key64
from xfm.models.pretrained import FAMILIES

if TYPE_CHECKING:
    from peft.tuners.lora import LoraLayer

Tower = Literal["image", "text", "both"]

# Where each tower has its blocks, and what its projections to queries, keys and values are called.
TOWERS: dict[str, dict[str, str]] = {family: {"text": place} for family, place in FAMILIES.items()} | {
    "clip": {"image": "vision_model.encoder.layers", "text": "text_model.encoder.layers"}
}
PROJECTIONS = dict.fromkeys(FAMILIES, ("query", "key", "value")) | {
    "distilbert": ("q_lin", "k_lin", "v_lin"),
    "clip": ("q_proj", "k_proj", "v_proj"),
}

NAME = "default"  # as peft calls an adapter that has no name
TENSORS, SETTINGS = "adapter_model.safetensors", "adapter_config.json"


@dataclass(frozen=True, slots=True)
class LoRA:
    """A recipe of low-rank updates."""

    rank: int = 8  # columns of B
    alpha: float = 16.0  # the update is scaled by alpha / rank
    dropout: float = 0.0  # share of the input that the update does not see in training
    tower: Tower | None = None  # whose attention; None for the tower that `Backbone.layers` walks
    seed: int = 0  # of A


def add_lora(backbone: Backbone, lora: LoRA) -> dict[str, int]:
    """Puts updates beside the attention's projections, in place; they alone are trained from then on.

    Gives {tower: adapted projections}.

    Raises:
        Refused: NO_LORA, there is nothing of the kind in this network.
    """
    from peft import LoraConfig, inject_adapter_in_model

    network = _network(backbone)
    family, towers = _towers(backbone)
    settings = LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha,  # type: ignore[arg-type]  # any number will do
        lora_dropout=lora.dropout, bias="none",
        target_modules=_pattern(family, [TOWERS[family][tower] for tower in _chosen(backbone, lora.tower, towers)]),
    )  # fmt: skip
    # peft draws A from the global generator; it is put back.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(key64(lora.seed, "lora"))
        try:
            inject_adapter_in_model(settings, network, adapter_name=NAME)
        except ValueError as problem:
            raise Refused("NO_LORA", f"{family}: another architecture than expected? {problem}") from problem
    freeze(backbone)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_("lora_" in name)
    return _check_wrapped(backbone, lora.tower)


def freeze(backbone: Backbone) -> None:
    """Nothing of it is trained."""
    for parameter in backbone.parameters():
        parameter.requires_grad_(False)


def keep_last(backbone: Backbone, n: int) -> list[nn.Module]:
    """Trains the last n blocks alone; gives what stays as it is, the embeddings among it: in training it belongs into
    evaluation mode, without dropout.

    Raises:
        Refused: FEW_BLOCKS.
    """
    if n > backbone.n_layers:
        raise Refused("FEW_BLOCKS", f"the last {n} blocks of a network that has {backbone.n_layers}; give fewer")
    freeze(backbone)
    trained = list(backbone.blocks)[-n:]
    for block in trained:
        for parameter in block.parameters():
            parameter.requires_grad_(True)
    inside = {id(module) for block in trained for module in block.modules()}
    around = {id(module) for module in backbone.modules() for part in module.modules() if id(part) in inside}
    return [module for module in backbone.modules() if id(module) not in inside | around]


def lora_layers(network: nn.Module) -> Iterator[tuple[str, "LoraLayer"]]:
    """Names and adapted projections."""
    from peft.tuners.lora import LoraLayer

    return ((name, module) for name, module in network.named_modules() if isinstance(module, LoraLayer))


def set_alpha(network: nn.Module, share: float) -> None:
    """Scales every update: 0 is the pretrained network, 1 the adapted one."""
    for _, layer in lora_layers(network):
        layer.set_scale(NAME, share)


def merge(network: nn.Module) -> nn.Module:
    """Adds the updates, at the share they are set to, to the weights; plain modules under their old names are left."""
    for name, layer in list(lora_layers(network)):
        layer.merge(safe_merge=True)
        parent, _, last = name.rpartition(".")
        setattr(network.get_submodule(parent), last, layer.get_base_layer())
    return network


def write_adapter(folder: Path, network: nn.Module, lora: LoRA, base: str) -> None:
    """The updates alone, as `peft.PeftModel.from_pretrained` reads them onto the checkpoint `base` that they were
    trained on: adapter_model.safetensors and adapter_config.json."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    state = {name.replace(f".{NAME}.", "."): each for name, each in network.state_dict().items() if "lora_" in name}
    tensors = {f"base_model.model.{name}": tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    save_file(tensors, folder / TENSORS)
    names = [name for name, _ in lora_layers(network)]
    settings: dict[str, Any] = {
        "peft_type": "LORA", "base_model_name_or_path": base, "r": lora.rank, "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout, "bias": "none", "inference_mode": True, "target_modules": names,
    }  # fmt: skip
    (folder / SETTINGS).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _network(backbone: Backbone) -> nn.Module:
    """The module of the package `transformers`, where it is one."""
    network = getattr(backbone, "network", backbone)
    assert isinstance(network, nn.Module)
    return network


def _towers(backbone: Backbone) -> tuple[str, dict[str, str]]:
    family = str(getattr(getattr(_network(backbone), "config", None), "model_type", type(backbone).__name__))
    if family not in TOWERS:
        raise Refused(
            "NO_LORA",
            f"{family}: its queries, keys and values are not the separate projections that low-rank updates are put "
            f"beside; known: {', '.join(sorted(TOWERS))}. Use the mode full, last_n or head",
        )
    return family, TOWERS[family]


def _chosen(backbone: Backbone, tower: Tower | None, towers: dict[str, str]) -> list[str]:
    """Names of towers: the ones asked for, or the one whose blocks `layers` walks over."""
    if tower is None:
        network = _network(backbone)
        return [name for name, place in towers.items() if network.get_submodule(place) is backbone.blocks]
    wanted: list[str] = list(towers) if tower == "both" else [tower]
    if missing := [name for name in wanted if name not in towers]:
        raise Refused("NO_LORA", f"this network has no {missing[0]} tower, only {' and '.join(towers)}")
    return wanted


def _pattern(family: str, places: list[str]) -> str:
    """A regular expression over whole names; a list of last names would hit every tower."""
    return rf"({'|'.join(map(re.escape, places))})\.\d+\..*\.?({'|'.join(PROJECTIONS[family])})"


def _check_wrapped(backbone: Backbone, tower: Tower | None) -> dict[str, int]:
    """{tower: adapted projections}; all three of every block of the towers asked for, and nothing elsewhere."""
    network = _network(backbone)
    family, towers = _towers(backbone)
    names = [name for name, _ in lora_layers(network)]
    found = {each: sum(name.startswith(f"{place}.") for name in names) for each, place in towers.items()}
    expected = dict.fromkeys(towers, 0)
    for each in _chosen(backbone, tower, towers):
        blocks = network.get_submodule(towers[each])
        assert isinstance(blocks, nn.ModuleList)
        expected[each] = len(PROJECTIONS[family]) * len(blocks)
    if found != expected or sum(found.values()) != len(names) or not names:
        raise Refused("NO_LORA", f"{family}: adapted {found} projections, expected {expected}: another architecture?")
    return {each: count for each, count in found.items() if count}


def set_dropout(backbone: Backbone, share: float) -> None:
    """Replaces every dropout of a network, those inside attention too; 0 lets CPUs use fused attention."""
    for module in backbone.modules():
        if isinstance(module, nn.Dropout):
            module.p = share
        elif isinstance(getattr(module, "dropout", None), float):
            setattr(module, "dropout", share)  # noqa: B010 - a number here, a module elsewhere
