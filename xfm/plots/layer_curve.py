"""A metric against the layer: the picture this project exists for.

Series carry a bootstrap band, baselines are horizontal lines, and both are named at the right edge instead of in a
legend. Colours: Okabe and Ito, readable with every kind of colour vision; each series has its own marker as well, so
that the figure survives a black-and-white printer.
"""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xfm.core.report import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#444444")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ((0, (6, 3)), (0, (1.5, 2)), (0, (6, 2, 1.5, 2)), (0, (3, 2)))
INK, GREY, GRID = "#1b1f24", "#57606a", "#e4e7eb"
LABEL_GAP = 0.062  # least distance of two labels at the right edge, as a share of the axis


@dataclass(frozen=True, slots=True)
class Series:
    """One readout over the layers.

    Attributes:
        name: shown at the line's end.
        layers: state numbers; 0 is the input embedding.
        values: one number a layer; NaN leaves a gap.
        low: lower end of the interval, or None.
        high: upper end, or None.
    """

    name: str
    layers: Sequence[int]
    values: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None


@dataclass(frozen=True, slots=True)
class Baseline:
    """A number to beat that knows no layers."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None


def draw_layer_curve(
    output: Path,
    name: str,
    series: Sequence[Series],
    baselines: Sequence[Baseline] = (),
    *,
    metric: str,
    caption: str,
    title: str = "",
    higher_is_better: bool | None = None,
) -> Figure:
    """Writes plots/NAME.png (150 dpi) and plots/NAME.csv below `output`.

    Args:
        output: folder of the job.
        name: file-name safe.
        series: lines with bands, at least one.
        baselines: horizontal lines.
        metric: label of the vertical axis, unit included.
        caption: one sentence that says what is seen.
        title: above the axes.
        higher_is_better: adds "higher is better" or "lower is better" to the axis.

    Raises:
        ValueError: no series, or one whose lists differ in length.
    """
    _check(series)
    folder = output / "plots"
    folder.mkdir(parents=True, exist_ok=True)
    _write_csv(folder / f"{name}.csv", series, baselines, metric)
    _write_png(folder / f"{name}.png", series, baselines, metric, title, higher_is_better)
    return Figure(name=name, caption=caption, png=f"plots/{name}.png", csv=f"plots/{name}.csv")


def spread(positions: Sequence[float], gap: float) -> list[float]:
    """The positions, moved as little as needed to be `gap` apart, in their order.

    Least squares under an order constraint: neighbours that are too close form a block that sits at its mean.
    """
    order = sorted(range(len(positions)), key=lambda index: positions[index])
    blocks: list[tuple[float, list[int]]] = []  # centre, members from low to high
    for index in order:
        blocks.append((positions[index], [index]))
        while len(blocks) > 1:
            (below, low), (above, high) = blocks[-2:]
            if above - below >= gap * (len(low) + len(high)) / 2 - 1e-12:
                break
            members = low + high
            blocks[-2:] = [((below * len(low) + above * len(high)) / len(members), members)]
    moved = list(positions)
    for centre, members in blocks:
        for rank, index in enumerate(members):
            moved[index] = centre + gap * (rank - (len(members) - 1) / 2)
    return moved


def _check(series: Sequence[Series]) -> None:
    if not series:
        raise ValueError("a layer curve needs at least one series; none was given")
    for one in series:
        lengths = {len(part) for part in (one.layers, one.values, one.low, one.high) if part is not None}
        if len(lengths) != 1 or (one.low is None) != (one.high is None):
            raise ValueError(f"series {one.name!r}: layers, values, low and high must be given alike; found {lengths}")


def _write_csv(path: Path, series: Sequence[Series], baselines: Sequence[Baseline], metric: str) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["series", "layer", metric, "low", "high"])
        for one in series:
            for place, layer in enumerate(one.layers):
                ends = [None if side is None else side[place] for side in (one.low, one.high)]
                writer.writerow([one.name, layer, *map(_number, (one.values[place], *ends))])
        for line in baselines:
            writer.writerow([line.name, "", *map(_number, (line.value, line.low, line.high))])


def _number(value: float | None) -> str:
    return "" if value is None or not math.isfinite(value) else repr(float(value))


def _write_png(
    path: Path,
    series: Sequence[Series],
    baselines: Sequence[Baseline],
    metric: str,
    title: str,
    higher_is_better: bool | None,
) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(7.4, 4.4), dpi=150, facecolor="white")
    FigureCanvasAgg(canvas)
    axes = canvas.add_axes((0.095, 0.135, 0.655, 0.745))
    ends: list[tuple[float, str, str, bool]] = []
    for number, line in enumerate(baselines):
        axes.axhline(line.value, color=GREY, linewidth=1.3, linestyle=DASHES[number % len(DASHES)], zorder=2)
        if line.low is not None and line.high is not None:
            axes.axhspan(line.low, line.high, color=GREY, alpha=0.09, linewidth=0, zorder=1)
        ends.append((line.value, line.name, GREY, False))
    for number, one in enumerate(series):
        colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
        if one.low is not None and one.high is not None:
            axes.fill_between(one.layers, one.low, one.high, color=colour, alpha=0.18, linewidth=0, zorder=3)
        axes.plot(
            one.layers,
            one.values,
            color=colour,
            marker=marker,
            markersize=5.5,
            markeredgecolor="white",
            markeredgewidth=0.7,
            linewidth=2.0,
            zorder=4,
        )
        finite = [value for value in one.values if math.isfinite(value)]
        if finite:
            ends.append((finite[-1], one.name, colour, True))
    _dress(axes, series, metric, title, higher_is_better)
    _label(axes, ends)
    canvas.savefig(path, format="png", dpi=150, bbox_inches="tight", pad_inches=0.14, metadata={"Software": None})


def _dress(axes: Any, series: Sequence[Series], metric: str, title: str, higher_is_better: bool | None) -> None:
    layers = sorted({layer for one in series for layer in one.layers})
    step = max(1, math.ceil(len(layers) / 13))
    ticks = sorted({*layers[::step], layers[0], layers[-1]})
    if len(ticks) > 2 and ticks[-1] - ticks[-2] < step * 0.75:
        del ticks[-2]
    axes.set_xticks(ticks, [str(layer) for layer in ticks])
    if 0 in layers:
        axes.annotate(
            "embedding",
            xy=(0, 0),
            xycoords=("data", "axes fraction"),
            xytext=(0, -21),
            textcoords="offset points",
            color=GREY,
            fontsize=9,
            ha="center",
            va="top",
        )
    margin = 0.35 + 0.01 * (layers[-1] - layers[0])
    axes.set_xlim(layers[0] - margin, layers[-1] + margin)
    axes.margins(y=0.08)
    axes.set_xlabel("layer", color=INK, fontsize=11, labelpad=14 if 0 in layers else 6)
    direction = {True: "\n(higher is better)", False: "\n(lower is better)", None: ""}[higher_is_better]
    axes.set_ylabel(metric + direction, color=INK, fontsize=11)
    if title:
        axes.set_title(title, loc="left", color=INK, fontsize=12.5, fontweight="bold", pad=12)
    axes.grid(axis="y", color=GRID, linewidth=0.9)
    axes.set_axisbelow(True)
    axes.tick_params(colors=GREY, labelsize=10, length=0, pad=6)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(GREY)


def _label(axes: Any, ends: Sequence[tuple[float, str, str, bool]]) -> None:
    """Names at the right edge, moved apart where lines end close together."""
    bottom, top = axes.get_ylim()
    shares = [(value - bottom) / (top - bottom) for value, *_ in ends]
    for at, share, (_, name, colour, is_series) in zip(spread(shares, LABEL_GAP), shares, ends, strict=True):
        axes.annotate(
            _short(name),
            xy=(1.0, share),
            xytext=(1.035, at),
            xycoords="axes fraction",
            textcoords="axes fraction",
            color=colour,
            fontsize=10,
            fontweight="bold" if is_series else "normal",
            va="center",
            annotation_clip=False,
            parse_math=False,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.8, "alpha": 0.6, "shrinkA": 1, "shrinkB": 0},
        )


def _short(name: str) -> str:
    return name if len(name) <= 26 else f"{name[:25]}…"
