"""scGPT's forward in float64 NumPy, one cell at a time, written from the published formulas.

Names of the tensors are the official ones. It shares no code with xfm and knows neither batches nor padding.
"""

from typing import Any

import numpy as np

State = dict[str, np.ndarray]


def layer_norm(x: np.ndarray, w: State, name: str) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    scale = np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    return centred / scale * w[f"{name}.weight"] + w[f"{name}.bias"]


def linear(x: np.ndarray, w: State, name: str) -> np.ndarray:
    return np.einsum("...i,oi->...o", x, w[f"{name}.weight"]) + w.get(f"{name}.bias", 0.0)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def attention(x: np.ndarray, w: State, name: str, n_heads: int) -> np.ndarray:
    dim = x.shape[1]
    width = dim // n_heads
    projected = x @ w[f"{name}.in_proj_weight"].T + w[f"{name}.in_proj_bias"]
    out = np.zeros_like(x)
    for head in range(n_heads):
        q, k, v = (projected[:, part * dim + head * width : part * dim + (head + 1) * width] for part in range(3))
        scores = q @ k.T / np.sqrt(width)
        weights = np.exp(scores - scores.max(1, keepdims=True))
        out[:, head * width : (head + 1) * width] = weights / weights.sum(1, keepdims=True) @ v
    return linear(out, w, f"{name}.out_proj")


def block(x: np.ndarray, w: State, name: str, n_heads: int, pre_norm: bool) -> np.ndarray:
    def feed_forward(y: np.ndarray) -> np.ndarray:
        return linear(np.maximum(linear(y, w, f"{name}.linear1"), 0), w, f"{name}.linear2")

    if pre_norm:
        x = layer_norm(x, w, f"{name}.norm1")
        x = x + attention(x, w, f"{name}.self_attn", n_heads)
        x = layer_norm(x, w, f"{name}.norm2")
        return x + feed_forward(x)
    x = layer_norm(x + attention(x, w, f"{name}.self_attn", n_heads), w, f"{name}.norm1")
    return layer_norm(x + feed_forward(x), w, f"{name}.norm2")


def embed(ids: np.ndarray, values: np.ndarray, w: State, label: int | None) -> np.ndarray:
    genes = layer_norm(w["encoder.embedding.weight"][ids], w, "encoder.enc_norm")
    if "value_encoder.linear1.weight" in w:
        hidden = np.maximum(linear(np.minimum(values, 512.0)[:, None], w, "value_encoder.linear1"), 0)
        x = genes + layer_norm(linear(hidden, w, "value_encoder.linear2"), w, "value_encoder.norm")
    elif "value_encoder.embedding.weight" in w:
        rows = w["value_encoder.embedding.weight"][values.astype(int)]
        x = genes + layer_norm(rows, w, "value_encoder.enc_norm")
    else:
        x = genes * values[:, None]
    if "bn.running_mean" in w:
        normed = (x - w["bn.running_mean"]) / np.sqrt(w["bn.running_var"] + 6.1e-5)
        x = normed * w["bn.weight"] + w["bn.bias"]
    n_domains = sum(key.endswith("running_mean") for key in w if key.startswith("dsbn."))
    if n_domains:
        of = range(n_domains) if label is None else [label]
        mean = np.mean([w[f"dsbn.bns.{i}.running_mean"] for i in of], axis=0)
        var = np.mean([w[f"dsbn.bns.{i}.running_var"] for i in of], axis=0)
        x = (x - mean) / np.sqrt(var + 6.1e-5)
    return x


def states(
    ids: np.ndarray,
    values: np.ndarray,
    w: State,
    n_heads: int,
    *,
    pre_norm: bool = False,
    label: int | None = None,
    prompt: np.ndarray | None = None,
) -> list[np.ndarray]:
    """All layers of one cell without padding, each (T, D)."""
    x = embed(ids, values, w, label)
    if prompt is not None:
        x[0] = prompt
    out = [x]
    n_layers = len({key.split(".")[2] for key in w if key.startswith("transformer_encoder.")})
    for i in range(n_layers):
        out.append(block(out[-1], w, f"transformer_encoder.layers.{i}", n_heads, pre_norm))
    return out


def label_vector(w: State, label: int) -> np.ndarray:
    return layer_norm(w["batch_encoder.embedding.weight"][label], w, "batch_encoder.enc_norm")


def expression(state: np.ndarray, w: State, stack: str = "decoder.fc") -> np.ndarray:
    for i in (0, 2):
        state = linear(state, w, f"{stack}.{i}")
        state = np.where(state > 0, state, 0.01 * state)
    return linear(state, w, f"{stack}.4")[..., 0]


def mvc(cell: np.ndarray, ids: np.ndarray, w: State, style: str) -> np.ndarray:
    genes = layer_norm(w["encoder.embedding.weight"][ids], w, "encoder.enc_norm")
    query = sigmoid(linear(genes, w, "mvc_decoder.gene2query"))
    if style.startswith("inner"):
        return linear(query, w, "mvc_decoder.W") @ cell
    joined = np.concatenate([np.tile(cell, (len(ids), 1)), query], axis=1) if style[0] == "c" else cell + query
    hidden = linear(joined, w, "mvc_decoder.fc1")
    hidden = np.where(hidden > 0, hidden, w["mvc_decoder.hidden_activation.weight"] * hidden)
    return linear(hidden, w, "mvc_decoder.fc2")[:, 0]


def classes(cell: np.ndarray, w: State) -> np.ndarray:
    index = 0
    while f"cls_decoder._decoder.{index}.weight" in w:
        cell = np.maximum(linear(cell, w, f"cls_decoder._decoder.{index}"), 0)
        cell = layer_norm(cell, w, f"cls_decoder._decoder.{index + 2}")
        index += 3
    return linear(cell, w, "cls_decoder.out_layer")


def float64(state: dict[str, Any]) -> State:
    return {name: tensor.double().numpy() for name, tensor in state.items() if tensor.is_floating_point()}
