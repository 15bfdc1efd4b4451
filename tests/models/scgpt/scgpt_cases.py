"""Tokens and small networks that the tests of scGPT share."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from xfm.core.tokenizer import Tokens
from xfm.models.scgpt.network import ScGPTBackbone
from xfm.models.scgpt.settings import Architecture

FIXTURE = Path(__file__).parents[2] / "fixtures" / "scgpt_tiny"
SMALL = {"n_tokens": 30, "n_layers": 3, "n_heads": 2, "dim": 24, "ffn": 40, "n_bins": 10}


def make_tokens(ids: Any, values: Any, lengths: Any, condition: Any = None) -> Tokens:
    """<cls> at position 0, padding on the right."""
    ids = torch.as_tensor(np.asarray(ids), dtype=torch.int64)
    is_token = torch.arange(ids.shape[1])[None, :] < torch.as_tensor(np.asarray(lengths))[:, None]
    is_content = is_token.clone()
    is_content[:, 0] = False
    labels = None if condition is None else torch.as_tensor(condition)
    return Tokens(ids, torch.as_tensor(np.asarray(values), dtype=torch.float32), is_token, is_content, labels)


def small_tokens(lengths: tuple[int, ...] = (9, 4, 7), condition: Any = None, low: int = 1) -> Tokens:
    """Tokens of a small network; padding id 27, <cls> id 28."""
    rng = np.random.default_rng(7)
    shape = (len(lengths), max(lengths))
    ids, values = rng.integers(0, 27, shape), rng.integers(low, 10, shape)
    ids[:, 0], values[:, 0] = 28, 0
    for row, length in enumerate(lengths):
        ids[row, length:], values[row, length:] = 27, -2
    return make_tokens(ids, values, lengths, condition)


def small_network(seed: int = 1, **parts: Any) -> ScGPTBackbone:
    """Every tensor drawn on its own, so that no norm, bias or layer is trivial or like another."""
    network = ScGPTBackbone(Architecture(**(SMALL | parts)))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if not tensor.is_floating_point():
                continue
            drawn = torch.randn(tensor.shape, generator=generator)
            positive = "running_var" in name
            scale = 0.3 if "norm" in name or tensor.dim() < 2 else tensor.shape[-1] ** -0.5
            tensor.copy_(drawn.abs() + 0.5 if positive else drawn * scale + (1.0 if "norm" in name else 0.0))
    return network.eval()


def small_vocab(n_tokens: int = 30) -> dict[str, int]:
    names = [f"G{i}" for i in range(n_tokens - 3)] + ["<pad>", "<cls>", "<eoc>"]
    return {name: index for index, name in enumerate(names)}
