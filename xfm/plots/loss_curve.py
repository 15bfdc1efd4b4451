"""Losses against training steps: thin lines for training, thick ones with markers for validation."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from xfm.core.report import Figure
from xfm.plots.layer_curve import COLOURS, DASHES, GREY, GRID, INK, LABEL_GAP, MARKERS, Baseline, spread

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
        output: folder of the job.
        name: file-name safe.
        history: records with `step`, and OBJECTIVE and validation_OBJECTIVE where there was one.
        objectives: what to draw, in order.
        baselines: horizontal lines.
        metric: label of the vertical axis, unit included.
        caption: one sentence that says what is seen.
        title: above the axes.

    Raises:
        ValueError: an empty history.
    """
    if not history:
        raise ValueError("a loss curve needs at least one record; the history is empty")
    folder = output / "plots"
    folder.mkdir(parents=True, exist_ok=True)
    _write_csv(folder / f"{name}.csv", history)
    _write_png(folder / f"{name}.png", history, objectives, baselines, metric, title)
    return Figure(name=name, caption=caption, png=f"plots/{name}.png", csv=f"plots/{name}.csv")


def _write_csv(path: Path, history: Sequence[Record]) -> None:
    columns = list(dict.fromkeys(column for record in history for column in record))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(dict(record) for record in history)


def _write_png(
    path: Path,
    history: Sequence[Record],
    objectives: Sequence[str],
    baselines: Sequence[Baseline],
    metric: str,
    title: str,
) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(7.4, 4.4), dpi=150, facecolor="white")
    FigureCanvasAgg(canvas)
    axes = canvas.add_axes((0.095, 0.135, 0.655, 0.745))
    ends: list[tuple[float, str, str]] = []
    for number, line in enumerate(baselines):
        axes.axhline(line.value, color=GREY, linewidth=1.3, linestyle=DASHES[number % len(DASHES)], zorder=2)
        ends.append((line.value, line.name, GREY))
    for number, objective in enumerate(objectives):
        colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
        steps, values = _points(history, objective)
        axes.plot(steps, values, color=colour, linewidth=1.0, alpha=0.45, zorder=3)
        steps, held = _points(history, f"validation_{objective}")
        axes.plot(
            steps, held, color=colour, linewidth=2.0, marker=marker, markersize=5, markeredgecolor="white", zorder=4
        )
        if last := (held or values)[-1:]:
            ends.append((last[0], objective, colour))
    # A network starts far off; from a tenth of the run on, the curve is what one wants to see.
    names = {prefix + objective for objective in objectives for prefix in ("", "validation_")}
    late = [value for record in history[len(history) // 10 :] for name, value in record.items() if name in names]
    shown = [*late, *(line.value for line in baselines)]
    margin = 0.08 * (max(shown) - min(shown) or 1.0)
    axes.set_ylim(min(shown) - margin, max(shown) + margin)
    axes.set_xlabel("step", color=INK, fontsize=11)
    axes.set_ylabel(f"{metric}\n(lower is better)", color=INK, fontsize=11)
    axes.set_title(title, loc="left", color=INK, fontsize=12.5, fontweight="bold", pad=12)
    axes.grid(axis="y", color=GRID, linewidth=0.9)
    axes.set_axisbelow(True)
    axes.tick_params(colors=GREY, labelsize=10, length=0, pad=6)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(GREY)
    _label(axes, ends)
    canvas.savefig(path, format="png", dpi=150, bbox_inches="tight", pad_inches=0.14, metadata={"Software": None})


def _points(history: Sequence[Record], name: str) -> tuple[list[float], list[float]]:
    found = [(record["step"], record[name]) for record in history if name in record]
    return [step for step, _ in found], [value for _, value in found]


def _label(axes: Any, ends: Sequence[tuple[float, str, str]]) -> None:
    """Names at the right edge, moved apart where lines end close together."""
    bottom, top = axes.get_ylim()
    shares = [(value - bottom) / (top - bottom) for value, _, _ in ends]
    for at, share, (_, name, colour) in zip(spread(shares, LABEL_GAP), shares, ends, strict=True):
        axes.annotate(
            name,
            xy=(1.0, share),
            xytext=(1.035, at),
            xycoords="axes fraction",
            textcoords="axes fraction",
            color=colour,
            fontsize=10,
            fontweight="normal" if colour == GREY else "bold",
            va="center",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.8, "alpha": 0.6, "shrinkA": 1, "shrinkB": 0},
        )
