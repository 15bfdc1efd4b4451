"""Attention, norms and the resampler written out from their formulas in float64 NumPy, weights taken from modules.

Vaswani et al., NeurIPS 2017, equation 1; Ba et al., 2016; Hendrycks and Gimpel, 2016.
"""

import math

import numpy as np


def numbers(tensor):
    return tensor.detach().double().numpy()


def linear(x, layer):
    return x @ numbers(layer.weight).T + numbers(layer.bias)


def norm(x, layer):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + layer.eps) * numbers(layer.weight) + numbers(
        layer.bias
    )


def gelu(x):
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def attend(module, asking, answering, held=None):
    """(N, h) asks (S, h), of one row; what it is given (N, h), and the weights (N, S) averaged over heads.

    `held` (S,) says which of the answering vectors are there at all: the others are left out before anything is
    computed.
    """
    kept = np.ones(len(answering), bool) if held is None else held
    width = module.embed_dim
    parts = zip(numbers(module.in_proj_weight).reshape(3, width, width), numbers(module.in_proj_bias).reshape(3, width),
                (asking, answering[kept], answering[kept]), strict=True)  # fmt: skip
    q, k, v = (x @ weight.T + bias for weight, bias, x in parts)
    given, all_weights = [], []
    for columns in np.split(np.arange(width), module.num_heads):
        scores = q[:, columns] @ k[:, columns].T / math.sqrt(len(columns))
        weights = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
        given.append(weights @ v[:, columns])
        all_weights.append(weights)
    whole = np.zeros((len(asking), len(answering)))
    whole[:, kept] = np.mean(all_weights, axis=0)
    return linear(np.concatenate(given, axis=1), module.out_proj), whole


def resample(module, x, held=None):
    """(S, dim_in) of one row to latents (N, h), and the weights of the last block."""
    inputs, latents = linear(x, module.project), numbers(module.latents)
    for block in module.blocks:
        given, weights = attend(block.attention, latents, inputs, held)
        y = norm(latents + given, block.norm_attention)
        first, _, second = block.feed_forward
        latents = norm(y + linear(gelu(linear(y, first)), second), block.norm_feed_forward)
    return latents, weights
