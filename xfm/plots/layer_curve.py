"""A metric against the layer: the picture this project exists for.

Series carry a bootstrap band; baselines are grey: a horizontal line, or a dashed curve where the baseline knows layers
too (random weights). Both are named at the right edge instead of in a legend, and each series has its own marker, so
that the figure survives a black-and-white printer.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xfm.core.report import Figure
from xfm.plots.axes import DASHES, GREY, INK, End, curve_axes, dress, look, name_ends, save_plot, shorten, spread

FAR = 0.75  # a number further off than this share of the height of what is shown would press the curves flat
LINE, LIFT = 14.0, 6.0  # points from one line of names to the next, and from the axes to the first
FONT = 9.0  # points


@dataclass(frozen=True, slots=True)
class Series:
    """One readout over the layers."""

    name: str  # shown at the line's end
    # state numbers; 0 is the input embedding. One that others have and this one lacks leaves a gap.
    layers: Sequence[int]
    values: Sequence[float]  # one number a layer; NaN leaves a gap
    low: Sequence[float] | None = None  # lower end of the interval, or None
    high: Sequence[float] | None = None  # upper end, or None


@dataclass(frozen=True, slots=True)
class Baseline:
    """A number to beat that knows no layers."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Mark:
    """A ring around one layer of one series, and what it says above the axes, e.g. "chosen on validation: layer 7"."""

    series: str
    layer: int
    text: str


def draw_layer_curve(
    output: Path,
    name: str,
    series: Sequence[Series],
    baselines: Sequence[Baseline | Series] = (),
    *,
    metric: str,
    caption: str,
    title: str = "",
    higher_is_better: bool | None = None,
    marks: Sequence[Mark] = (),
) -> Figure:
    """Writes plots/NAME.png and plots/NAME.csv below `output`.

    Args:
        series: lines with bands, at least one; legible up to six.
        baselines: grey lines, curves where they are series; legible up to five. A number too far off to show beside
            the curves is named at the edge with its value.
        higher_is_better: said on the axis; None says nothing.
        marks: rings; those around the same point share a name.

    Raises:
        ValueError: no series, one whose lists differ in length, or a mark where no series has a value.
    """
    _check(series, baselines, marks)
    rows: list[list[object]] = []
    for line in (*series, *baselines):
        if isinstance(line, Baseline):
            rows.append([line.name, None, line.value, line.low, line.high])
            continue
        for place, layer in enumerate(line.layers):
            interval = [None if side is None else side[place] for side in (line.low, line.high)]
            rows.append([line.name, layer, line.values[place], *interval])
    canvas, axes = curve_axes()
    grid = sorted({layer for one in _curves(series, baselines) for layer in one.layers})
    ends = _draw_lines(axes, series, baselines, grid)
    rings = _Rings(axes, [(mark.layer, _value_at(series, mark), mark.text) for mark in marks])
    _dress(axes, grid, metric, title, higher_is_better, rings.height)
    rings.draw()
    name_ends(axes, ends)
    alt = f"{metric} by layer. " + " ".join(map(_in_words, (*series, *baselines)))
    head = ["series", "layer", metric, "low", "high"]
    return save_plot(canvas, output, name, head, rows, caption=caption, alt=alt)


def grey_line(number: int) -> dict[str, Any]:
    """Style of the baseline of this number."""
    return {"color": GREY, "linewidth": 1.3, "linestyle": DASHES[number % len(DASHES)], "zorder": 2}


def _check(series: Sequence[Series], baselines: Sequence[Baseline | Series], marks: Sequence[Mark]) -> None:
    if not series:
        raise ValueError("a layer curve needs at least one series; none was given")
    for one in _curves(series, baselines):
        lengths = {len(part) for part in (one.layers, one.values, one.low, one.high) if part is not None}
        if len(lengths) != 1 or lengths == {0} or (one.low is None) != (one.high is None):
            raise ValueError(f"series {one.name!r}: layers, values, low and high must be given alike; found {lengths}")
    for mark in marks:
        if not math.isfinite(_value_at(series, mark)):
            known = ", ".join(repr(one.name) for one in series)
            raise ValueError(f"mark {mark.text!r}: no value at layer {mark.layer} of {mark.series!r}; series: {known}")


def _value_at(series: Sequence[Series], mark: Mark) -> float:
    found = [dict(zip(one.layers, one.values, strict=True)) for one in series if one.name == mark.series]
    return found[0].get(mark.layer, math.nan) if found else math.nan


def _curves(series: Sequence[Series], baselines: Sequence[Baseline | Series]) -> list[Series]:
    return [one for one in (*series, *baselines) if isinstance(one, Series)]


def _draw_lines(
    axes: Any, series: Sequence[Series], baselines: Sequence[Baseline | Series], grid: Sequence[int]
) -> list[End]:
    """Baselines first, then the series over them. Returns where each ends."""
    ends: list[End] = []
    near = _near(series, baselines)
    for number, line in enumerate(baselines):
        style, name = grey_line(number), shorten(line.name)
        if isinstance(line, Series):
            last = _draw_curve(axes, line, grid, style | {"marker": ".", "markersize": 4}, 0.09)
            ends += [End(value, name, GREY) for value in last]
        elif not near[0] <= line.value <= near[1]:
            arrow = "\N{UPWARDS ARROW}" if line.value > near[1] else "\N{DOWNWARDS ARROW}"
            ends.append(End(line.value, f"{name} {line.value:.3g} {arrow}", GREY))
        else:
            axes.axhline(line.value, **style)
            if line.low is not None and line.high is not None:
                axes.axhspan(line.low, line.high, color=GREY, alpha=0.09, linewidth=0, zorder=1)
            ends.append(End(line.value, name, GREY))
    for number, one in enumerate(series):
        colour, marker = look(number)
        dots = {"marker": marker, "markersize": 5.5, "markeredgecolor": "white", "markeredgewidth": 0.7}
        band = 0.18 if len(series) <= 3 else 0.11
        last = _draw_curve(axes, one, grid, {"color": colour, "linewidth": 2.0, "zorder": 4} | dots, band)
        ends += [End(value, shorten(one.name), colour) for value in last]
    return ends


def _draw_curve(axes: Any, one: Series, grid: Sequence[int], style: dict[str, Any], band: float) -> list[float]:
    """A line over the whole grid, so that missing layers are gaps. Returns its last value, if it has one."""
    place = {layer: index for index, layer in enumerate(one.layers)}
    values, low, high = (
        [math.nan if part is None or layer not in place else part[place[layer]] for layer in grid]
        for part in (one.values, one.low, one.high)
    )
    axes.plot(grid, values, **style)
    if one.low is not None:
        shade = {"color": style["color"], "linewidth": 0, "zorder": style["zorder"] - 1}
        axes.fill_between(grid, low, high, alpha=band, **shade)
        # A band needs two neighbours; a layer alone between gaps gets a bar.
        padded = [math.nan, *values, math.nan]
        for index, layer in enumerate(grid):
            if math.isnan(padded[index]) and math.isnan(padded[index + 2]):
                axes.vlines(layer, low[index], high[index], color=style["color"], alpha=0.5, linewidth=2.0, zorder=3)
    return [value for value in values if math.isfinite(value)][-1:]


def _near(series: Sequence[Series], baselines: Sequence[Baseline | Series]) -> tuple[float, float]:
    """Between which values a number is drawn as a line: the nearest always is, others while the curves stay legible."""
    curves = _curves(series, baselines)
    parts = [part for one in curves for part in (one.values, one.low, one.high) if part is not None]
    finite = [value for part in parts for value in part if math.isfinite(value)]
    if not finite:
        return -math.inf, math.inf
    low, high = min(finite), max(finite)
    levels = [line.value for line in baselines if isinstance(line, Baseline) and math.isfinite(line.value)]
    for number, level in enumerate(sorted(levels, key=lambda level: max(low - level, level - high))):
        if number and max(low - level, level - high) > FAR * (high - low):
            break
        low, high = min(low, level), max(high, level)
    return low, high


def _dress(axes: Any, layers: Sequence[int], metric: str, title: str, better: bool | None, above: float) -> None:
    step = max(1, math.ceil(len(layers) / 13))
    ticks = sorted({*layers[::step], layers[0], layers[-1]})
    if len(ticks) > 2 and ticks[-1] - ticks[-2] < step * 0.75:
        del ticks[-2]
    axes.set_xticks(ticks, [str(layer) for layer in ticks])
    if 0 in layers:
        style = {"color": GREY, "fontsize": 9, "ha": "center", "va": "top"}
        axes.annotate("embedding", (0, 0), (0, -21), ("data", "axes fraction"), "offset points", **style)
    margin = 0.35 + 0.01 * (layers[-1] - layers[0])
    axes.set_xlim(layers[0] - margin, layers[-1] + margin)
    axes.margins(y=0.08)
    direction = {True: "\n(higher is better)", False: "\n(lower is better)", None: ""}[better]
    x_pad = 14 if 0 in layers else 6
    dress(axes, x="layer", y=metric + direction, title=title, x_pad=x_pad, title_pad=12 + above)


class _Rings:
    """Rings around points, named above the axes, where no line can run through the words.

    Measured first, because the title moves up by their height; drawn when limits are set.
    """

    def __init__(self, axes: Any, points: Sequence[tuple[float, float, str]]) -> None:
        """Takes (x, y, name); names of the same point are joined."""
        self._axes = axes
        # The white beneath hides the dotted lines of names further up.
        beneath = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}
        style = {"color": INK, "fontsize": FONT, "ha": "center", "va": "bottom", "bbox": beneath, "zorder": 6}
        style |= {"parse_math": False, "clip_on": False}
        names: dict[tuple[float, float], list[str]] = {}
        for x, y, name in points:
            names.setdefault((x, y), []).append(name)
        room: list[float] = []  # what is left of each line, as a share of the axes
        self._lines: list[list[tuple[float, float, Any, float]]] = []  # x, y, text, its width
        for (x, y), parts in sorted(names.items()):
            text = axes.text(0, 0, ", ".join(dict.fromkeys(parts)), transform=axes.transAxes, **style)
            width = (text.get_window_extent().width + FONT * axes.figure.dpi / 72) / axes.get_window_extent().width
            line = next((number for number, left in enumerate(room) if left >= width), len(room))
            if line == len(room):
                self._lines.append([])
                room.append(1.0)
            self._lines[line].append((x, y, text, width))
            room[line] -= width
        self.height = LIFT + LINE * len(self._lines) - 2 if self._lines else 0.0  # points above the axes

    def draw(self) -> None:
        """Rings, and a dotted line from each to its name."""
        axes = self._axes
        axes.set_ylim(axes.get_ylim())
        to_share = axes.transData + axes.transAxes.inverted()
        points_high = axes.get_window_extent().height * 72 / axes.figure.dpi
        for number, line in enumerate(self._lines):
            at = [to_share.transform((x, y)) for x, y, *_ in line]
            centres = spread([x for x, _ in at], [width for *_, width in line], (-0.02, 1.02))
            height = 1 + (LIFT + LINE * number) / points_high
            for (x, y), centre, (*_, text, width) in zip(at, centres, line, strict=True):
                text.set_position((centre, height))
                lead = {"color": GREY, "linewidth": 0.9, "linestyle": (0, (1, 1.6)), "zorder": 1.5}
                end = min(max(x, centre - 0.4 * width), centre + 0.4 * width)
                axes.plot([x, x, end], [y, 1, height], transform=axes.transAxes, clip_on=False, **lead)
                ring = {"marker": "o", "markersize": 11.5, "fillstyle": "none", "markeredgewidth": 1.5, "zorder": 5}
                axes.plot([x], [y], transform=axes.transAxes, color=INK, clip_on=False, **ring)


def _in_words(line: Baseline | Series) -> str:
    """For those who do not see the picture."""
    if isinstance(line, Baseline):
        return f"{line.name}: {line.value:.3g}."
    points = [(layer, value) for layer, value in zip(line.layers, line.values, strict=True) if math.isfinite(value)]
    if not points:
        return f"{line.name}: no value."
    extremes = (pick(points, key=lambda point: point[1]) for pick in (min, max))
    first, last, low, high = (f"{value:.3g} at layer {layer}" for layer, value in (points[0], points[-1], *extremes))
    return f"{line.name}: from {first} to {last}, lowest {low}, highest {high}."
