"""The tiny network of the official package and its tokens."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from scgpt_cases import FIXTURE, make_tokens

from xfm.core.tokenizer import Tokens
from xfm.models.scgpt.checkpoint import Checkpoint, build_network, read_checkpoint
from xfm.models.scgpt.network import ScGPTBackbone


@pytest.fixture(scope="session")
def reference() -> dict[str, np.ndarray]:
    with np.load(FIXTURE / "reference.npz") as file:
        return {name: file[name] for name in file.files}


@pytest.fixture(scope="session")
def checkpoint() -> Checkpoint:
    return read_checkpoint(FIXTURE / "checkpoint")


@pytest.fixture(scope="session")
def tiny(checkpoint: Checkpoint) -> ScGPTBackbone:
    return build_network(checkpoint)


@pytest.fixture(scope="session")
def tokens(reference: dict[str, np.ndarray]) -> Tokens:
    return make_tokens(reference["gene_ids"], reference["values"], reference["lengths"])


@pytest.fixture(scope="session")
def official() -> tuple[dict[str, torch.Tensor], dict[str, Any], dict[str, int]]:
    """State dict, args and vocabulary of the fixture as they lie on disk."""
    folder = FIXTURE / "checkpoint"
    state = torch.load(folder / "best_model.pt", weights_only=True)
    return state, json.loads((folder / "args.json").read_text()), json.loads((folder / "vocab.json").read_text())
