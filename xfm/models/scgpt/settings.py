"""The architecture of an scGPT network: what args.json or config.json declares of it, settled with the tensors.

Light to import, so that a driver can plan without torch. Official training scripts, fine-tuning tutorials and the
Hub's repackaging spell the same field differently; all spellings are read here and nowhere else. Sizes that settings
and tensors both give are compared tensor by tensor when the weights are read, so that the error can name the tensor.
Whether an optional part exists is the tensors' to say: settings describe a training run, and a head may have been left
out of what was saved.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import ValidationError

from xfm.core.config import Config
from xfm.core.errors import Refused

ValueStyle = Literal["continuous", "category", "scaling"]
CellStyle = Literal["cls", "avg-pool", "w-pool"]
InputNorm = Literal["none", "bn", "dsbn"]
Mvc = Literal["none", "inner product", "inner product, detach", "concat query", "sum query"]

DOCUMENTS = ("args.json", "config.json")
Shapes = Mapping[str, tuple[int, ...]]
_PARTS = ("label_encoder", "mvc", "explicit_zero")
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

    n_tokens: int  # rows of the gene embedding, special tokens included
    n_layers: int  # transformer blocks
    n_heads: int  # attention heads; cannot be seen in the tensors
    dim: int  # width of a state
    ffn: int  # hidden width of the feed-forward part
    dropout: float = 0.2  # share of activations dropped in training
    value_style: ValueStyle = "continuous"  # how a value enters: by a small network, as one vector a bin, as a factor
    n_value_bins: int = 0  # vectors of the value encoder in style "category"
    input_norm: InputNorm = "none"  # batch normalisation of the summed input, shared or one for each batch label
    n_labels: int = 0  # batch labels the network knows
    label_encoder: bool = False  # whether a batch label's vector is appended for the decoders
    pre_norm: bool = False  # block order of the flash-attention layer with pre_norm; the ordinary layer never has it
    cell_style: CellStyle = "cls"  # what stands for a cell
    decoder: bool = True  # whether there is an expression decoder
    explicit_zero: bool = False  # whether decoders also give the probability of a non-zero value
    mvc: Mvc = "none"  # style of the decoder that predicts genes from the cell vector
    n_classes: int = 0  # outputs of the classification head; 0 without one
    n_layers_cls: int = 3  # linear layers of the classification head
    pad_token: str = "<pad>"  # name of the padding token in the vocabulary
    pad_value: int = -2  # value given to padding and to <cls> in extraction
    mask_value: int = -1  # value of a gene whose expression is hidden
    n_bins: int = 51  # bins of the tokenizer; 0 is kept for zero counts
    max_length: int = 1200  # longest row used in training

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


def settings_of(folder: Path) -> Path:
    """args.json, else config.json; raises Refused: NO_SETTINGS."""
    for name in DOCUMENTS:
        if (folder / name).is_file():
            return folder / name
    raise Refused(
        "NO_SETTINGS",
        f"{folder} holds neither args.json nor config.json; the number of attention heads (nheads) is nowhere else. "
        "Put the args.json that came with the weights beside them",
    )


def read_args(folder: Path) -> dict[str, Any]:
    """The content of args.json, else of config.json.

    Raises:
        Refused: neither is there, or it is no JSON object.
    """
    path = settings_of(folder)
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
    spelled = {
        field: [args[name] for name in names if args.get(name) is not None] for field, names in _SPELLINGS.items()
    }
    found = {field: values[0] for field, values in spelled.items() if values}
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


def settle(declared: Declared, shapes: Shapes, *, flash: bool) -> Architecture:
    """The architecture that settings and tensors agree on; where settings are silent, the tensors decide.

    Contradictions in sizes are left for the comparison of tensors, which can name the tensor. `flash` says whether the
    weights were saved in the flash-attention layout, the only one that has pre_norm.

    Raises:
        Refused: a size that neither settings nor tensors give, or sizes that cannot go together.
    """
    said = declared.model_dump(exclude_none=True, exclude={"pre_norm", "pre_norm_in_any_layout", "input_norm"})
    n_tokens, dim = _rows(shapes, "encoder.embedding.weight", 2)
    layers = {key.split(".")[2] for key in shapes if key.startswith("transformer_encoder.layers.")}
    ffn = shapes.get("transformer_encoder.layers.0.linear1.weight", (0,))[0]
    sizes: dict[str, Any] = {"n_tokens": n_tokens, "dim": dim, "n_layers": len(layers), "ffn": ffn}
    sizes |= _value_style(said, shapes) | _labels(declared, shapes) | _heads(said, shapes)
    settled = Architecture(
        **(sizes | said | {part: sizes[part] for part in _PARTS}),
        pre_norm=declared.pre_norm and (flash or declared.pre_norm_in_any_layout),
    )
    if settled.n_heads < 1 or settled.dim % settled.n_heads:
        raise Refused("BAD_SETTINGS", f"width {settled.dim} does not divide into {settled.n_heads} heads (nheads)")
    return settled


def disagreements(declared: Declared, settled: Architecture) -> list[str]:
    """One line for each optional part that the settings declare otherwise than it was found."""
    lines = []
    for part in (*_PARTS, "pre_norm"):
        said, found = getattr(declared, part), getattr(settled, part)
        if said is not None and said != found:
            lines.append(f"the settings say {part}={said!r}, the weights have {found!r}, which is used")
    return lines


def _rows(shapes: Shapes, key: str, rank: int) -> tuple[int, ...]:
    if key not in shapes:
        raise Refused("MISSING_TENSOR", f"tensor {key} is missing; found: {', '.join(list(shapes)[:5])}, ...")
    if len(shapes[key]) != rank:
        raise Refused("WRONG_SHAPE", f"tensor {key}: {rank} dimensions expected, found shape {shapes[key]}")
    return shapes[key]


def _value_style(said: dict[str, Any], shapes: Shapes) -> dict[str, Any]:
    category = shapes.get("value_encoder.embedding.weight")
    found = "category" if category else "continuous" if "value_encoder.linear1.weight" in shapes else "scaling"
    style = said.get("value_style", "continuous" if found == "scaling" else found)
    if found not in (style, "scaling"):
        raise Refused(
            "WRONG_VALUE_ENCODER",
            f"args.json says input_emb_style {style!r}, but the value_encoder.* tensors are those of {found!r}",
        )
    out: dict[str, Any] = {"value_style": style, "n_value_bins": category[0] if category else 0}
    n_bins = said.get("n_bins", 51)
    if category and category[0] == n_bins + 2:
        # The official fine-tuning scripts number padding and mask behind the bins; settings files may omit it.
        out |= {"pad_value": n_bins, "mask_value": n_bins + 1}
    return out


def _labels(declared: Declared, shapes: Shapes) -> dict[str, Any]:
    domains = {key.split(".")[2] for key in shapes if key.startswith("dsbn.bns.")}
    found: InputNorm = "dsbn" if domains else "bn" if "bn.running_mean" in shapes else "none"
    norm = declared.input_norm or "none"
    if norm != found and norm != "none":
        raise Refused(
            "MISSING_TENSOR",
            f"the settings ask for input normalisation {norm!r}, but its tensors are "
            f"{'missing' if found == 'none' else 'those of ' + repr(found)}",
        )
    rows = shapes.get("batch_encoder.embedding.weight", (0,))[0]
    decoder = shapes.get("decoder.fc.0.weight")
    if decoder is not None and decoder[-1] == 2 * shapes["encoder.embedding.weight"][-1] and not rows:
        raise Refused(
            "MISSING_TENSOR",
            f"tensor batch_encoder.embedding.weight is missing, though decoder.fc.0.weight {decoder} is wide enough "
            "for a batch label's vector",
        )
    return {"input_norm": found, "n_labels": max(len(domains), rows), "label_encoder": bool(rows)}


def _heads(said: dict[str, Any], shapes: Shapes) -> dict[str, Any]:
    heads: dict[str, Any] = {
        "decoder": any(key.startswith("decoder.fc.") for key in shapes),
        "explicit_zero": any("zero_logit" in key for key in shapes),
        "mvc": "none",
        "n_classes": shapes.get("cls_decoder.out_layer.weight", (0,))[0],
    }
    if any(key.startswith("mvc_decoder.") for key in shapes):
        heads["mvc"] = _mvc_style(said.get("mvc"), shapes)
    linears = [int(key.split(".")[2]) for key in shapes if key.startswith("cls_decoder._decoder.")]
    if heads["n_classes"]:
        heads["n_layers_cls"] = max(linears, default=-2) // 3 + 2
    elif linears:
        raise Refused(
            "PARTIAL_HEAD", "tensor cls_decoder.out_layer.weight is missing, though others of that head are there"
        )
    return heads


def _mvc_style(said: str | None, shapes: Shapes) -> str:
    dim = shapes["encoder.embedding.weight"][-1]
    hidden = shapes.get("mvc_decoder.fc1.weight")
    found = "inner product" if hidden is None else "sum query" if hidden[-1] == dim else "concat query"
    if said is not None and not said.startswith(found):
        raise Refused(
            "WRONG_HEAD",
            f"args.json says mvc_decoder_style {said!r}; the mvc_decoder.* tensors are those "
            f"of {found!r}. Known: {', '.join(get_args(Mvc)[1:])}",
        )
    return said or found
