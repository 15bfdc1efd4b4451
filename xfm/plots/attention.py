"""Maps of attention, and when there is nothing to see in one.

A softmax over a single key is 1 whatever the data are, so a map over a sequence of one is a picture of constants: it is
refused. Latents are learned vectors that every cell starts from: a map of latents against latents shows neither genes
nor words, and the axes and captions say so.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xfm.core.report import Figure
from xfm.metrics.attention import distributions
from xfm.plots.axes import GREY, INK, draw_scale, new_canvas, save_plot, set_title, shorten

Weights = NDArray[np.floating[Any]]
SAME = 1e-3  # mean total-variation distance below which a map is called the same for every cell
TEXT, GENE = "text latent", "gene latent"
LATENTS = (
    "Rows and columns are latents, learned vectors that stand for neither single genes nor single words: the map shows "
    "how the two sets of latents use each other."
)
SIDE, GAP, LEFT, BOTTOM, TOP = 2.35, 0.62, 0.7, 0.52, 0.5  # inches


@dataclass(frozen=True, slots=True)
class AttentionSample:
    """The cross attention of one cell."""

    name: str  # of the cell, e.g. its cell type.
    text_to_gene: Weights  # (N, N) a row for each text latent, what it takes from each gene latent
    gene_to_text: Weights  # (N, N) the other way


@dataclass(frozen=True, slots=True)
class _Map:
    title: str
    weights: Weights
    rows: str
    columns: str
    names: Sequence[str] = ()  # of the columns


Grid = Sequence[Sequence[_Map]]  # a row a direction, a column a cell


def is_single_key(weights: Weights) -> bool:
    """Whether all attention goes to the only key there is: nothing to draw."""
    return bool(weights.shape[-1] == 1)


def refuse_single_key(weights: Weights) -> None:
    """Raises ValueError where the attended sequence has one element: each weight is 1 whatever the data are."""
    if is_single_key(weights):
        raise ValueError(
            f"attention of shape {weights.shape} goes to a sequence of length 1: a softmax over one key is 1 whatever "
            "the data are, so the map would show constants. Attend to at least two (gene chunks, tokens, latents)"
        )


def draw_cross_attention(output: Path, samples: Sequence[AttentionSample]) -> Figure:
    """Writes plots/cross_attention.png and .csv: a column a cell, text to gene above gene to text, one colour scale.

    Raises:
        ValueError: no sample, more than six, maps over one latent, or rows that do not sum to 1.
    """
    if not 1 <= len(samples) <= 6:
        raise ValueError(f"{len(samples)} cells to draw attention of; give one to six")
    above = [_Map(one.name, one.text_to_gene, f"{TEXT} (asks)", f"{GENE} (is asked)") for one in samples]
    below = [_Map(one.name, one.gene_to_text, f"{GENE} (asks)", f"{TEXT} (is asked)") for one in samples]
    names = "; ".join(one.name for one in samples)
    return _draw(
        output, "cross_attention", [above, below], "cell", ("text to gene", "gene to text"),
        caption=f"Cross attention of {len(samples)} cells, mean over heads. {LATENTS}",
        alt=f"Cross attention between latents of {names}: text to gene above, gene to text below;",
    )  # fmt: skip


def draw_mean_attention(
    output: Path,
    mean: Weights,
    *,
    entropy: float,
    variation: float | None,
    cells: int,
    name: str = "mean_attention",
    noun: str = "cells",
) -> Figure:
    """Draws one map of text to gene, the mean over cells, with what a mean hides in the caption.

    Args:
        mean: (N, N) as `MeanAttention.mean` of metrics/attention.py.
        entropy: of a row, mean over rows and cells, in nats.
        variation: mean total-variation distance between two cells' maps; None where there is one cell.
        noun: what the cells are called, e.g. "test cells".

    Raises:
        ValueError: a map over one latent, rows that do not sum to 1.
    """
    shown = _Map(f"text to gene, mean of {cells:,}", mean, f"{TEXT} (asks)", f"{GENE} (is asked)")
    keys = mean.shape[-1]
    said = (
        f"Attention from {TEXT}s to {GENE}s, mean over {cells:,} {noun} and heads. Entropy of a row {entropy:.3f} "
        f"nats, mean over rows and {noun}; even attention to {keys} latents would have "
        f"log {keys} = {math.log(keys):.3f}. {_spread(variation, noun)}"
    )
    return _draw(output, name, [[shown]], "map", ("text to gene",), caption=f"{said} {LATENTS}", alt=said)


def draw_resampled_attention(
    output: Path,
    weights: Weights,
    names: Sequence[str],
    *,
    name: str = "resampled_attention",
    side: str = "gene",
    keys: str = "gene chunk",
    key_names: Sequence[Sequence[str]] = (),
    caption: str = "",
) -> Figure:
    """Writes plots/NAME.png and plots/NAME.csv: what each latent of a resampler takes from its sequence.

    Args:
        weights: (K, N, S) a map for each of one to six cells or labels.
        side: whose latents: "gene" or "text".
        keys: what the sequence is of, e.g. "gene chunk", "token".
        key_names: of each map the S names on the sequence (or fewer: what follows is padding and left out).

    Raises:
        ValueError: S is 1, or names and maps do not fit.
    """
    fits = weights.ndim == 3 and len(weights) == len(names) and (not key_names or len(key_names) == len(names))
    if not fits or not 1 <= len(names) <= 6:
        shape = f"shape {weights.shape}, {len(names)} names, keys named for {len(key_names)}"
        raise ValueError(f"maps of a resampler: {shape}; give (K, N, S) for one to six names")
    maps = []
    for number, (one, shown) in enumerate(zip(weights, names, strict=True)):
        words = list(key_names[number]) if key_names else []
        held = one[:, : len(words)] if words else one
        maps.append(_Map(shown, held, f"{side} latent (asks)", f"{keys} (is asked)", words))
    # One label of a single word among others has nothing to show; the others have.
    maps = [one for one in maps if not is_single_key(one.weights)]
    if not maps:
        refuse_single_key(weights[:, :, :1])
    said = caption or f"What the {side} resampler's latents take from each {keys}, mean over heads, last block."
    shown = "; ".join(one.title for one in maps)
    return _draw(output, name, [maps], "map", (f"{side} resampler",), caption=said, alt=f"{said} Shown: {shown};")


def _spread(variation: float | None, noun: str) -> str:
    if variation is None:
        return "There is one cell, so that nothing is said of differences."
    distance = f"total-variation distance between two {noun} {variation:.2g} on average, 1 at most"
    if variation < SAME:
        return f"The map is the same for every cell ({distance}): it shows learned parameters, not biology."
    return f"Mean {distance}."


def _draw(
    output: Path, name: str, grid: Grid, what: str, directions: Sequence[str], *, caption: str, alt: str
) -> Figure:
    """Draws and writes a grid of maps; `alt` goes on with a phrase on the scale."""
    for one in (one for row in grid for one in row):
        refuse_single_key(one.weights)
        if one.weights.ndim != 2:
            raise ValueError(f"attention of {one.title!r} has shape {one.weights.shape}; give (N, S)")
        distributions(one.weights)
    highest = max(float(one.weights.max()) for row in grid for one in row)
    head = [what, "direction", "asks", "is asked", "weight"]
    rows = (
        [one.title, direction, asks, one.names[asked] if one.names else asked, float(one.weights[asks, asked])]
        for row, direction in zip(grid, directions, strict=True)
        for one in row
        for asks, asked in np.ndindex(*one.weights.shape)
    )
    alt = f"{alt} colours from 0 to {highest:.3g}."
    canvas = _paint(grid, directions, highest)
    return save_plot(canvas, output, name, head, rows, caption=caption, alt=alt, wide=len(grid[0]) > 2)


def _paint(grid: Grid, directions: Sequence[str], highest: float) -> Any:
    across, down = max(map(len, grid)), len(grid)
    has_names = any(one.names for row in grid for one in row)
    tall = SIDE + (BOTTOM + (0.75 if has_names else 0.0)) + TOP
    width, height = LEFT + across * (SIDE + GAP) + 0.75, down * tall
    canvas = new_canvas(width, height)
    for number, row in enumerate(grid):
        low = height - number * tall - TOP - SIDE
        for place, one in enumerate(row):
            left = LEFT + place * (SIDE + GAP)
            axes = canvas.add_axes((left / width, low / height, SIDE / width, SIDE / height))
            picture = axes.imshow(one.weights, cmap="Blues", vmin=0, vmax=highest, aspect="auto")
            _dress(axes, one, f"{directions[number]}\n" if down > 1 else "")
    left = LEFT + across * (SIDE + GAP) - GAP + 0.18
    box = (left / width, (height - TOP - SIDE) / height, 0.12 / width, SIDE / height)
    draw_scale(canvas, picture, box, "weight (a row sums to 1)")
    return canvas


def _dress(axes: Any, one: _Map, above: str) -> None:
    rows, columns = one.weights.shape
    axes.set_yticks(_ticks(rows))
    if one.names:
        words = [shorten(word, 16) for word in one.names]
        axes.set_xticks(range(columns), words, rotation=60, ha="right", rotation_mode="anchor", parse_math=False)
    else:
        axes.set_xticks(_ticks(columns))
    axes.tick_params(colors=GREY, labelsize=7.5, length=0, pad=3)
    axes.set_xlabel(one.columns, color=INK, fontsize=8.5, labelpad=3, parse_math=False)
    axes.set_ylabel(one.rows, color=INK, fontsize=8.5, labelpad=3, parse_math=False)
    set_title(axes, f"{above}{shorten(one.title, 27)}", 9.5, 6)
    axes.spines[:].set_color("#c3c9d0")


def _ticks(number: int) -> range:
    """At most eight, from 0."""
    return range(0, number, max(1, math.ceil(number / 8)))
