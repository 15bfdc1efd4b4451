"""How a training run went, in up to six panels: step losses, losses by epoch, learning rate, validation scores.

What was not recorded has no panel: empty axes would say that something was measured and came to nothing.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xfm.core.report import Figure
from xfm.plots.axes import GREY, draw_legend, dress, look, new_canvas, save_plot, set_title, shorten

Record = Mapping[str, float]
VALIDATION = "validation_"
LOSSES = {"combined": "loss", "main": "main_loss", "adversary": "adversary_loss"}
ACROSS, WIDTH, HEIGHT = 3, 3.35, 2.75  # panels in a row; inches of a panel, with its words
NAME_LINE = 11  # points


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


def draw_training_metrics(
    output: Path,
    history: Sequence[Record],
    *,
    name: str = "training_metrics",
    losses: Mapping[str, str] | None = None,
    scores: Sequence[str] = (),
    caption: str = "",
) -> Figure:
    """Writes plots/NAME.png and plots/NAME.csv (every record, all entries) below `output`.

    Args:
        history: records of `loops/training/settings.Progress`: step, epoch, lr, losses, and validation_... where
            there was a validation.
        losses: title of a panel -> entry of the records, the first is the one shown by epoch; without:
            combined -> loss, main -> main_loss, adversary -> adversary_loss. What no record holds is left out.
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
    columns = list(dict.fromkeys(column for record in history for column in record))
    said = "; ".join(
        f"{panel.title}: " + ", ".join(f"{line.name} {line.y[-1]:.3g}".strip() for line in panel.lines)
        for panel in panels
    )
    return save_plot(
        _draw(panels), output, name, columns, ([record.get(column) for column in columns] for record in history),
        caption=caption or "Training by step and epoch; dots are validations, a line is a mean since the last record.",
        alt=f"Training curves with their last values: {said}.", wide=len(panels) > 2,
    )  # fmt: skip


def _panels(history: Sequence[Record], losses: dict[str, str], scores: list[str]) -> list[_Panel]:
    step = [_Panel(f"{title} loss", "step", [_points(history, key)]) for title, key in losses.items()]
    first = next(iter(losses.values()))
    by_epoch = [
        _by_epoch(history, key, said) for key, said in ((first, "training"), (VALIDATION + first, "validation"))
    ]
    panels = [*step, _Panel("loss by epoch", "epoch", by_epoch)]
    panels.append(_Panel("learning rate", "step", [_points(history, "lr")]))
    held = dict.fromkeys(key for record in history for key in record if key.startswith(VALIDATION))
    shown = scores or [key for key in held if not key.endswith("loss") and key != VALIDATION + first]
    panels.append(_Panel("validation", "step", [_points(history, key, is_marked=True) for key in shown]))
    full = [_Panel(p.title, p.x, [line for line in p.lines if line.x]) for p in panels]
    return [panel for panel in full if panel.lines]


def _points(history: Sequence[Record], key: str, *, is_marked: bool = False) -> _Line:
    found = [(record["step"], record[key]) for record in history if key in record and math.isfinite(record[key])]
    name = key.removeprefix(VALIDATION).replace("_", " ") if is_marked else ""
    return _Line(name, [x for x, _ in found], [y for _, y in found], is_marked)


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
    grid = canvas.subplots(down, across, squeeze=False, gridspec_kw={"hspace": 0.62, "wspace": 0.32})
    for place, axes in enumerate(grid.flat):
        if place >= len(panels):
            axes.remove()
            continue
        _panel(axes, panels[place])
    return canvas


def _panel(axes: Any, panel: _Panel) -> None:
    for number, line in enumerate(panel.lines):
        colour, marker = look(number)
        shown = marker if line.is_marked else "o" if len(line.x) == 1 else ""
        style = {"color": colour, "marker": shown, "markersize": 4.5, "markeredgecolor": "white", "linewidth": 1.5}
        axes.plot(line.x, line.y, label=shorten(line.name, 22) or None, **style)
    dress(axes, x=panel.x, y="", title="", x_pad=2)
    # Names stand between the title and the lines, where no line can run through them.
    named = sum(bool(line.name) for line in panel.lines)
    set_title(axes, panel.title, 10, 7 + NAME_LINE * math.ceil(named / 2))
    axes.tick_params(labelsize=8, pad=3)
    axes.xaxis.label.set_size(8.5)
    axes.xaxis.get_major_locator().set_params(integer=True)
    if named:
        draw_legend(
            axes, loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=2, fontsize=7.5, labelcolor=GREY,
            handlelength=1.6, columnspacing=0.9, labelspacing=0.25, borderpad=0.1,
        )  # fmt: skip
