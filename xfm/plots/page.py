"""A report as one HTML file: no script, nothing loaded from elsewhere, readable on a phone and on paper."""

import base64
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from xfm.core.report import Cell, Estimate, Figure, Report, format_column, is_number

TEMPLATE = "report.html.j2"
LONG = 15  # rows; a longer table waits behind its caption, a longer summary can be closed
MANY = 24  # facts; more wait behind the name of their section
SCALE = 0.8  # CSS pixels a pixel: what is drawn at 150 dots an inch is shown at 120
PNG = b"\x89PNG\r\n\x1a\n"


def render_page(report: Report, output: Path) -> str:
    """The page as text; every word of the report is escaped."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(files("xfm.plots").joinpath(TEMPLATE).read_text(encoding="utf-8"))
    tables = [_table(report, index) for index in range(len(report.tables))]
    figures = [_figure(figure, output) for figure in report.figures]
    return template.render(
        report=report,
        numbers=[(name, *_split(value, format_column([value])[0])) for name, value in report.numbers.items()],
        hero=figures[:1],
        summaries=[table for table in tables if table["is_summary"]],
        figures=figures[1:],
        tables=[table for table in tables if not table["is_summary"]],
        provenance=[(part, flat(value)) for part, value in report.provenance.items()],
        many=MANY,
        refused=[(code, f"{count:,}") for code, count in sorted(report.refused.items())],
    )


def flat(value: Any, prefix: str = "") -> list[tuple[str, str]]:
    """A nested value as (dotted name, text) pairs."""
    if isinstance(value, Mapping):
        return [pair for key, inner in value.items() for pair in flat(inner, f"{prefix}.{key}" if prefix else str(key))]
    if isinstance(value, list | tuple) and all(not isinstance(inner, Mapping | list | tuple) for inner in value):
        return [(prefix, ", ".join(map(str, value)))]
    if isinstance(value, list | tuple):
        return [pair for number, inner in enumerate(value) for pair in flat(inner, f"{prefix}[{number}]")]
    return [(prefix, "none" if value is None else str(value))]


def _table(report: Report, index: int) -> dict[str, Any]:
    table = report.tables[index]
    texts = [format_column([row[column] for row in table.rows]) for column in range(len(table.columns))]
    rows = [
        [(*_split(cell, texts[column][number]), is_number(cell) or cell is None) for column, cell in enumerate(row)]
        for number, row in enumerate(table.rows)
    ]
    heads = [(name, bool(rows) and all(row[column][2] for row in rows)) for column, name in enumerate(table.columns)]
    what = {"id": index + 1, "caption": table.caption, "note": table.notes, "best": table.best, "heads": heads}
    return what | {"rows": rows, "is_long": len(rows) > LONG, "is_summary": table.is_summary}


def _split(cell: Cell, text: str) -> tuple[str, str]:
    """A cell's text as value and interval, which is set smaller."""
    value, _, interval = text.partition(" [") if isinstance(cell, Estimate) else (text, "", "")
    return value, f"[{interval}" if interval else ""


def _figure(figure: Figure, output: Path) -> dict[str, Any]:
    path = output / figure.png
    data = path.read_bytes()
    if not data.startswith(PNG):
        raise ValueError(f"figure {path} is not a PNG file; it begins with {data[:8]!r}")
    # Width and height open a PNG's first chunk; with them the page keeps the picture's place while it loads.
    width, height = (round(SCALE * int.from_bytes(data[at : at + 4], "big")) for at in (16, 20))
    what = {"caption": figure.caption, "alt": figure.alt or figure.caption, "csv": figure.csv, "wide": figure.wide}
    uri = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    return what | {"uri": uri, "width": width, "height": height}
