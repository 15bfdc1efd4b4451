"""Rings around chosen points of a curve, named above the axes, where no line can run through the words."""

from collections.abc import Sequence
from typing import Any

from xfm.plots.axes import GREY, INK, spread

LINE, LIFT = 14.0, 6.0  # points from one line of names to the next, and from the axes to the first
FONT = 9.0  # points


class Rings:
    """Rings and their names: measured first, because the title moves up by their height; drawn when limits are set.

    Attributes:
        height: points that the names need above the axes.
    """

    def __init__(self, axes: Any, points: Sequence[tuple[float, float, str]]) -> None:
        """Takes (x, y, name); names of the same point are joined."""
        self._axes = axes
        names: dict[tuple[float, float], list[str]] = {}
        for x, y, name in points:
            names.setdefault((x, y), []).append(name)
        room: list[float] = []  # what is left of each line, as a share of the axes
        self._lines: list[list[tuple[float, float, Any, float]]] = []  # x, y, text, its width
        for (x, y), parts in sorted(names.items()):
            text = self._text(", ".join(dict.fromkeys(parts)))
            width = (text.get_window_extent().width + FONT * axes.figure.dpi / 72) / axes.get_window_extent().width
            line = next((number for number, left in enumerate(room) if left >= width), len(room))
            if line == len(room):
                self._lines.append([])
                room.append(1.0)
            self._lines[line].append((x, y, text, width))
            room[line] -= width
        self.height = LIFT + LINE * len(self._lines) - 2 if self._lines else 0.0

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

    def _text(self, words: str) -> Any:
        # The white beneath hides the dotted lines of names further up.
        beneath = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}
        style = {"color": INK, "fontsize": FONT, "ha": "center", "va": "bottom", "bbox": beneath, "zorder": 6}
        return self._axes.text(0, 0, words, transform=self._axes.transAxes, parse_math=False, clip_on=False, **style)
