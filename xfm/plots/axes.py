"""What the figures share: colours, dressing, names at the right edge, legends, files.

Every plot takes the folder of the job, a name that is safe as a file's, a caption, one sentence that says what is
seen, labels with their units, and a title. It writes plots/NAME.png (150 dpi) and plots/NAME.csv with the numbers
drawn below that folder, and returns their `Figure`.

Colours: Okabe and Ito (2008), readable with every kind of colour vision. Lines are named at their end instead of in a
legend, and text comes from data, so it is never read as a formula.
"""

import csv
import math
import numbers
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from xfm.core.report import Figure, printable

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#444444")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ((0, (6, 3)), (0, (1.5, 2)), (0, (6, 2, 1.5, 2)), (0, (3, 2)), (0, (9, 2, 1.5, 2, 1.5, 2)))
INK, GREY, GRID = "#1b1f24", "#57606a", "#e4e7eb"
LABEL_GAP = 0.062  # least distance of two names at the right edge, as a share of the axis
NAME_LENGTH = 26  # characters


@dataclass(frozen=True, slots=True)
class End:
    """Where a line ends, and what stands there."""

    value: float
    name: str
    colour: str


def new_canvas(width: float, height: float) -> Any:
    """A white figure of so many inches that no window and no global state knows of."""
    from matplotlib import figure
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = figure.Figure(figsize=(width, height), dpi=150, facecolor="white")
    FigureCanvasAgg(canvas)
    return canvas


def new_axes(width: float, height: float, box: tuple[float, float, float, float]) -> tuple[Any, Any]:
    """A canvas of so many inches, and axes in a box of it: left, bottom, width and height as shares."""
    canvas = new_canvas(width, height)
    return canvas, canvas.add_axes(box)


def curve_axes() -> tuple[Any, Any]:
    """A canvas and its axes, with room for names at the right edge."""
    return new_axes(7.4, 4.4, (0.095, 0.135, 0.655, 0.745))


def save_plot(
    canvas: Any,
    output: Path,
    name: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    caption: str,
    alt: str = "",
    wide: bool = False,
    colours: int | None = None,
) -> Figure:
    """Writes a picture and its numbers, as plots/NAME.png and plots/NAME.csv below `output`.

    Args:
        alt: what is seen, for those who do not see it; the caption where empty.
        wide: small print inside.
        colours: as in `write_png`.
    """
    png, table = f"plots/{name}.png", f"plots/{name}.csv"
    (output / png).parent.mkdir(parents=True, exist_ok=True)
    write_csv(output / table, columns, rows)
    write_png(canvas, output / png, colours=colours)
    return Figure(name=name, caption=caption, png=png, csv=table, alt=alt, wide=wide)


def write_png(canvas: Any, path: Path, *, colours: int | None = None) -> None:
    """150 dpi, cut to what is drawn, without a note of the version that drew it.

    With at most 256 `colours` a cloud of 20,000 translucent dots is a quarter of the size.
    """
    from PIL import Image

    buffer = BytesIO()
    canvas.savefig(buffer, format="png", dpi=150, bbox_inches="tight", pad_inches=0.14, metadata={"Software": None})
    if colours is not None:
        picture = Image.open(buffer).convert("RGB")
        buffer = BytesIO()
        picture.quantize(colours, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(buffer, "PNG")
    path.write_bytes(buffer.getvalue())


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Comma-separated, UTF-8, one line a row; None and numbers that are not finite are left empty."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([_written(cell) for cell in row] for row in rows)


def shorten(name: str, length: int = NAME_LENGTH) -> str:
    """A name in so many characters: the middle goes, because names of cell types often differ at their ends."""
    name = printable(name)
    if len(name) <= length:
        return name
    tail = (length - 1) * 2 // 5
    return f"{name[: length - 1 - tail].rstrip()}\N{HORIZONTAL ELLIPSIS}{name[-tail:].lstrip()}"


def look(number: int) -> tuple[str, str]:
    """Colour and marker of the series of this number."""
    return COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]


def set_title(axes: Any, title: str, size: float = 12.5, pad: float = 12) -> None:
    """Bold, above the axes at the left; `size` and `pad` in points."""
    style = {"color": INK, "fontsize": size, "fontweight": "bold", "parse_math": False}
    axes.set_title(title, loc="left", pad=pad, **style)


def draw_legend(of: Any, *entries: Any, **style: Any) -> None:
    """A legend without a frame, of axes or of a whole canvas; `entries` and `style` as matplotlib takes them."""
    legend = of.legend(*entries, **{"frameon": False, "labelcolor": INK} | style)
    for text in (*legend.get_texts(), legend.get_title()):
        text.set_parse_math(False)


def draw_scale(canvas: Any, picture: Any, box: tuple[float, float, float, float], label: str, **style: Any) -> Any:
    """The scale of the colours of an image in a box of the canvas; `style` as for `Figure.colorbar`."""
    scale = canvas.colorbar(picture, cax=canvas.add_axes(box), **style)
    scale.ax.tick_params(labelsize=8, colors=GREY, length=0)
    scale.set_label(label, color=GREY, fontsize=8)
    scale.outline.set_visible(False)
    return scale


def dress(
    axes: Any, *, x: str, y: str, title: str = "", x_pad: float = 4, title_pad: float = 12, title_size: float = 12.5
) -> None:
    """Labels, a light grid, and no frame but the bottom line. Pads and sizes are in points."""
    axes.set_xlabel(x, color=INK, fontsize=11, labelpad=x_pad, parse_math=False)
    axes.set_ylabel(y, color=INK, fontsize=11, parse_math=False)
    if title:
        set_title(axes, title, title_size, title_pad)
    axes.grid(axis="y", color=GRID, linewidth=0.9)
    axes.set_axisbelow(True)
    axes.tick_params(colors=GREY, labelsize=10, length=0, pad=6)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(GREY)


def name_ends(axes: Any, ends: Sequence[End]) -> None:
    """Names at the right edge, moved apart where lines end close together; grey ones in plain type."""
    bottom, top = axes.get_ylim()
    shares = [(min(max(end.value, bottom), top) - bottom) / (top - bottom) for end in ends]
    for at, share, end in zip(spread(shares, LABEL_GAP, (-0.06, 1.06)), shares, ends, strict=True):
        style = {"color": end.colour, "fontweight": "normal" if end.colour == GREY else "bold", "fontsize": 10}
        lead = {"arrowstyle": "-", "color": end.colour, "linewidth": 0.8, "alpha": 0.6}
        axes.annotate(
            end.name, (1.0, share), (1.035, at), "axes fraction", "axes fraction", va="center", annotation_clip=False,
            parse_math=False, arrowprops=lead | {"shrinkA": 1, "shrinkB": 0, "relpos": (0, 0.5)}, **style,
        )  # fmt: skip


def spread(
    positions: Sequence[float], sizes: float | Sequence[float], limits: tuple[float, float] = (-math.inf, math.inf)
) -> list[float]:
    """Centres of things of such sizes, moved as little as needed so that none overlap, in their order.

    Least squares under an order constraint. Less the room that those before it need, a position is an isotonic
    regression (pool adjacent violators), and the one that keeps edges within limits is the free one, clipped. Limits
    that are too narrow for all are exceeded on both sides alike.
    """
    from scipy.optimize import isotonic_regression

    if not len(positions):
        return []
    order = np.argsort(positions, kind="stable")
    size = np.broadcast_to(np.asarray(sizes, dtype=np.float64), order.shape)[order]
    before = np.concatenate([[0.0], np.cumsum((size[:-1] + size[1:]) / 2)])
    lowest, highest = limits[0] + size[0] / 2, limits[1] - size[-1] / 2 - before[-1]
    if lowest > highest:
        lowest = highest = (lowest + highest) / 2
    free = isotonic_regression(np.asarray(positions)[order] - before).x
    moved = np.empty(len(order))
    moved[order] = np.clip(free, lowest, highest) + before
    return [float(value) for value in moved]


def _written(cell: object) -> object:
    if isinstance(cell, numbers.Real) and not isinstance(cell, numbers.Integral):
        return repr(float(cell)) if math.isfinite(cell) else ""
    return "" if cell is None else cell
