"""The scGPT network: genes and their binned values in, the state of every layer out.

Cui et al., Nature Methods 2024. Arithmetic and parameter names are those of the published package (scgpt 0.2.4), so
a state dict of ours is one of theirs. Where that package lets padding or neighbours into a cell's result - average
pooling over padding, batch normalisation by the label of the first cell - ours does not.
"""

# Shapes: B cells, T tokens, N real tokens of all cells, D width.

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from xfm.core.backbone import Backbone
from xfm.core.tokenizer import Tokens
from xfm.models.scgpt.settings import Architecture
from xfm.nn.attention import EncoderBlock
from xfm.nn.heads import ClassDecoder, ExpressionDecoder, MvcDecoder
from xfm.nn.packing import Packing
from xfm.nn.value_encoders import CategoryValues, ContinuousValues, DomainBatchNorm, TokenEncoder

logger = logging.getLogger(__name__)

BATCH_NORM_EPS = 6.1e-5  # the smallest normal number of half precision, roughly
GROUP_TOKENS = 512  # tokens that pass a block together: long cells go one by one, their intermediates in cache


class ScGPTBackbone(Backbone):
    """Backbone and whatever heads the architecture names.

    Args:
        architecture: sizes and parts.
        pad_id: token id of padding; its embedding gets no gradient.
        autocast: compute in bfloat16 on CUDA; states stay float32 where LayerNorm makes them so. CPUs always use
            float32, bfloat16 being several times slower there without hardware for it.
        layout: "packed" computes on real tokens only, cell by cell in attention; "padded" in one call with a mask;
            "auto" packs on CPUs and pads elsewhere. Both give the same numbers.
    """

    def __init__(
        self,
        architecture: Architecture,
        *,
        pad_id: int | None = None,
        autocast: bool = False,
        layout: Literal["auto", "packed", "padded"] = "auto",
    ) -> None:
        super().__init__()
        a = architecture
        self.architecture = a
        self.n_layers, self.dim = a.n_layers, a.dim
        self.autocast, self.layout = autocast, layout
        self._warned = False
        cell_dim = 2 * a.dim if a.label_encoder else a.dim
        self.encoder = TokenEncoder(a.n_tokens, a.dim, pad_id)
        self.value_encoder = _value_encoder(a)
        self.bn = nn.BatchNorm1d(a.dim, eps=BATCH_NORM_EPS) if a.input_norm == "bn" else None
        self.dsbn = DomainBatchNorm(a.n_labels, a.dim, BATCH_NORM_EPS) if a.input_norm == "dsbn" else None
        self.batch_encoder = TokenEncoder(a.n_labels, a.dim) if a.label_encoder else None
        blocks = [EncoderBlock(a.dim, a.n_heads, a.ffn, a.dropout, pre_norm=a.pre_norm) for _ in range(a.n_layers)]
        self.transformer_encoder = nn.ModuleDict({"layers": nn.ModuleList(blocks)})
        self.decoder = ExpressionDecoder(cell_dim, a.dim, explicit_zero=a.explicit_zero) if a.decoder else None
        self.mvc_decoder = (
            None if a.mvc == "none" else MvcDecoder(a.dim, cell_dim, a.mvc, explicit_zero=a.explicit_zero)
        )
        self.cls_decoder = ClassDecoder(a.dim, a.n_classes, a.n_layers_cls) if a.n_classes else None
        nn.init.uniform_(self.encoder.embedding.weight, -0.1, 0.1)

    @property
    def blocks(self) -> nn.ModuleList:
        blocks = self.transformer_encoder["layers"]
        assert isinstance(blocks, nn.ModuleList)
        return blocks

    def layers(self, tokens: Tokens, *, cell_prompt: Tensor | None = None) -> Iterator[Tensor]:
        """Yields n_layers + 1 states (B, T, D); see `Backbone.layers`.

        Args:
            tokens: ids, values, and labels in `condition` where the network was trained with them.
            cell_prompt: (B, D) cell vectors to put in place of the input embedding at position 0, for generation
                by cell prompt.
        """
        if self.layout == "packed" or (self.layout == "auto" and tokens.ids.device.type == "cpu"):
            packing = Packing.of(tokens.is_token, GROUP_TOKENS)
            for groups in self.packed_layers(tokens, packing, cell_prompt=cell_prompt):
                yield packing.pad(groups)
        else:
            yield from self._padded_layers(tokens, cell_prompt)

    def packed_layers(
        self, tokens: Tokens, packing: Packing, *, cell_prompt: Tensor | None = None
    ) -> Iterator[list[Tensor]]:
        """As `layers`, with each state as one (n, D) per group of `packing`: real tokens only."""
        with self._precision(tokens.ids.device.type):
            groups = packing.split(self._embed(tokens, packing, cell_prompt))
        yield groups
        for block in self._blocks():
            # No `with` across a yield: the caller would run under this generator's autocast.
            with self._precision(tokens.ids.device.type):
                groups = [block(x, lengths) for x, lengths in zip(groups, packing.groups, strict=True)]
            yield groups

    def _padded_layers(self, tokens: Tokens, cell_prompt: Tensor | None) -> Iterator[Tensor]:
        packing = Packing.of(tokens.is_token, tokens.ids.numel())
        mask = None if min(packing.lengths) == packing.shape[1] else tokens.is_token
        with self._precision(tokens.ids.device.type):
            state = packing.pad(packing.split(self._embed(tokens, packing, cell_prompt)))
        yield state
        for block in self._blocks():
            with self._precision(tokens.ids.device.type):
                state = block(state, None, mask)
            yield state

    def _blocks(self) -> Iterator[EncoderBlock]:
        for block in self.blocks:
            assert isinstance(block, EncoderBlock)
            yield block

    def _precision(self, device_type: str) -> AbstractContextManager[object]:
        """bfloat16 where asked for and useful; otherwise whatever the caller runs under."""
        if self.autocast and device_type == "cuda":
            return torch.autocast(device_type, dtype=torch.bfloat16)
        return nullcontext()

    def _embed(self, tokens: Tokens, packing: Packing, cell_prompt: Tensor | None) -> Tensor:
        """(N, D): genes and values joined, normalised, and the prompt put in."""
        if tokens.values is None:
            raise ValueError("scGPT needs a value for every token; these tokens have none")
        genes = self.encoder(packing.pack(tokens.ids))
        values = packing.pack(tokens.values)
        x: Tensor = genes * values.unsqueeze(1) if self.value_encoder is None else genes + self.value_encoder(values)
        if self.bn is not None:
            x = self.bn(x)
        if self.dsbn is not None:
            x = self.dsbn(x, self._labels_of_tokens(tokens, packing, len(self.dsbn.bns)))
        if cell_prompt is not None:
            x = x.index_copy(0, packing.starts, cell_prompt.to(x.dtype))
        return x

    def _labels_of_tokens(self, tokens: Tokens, packing: Packing, n_labels: int) -> Tensor:
        """(N,) batch labels; -1 where none is known, with one warning."""
        lengths = torch.tensor(packing.lengths, device=tokens.ids.device)
        labels = torch.full_like(lengths, -1) if tokens.condition is None else tokens.condition
        if not self._warned and not bool(((labels >= 0) & (labels < n_labels)).all()):
            self._warned = True
            logger.warning(
                "cells without one of the %d batch labels this network was trained with: "
                "their input is normalised by the average of the labels' statistics",
                n_labels,
            )
        return labels.repeat_interleave(lengths)

    def decode_expression(self, state: Tensor, tokens: Tokens) -> Tensor:
        """The expression decoder on the (B, T, D) state of any layer: (B, T) values in bin space.

        It was trained on the last layer; on others it is a logit lens. Values run from 0 to n_bins - 1 when trained; at
        padding they are undefined. The tokens' batch labels are appended, if the network has them.

        Raises:
            ValueError: no such head, or no batch labels where they are needed.
        """
        if self.decoder is None:
            raise ValueError("this scGPT network has no expression decoder (decoder.*)")
        values: Tensor = self.decoder(self._with_label(state, tokens))
        return values

    def cell(self, state: Tensor, tokens: Tokens) -> Tensor:
        """One vector (B, D) a cell, as the heads take it.

        "avg-pool" and "w-pool" run over all real tokens, <cls> included as in the published package; padding,
        which that package lets in, is left out.
        """
        if self.architecture.cell_style == "cls":
            return state[:, 0]
        weights = tokens.is_token.to(state.dtype)
        if self.architecture.cell_style == "avg-pool":
            return torch.bmm(weights.unsqueeze(1), state).squeeze(1) / weights.sum(1, keepdim=True)
        if tokens.values is None:
            raise ValueError("cell_emb_style 'w-pool' weighs tokens by their values; these tokens have none")
        return functional.normalize(torch.bmm((weights * tokens.values).unsqueeze(1), state).squeeze(1), dim=1)

    def mvc(self, cell: Tensor, tokens: Tokens) -> Tensor:
        """Expression of each token's gene predicted from cell vectors (B, D): (B, T) in bin space.

        Raises:
            ValueError: no such head, or no batch labels where they are needed.
        """
        if self.mvc_decoder is None:
            raise ValueError("this scGPT network has no MVC decoder (mvc_decoder.*)")
        values: Tensor = self.mvc_decoder(self._with_label(cell, tokens), self.encoder(tokens.ids))
        return values

    def classify(self, cell: Tensor) -> Tensor:
        """Cell vectors (B, D) to (B, n_classes) logits.

        Raises:
            ValueError: no such head.
        """
        if self.cls_decoder is None:
            raise ValueError("this scGPT network has no classification head (cls_decoder.*)")
        logits: Tensor = self.cls_decoder(cell)
        return logits

    def _with_label(self, x: Tensor, tokens: Tokens) -> Tensor:
        """(B, ..., D) to (B, ..., 2 D) by appending the batch label's vector, where the network has labels."""
        if self.batch_encoder is None:
            return x
        if tokens.condition is None:
            raise ValueError(
                f"this network's decoders need a batch label for every cell (0 to {self.architecture.n_labels - 1}) "
                "in Tokens.condition; none was given"
            )
        label: Tensor = self.batch_encoder(tokens.condition)
        if x.dim() == 3:
            label = label.unsqueeze(1).expand(-1, x.shape[1], -1)
        return torch.cat([x, label], dim=-1)


def _value_encoder(a: Architecture) -> ContinuousValues | CategoryValues | None:
    if a.value_style == "scaling":
        return None
    if a.value_style == "category":
        return CategoryValues(a.n_value_bins, a.dim, a.pad_value)
    return ContinuousValues(a.dim, a.dropout)
