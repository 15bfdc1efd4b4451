"""Settings against tensors: the one architecture that both agree on.

Sizes that both give are compared tensor by tensor when the weights are read, so that the error can name the tensor.
Whether an optional part exists is the tensors' to say: settings describe a training run, and a head may have been
left out of what was saved.
"""

from collections.abc import Mapping
from typing import Any, get_args

from xfm.core.errors import Refused
from xfm.models.scgpt.settings import Architecture, Declared, InputNorm, Mvc

Shapes = Mapping[str, tuple[int, ...]]
_PARTS = ("label_encoder", "mvc", "explicit_zero")


def settle(declared: Declared, shapes: Shapes, *, flash: bool) -> Architecture:
    """The architecture that settings and tensors agree on; where settings are silent, the tensors decide.

    Contradictions in sizes are left for the comparison of tensors, which can name the tensor.

    Args:
        declared: what the settings file says.
        shapes: of every tensor, under its official name.
        flash: whether the weights were saved in the flash-attention layout, the only one that has pre_norm.

    Raises:
        Refused: a size that neither settings nor tensors give, or sizes that cannot go together.
    """
    said = declared.model_dump(exclude_none=True, exclude={"pre_norm", "pre_norm_in_any_layout", "input_norm"})
    n_tokens, dim = _rows(shapes, "encoder.embedding.weight", 2)
    layers = {key.split(".")[2] for key in shapes if key.startswith("transformer_encoder.layers.")}
    sizes: dict[str, Any] = {
        "n_tokens": n_tokens,
        "dim": dim,
        "n_layers": len(layers),
        "ffn": shapes.get("transformer_encoder.layers.0.linear1.weight", (0,))[0],
    }
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
    wide = (
        "decoder.fc.0.weight" in shapes
        and shapes["decoder.fc.0.weight"][-1] == 2 * shapes["encoder.embedding.weight"][-1]
    )
    if wide and not rows:
        raise Refused(
            "MISSING_TENSOR",
            "tensor batch_encoder.embedding.weight is missing, though decoder.fc.0.weight "
            f"{shapes['decoder.fc.0.weight']} is wide enough for a batch label's vector",
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
