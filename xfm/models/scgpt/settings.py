"""The architecture of an scGPT network, and what args.json or config.json declares of it.

Light to import, so that a driver can plan without torch. Official training scripts, fine-tuning tutorials and the
Hub's repackaging spell the same field differently; all spellings are read here and nowhere else.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from xfm.core.config import Config
from xfm.core.errors import Refused

ValueStyle = Literal["continuous", "category", "scaling"]
CellStyle = Literal["cls", "avg-pool", "w-pool"]
InputNorm = Literal["none", "bn", "dsbn"]
Mvc = Literal["none", "inner product", "inner product, detach", "concat query", "sum query"]

DOCUMENTS = ("args.json", "config.json")
_SPELLINGS = {
    "n_layers": ("nlayers", "n_layers"),
    "n_heads": ("nheads", "nhead", "n_heads"),
    "dim": ("embsize", "d_model", "layer_size"),
    "ffn": ("d_hid", "layer_size"),
    "n_tokens": ("vocab_size", "ntoken"),
    "n_layers_cls": ("n_layers_cls", "nlayers_cls"),
    "value_style": ("input_emb_style",),
    "n_value_bins": ("n_input_bins",),
    "cell_style": ("cell_emb_style",),
    "mvc": ("mvc_decoder_style",),
    "explicit_zero": ("explicit_zero_prob",),
    "dropout": ("dropout",),
    "pad_token": ("pad_token",),
    "pad_value": ("pad_value",),
    "mask_value": ("mask_value",),
    "n_bins": ("n_bins",),
    "max_length": ("max_seq_len", "max_length"),
}


class Architecture(Config):
    """Everything needed to build the network; weights fit it exactly or not at all."""

    n_tokens: int
    """Rows of the gene embedding, special tokens included."""
    n_layers: int
    """Transformer blocks."""
    n_heads: int
    """Attention heads; cannot be seen in the tensors."""
    dim: int
    """Width of a state."""
    ffn: int
    """Hidden width of the feed-forward part."""
    dropout: float = 0.2
    """Share of activations dropped in training."""
    value_style: ValueStyle = "continuous"
    """How a value enters: through a small network, as one vector a bin, or as a factor."""
    n_value_bins: int = 0
    """Vectors of the value encoder in style "category"."""
    input_norm: InputNorm = "none"
    """Batch normalisation of the summed input, shared or one for each batch label."""
    n_labels: int = 0
    """Batch labels the network knows."""
    label_encoder: bool = False
    """Whether a batch label's vector is appended for the decoders."""
    pre_norm: bool = False
    """Block order of the flash-attention layer with pre_norm; the ordinary layer never has it."""
    cell_style: CellStyle = "cls"
    """What stands for a cell."""
    decoder: bool = True
    """Whether there is an expression decoder."""
    explicit_zero: bool = False
    """Whether decoders also give the probability of a non-zero value."""
    mvc: Mvc = "none"
    """Style of the decoder that predicts genes from the cell vector."""
    n_classes: int = 0
    """Outputs of the classification head; 0 without one."""
    n_layers_cls: int = 3
    """Linear layers of the classification head."""
    pad_token: str = "<pad>"
    """Name of the padding token in the vocabulary."""
    pad_value: int = -2
    """Value given to padding and to <cls> in extraction."""
    mask_value: int = -1
    """Value of a gene whose expression is hidden."""
    n_bins: int = 51
    """Bins of the tokenizer; 0 is kept for zero counts."""
    max_length: int = 1200
    """Longest row used in training."""

    def to_args(self) -> dict[str, Any]:
        """The official field names, as args.json of a checkpoint holds them."""
        args = {names[0]: getattr(self, field) for field, names in _SPELLINGS.items()}
        norm = {"none": False, "bn": "batchnorm", "dsbn": "dsbn"}[self.input_norm]
        args |= {"MVC": self.mvc != "none", "use_batch_labels": self.label_encoder, "num_batch_labels": self.n_labels}
        args |= {"domain_spec_batchnorm": norm, "pre_norm": self.pre_norm, "xfm_pre_norm": self.pre_norm}
        if self.mvc == "none":
            del args["mvc_decoder_style"]
        if self.value_style != "category":
            del args["n_input_bins"]
        return args


class Declared(Config):
    """What a settings file says; None where it is silent and the tensors decide."""

    n_layers: int | None = None
    n_heads: int
    dim: int | None = None
    ffn: int | None = None
    n_tokens: int | None = None
    n_layers_cls: int | None = None
    value_style: ValueStyle | None = None
    n_value_bins: int | None = None
    cell_style: CellStyle | None = None
    mvc: Mvc | None = None
    explicit_zero: bool | None = None
    dropout: float | None = None
    pad_token: str | None = None
    pad_value: int | None = None
    mask_value: int | None = None
    n_bins: int | None = None
    max_length: int | None = None
    input_norm: InputNorm | None = None
    label_encoder: bool | None = None
    pre_norm: bool = False
    pre_norm_in_any_layout: bool = False


def read_args(folder: Path) -> dict[str, Any]:
    """The content of args.json, else of config.json.

    Raises:
        Refused: neither is there, or it is no JSON object.
    """
    path = next((folder / name for name in DOCUMENTS if (folder / name).is_file()), None)
    if path is None:
        raise Refused(
            "NO_SETTINGS",
            f"{folder} holds neither args.json nor config.json; the number of attention heads (nheads) is "
            "nowhere else. Put the args.json that came with the weights beside them",
        )
    try:
        args = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise Refused("BAD_SETTINGS", f"{path} is no JSON: {error}") from error
    if not isinstance(args, dict):
        raise Refused("BAD_SETTINGS", f"{path} holds a JSON {type(args).__name__}; an object of settings is needed")
    return args


def declare(args: Mapping[str, Any]) -> Declared:
    """Reads the fields of args.json or config.json that describe the network; training settings are passed over.

    Raises:
        Refused: no number of heads, a value out of range, or a kind of attention without an implementation here.
    """
    if args.get("fast_transformer_backend") == "linear":
        raise Refused(
            "LINEAR_ATTENTION",
            "args.json says fast_transformer_backend 'linear': a third-party linear attention with other arithmetic "
            "and other weights, used by no released checkpoint. Readable: 'flash' and ordinary PyTorch attention",
        )
    found: dict[str, Any] = {}
    for field, names in _SPELLINGS.items():
        value = next((args[name] for name in names if args.get(name) is not None), None)
        if value is not None:
            found[field] = value
    if "n_heads" not in found:
        raise Refused("NO_HEADS", "the settings name no number of attention heads; add `nheads` to args.json")
    found["input_norm"] = _input_norm(args)
    found["label_encoder"] = args.get("use_batch_labels")
    found["pre_norm"] = bool(args.get("pre_norm")) or args.get("norm_scheme") == "pre"
    found["pre_norm_in_any_layout"] = bool(args.get("xfm_pre_norm"))
    try:
        return Declared(**found)
    except ValidationError as error:
        problems = "; ".join(
            f"{'|'.join(_SPELLINGS.get(str(e['loc'][0]), (str(e['loc'][0]),)))}: {e['msg']}, found {e['input']!r}"
            for e in error.errors()
        )
        raise Refused("BAD_SETTINGS", f"args.json: {problems}") from error


def _input_norm(args: Mapping[str, Any]) -> InputNorm | None:
    value = args.get("domain_spec_batchnorm", args.get("DSBN"))
    if value is None:
        return None
    return "bn" if value == "batchnorm" else "dsbn" if value else "none"
