"""A training run on disk: weights, optimiser and progress, as safetensors and JSON. Nothing in it can run code."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from xfm.core.errors import Refused
from xfm.training.settings import Progress

if TYPE_CHECKING:
    from xfm.training.trainer import Trainer

Network = TypeVar("Network", bound=nn.Module)
WEIGHTS, BEST = "model.safetensors", "best.safetensors"
OPTIMIZER, PROGRESS = "optimizer.safetensors", "progress.json"


def trained_tensors(network: nn.Module) -> dict[str, Tensor]:
    """What training changes, on the CPU: parameters with `requires_grad`, once each, and buffers."""
    known = {name for name, _ in network.named_parameters(remove_duplicate=False)}
    trained = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    state = network.state_dict()
    return {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in state.items()
        if name in trained or name not in known
    }


def with_weights(network: Network, weights: Mapping[str, Tensor]) -> Network:
    """The network with the weights of `Trained` in the place of its own; those that were not trained stay."""
    unknown = network.load_state_dict(dict(weights), strict=False).unexpected_keys
    assert not unknown, unknown
    return network


def save_training(trainer: "Trainer", folder: Path) -> None:
    """Writes the files; random numbers need none, being keyed by step."""
    save_file(trained_tensors(trainer.learner.network), folder / WEIGHTS)
    if trainer.best:
        save_file(trainer.best, folder / BEST)
    state = trainer.optimizer.state_dict()["state"]
    moments = {f"{index}.{name}": t.detach().cpu() for index, values in state.items() for name, t in values.items()}
    save_file(moments, folder / OPTIMIZER)
    (folder / PROGRESS).write_text(json.dumps(asdict(trainer.progress)), encoding="utf-8")


def load_training(trainer: "Trainer", folder: Path) -> None:
    """Continues where `save_training` was called.

    Raises:
        Refused: BAD_TRAINING_STATE.
    """
    trainer.progress = _read_progress(folder)
    saved, expected = load_file(folder / WEIGHTS), trained_tensors(trainer.learner.network)
    if saved.keys() != expected.keys():
        odd = ", ".join(sorted(saved.keys() ^ expected.keys())[:3])
        raise _bad(folder, f"it trains other tensors than this run ({odd})")
    trainer.learner.network.load_state_dict(saved, strict=False)
    if (folder / BEST).is_file():
        trainer.best = load_file(folder / BEST)
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, tensor in load_file(folder / OPTIMIZER).items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = tensor
    groups = trainer.optimizer.state_dict()["param_groups"]
    trainer.optimizer.load_state_dict({"state": state, "param_groups": groups})


def kept_weights(folder: Path) -> dict[str, Tensor]:
    """The weights that a saved run would keep: the best ones where something was watched, else the last."""
    best = folder / BEST
    return dict(load_file(best if best.is_file() else folder / WEIGHTS))


def _read_progress(folder: Path) -> Progress:
    try:
        return Progress(**json.loads((folder / PROGRESS).read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise _bad(folder, str(error)) from None


def _bad(folder: Path, why: str) -> Refused:
    message = f"the training state in {folder} cannot be used: {why}; remove the `train` folder of OUTPUT to start over"
    return Refused("BAD_TRAINING_STATE", message)
