"""Scores against the share of an update: from the pretrained network on the left to the adapted one on the right."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from xfm.core.report import Figure
from xfm.plots.axes import GREY, End, curve_canvas, dress, look, name_ends, save_plot, shorten


@dataclass(frozen=True, slots=True)
class ShareSeries:
    """One score at every share."""

    name: str  # shown at the line's end
    values: Sequence[float]  # values, low, high: one number a share; the ends of its interval
    low: Sequence[float]
    high: Sequence[float]


def draw_share_curve(
    output: Path,
    name: str,
    shares: Sequence[float],
    series: Sequence[ShareSeries],
    *,
    chosen: float,
    metric: str,
    caption: str,
    title: str = "",
) -> Figure:
    """Writes plots/NAME.png (150 dpi) and plots/NAME.csv below `output`.

    Args:
        shares: rising, 0 for the pretrained network to 1.
        series: lines with bands, at least one.
        chosen: the share that is marked.
        metric: label of the vertical axis.

    Raises:
        ValueError: no series, or one that has not a value a share.
    """
    if not series or any(len(one.values) != len(shares) for one in series):
        raise ValueError(f"{len(shares)} shares need at least one series of as many values")
    rows = [[one.name, *row] for one in series for row in zip(shares, one.values, one.low, one.high, strict=True)]
    canvas, axes = curve_canvas()
    axes.axvline(chosen, color=GREY, linewidth=1.3, linestyle=(0, (4, 3)), zorder=1)
    ends = []
    for number, one in enumerate(series):
        colour, marker = look(number)
        axes.fill_between(shares, one.low, one.high, color=colour, alpha=0.18, linewidth=0, zorder=2)
        axes.plot(
            shares, one.values, color=colour, linewidth=2.0, marker=marker, markersize=5.5, markeredgecolor="white",
            markeredgewidth=0.7, zorder=4,
        )  # fmt: skip
        ends.append(End(one.values[-1], shorten(one.name), colour))
    axes.set_xticks(list(shares), [f"{share:g}" for share in shares])
    dress(axes, x="share of the update (dashed: chosen on validation)", y=metric, title=title)
    name_ends(axes, ends)
    words = "; ".join(f"{one.name} from {one.values[0]:.3g} to {one.values[-1]:.3g}" for one in series)
    alt = f"{metric} by share of the update: {words}."
    head = ["series", "share", metric, "low", "high"]
    return save_plot(canvas, output, name, head, rows, caption=caption, alt=alt)
