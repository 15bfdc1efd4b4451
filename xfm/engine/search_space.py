"""What a search may change, and how each value is drawn: checked before anything starts.

    space:
      lr: {loguniform: [1.0e-5, 1.0e-3]}
      task.dropout: {uniform: [0.0, 0.5]}
      task.mode: {choice: [full, lora]}
      batch_size: {grid: [16, 32]}

The words and their meaning are Ray Tune's (https://docs.ray.io/en/latest/tune/api/search_space.html): `randint` leaves
out its upper bound, a `q` in front rounds to multiples of the third number. A grid's values are all tried, every
combination of them with other grids.
"""

import copy
import difflib
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, TypeVar

import yaml
from numpy.random import Generator

from xfm.core.config import Config
from xfm.core.errors import Refused
from xfm.core.random import rng_for
from xfm.engine.flags import build_parser
from xfm.engine.settings import UsageError, named_as_fields, parse, read_yaml

C = TypeVar("C", bound=Config)

CONTINUOUS = {"uniform": 2, "loguniform": 2, "quniform": 3, "qloguniform": 3, "randint": 2}  # numbers they take
LISTED = ("choice", "grid")
TRIED = 16  # combinations drawn to see whether a job can be made of them

# All trials are compared on the same rows and tokens, which are made once.
ROWS = ("source", "backbone", "forgetting", "split", "validation", "test", "carve", "group", "split_seed")
ROWS_OF_TASK = ("kind", "label", "classes", "class_names", "shots")
AFTERWARDS = (
    "shares",
    "forgetting_label",
    "forgetting_classes",
    "forgetting_templates",
)  # of a task
LUCK = ("seed", "seeds")
PLACE = (
    "output", "experiment", "dry_run", "workers", "gpus", "threads", "max_seconds", "batch_tokens", "log_every",
    "checkpoint_every", "bootstrap", "notes", "watch",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Draw:
    """How the value of one field is drawn.

    Attributes:
        field: dotted, as on the command line of the job.
        kind: a word of `CONTINUOUS` or `LISTED`.
        arguments: bounds and step, or the values.
    """

    field: str
    kind: str
    arguments: tuple[Any, ...]

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

    def random(self, seed: int, number: int) -> dict[str, Any]:
        """Free values of one trial, a function of seed and number alone."""
        return {draw.field: draw.draw(rng_for(seed, f"trial {number} {draw.field}")) for draw in self.free}

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
        raise _bad(f"{field}: expected one of {', '.join(words)}, as in {field}: {{uniform: [0, 1]}}, found {how!r}")
    ((kind, given),) = how.items()
    if kind not in words:
        raise _bad(f"{field}: {kind!r} is no way to draw a value.{_nearest(kind, words)} Known: {', '.join(words)}")
    if not isinstance(given, list | tuple) or not given:
        raise _bad(f"{field}: {kind} takes a list, found {given!r}")
    if kind in LISTED:
        if len({repr(value) for value in given}) < len(given):
            raise _bad(f"{field}: {kind} lists a value twice: {list(given)}")
        return Draw(field, kind, tuple(given))
    numbers = tuple(_number(field, value) for value in given)
    if len(numbers) != CONTINUOUS[kind]:
        what = "[low, high, step]" if CONTINUOUS[kind] == 3 else "[low, high]"
        raise _bad(f"{field}: {kind} takes {what}, found {list(given)}")
    low, high = numbers[:2]
    if low >= high:
        raise _bad(f"{field}: {kind} {list(given)}: the first number must be below the second")
    if "log" in kind and low <= 0:
        raise _bad(f"{field}: {kind} {list(given)}: a logarithmic scale begins above 0")
    if kind == "randint" and not all(isinstance(number, int) for number in numbers):
        raise _bad(f"{field}: randint takes whole numbers, found {list(given)}")
    if kind.startswith("q") and (numbers[2] <= 0 or math.ceil(low / numbers[2]) > math.floor(high / numbers[2])):
        raise _bad(f"{field}: {kind} {list(given)}: no multiple of the step lies between the bounds")
    return Draw(field, kind, numbers)


def _number(field: str, value: Any) -> int | float:
    """YAML takes 1e-5 for a word: it wants 1.0e-5."""
    try:
        number = value if isinstance(value, int | float) and not isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        raise _bad(f"{field}: expected a number, found {value!r}") from None
    if not math.isfinite(number):
        raise _bad(f"{field}: expected a finite number, found {value!r}")
    return number


def base_settings(job: type[Config], finetune: str | Mapping[str, Any]) -> dict[str, Any]:
    """The job that is searched, as nested settings: a preset's, overridden by what stands beside `preset`.

    Args:
        job: class of its config.
        finetune: path of a preset, or settings, perhaps with the key `preset`.

    Raises:
        Refused: BAD_SETTINGS, the preset cannot be read.
    """
    given: dict[str, Any] = {"preset": finetune} if isinstance(finetune, str) else copy.deepcopy(dict(finetune))
    preset = given.pop("preset", None)
    try:
        base = named_as_fields(job, read_yaml(str(preset))) if preset is not None else {}
    except UsageError as error:
        raise Refused("BAD_SETTINGS", f"finetune: {str(error).removeprefix('--config ')}") from None
    for name, value in named_as_fields(job, given).items():
        old = base.get(name)
        if isinstance(value, dict) and isinstance(old, dict) and value.get("kind", old.get("kind")) == old.get("kind"):
            value = old | value
        base[name] = value
    return base


def with_values(base: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with drawn values in them."""
    settings = copy.deepcopy(dict(base))
    for field, value in values.items():
        section, _, name = field.rpartition(".")
        (settings.setdefault(section, {}) if section else settings)[name] = value
    return settings


def build(job: type[C], settings: Mapping[str, Any], *flags: str) -> C:
    """The job of such settings, judged as if they had stood in its own YAML file.

    Args:
        job: class of its config.
        settings: nested.
        flags: of its command line, which come first.

    Raises:
        UsageError: it cannot be.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "settings.yaml"
        path.write_text(yaml.safe_dump(dict(settings), sort_keys=False), encoding="utf-8")
        return parse(job, ["--config", str(path), *flags], {}, "finetune")


def check_space(space: Space, job: type[C], make: Callable[[Mapping[str, Any]], C], seed: int) -> None:
    """Whether every field exists, may be searched, and takes the values that it may get.

    Args:
        space: to check.
        job: class of the config whose fields are drawn.
        make: drawn values to the job that has them; raises UsageError.
        seed: of the combinations that are tried.

    Raises:
        Refused: BAD_SPACE.
    """
    known = fields_of(job)
    for field in space.fields:
        if field not in known:
            raise _bad(f"{field}: is no setting of this job.{_nearest(field, known)}")
        if (why := _why_not(field)) is not None:
            raise _bad(f"{field}: {why}")
    for draw in space.draws:
        for value in draw.probes():
            _try(make, {draw.field: value}, f"{draw.field}: {draw.kind} {list(draw.arguments)} may give {value!r}")
    combinations = space.grid()
    for number in range(1, TRIED + 1):
        values = space.ordered(space.random(seed, number) | combinations[(number - 1) % len(combinations)])
        _try(make, values, f"drawn together, {values}")


def fields_of(job: type[Config]) -> list[str]:
    """Dotted names of all settings of a job."""
    actions = build_parser(job, "finetune")._actions
    return [action.dest for action in actions if action.dest not in ("help", "config")]


def _try(make: Callable[[Mapping[str, Any]], Any], values: Mapping[str, Any], said: str) -> None:
    try:
        make(values)
    except UsageError as error:
        raise _bad(f"{said}, which the job does not take: {error}") from None


def _why_not(field: str) -> str | None:
    first, _, rest = field.partition(".")
    if first in ROWS or (first == "task" and rest.partition(".")[0] in ROWS_OF_TASK):
        return (
            "cannot be searched: all trials must train on the same tokens and be compared on the same rows. Run a "
            "search for each value, and put their best settings side by side with jobs/compare.py"
        )
    if first == "task" and rest in AFTERWARDS:
        return "is used after training alone, which a search does not look at"
    if first in LUCK:
        return "is luck and no setting: `jobs/finetune.py --seeds 3` shows how much of it there is"
    if first in PLACE:
        return "says where a job runs and how it is watched, not what it learns: there is nothing to search"
    return None


def _nearest(word: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1) or [name for name in known if name.endswith(f".{word}")][:1]
    return f" Did you mean {near[0]}?" if near else ""


def _bad(what: str) -> Refused:
    return Refused("BAD_SPACE", f"space: {what}")
