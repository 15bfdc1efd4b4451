"""A learned mix of layers: one weight a layer, trained with a linear classifier on top, then used as a representation.

Peters et al., Deep contextualized word representations, NAACL 2018, equation 1: softmax-normalised weights. Layers
are standardised first, by training cells, so that a weight says how much a layer tells, not how large its numbers are.
Layers lie in a scratch file on disk while weights are learned: never all of them in memory.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from xfm.core.parts import TEST, TRAIN, VALIDATION
from xfm.core.random import rng_for
from xfm.judging.probe import standardised
from xfm.judging.representations import Read

BATCH = 64
STEPS = 3000  # at most
PATIENCE = 5  # looks at validation without a better loss
LR_CLASSIFIER, LR_WEIGHTS = 3e-3, 3e-2
WEIGHT_DECAY = 1e-2

F32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Mix:
    """A learned mix."""

    weights: NDArray[np.float64]  # (L,) of the layers, adding up to 1
    steps: int  # after which validation was best


def mix_layers(
    read: Read, place: str, columns: Sequence[str], codes: NDArray[np.int32], parts: NDArray[np.int8], seed: int
) -> tuple[F32, Mix]:
    """Learns the weights on training cells, stops by validation cells, and mixes all cells.

    Args:
        read: gives one column of all N cells.
        place, columns: the L layers, of one width D.
        codes: (N,) classes; negative cells take no part in learning.
        parts: (N,) train, validation or test; test cells are mixed and never learned from.
        seed: draws batches and the classifier's first weights.

    Returns:
        (N, D) mixed states, and the weights.
    """
    with tempfile.TemporaryDirectory() as scratch:
        learn = np.flatnonzero((parts != TEST) & (codes >= 0))
        stored: np.memmap[tuple[int, ...], np.dtype[np.float16]] | None = None
        for number, column in enumerate(columns):
            layer = standardised(read(place, column), parts)[learn]
            if stored is None:
                shape = (len(learn), len(columns), layer.shape[1])
                stored = np.memmap(Path(scratch, "layers"), np.float16, "w+", shape=shape)
            stored[:, number] = np.clip(layer, -60000, 60000)
        assert stored is not None
        mix = learn_weights(stored, codes[learn], parts[learn], seed)
        del stored
    mixed: F32 | None = None
    for weight, column in zip(mix.weights, columns, strict=True):
        part = np.float32(weight) * standardised(read(place, column), parts)
        mixed = part if mixed is None else mixed + part
    assert mixed is not None
    return mixed, mix


def learn_weights(layers: NDArray[np.float16], codes: NDArray[np.int32], parts: NDArray[np.int8], seed: int) -> Mix:
    """Weights of L layers from (N, L, D) standardised states of training and validation cells."""
    generator = torch.Generator().manual_seed(int(rng_for(seed, "scalar mix").integers(2**62)))
    n_classes, (_, n_layers, dim) = int(codes.max()) + 1, layers.shape
    train, validation = np.flatnonzero(parts == TRAIN), np.flatnonzero(parts == VALIDATION)
    scores = torch.zeros(n_layers, requires_grad=True)
    weight = (torch.randn(n_classes, dim, generator=generator) * dim**-0.5).requires_grad_()
    bias = torch.zeros(n_classes, requires_grad=True)
    optimiser = torch.optim.AdamW(
        [
            {"params": [scores], "lr": LR_WEIGHTS, "weight_decay": 0.0},
            {"params": [weight, bias], "lr": LR_CLASSIFIER, "weight_decay": WEIGHT_DECAY},
        ]
    )

    def loss_of(rows: NDArray[np.int64]) -> torch.Tensor:
        # Rows in rising order: the scratch file is read forwards.
        rows = np.sort(rows)
        states = torch.from_numpy(np.asarray(layers[rows], np.float32))
        mixed = torch.einsum("l,nld->nd", scores.softmax(0), states)
        target = torch.from_numpy(codes[rows].astype(np.int64))
        return torch.nn.functional.cross_entropy(mixed @ weight.T + bias, target)

    def validated() -> float:
        with torch.no_grad():
            blocks = np.array_split(validation, max(1, len(validation) // 2048))
            return sum(float(loss_of(block)) * len(block) for block in blocks) / len(validation)

    look = max(25, min(200, len(train) // BATCH))
    best = (validated(), 0, scores.detach().softmax(0).double())
    order, at, idle = torch.randperm(len(train), generator=generator).numpy(), 0, 0
    for step in range(1, STEPS + 1):
        if at + BATCH > len(order) and at > 0:
            order, at = torch.randperm(len(train), generator=generator).numpy(), 0
        optimiser.zero_grad()
        loss_of(train[order[at : at + BATCH]]).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        at += BATCH
        if step % look == 0:
            loss = validated()
            idle = 0 if loss < best[0] else idle + 1
            if loss < best[0]:
                best = (loss, step, scores.detach().softmax(0).double())
            if idle >= PATIENCE:
                break
    weights = best[2].numpy()
    return Mix(weights / weights.sum(), best[1])
