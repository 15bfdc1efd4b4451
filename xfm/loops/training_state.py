"""A training run on disk: weights, optimiser and progress, as safetensors and JSON. Nothing in it can run code."""

import json
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from xfm.core.errors import Refused
from xfm.loops.pretrain import Trainer
from xfm.loops.pretrain_settings import Progress

WEIGHTS, OPTIMIZER, PROGRESS = "model.safetensors", "optimizer.safetensors", "progress.json"


def save_training(trainer: Trainer, folder: Path) -> None:
    """Writes the three files; random numbers need none, being keyed by step."""
    weights = trainer.network.state_dict()
    save_file({name: t.detach().cpu().contiguous() for name, t in weights.items()}, folder / WEIGHTS)
    state = trainer.optimizer.state_dict()["state"]
    moments = {f"{index}.{name}": t.detach().cpu() for index, values in state.items() for name, t in values.items()}
    save_file(moments, folder / OPTIMIZER)
    (folder / PROGRESS).write_text(json.dumps(asdict(trainer.progress)), encoding="utf-8")


def load_training(trainer: Trainer, folder: Path) -> None:
    """Continues where `save_training` was called."""
    trainer.network.load_state_dict(load_file(folder / WEIGHTS))
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, tensor in load_file(folder / OPTIMIZER).items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = tensor
    groups = trainer.optimizer.state_dict()["param_groups"]
    trainer.optimizer.load_state_dict({"state": state, "param_groups": groups})
    trainer.progress = read_progress(folder)


def read_progress(folder: Path) -> Progress:
    """How far the saved run was.

    Raises:
        Refused: BAD_TRAINING_STATE.
    """
    try:
        return Progress(**json.loads((folder / PROGRESS).read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        message = f"{folder / PROGRESS}: {error}; remove the `train` folder of OUTPUT to start over"
        raise Refused("BAD_TRAINING_STATE", message) from None
