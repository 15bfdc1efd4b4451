"""How a training run went: losses against steps, panels of all it recorded, scores by share of its update."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xfm.core.report import Figure
from xfm.plots.axes import GREY, End, curve_axes, draw_legend, dress, look, name_ends, new_canvas, save_plot, shorten
from xfm.plots.layer_curve import Baseline, grey_line

Record = Mapping[str, float]
VALIDATION = "validation_"
LOSSES = {"combined": "loss", "main": "main_loss", "adversary": "adversary_loss"}
ACROSS, WIDTH, HEIGHT = 3, 3.35, 2.75  # panels in a row; inches of a panel, with its words
NAME_LINE = 11  # points


@dataclass(frozen=True, slots=True)
class ShareSeries:
    """One score at every share."""

    name: str  # shown at the line's end
    values: Sequence[float]  # values, low, high: one number a share; the ends of its interval
    low: Sequence[float]
    high: Sequence[float]


@dataclass(frozen=True, slots=True)
class _Line:
    name: str  # empty: the title says it
    x: list[float]
    y: list[float]
    is_marked: bool = False


@dataclass(frozen=True, slots=True)
class _Panel:
    title: str
    x: str
    lines: list[_Line]


def draw_loss_curve(
    output: Path,
    name: str,
    history: Sequence[Record],
    objectives: Sequence[str],
    baselines: Sequence[Baseline] = (),
    *,
    metric: str,
    caption: str,
    title: str = "",
) -> Figure:
    """Writes plots/NAME.png and .csv below `output`: thin lines for training, thick ones with dots for validation.

    Args:
        history: records with `step`, and OBJECTIVE and validation_OBJECTIVE where there was one.

    Raises:
        ValueError: an empty history.
    """
    if not history:
        raise ValueError("a loss curve needs at least one record; the history is empty")
    canvas, axes = curve_axes()
    ends = [End(line.value, line.name, GREY) for line in baselines]
    for number, line in enumerate(baselines):
        axes.axhline(line.value, **grey_line(number))
    for number, objective in enumerate(objectives):
        colour, marker = look(number)
        steps, values = _points(history, objective)
        axes.plot(steps, values, color=colour, linewidth=1.0, alpha=0.45, zorder=3)
        steps, held = _points(history, VALIDATION + objective)
        dots = {"marker": marker, "markersize": 5, "markeredgecolor": "white"}
        axes.plot(steps, held, color=colour, linewidth=2.0, zorder=4, **dots)
        ends += [End(last, objective, colour) for last in (held or values)[-1:]]
    # A network starts far off; from a tenth of the run on, the curve is what one wants to see.
    names = {prefix + objective for objective in objectives for prefix in ("", VALIDATION)}
    late = [value for record in history[len(history) // 10 :] for name, value in record.items() if name in names]
    shown = [*late, *(line.value for line in baselines)]
    margin = 0.08 * (max(shown) - min(shown) or 1.0)
    axes.set_ylim(min(shown) - margin, max(shown) + margin)
    dress(axes, x="step", y=f"{metric}\n(lower is better)", title=title)
    name_ends(axes, ends)
    return save_plot(canvas, output, name, *_table(history), caption=caption)


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
    """Writes plots/NAME.png and .csv below `output`: scores from the pretrained network to the adapted one.

    Args:
        shares: rising, 0 for the pretrained network to 1.
        series: lines with bands, at least one.
        chosen: the share that is marked.

    Raises:
        ValueError: no series, or one that has not a value a share.
    """
    if not series or any(len(one.values) != len(shares) for one in series):
        raise ValueError(f"{len(shares)} shares need at least one series of as many values")
    rows = [[one.name, *row] for one in series for row in zip(shares, one.values, one.low, one.high, strict=True)]
    canvas, axes = curve_axes()
    axes.axvline(chosen, color=GREY, linewidth=1.3, linestyle=(0, (4, 3)), zorder=1)
    for number, one in enumerate(series):
        colour, marker = look(number)
        axes.fill_between(shares, one.low, one.high, color=colour, alpha=0.18, linewidth=0, zorder=2)
        dots = {"marker": marker, "markersize": 5.5, "markeredgecolor": "white", "markeredgewidth": 0.7}
        axes.plot(shares, one.values, color=colour, linewidth=2.0, zorder=4, **dots)
    axes.set_xticks(list(shares), [f"{share:g}" for share in shares])
    dress(axes, x="share of the update (dashed: chosen on validation)", y=metric, title=title)
    name_ends(axes, [End(one.values[-1], shorten(one.name), look(number)[0]) for number, one in enumerate(series)])
    words = "; ".join(f"{one.name} from {one.values[0]:.3g} to {one.values[-1]:.3g}" for one in series)
    alt = f"{metric} by share of the update: {words}."
    head = ["series", "share", metric, "low", "high"]
    return save_plot(canvas, output, name, head, rows, caption=caption, alt=alt)


def draw_training_metrics(
    output: Path,
    history: Sequence[Record],
    *,
    name: str = "training_metrics",
    losses: Mapping[str, str] | None = None,
    scores: Sequence[str] = (),
    caption: str = "",
) -> Figure:
    """Writes plots/NAME.png and plots/NAME.csv (every record, all entries) below `output`: up to six panels.

    What was not recorded has no panel: empty axes would say that something was measured and came to nothing.

    Args:
        history: records of `loops/training/settings.Progress`: step, epoch, lr, losses, and validation_... where
            there was a validation.
        losses: title of a panel -> entry of the records, the first is the one shown by epoch; without:
            combined -> loss, main -> main_loss, adversary -> adversary_loss.
        scores: entries validation_... of the last panel; without: all that are no losses.

    Raises:
        ValueError: an empty history, or one with none of these entries.
    """
    if not history:
        raise ValueError("training curves need at least one record; the history is empty")
    panels = _panels(history, dict(losses or LOSSES), list(scores))
    if not panels:
        held = sorted({key for record in history for key in record})
        raise ValueError(f"none of the records' entries can be drawn: {held}; give `losses` as title -> entry")
    said = "; ".join(
        f"{panel.title}: " + ", ".join(f"{line.name} {line.y[-1]:.3g}".strip() for line in panel.lines)
        for panel in panels
    )
    return save_plot(
        _draw(panels), output, name, *_table(history), wide=len(panels) > 2,
        caption=caption or "Training by step and epoch; dots are validations, a line is a mean since the last record.",
        alt=f"Training curves with their last values: {said}.",
    )  # fmt: skip


def _points(history: Sequence[Record], key: str) -> tuple[list[float], list[float]]:
    found = [record for record in history if key in record]
    return [record["step"] for record in found], [record[key] for record in found]


def _table(history: Sequence[Record]) -> tuple[list[str], list[list[float | None]]]:
    """Head and rows of the CSV: all that any record holds."""
    columns = list(dict.fromkeys(column for record in history for column in record))
    return columns, [[record.get(column) for column in columns] for record in history]


def _panels(history: Sequence[Record], losses: dict[str, str], scores: list[str]) -> list[_Panel]:
    first = next(iter(losses.values()))
    by_epoch = [_by_epoch(history, first, "training"), _by_epoch(history, VALIDATION + first, "validation")]
    held = dict.fromkeys(key for record in history for key in record if key.startswith(VALIDATION))
    shown = scores or [key for key in held if not key.endswith("loss") and key != VALIDATION + first]
    panels = [
        *(_Panel(f"{title} loss", "step", [_by_step(history, key)]) for title, key in losses.items()),
        _Panel("loss by epoch", "epoch", by_epoch),
        _Panel("learning rate", "step", [_by_step(history, "lr")]),
        _Panel("validation", "step", [_by_step(history, key, is_marked=True) for key in shown]),
    ]
    full = [_Panel(p.title, p.x, [line for line in p.lines if line.x]) for p in panels]
    return [panel for panel in full if panel.lines]


def _by_step(history: Sequence[Record], key: str, *, is_marked: bool = False) -> _Line:
    name = key.removeprefix(VALIDATION).replace("_", " ") if is_marked else ""
    finite = [record for record in history if key in record and math.isfinite(record[key])]
    return _Line(name, *_points(finite, key), is_marked)


def _by_epoch(history: Sequence[Record], key: str, said: str) -> _Line:
    """The mean over the records of each epoch, which counts from 1 here."""
    epochs: dict[int, list[float]] = {}
    for record in history:
        if key in record and "epoch" in record and math.isfinite(record[key]):
            epochs.setdefault(max(1, math.ceil(record["epoch"])), []).append(record[key])
    return _Line(said, [float(e) for e in epochs], [sum(held) / len(held) for held in epochs.values()], True)


def _draw(panels: Sequence[_Panel]) -> Any:
    across = min(ACROSS, len(panels)) if len(panels) != 4 else 2
    down = math.ceil(len(panels) / across)
    canvas = new_canvas(WIDTH * across, HEIGHT * down)
    grid = canvas.subplots(down, across, squeeze=False, gridspec_kw={"hspace": 0.62, "wspace": 0.32}).ravel()
    for axes, panel in zip(grid, panels, strict=False):
        _panel(axes, panel)
    for axes in grid[len(panels) :]:
        axes.remove()
    return canvas


def _panel(axes: Any, panel: _Panel) -> None:
    for number, line in enumerate(panel.lines):
        colour, marker = look(number)
        shown = marker if line.is_marked else "o" if len(line.x) == 1 else ""
        style = {"color": colour, "marker": shown, "markersize": 4.5, "markeredgecolor": "white", "linewidth": 1.5}
        axes.plot(line.x, line.y, label=shorten(line.name, 22) or None, **style)
    # Names stand between the title and the lines, where no line can run through them.
    named = sum(bool(line.name) for line in panel.lines)
    pad = 7 + NAME_LINE * math.ceil(named / 2)
    dress(axes, x=panel.x, y="", title=panel.title, x_pad=2, title_pad=pad, title_size=10)
    axes.tick_params(labelsize=8, pad=3)
    axes.xaxis.label.set_size(8.5)
    axes.xaxis.get_major_locator().set_params(integer=True)
    if named:
        draw_legend(
            axes, loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=2, fontsize=7.5, labelcolor=GREY,
            handlelength=1.6, columnspacing=0.9, labelspacing=0.25, borderpad=0.1,
        )  # fmt: skip
