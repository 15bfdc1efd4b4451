"""How a search draws its values, and how that is written down.

    space:
      lr: {loguniform: [1.0e-5, 1.0e-3]}
      task.dropout: {uniform: [0.0, 0.5]}
      task.mode: {choice: [full, lora]}
      batch_size: {grid: [16, 32]}

The words and their meaning are Ray Tune's (https://docs.ray.io/en/latest/tune/api/search_space.html): `randint` leaves
out its upper bound, a `q` in front rounds to multiples of the third number. A grid's values are all tried, every
combination of them with other grids. Values that fit no job together, e.g. a width that its attention heads do not
divide, are no fault of a space as long as most draws fit: such a draw is made again (`search.py`).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, TypeVar

from numpy.random import Generator

from xfm.core.config import Config
from xfm.core.errors import Refused, did_you_mean
from xfm.core.random import rng_for
from xfm.engine.flags import build_parser
from xfm.engine.settings import UsageError

C = TypeVar("C", bound=Config)

CONTINUOUS = {"uniform": 2, "loguniform": 2, "quniform": 3, "qloguniform": 3, "randint": 2}  # numbers they take
LISTED = ("choice", "grid")
TRIED = 16  # combinations drawn to see whether jobs can be made of them
FEWEST = 2  # of them that must be jobs: of a space where one in eight is, 50 draws in a row fail once in 800 trials
PLACE = (
    "output", "experiment", "dry_run", "workers", "gpus", "threads", "max_seconds", "batch_tokens", "log_every",
    "checkpoint_every", "bootstrap", "notes", "watch",
)  # fmt: skip
LUCK = ("seed", "seeds")


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
        return [draw.field for draw in self.draws]

    @property
    def free(self) -> list[Draw]:
        """Those that a searcher chooses."""
        return [draw for draw in self.draws if draw.kind != "grid"]

    def grid(self) -> list[dict[str, Any]]:
        """All combinations of the grids' values; one empty one where there is no grid."""
        return combinations({draw.field: draw.arguments for draw in self.draws if draw.kind == "grid"})

    def random(self, seed: int, number: int, again: int = 0) -> dict[str, Any]:
        """Free values of one trial, a function of these numbers alone: `again` counts draws that fitted no job."""
        trial = f"trial {number} again {again}" if again else f"trial {number}"
        return {draw.field: draw.draw(rng_for(seed, f"{trial} {draw.field}")) for draw in self.free}

    def fixed(self, number: int) -> dict[str, Any]:
        """The grids' values of one trial; trial 0 has none, it is the job as it was given."""
        grid = self.grid()
        return grid[(number - 1) % len(grid)]

    def ordered(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The same values in the order of the space."""
        return {field: values[field] for field in self.fields if field in values}


def combinations(values: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Every combination of some fields' values."""
    return [dict(zip(values, chosen, strict=True)) for chosen in product(*values.values())]


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
    known = ", ".join(words)
    if not isinstance(how, Mapping) or len(how) != 1:
        raise _bad_space(f"{field}: expected one of {known}, as in {field}: {{uniform: [0, 1]}}, found {how!r}")
    ((kind, given),) = how.items()
    if kind not in words:
        raise _bad_space(f"{field}: {kind!r} is no way to draw a value.{_nearest(kind, words)} Known: {known}")
    if not isinstance(given, list | tuple) or not given:
        raise _bad_space(f"{field}: {kind} takes a list, found {given!r}")
    if kind in LISTED:
        if len({repr(value) for value in given}) < len(given):
            raise _bad_space(f"{field}: {kind} lists a value twice: {list(given)}")
        return Draw(field, kind, tuple(given))
    numbers = tuple(_number(field, value) for value in given)
    if len(numbers) != CONTINUOUS[kind]:
        what = "[low, high, step]" if CONTINUOUS[kind] == 3 else "[low, high]"
        raise _bad_space(f"{field}: {kind} takes {what}, found {list(given)}")
    low, high = numbers[:2]
    if low >= high:
        raise _bad_space(f"{field}: {kind} {list(given)}: the first number must be below the second")
    if "log" in kind and low <= 0:
        raise _bad_space(f"{field}: {kind} {list(given)}: a logarithmic scale begins above 0")
    if kind == "randint" and not all(isinstance(number, int) for number in numbers):
        raise _bad_space(f"{field}: randint takes whole numbers, found {list(given)}")
    if kind.startswith("q") and (numbers[2] <= 0 or math.ceil(low / numbers[2]) > math.floor(high / numbers[2])):
        raise _bad_space(f"{field}: {kind} {list(given)}: no multiple of the step lies between the bounds")
    return Draw(field, kind, numbers)


def _number(field: str, value: Any) -> int | float:
    """YAML takes 1e-5 for a word: it wants 1.0e-5."""
    try:
        number = value if isinstance(value, int | float) and not isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        raise _bad_space(f"{field}: expected a number, found {value!r}") from None
    if not math.isfinite(number):
        raise _bad_space(f"{field}: expected a finite number, found {value!r}")
    return number


def _nearest(word: str, known: Sequence[str]) -> str:
    ends = [f" Did you mean {name}?" for name in known if name.endswith(f".{word}")]
    return did_you_mean(word, known) or "".join(ends[:1])


def _bad_space(what: str) -> Refused:
    return Refused("BAD_SPACE", f"space: {what}")


def check_space(
    space: Space,
    job: type[C],
    make: Callable[[Mapping[str, Any]], C],
    seed: int,
    why_not: Callable[[str], str | None] = lambda _: None,
) -> None:
    """Whether every field of the job exists, may be searched, and takes the values that it may get.

    Args:
        make: drawn values to the job that has them; raises UsageError.
        seed: of the combinations that are tried.
        why_not: why a field of this kind of job may not be searched; None where it may.

    Raises:
        Refused: BAD_SPACE.
    """
    known = fields_of(job)
    for field in space.fields:
        if field not in known:
            raise _bad_space(f"{field}: is no setting of this job.{_nearest(field, known)}")
        if (why := why_not(field) or _why_never(field)) is not None:
            raise _bad_space(f"{field}: {why}")
    drawn = [space.random(seed, number) | space.fixed(number) for number in range(1, TRIED + 1)]
    for draw in space.draws:
        for value in draw.probes():
            _check_probe(make, draw.field, value, drawn, f"{draw.kind} {list(draw.arguments)}")
    problems = [(values, problem) for values in drawn if (problem := _problem(make, values)) is not None]
    fitting, free = TRIED - len(problems), bool(space.free)
    if problems and (fitting < FEWEST or not free):
        values, problem = problems[0]
        why = f"only {fitting} of {TRIED} draws fit" if free else "the values of a grid are never drawn again"
        raise _bad_space(f"drawn together, {space.ordered(values)}, which the job does not take: {problem} ({why})")


def fields_of(job: type[Config]) -> list[str]:
    """Dotted names of all settings of a job."""
    actions = build_parser(job, "job")._actions
    return [action.dest for action in actions if action.dest not in ("help", "config")]


def _check_probe(
    make: Callable[[Mapping[str, Any]], Any], field: str, value: Any, drawn: list[dict[str, Any]], how: str
) -> None:
    """A value must be possible in the job as it was given, or with one of these draws of the other fields."""
    problem = _problem(make, {field: value})
    if problem is not None and all(_problem(make, others | {field: value}) is not None for others in drawn):
        raise _bad_space(f"{field}: {how} may give {value!r}, which the job does not take: {problem}")


def _problem(make: Callable[[Mapping[str, Any]], Any], values: Mapping[str, Any]) -> str | None:
    try:
        make(values)
    except UsageError as error:
        return str(error)
    return None


def _why_never(field: str) -> str | None:
    first = field.partition(".")[0]
    if first in LUCK:
        return "is luck and no setting: train the best with several seeds to see how much of it there is"
    if first in PLACE:
        return "says where a job runs and how it is watched, not what it learns: there is nothing to search"
    return None
