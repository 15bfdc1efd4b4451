"""Images against a text classifier at every layer: what the actor of a zero-shot job does with a shard.

A layer's state goes through the network's own last normalisation and projection (the logit lens of nostalgebraist,
2020, for images); at the last layer that is the zero-shot classifier itself. Logits are cosines times the scale that
the network has learned.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from xfm.compute.embed import batches, carried, check_identity
from xfm.core.errors import Refused, ShardRefused
from xfm.core.schema import layer_column
from xfm.metrics.zero_shot import TOP

# Shapes: N rows, K classes, T best guesses, P width of the shared space.
CLASSES, LOGITS, CONFIDENCE, EVERY = "classes", "logits", "confidence", "all"
SCALE = "learned_scale"  # column: what cosines were multiplied by, the same in every row


@dataclass(frozen=True, slots=True)
class Head:
    """One classifier and the layers that it reads."""

    name: str  # of its columns, e.g. lens: `lens_l07_classes`, `lens_l07_logits`, `lens_l07_confidence`.
    weights: NDArray[np.float32]  # (K, P) unit vectors of the classes
    layers: tuple[int, ...]  # states, 0 to L


class LensScorer:
    """Holds the weights; maps a shard's tokens to the best guesses of every head and layer.

    Args:
        backbone: recipe of the network.
        heads: classifiers.
        keep_logits: also write the logits of all classes at the last layer, in the columns `NAME_lLL_all`.
        batch_tokens, device, seed, identity: as in `Embedder`.

    Raises:
        Refused: OTHER_WIDTH; a classifier is not of this network's space.
    """

    def __init__(
        self,
        backbone: Any,
        heads: Sequence[Head],
        *,
        batch_tokens: int,
        device: str,
        seed: int,
        identity: Mapping[str, Any] | None = None,
        keep_logits: bool = False,
    ) -> None:
        check_identity(backbone, identity)
        self.backbone = backbone.build(device)
        self.tokenizer = backbone.tokenizer(seed)
        self.heads = tuple(heads)
        width = self.backbone.projection_dim
        for head in heads:
            if head.weights.shape[1] != width:
                raise Refused("OTHER_WIDTH", f"the classifier has vectors of {head.weights.shape[1]} numbers, this "
                              f"network's images have {width}: it was made by another network")  # fmt: skip
        self.weights = [torch.from_numpy(np.array(head.weights)).to(device) for head in heads]
        self.batch_tokens, self.device, self.keep_logits = batch_tokens, device, keep_logits

    def __call__(self, tokens: pa.Table) -> pa.Table:
        """N tokenised rows to row_id, obs columns, and T classes, their logits and the confidence a head and layer.

        Raises:
            ShardRefused: NOT_FINITE.
        """
        out = tokens.select(carried(tokens))
        for name, values in self.score(tokens).items():
            if not np.isfinite(values).all():
                raise ShardRefused("NOT_FINITE", f"{name} is not finite: are the weights wrong?")
            flat = pa.array(values.reshape(-1))
            is_list = values.ndim == 2
            out = out.append_column(name, pa.FixedSizeListArray.from_arrays(flat, values.shape[1]) if is_list else flat)
        return out.append_column(SCALE, pa.array([float(self.backbone.scale.detach())] * len(tokens), pa.float32()))

    def score(self, tokens: pa.Table) -> dict[str, NDArray[Any]]:
        """{column: (N, T) or (N,)} in the order of the rows."""
        columns: dict[str, NDArray[Any]] = {}
        for rows in batches(self.tokenizer.lengths(tokens), self.batch_tokens):
            for name, values in self._batch(tokens.take(rows)).items():
                if name not in columns:
                    columns[name] = np.empty((tokens.num_rows, *values.shape[1:]), values.dtype)
                columns[name][rows] = values
        return columns or self._nothing()

    def _nothing(self) -> dict[str, NDArray[Any]]:
        """Columns of no row."""
        out: dict[str, NDArray[Any]] = {}
        for head in self.heads:
            for layer in head.layers:
                out |= _columns(layer_column(head.name, layer), torch.empty(0, len(head.weights)), self._all(layer))
        return out

    def _all(self, layer: int) -> bool:
        return self.keep_logits and layer == self.backbone.n_layers

    def _batch(self, rows: pa.Table) -> dict[str, NDArray[Any]]:
        batch = self.tokenizer.collate(rows).to(self.device)
        out: dict[str, NDArray[Any]] = {}
        deepest = max(layer for head in self.heads for layer in head.layers)
        with torch.inference_mode():
            for layer, state in enumerate(self.backbone.layers(batch)):
                asked = [number for number, head in enumerate(self.heads) if layer in head.layers]
                vectors = self.backbone.lens(state) if asked else state
                for number in asked:
                    logits = self.backbone.scale * (vectors @ self.weights[number].T)
                    out |= _columns(layer_column(self.heads[number].name, layer), logits, self._all(layer))
                if layer == deepest:
                    break
        return out


def _columns(name: str, logits: torch.Tensor, every: bool) -> dict[str, NDArray[Any]]:
    """Best guesses of (N, K) logits."""
    logits = logits.float()
    best, classes = logits.topk(min(TOP, logits.shape[1]), dim=1)
    confidence = logits.softmax(dim=1).amax(dim=1)
    out: dict[str, NDArray[Any]] = {
        f"{name}_{CLASSES}": classes.to(torch.int32).cpu().numpy(),
        f"{name}_{LOGITS}": best.cpu().numpy(),
        f"{name}_{CONFIDENCE}": confidence.clamp(max=1.0).cpu().numpy(),
    }
    return out | ({f"{name}_{EVERY}": logits.cpu().numpy()} if every else {})
