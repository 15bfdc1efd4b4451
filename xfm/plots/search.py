"""A search in pictures: what each trial reached, how that goes with each searched field, two scores with their front.

Filled dots ran to their end, hollow ones were pruned: where they stand is how far they had come. The fields are drawn
one by one as a scatter (after Bergstra and Bengio, JMLR 2012, figure 2): what two fields do together is not seen.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xfm.core.report import Figure
from xfm.plots.axes import COLOURS, DASHES, GREY, INK, End, dress, name_ends, new_axes, new_canvas, save_plot, shorten

BLUE, ORANGE = COLOURS[0], COLOURS[1]
ACROSS, MOST_FIELDS = 3, 12
MOST_CATEGORIES = 8  # named below an axis
MOST_NAMED = 12  # trials of the front with their number beside them
FINISHED, PRUNED, FAILED = "finished", "pruned", "failed"


@dataclass(frozen=True, slots=True)
class Dot:
    """One trial."""

    number: int  # from 0; 0 is the job as it was given
    value: float | None  # what it reached; None where it measured nothing
    status: str  # finished, pruned or failed


@dataclass(frozen=True, slots=True)
class SearchedField:
    """One field."""

    name: str  # dotted
    # of each trial, in the order of the dots; numbers are placed on an axis, all else in classes. Among numbers trial 0
    # may have None, where the job as given has no such field: it is not drawn there.
    values: Sequence[Any]
    is_log: bool = False  # drawn evenly on a logarithmic scale


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
    is_lower_better: bool = False
    near: float | None = None  # the nearer to this the better; the distance is then drawn

    @property
    def is_small_good(self) -> bool:
        return self.is_lower_better or self.near is not None

    @property
    def label(self) -> str:
        name = self.name if self.near is None else f"|{self.name} - {self.near:g}|"
        return f"{name}\n({'lower' if self.is_small_good else 'higher'} is better)"

    def drawn(self, value: float) -> float:
        return value if self.near is None else abs(value - self.near)


def draw_objective(
    output: Path, name: str, dots: Sequence[Dot], *, metric: str, is_lower_better: bool, caption: str, title: str = ""
) -> Figure:
    """Writes plots/NAME.png and plots/NAME.csv below `output`: the value by trial, and the best so far.

    Raises:
        ValueError: no trial has a value.
    """
    if not any(dot.value is not None for dot in dots):
        raise ValueError(f"none of {len(dots)} trials has a value to draw")
    best = _best_so_far(dots, is_lower_better)
    canvas, axes = new_axes(7.4, 4.0, (0.11, 0.145, 0.66, 0.735))
    ends = []
    known = [(dot.number, so_far) for dot, so_far in zip(dots, best, strict=True) if so_far is not None]
    if known:
        axes.step(*zip(*known, strict=True), where="post", color=BLUE, linewidth=2, zorder=3)
        ends.append(End(known[-1][1], "best so far", BLUE))
    default = next((dot.value for dot in dots if dot.number == 0), None)
    if default is not None:
        axes.axhline(default, color=GREY, linewidth=1.3, linestyle=DASHES[0], zorder=2)
        ends.append(End(default, "default settings", GREY))
    _scatter(axes, [(dot, float(dot.number)) for dot in dots])
    _fit(axes, dots)
    for dot in dots:
        if dot.value is None:
            axes.plot(dot.number, axes.get_ylim()[0], "x", color=ORANGE, markersize=7, clip_on=False, zorder=5)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlim(-0.6, max(dot.number for dot in dots) + 0.6)
    dress(axes, x="trial", y=f"{metric}\n({'lower' if is_lower_better else 'higher'} is better)", title=title)
    name_ends(axes, ends)
    counts = {status: sum(dot.status == status for dot in dots) for status in (FINISHED, PRUNED, FAILED)}
    said = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    alt = f"{metric} of {len(dots)} trials ({said})." + (f" Best {known[-1][1]:.4g}." if known else "")
    rows = [[dot.number, dot.status, dot.value, so_far] for dot, so_far in zip(dots, best, strict=True)]
    return save_plot(canvas, output, name, ["trial", "status", metric, "best so far"], rows, caption=caption, alt=alt)


def draw_fields(
    output: Path, name: str, dots: Sequence[Dot], fields: Sequence[SearchedField], *, metric: str, caption: str
) -> Figure:
    """Writes plots/NAME.png and plots/NAME.csv below `output`: the value against each searched field.

    Args:
        dots: the trials; those without a value are in the table alone.
        fields: one panel each, 12 at most.

    Raises:
        ValueError: no field, or one that has not a value for each trial.
    """
    if not fields or any(len(field.values) != len(dots) for field in fields):
        found = sorted({len(field.values) for field in fields})
        raise ValueError(f"{len(fields)} fields hold {found} values for {len(dots)} trials; give one a trial")
    rows = [[d.number, d.status, d.value, *(f.values[i] for f in fields)] for i, d in enumerate(dots)]
    shown = fields[:MOST_FIELDS]
    across = min(ACROSS, len(shown))
    down = math.ceil(len(shown) / across)
    width, height = 3.1 * across, 2.7 * down
    canvas = new_canvas(width, height)
    panels = canvas.subplots(down, across, sharey=True, squeeze=False, gridspec_kw={"hspace": 0.55, "wspace": 0.14})
    for axes in panels.ravel()[len(shown) :]:
        axes.set_visible(False)
    for place, (field, axes) in enumerate(zip(shown, panels.flat, strict=False)):
        _panel(axes, dots, field)
        dress(axes, x=shorten(field.name), y=metric if place % across == 0 else "")
        axes.tick_params(which="both", length=0, labelsize=8.5)
    more = f" The first {MOST_FIELDS} of {len(fields)} fields." if len(fields) > MOST_FIELDS else ""
    alt = f"{metric} of {len(dots)} trials against " + ", ".join(field.name for field in shown) + "."
    head = ["trial", "status", metric, *(field.name for field in fields)]
    return save_plot(canvas, output, name, head, rows, caption=caption + more, alt=alt, wide=across > 2)


def draw_front(
    output: Path, name: str, pairs: Sequence[Pair], *, across: FrontScore, up: FrontScore, caption: str, title: str = ""
) -> Figure:
    """Writes plots/NAME.png and plots/NAME.csv below `output`: each trial, and the front that none beats in both.

    The line is the attained boundary: whoever wants so much of one score gets no more than this of the other (Fonseca
    and Fleming, PPSN 1996). Between two trials of the front nothing is promised, so it is a staircase.

    Args:
        pairs: the trials; those without scores are in the table alone.

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
    canvas, axes = new_axes(6.4, 4.6, (0.13, 0.16, 0.82, 0.74))
    front = sorted(((x, y, pair) for pair, x, y in placed if pair.on_front), key=lambda point: point[:2])
    if front:
        where = "post" if across.is_small_good else "pre"
        axes.step([x for x, _, _ in front], [y for _, y, _ in front], where=where, color=BLUE, linewidth=1.5, zorder=2)
    for pair, x, y in placed:
        _draw_dot(axes, pair, x, y, *((BLUE, 7.5, 4) if pair.on_front else (GREY, 5.5, 3)))
    for x, y, pair in front[:MOST_NAMED]:
        axes.annotate(str(pair.number), (x, y), xytext=(6, 5), textcoords="offset points", color=INK, fontsize=8.5)
    axes.margins(0.08)
    dress(axes, x=across.label, y=up.label, title=title)
    numbers = ", ".join(str(pair.number) for _, _, pair in front)
    alt = f"{up.name} against {across.name} of {len(placed)} trials. On the front: {numbers or 'none'}."
    head = ["trial", "status", across.name, up.name, "on_front"]
    rows = [[pair.number, pair.status, pair.across, pair.up, str(pair.on_front).lower()] for pair in pairs]
    return save_plot(canvas, output, name, head, rows, caption=caption, alt=alt)


def _best_so_far(dots: Sequence[Dot], is_lower_better: bool) -> list[float | None]:
    best: list[float | None] = []
    for dot in dots:
        known = [*best[-1:], dot.value if dot.status == FINISHED else None]
        best.append((min if is_lower_better else max)((value for value in known if value is not None), default=None))
    return best


def _panel(axes: Any, dots: Sequence[Dot], field: SearchedField) -> None:
    pairs = list(zip(dots, field.values, strict=True))
    if all(_is_number(value) for dot, value in pairs if dot.number):
        placed = [(dot, float(value)) for dot, value in pairs if _is_number(value)]
        if field.is_log and all(place > 0 for _, place in placed):
            axes.set_xscale("log")
        _scatter(axes, placed)
        return
    words = [str(value) for value in field.values]
    names = sorted(set(words))
    # Beside each other in the order of the trials: dots of one class would hide each other.
    seen: dict[str, int] = {}
    places = []
    for word in words:
        seen[word] = seen.get(word, 0) + 1
        places.append(names.index(word) + 0.5 * (seen[word] / (words.count(word) + 1) - 0.5))
    step = max(1, math.ceil(len(names) / MOST_CATEGORIES))
    labels = [shorten(word, 12) for word in names[::step]]
    axes.set_xticks(range(0, len(names), step), labels, parse_math=False)
    axes.set_xlim(-0.6, len(names) - 0.4)
    _scatter(axes, list(zip(dots, places, strict=True)))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _scatter(axes: Any, placed: Sequence[tuple[Dot, float]]) -> None:
    for dot, place in placed:
        if dot.value is not None:
            _draw_dot(axes, dot, place, dot.value, BLUE, 6.5, 4)


def _draw_dot(axes: Any, trial: Dot | Pair, x: float, y: float, colour: str, size: float, zorder: int) -> None:
    """Trial 0 is a dark diamond."""
    colour, marker = (INK, "D") if trial.number == 0 else (colour, "o")
    face = colour if trial.status == FINISHED else "white"
    axes.plot(x, y, marker, color=colour, markerfacecolor=face, markersize=size, zorder=zorder)


def _fit(axes: Any, dots: Sequence[Dot]) -> None:
    values = [dot.value for dot in dots if dot.value is not None]
    margin = 0.1 * (max(values) - min(values) or abs(max(values)) or 1.0)
    axes.set_ylim(min(values) - margin, max(values) + margin)
