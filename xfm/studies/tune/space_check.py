"""Whether a space fits the job that is searched: its fields exist, may be searched, and take what may be drawn.

Checked before anything starts. Values that do not go together are no fault of a space as long as most draws fit: such
a draw is made again (`search.py`).
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from xfm.core.config import Config
from xfm.core.errors import Refused
from xfm.engine.flags import build_parser
from xfm.engine.settings import UsageError, merge, named_as_fields, nested, read_yaml
from xfm.studies.tune.space import Space, bad_space, nearest_of

C = TypeVar("C", bound=Config)

TRIED = 16  # combinations drawn to see whether jobs can be made of them
FEWEST = 2  # of them that must be jobs: of a space where one in eight is, 50 draws in a row fail once in 800 trials
PLACE = (
    "output", "experiment", "dry_run", "workers", "gpus", "threads", "max_seconds", "batch_tokens", "log_every",
    "checkpoint_every", "bootstrap", "notes", "watch",
)  # fmt: skip
LUCK = ("seed", "seeds")


def base_settings(job: type[Config], given: str | Mapping[str, Any], word: str) -> dict[str, Any]:
    """The job that is searched, as nested settings: a preset's, overridden by what stands beside `preset`.

    Args:
        job: class of its config.
        given: path of a preset, or settings, perhaps with the key `preset`.
        word: the section it was given in, for messages.

    Raises:
        Refused: BAD_SETTINGS, the preset cannot be read.
    """
    settings: dict[str, Any] = {"preset": given} if isinstance(given, str) else dict(given)
    preset = settings.pop("preset", None)
    try:
        base = named_as_fields(job, read_yaml(str(preset))) if preset is not None else {}
    except UsageError as error:
        raise Refused("BAD_SETTINGS", f"{word}: {str(error).removeprefix('--config ')}") from None
    return merge(base, named_as_fields(job, settings))


def with_values(base: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with drawn values, by dotted names, in them."""
    return merge(base, nested(values))


def check_space(
    space: Space,
    job: type[C],
    make: Callable[[Mapping[str, Any]], C],
    seed: int,
    why_not: Callable[[str], str | None] = lambda _: None,
) -> None:
    """Whether every field exists, may be searched, and takes the values that it may get.

    Args:
        space: to check.
        job: class of the config whose fields are drawn.
        make: drawn values to the job that has them; raises UsageError.
        seed: of the combinations that are tried.
        why_not: why a field of this kind of job may not be searched; None where it may.

    Raises:
        Refused: BAD_SPACE.
    """
    known = fields_of(job)
    for field in space.fields:
        if field not in known:
            raise bad_space(f"{field}: is no setting of this job.{nearest_of(field, known)}")
        if (why := why_not(field) or _why_never(field)) is not None:
            raise bad_space(f"{field}: {why}")
    combinations = space.grid()
    drawn = [space.random(seed, n) | combinations[(n - 1) % len(combinations)] for n in range(1, TRIED + 1)]
    for draw in space.draws:
        for value in draw.probes():
            _check_probe(make, draw.field, value, drawn, f"{draw.kind} {list(draw.arguments)}")
    problems = [(values, problem) for values in drawn if (problem := _problem(make, values)) is not None]
    fitting, free = TRIED - len(problems), bool(space.free)
    if problems and (fitting < FEWEST or not free):
        values, problem = problems[0]
        why = f"only {fitting} of {TRIED} draws fit" if free else "the values of a grid are never drawn again"
        raise bad_space(f"drawn together, {space.ordered(values)}, which the job does not take: {problem} ({why})")


def fields_of(job: type[Config]) -> list[str]:
    """Dotted names of all settings of a job."""
    actions = build_parser(job, "job")._actions
    return [action.dest for action in actions if action.dest not in ("help", "config")]


def _check_probe(
    make: Callable[[Mapping[str, Any]], Any], field: str, value: Any, drawn: list[dict[str, Any]], how: str
) -> None:
    """A value must be possible in the job as it was given, or with one of these draws of the other fields."""
    problem = _problem(make, {field: value})
    if problem is None or any(_problem(make, others | {field: value}) is None for others in drawn):
        return
    raise bad_space(f"{field}: {how} may give {value!r}, which the job does not take: {problem}")


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
