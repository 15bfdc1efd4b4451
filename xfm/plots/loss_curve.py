"""Losses against training steps: thin lines for training, thick ones with markers for validation."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from xfm.core.report import Figure
from xfm.plots.axes import DASHES, GREY, End, curve_canvas, dress, look, name_ends, save_plot
from xfm.plots.layer_curve import Baseline

Record = Mapping[str, float]


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
    """Writes plots/NAME.png (150 dpi) and plots/NAME.csv below `output`.

    Args:
        history: records with `step`, and OBJECTIVE and validation_OBJECTIVE where there was one.
        objectives: what to draw, in order.
        baselines: horizontal lines.
        metric: label of the vertical axis, unit included.

    Raises:
        ValueError: an empty history.
    """
    if not history:
        raise ValueError("a loss curve needs at least one record; the history is empty")
    canvas, axes = curve_canvas()
    ends = []
    for number, line in enumerate(baselines):
        axes.axhline(line.value, color=GREY, linewidth=1.3, linestyle=DASHES[number % len(DASHES)], zorder=2)
        ends.append(End(line.value, line.name, GREY))
    for number, objective in enumerate(objectives):
        colour, marker = look(number)
        steps, values = _points(history, objective)
        axes.plot(steps, values, color=colour, linewidth=1.0, alpha=0.45, zorder=3)
        steps, held = _points(history, f"validation_{objective}")
        axes.plot(
            steps, held, color=colour, linewidth=2.0, marker=marker, markersize=5, markeredgecolor="white", zorder=4
        )
        if last := (held or values)[-1:]:
            ends.append(End(last[0], objective, colour))
    # A network starts far off; from a tenth of the run on, the curve is what one wants to see.
    names = {prefix + objective for objective in objectives for prefix in ("", "validation_")}
    late = [value for record in history[len(history) // 10 :] for name, value in record.items() if name in names]
    shown = [*late, *(line.value for line in baselines)]
    margin = 0.08 * (max(shown) - min(shown) or 1.0)
    axes.set_ylim(min(shown) - margin, max(shown) + margin)
    dress(axes, x="step", y=f"{metric}\n(lower is better)", title=title)
    name_ends(axes, ends)
    columns = list(dict.fromkeys(column for record in history for column in record))
    rows = ([record.get(column) for column in columns] for record in history)
    return save_plot(canvas, output, name, columns, rows, caption=caption)


def _points(history: Sequence[Record], name: str) -> tuple[list[float], list[float]]:
    found = [(record["step"], record[name]) for record in history if name in record]
    return [step for step, _ in found], [value for _, value in found]
