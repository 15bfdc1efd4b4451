"""What every job returns: one sentence, its numbers, tables and figures, and where they come from.

Written last, so that its presence in OUTPUT means success. `report.json` is this model; the page, the terminal and
MLflow show the same content.
"""

import json
import math
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

FORMAT = 1
DASH = "\N{EN DASH}"
# Digits of the largest number in a column, one less below 1; the others share its decimals, so that points align.
SIGNIFICANT = 4


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


def _or_none(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


End = Annotated[float | None, BeforeValidator(_or_none)]  # of an interval; None without one


def _plain(value: Any) -> Any:
    """NumPy's scalars as Python's."""
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", 1) == 0 else value


class Estimate(_Frozen):
    """A number with its 95 % interval, or with the reason why it has none."""

    value: float
    low: End
    high: End
    why: str = ""
    """Why there is no interval, e.g. "2 groups, 3 are needed"; empty where there is one."""

    @property
    def ends(self) -> tuple[float, float]:
        """Both ends of the interval, for a picture; NaN without one."""
        return (math.nan, math.nan) if self.low is None or self.high is None else (self.low, self.high)

    def words(self, spec: str = ".3f") -> str:
        """0.812 [0.755, 0.861]; without an interval the number alone."""
        ends = "" if self.low is None or self.high is None else f" [{self.low:{spec}}, {self.high:{spec}}]"
        return f"{self.value:{spec}}{ends}"


Number = Annotated[int | float | str | Estimate, BeforeValidator(_plain)]
Cell = Annotated[bool | int | float | str | Estimate | None, BeforeValidator(_plain)]


class Table(_Frozen):
    """Rows under named columns."""

    name: str
    """File-name safe and unique in the report."""
    caption: str
    """One sentence that says what the table shows."""
    columns: list[str]
    """Headings, units included."""
    rows: list[list[Cell]]
    """One list a row, as long as `columns`. None is shown as a dash."""
    note: str = ""
    """What to keep in mind when reading it."""
    best: int | None = None
    """Number of the row to set in bold, from 0."""

    @property
    def notes(self) -> str:
        """The note, and why numbers of the table have no interval."""
        why = dict.fromkeys(cell.why for row in self.rows for cell in row if isinstance(cell, Estimate) and cell.why)
        return " ".join(filter(None, (self.note, f"No interval: {'; '.join(why)}." if why else "")))

    @property
    def is_summary(self) -> bool:
        """Whether it is short and comes first, on the page and on a terminal: its name ends so."""
        return self.name.endswith("summary")

    @model_validator(mode="after")
    def _rows_fit_columns(self) -> "Table":
        asked = len(self.columns)
        for number, row in enumerate(self.rows):
            if (found := len(row)) != asked:
                raise ValueError(f"table {self.name!r}, row {number}: {found} cells for {asked} columns {self.columns}")
        return self


class Figure(_Frozen):
    """A picture and the numbers beneath it."""

    name: str
    """File-name safe and unique in the report."""
    caption: str
    """One sentence that says what the picture shows."""
    png: str
    """Path below OUTPUT, e.g. plots/layers.png."""
    csv: str = ""
    """The numbers drawn, as a path below OUTPUT."""
    alt: str = ""
    """What the picture shows, for those who do not see it; the caption where empty."""
    wide: bool = False
    """Small print inside: on a phone it keeps its size and scrolls."""

    @field_validator("png", "csv")
    @classmethod
    def _stays_below_output(cls, path: str) -> str:
        if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
            raise ValueError(f"figure file {path!r} lies outside OUTPUT; give a path below it, e.g. plots/layers.png")
        return path


class Report(_Frozen):
    """The result of one job."""

    format: int = FORMAT
    """Version of this layout."""
    title: str
    """What ran on what, in a few words."""
    job: str
    """Name of the job, e.g. layerwise."""
    headline: str
    """One sentence: what was found, in words a reader can repeat."""
    numbers: dict[str, Number] = Field(default_factory=dict)
    """The few numbers that matter; units in the name."""
    tables: list[Table] = Field(default_factory=list)
    figures: list[Figure] = Field(default_factory=list)
    """The first one is the hero of the page."""
    warnings: list[str] = Field(default_factory=list)
    """What a reader must know before believing the numbers."""
    provenance: dict[str, Any] = Field(default_factory=dict)
    """What ran: data, weights, versions, hashes; JSON values, nested as needed."""
    refused: dict[str, int] = Field(default_factory=dict)
    """Rows or files not used, counted by code."""

    def to_json(self) -> str:
        """The report as text: the same report gives the same bytes. NaN and infinity become null."""
        return json.dumps(_finite(self.model_dump(mode="python")), indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Report":
        """Reads what `to_json` wrote."""
        return cls.model_validate_json(text)

    def to_text(self) -> str:
        """The report for a terminal."""
        parts = [f"{self.title}\n{self.headline}"]
        if self.numbers:
            shown = {printable(name): format_column([value])[0] for name, value in self.numbers.items()}
            width = max(map(len, shown))
            parts.append("\n".join(f"{name:<{width}}  {value}" for name, value in shown.items()))
        parts += [text_table(table) for table in self.tables]
        last = [f"figure: {figure.png} - {figure.caption}" for figure in self.figures]
        last += [f"warning: {printable(warning)}" for warning in self.warnings]
        if self.refused:
            last.append("not used: " + ", ".join(f"{count:,} {code}" for code, count in sorted(self.refused.items())))
        parts += ["\n".join(last)] if last else []
        return "\n\n".join(parts) + "\n"


def text_table(table: Table) -> str:
    """A table for a terminal: aligned, numbers to the right."""
    columns, is_right = _shown(table)
    widths = [max(map(len, column)) for column in columns]
    lines = [
        "  ".join(cell.rjust(width) if right else cell.ljust(width) for cell, width, right in line).rstrip()
        for line in (zip(row, widths, is_right, strict=True) for row in zip(*columns, strict=True))
    ]
    rule = "  ".join("-" * width for width in widths)
    note = [printable(table.notes)] if table.notes else []
    return "\n".join([printable(table.caption), "", lines[0], rule, *lines[1:], *note])


def markdown_table(table: Table) -> str:
    """A table in Markdown: numbers to the right, pipes escaped."""
    columns, is_right = _shown(table)
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in zip(*columns, strict=True)]
    rule = "|" + "|".join(" ---: " if right else " --- " for right in is_right) + "|"
    return "\n".join([lines[0], rule, *lines[1:]]) + "\n"


def format_column(values: Sequence[Cell]) -> list[str]:
    """Cells as text. Floats of one column share their decimals; a missing or non-finite number is a dash.

    A positive number below the last decimal is "<0.001", because a p-value is not 0.
    """
    numbers = [n for value in values for n in _floats(value) if math.isfinite(n) and n != 0]
    top = max((abs(n) for n in numbers), default=1.0)
    # A column of tiny numbers (p-values, learning rates) reads better with exponents than with six zeros.
    digits = SIGNIFICANT - 1 if top < 1 else SIGNIFICANT
    spec = ".3g" if top < 1e-3 else f",.{max(digits - 1 - math.floor(math.log10(top)), 0)}f"
    return [_format_cell(value, spec) for value in values]


def is_number(value: Cell) -> bool:
    """Whether a cell is set to the right."""
    return isinstance(value, int | float | Estimate) and not isinstance(value, bool)


def printable(text: str) -> str:
    """One line without control characters: names come from data and must not steer a terminal."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _floats(value: Cell) -> list[float]:
    if isinstance(value, Estimate):
        return [number for number in (value.value, value.low, value.high) if number is not None]
    return [value] if isinstance(value, float) else []


def _format_cell(value: Cell, spec: str) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Estimate):
        return value.words(spec)
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, str):
        return printable(value)
    text = format(value, spec)
    return f"<{text[:-1]}1" if value > 0 and float(text.replace(",", "")) == 0 else text


def _shown(table: Table) -> tuple[list[list[str]], list[bool]]:
    """The texts of each column, heading first, and whether it holds numbers."""
    columns = [[row[index] for row in table.rows] for index in range(len(table.columns))]
    texts = [[printable(name), *format_column(cells)] for name, cells in zip(table.columns, columns, strict=True)]
    return texts, [any(map(is_number, cells)) and all(c is None or is_number(c) for c in cells) for cells in columns]


def _finite(value: Any) -> Any:
    """JSON knows no NaN: null, at any depth."""
    if isinstance(value, dict):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    value = _plain(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value
