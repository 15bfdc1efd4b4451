"""Two scores of each trial against each other, and the front of those that none beats in both.

The line is the attained boundary: whoever wants so much of one score gets no more than this of the other (Fonseca and
Fleming, PPSN 1996). Between two trials of the front nothing is promised, so it is a staircase.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xfm.core.report import Figure
from xfm.plots.axes import COLOURS, GREY, INK, dress, new_canvas, save_plot

BLUE = COLOURS[0]
FINISHED = "finished"
MOST_NAMED = 12  # trials of the front with their number beside them


@dataclass(frozen=True, slots=True)
class Pair:
    """One trial."""

    number: int  # from 0; 0 is the job as it was given
    across: float | None  # across, up: its two scores, as measured; None where it measured nothing
    up: float | None
    status: str  # finished, pruned or failed
    on_front: bool  # no other is better in one score and as good in the other


@dataclass(frozen=True, slots=True)
class FrontScore:
    """One of the two."""

    name: str  # of the metric
    is_lower_better: bool = False  # less of it is better
    near: float | None = None  # the nearer to this the better; the distance is then drawn

    @property
    def is_small_good(self) -> bool:
        """Whether what is drawn should be small."""
        return self.is_lower_better or self.near is not None

    @property
    def label(self) -> str:
        """Of the axis."""
        name = self.name if self.near is None else f"|{self.name} - {self.near:g}|"
        return f"{name}\n({'lower' if self.is_small_good else 'higher'} is better)"

    def drawn(self, value: float) -> float:
        """Where a value stands."""
        return value if self.near is None else abs(value - self.near)


def draw_front(
    output: Path, name: str, pairs: Sequence[Pair], *, across: FrontScore, up: FrontScore, caption: str, title: str = ""
) -> Figure:
    """Writes plots/NAME.png and plots/NAME.csv below `output`.

    Args:
        pairs: the trials, in order; those without scores are in the table alone.
        across, up: what the axes are.

    Raises:
        ValueError: no trial has both scores.
    """
    placed = [
        (pair, across.drawn(pair.across), up.drawn(pair.up))
        for pair in pairs
        if pair.across is not None and pair.up is not None
    ]
    if not placed:
        raise ValueError(f"none of {len(pairs)} trials has both {across.name} and {up.name}")
    canvas = new_canvas(6.4, 4.6)
    axes = canvas.add_axes((0.13, 0.16, 0.82, 0.74))
    front = sorted(((x, y, pair) for pair, x, y in placed if pair.on_front), key=lambda point: point[:2])
    if front:
        where = "post" if across.is_small_good else "pre"
        axes.step([x for x, _, _ in front], [y for _, y, _ in front], where=where, color=BLUE, linewidth=1.5, zorder=2)
    for pair, x, y in placed:
        _dot(axes, pair, x, y)
    for x, y, pair in front[:MOST_NAMED]:
        axes.annotate(str(pair.number), (x, y), xytext=(6, 5), textcoords="offset points", color=INK, fontsize=8.5)
    axes.margins(0.08)
    dress(axes, x=across.label, y=up.label, title=title)
    numbers = ", ".join(str(pair.number) for _, _, pair in front)
    alt = f"{up.name} against {across.name} of {len(placed)} trials. On the front: {numbers or 'none'}."
    head = ["trial", "status", across.name, up.name, "on_front"]
    rows = [[pair.number, pair.status, pair.across, pair.up, str(pair.on_front).lower()] for pair in pairs]
    return save_plot(canvas, output, name, head, rows, caption=caption, alt=alt)


def _dot(axes: Any, pair: Pair, x: float, y: float) -> None:
    colour = INK if pair.number == 0 else BLUE if pair.on_front else GREY
    face = colour if pair.status == FINISHED else "white"
    marker = "D" if pair.number == 0 else "o"
    size = 7.5 if pair.on_front else 5.5
    axes.plot(x, y, marker, color=colour, markerfacecolor=face, markersize=size, zorder=4 if pair.on_front else 3)
