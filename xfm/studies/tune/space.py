"""How a search draws its values, and how that is written down.

    space:
      lr: {loguniform: [1.0e-5, 1.0e-3]}
      task.dropout: {uniform: [0.0, 0.5]}
      task.mode: {choice: [full, lora]}
      batch_size: {grid: [16, 32]}

The words and their meaning are Ray Tune's (https://docs.ray.io/en/latest/tune/api/search_space.html): `randint` leaves
out its upper bound, a `q` in front rounds to multiples of the third number. A grid's values are all tried, every
combination of them with other grids. Values that fit no job together, e.g. a width that its attention heads do not
divide, are drawn again. Whether the fields exist and may be searched, `space_check.py` says.
"""

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from numpy.random import Generator

from xfm.core.errors import Refused
from xfm.core.random import rng_for

CONTINUOUS = {"uniform": 2, "loguniform": 2, "quniform": 3, "qloguniform": 3, "randint": 2}  # numbers they take
LISTED = ("choice", "grid")


@dataclass(frozen=True, slots=True)
class Draw:
    """How the value of one field is drawn."""

    field: str  # dotted, as on the command line of the job
    kind: str  # a word of `CONTINUOUS` or `LISTED`
    arguments: tuple[Any, ...]  # bounds and step, or the values

    @property
    def is_log(self) -> bool:
        """Whether it is drawn evenly on a logarithmic scale."""
        return "log" in self.kind

    @property
    def is_number(self) -> bool:
        """Whether values are drawn between bounds."""
        return self.kind in CONTINUOUS

    def probes(self) -> list[Any]:
        """Values that must be possible: both ends and one between, or all that are listed."""
        if not self.is_number:
            return list(self.arguments)
        low, high = self.arguments[:2]
        if self.kind == "randint":
            return [low, high - 1]
        between = math.sqrt(low * high) if self.is_log else low + (high - low) / math.e
        return [self.settled(value) for value in (low, high, between)]

    def draw(self, rng: Generator) -> Any:
        """One value."""
        if not self.is_number:
            return self.arguments[int(rng.integers(len(self.arguments)))]
        low, high = self.arguments[:2]
        if self.kind == "randint":
            return int(rng.integers(low, high))
        if self.is_log:
            return self.settled(math.exp(rng.uniform(math.log(low), math.log(high))))
        return self.settled(rng.uniform(low, high))

    def settled(self, value: float) -> Any:
        """A number between the bounds as the job gets it: a multiple of the step where there is one."""
        if self.kind == "randint":
            return int(value)
        low, high = self.arguments[:2]
        if self.kind.startswith("q"):
            step = self.arguments[2]
            first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
            value = round(min(max(round(value / step), first), last) * step, 12)
            return int(value) if isinstance(step, int) else value
        return float(min(max(value, low), high))


@dataclass(frozen=True, slots=True)
class Space:
    """All fields that are drawn, in the order they were given."""

    draws: tuple[Draw, ...]

    @property
    def fields(self) -> list[str]:
        """Their dotted names."""
        return [draw.field for draw in self.draws]

    @property
    def free(self) -> list[Draw]:
        """Those that a searcher chooses."""
        return [draw for draw in self.draws if draw.kind != "grid"]

    def grid(self) -> list[dict[str, Any]]:
        """All combinations of the grids' values; one empty one where there is no grid."""
        grids = [draw for draw in self.draws if draw.kind == "grid"]
        return [
            dict(zip((draw.field for draw in grids), values, strict=True))
            for values in product(*(draw.arguments for draw in grids))
        ]

    def random(self, seed: int, number: int, again: int = 0) -> dict[str, Any]:
        """Free values of one trial, a function of these numbers alone: `again` counts draws that fitted no job."""
        trial = f"trial {number} again {again}" if again else f"trial {number}"
        return {draw.field: draw.draw(rng_for(seed, f"{trial} {draw.field}")) for draw in self.free}

    def fixed(self, number: int) -> dict[str, Any]:
        """The grids' values of one trial; trial 0 has none, it is the job as it was given."""
        combinations = self.grid()
        return combinations[(number - 1) % len(combinations)]

    def ordered(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The same values in the order of the space."""
        return {field: values[field] for field in self.fields if field in values}


def parse_space(space: Mapping[str, Any]) -> Space:
    """Reads a space; its fields are not looked at yet.

    Raises:
        Refused: BAD_SPACE; nothing to draw, an unknown word, bounds that are no bounds.
    """
    if not space:
        raise Refused("BAD_SPACE", "space: names no field; e.g. lr: {loguniform: [1.0e-5, 1.0e-3]}")
    return Space(tuple(_draw(field.replace("-", "_"), how) for field, how in space.items()))


def _draw(field: str, how: Any) -> Draw:
    words = [*CONTINUOUS, *LISTED]
    if not isinstance(how, Mapping) or len(how) != 1:
        raise bad_space(
            f"{field}: expected one of {', '.join(words)}, as in {field}: {{uniform: [0, 1]}}, found {how!r}"
        )
    ((kind, given),) = how.items()
    if kind not in words:
        raise bad_space(
            f"{field}: {kind!r} is no way to draw a value.{nearest_of(kind, words)} Known: {', '.join(words)}"
        )
    if not isinstance(given, list | tuple) or not given:
        raise bad_space(f"{field}: {kind} takes a list, found {given!r}")
    if kind in LISTED:
        if len({repr(value) for value in given}) < len(given):
            raise bad_space(f"{field}: {kind} lists a value twice: {list(given)}")
        return Draw(field, kind, tuple(given))
    numbers = tuple(_number(field, value) for value in given)
    if len(numbers) != CONTINUOUS[kind]:
        what = "[low, high, step]" if CONTINUOUS[kind] == 3 else "[low, high]"
        raise bad_space(f"{field}: {kind} takes {what}, found {list(given)}")
    low, high = numbers[:2]
    if low >= high:
        raise bad_space(f"{field}: {kind} {list(given)}: the first number must be below the second")
    if "log" in kind and low <= 0:
        raise bad_space(f"{field}: {kind} {list(given)}: a logarithmic scale begins above 0")
    if kind == "randint" and not all(isinstance(number, int) for number in numbers):
        raise bad_space(f"{field}: randint takes whole numbers, found {list(given)}")
    if kind.startswith("q") and (numbers[2] <= 0 or math.ceil(low / numbers[2]) > math.floor(high / numbers[2])):
        raise bad_space(f"{field}: {kind} {list(given)}: no multiple of the step lies between the bounds")
    return Draw(field, kind, numbers)


def _number(field: str, value: Any) -> int | float:
    """YAML takes 1e-5 for a word: it wants 1.0e-5."""
    try:
        number = value if isinstance(value, int | float) and not isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        raise bad_space(f"{field}: expected a number, found {value!r}") from None
    if not math.isfinite(number):
        raise bad_space(f"{field}: expected a finite number, found {value!r}")
    return number


def nearest_of(word: str, known: Sequence[str]) -> str:
    """ " Did you mean ...?", or nothing."""
    near = difflib.get_close_matches(word, known, n=1) or [name for name in known if name.endswith(f".{word}")][:1]
    return f" Did you mean {near[0]}?" if near else ""


def bad_space(what: str) -> Refused:
    """The refusal of a space."""
    return Refused("BAD_SPACE", f"space: {what}")
