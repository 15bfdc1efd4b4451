"""What the table says of a member next to its name: columns that show its settings, named by the preset.

show:
  dropout: task.dropout                       # column: field of the member's job
  start: after.task.kind                      # field of the member that it starts from
  rank: {setting: task.rank, where: task.lora, otherwise: "0"}
curve: rank                                   # joins the points of a trade-off, series by series
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from xfm.core.config import Config
from xfm.core.errors import did_you_mean
from xfm.engine.settings import UsageError

if TYPE_CHECKING:
    from xfm.studies.ablation.plan import Member

AFTER = "after."
NONE = "-"  # a member has no such field, or has not set it
MISSING = object()


class ShownSetting(Config):
    """A setting that only says something of some members."""

    setting: str
    """Field of the member's job, e.g. task.dropout; under `after.` of the job that it starts from."""

    where: str | None = None
    """Field that must be on (neither false nor null) for the setting to be shown."""

    otherwise: str = NONE
    """What is shown of a member where that field is off."""


Show = Mapping[str, str | ShownSetting]


def shown_of(show: Show, member: "Member", members: Sequence["Member"]) -> dict[str, str]:
    """The words of a member by column; a dash where its job has no such field."""
    start = next((each for each in members if each.name == member.words.after), None)
    found = {}
    for column, asked in _settings(show).items():
        is_on = True if asked.where is None else _value(asked.where, member, start)
        value = MISSING if is_on is MISSING else _value(asked.setting, member, start)
        found[column] = asked.otherwise if is_on is None or is_on is False else _in_words(value)
    return found


def check_shown(show: Show, curve: str | None, members: Sequence["Member"]) -> None:
    """That each field is one of some member, and that the curve is a column of numbers.

    Raises:
        UsageError: it is not; the message names the nearest one.
    """
    fields = {path for member in members for path in _fields(_config(member))}
    known = fields | {AFTER + path for path in fields}
    for column, asked in _settings(show).items():
        for path in (asked.setting, asked.where):
            if path is not None and path not in known:
                raise UsageError(f"--show.{column}: {path} is no setting of any member.{did_you_mean(path, known)}")
    if curve is None:
        return
    if curve not in show:
        raise UsageError(f"--curve {curve}: is no column of --show.{did_you_mean(curve, show)}")
    for member in members:
        word = shown_of(show, member, members)[curve]
        if any(row.series for row in member.rows) and number_of(word) is None and word != NONE:
            raise UsageError(f"--curve {curve}: {member.name} shows {word!r}, and a curve is over numbers")


def number_of(word: str) -> float | None:
    """The number that a word is; None where it is none."""
    try:
        return float(word)
    except ValueError:
        return None


def _settings(show: Show) -> dict[str, ShownSetting]:
    return {name: ShownSetting(setting=each) if isinstance(each, str) else each for name, each in show.items()}


def _config(member: "Member") -> Config:
    return next(iter(member.configs.values()))


def _fields(config: Config, prefix: str = "") -> Iterator[str]:
    """Dotted names of all fields of a job."""
    for name in type(config).model_fields:
        yield prefix + name
        if isinstance(value := getattr(config, name), Config):
            yield from _fields(value, f"{prefix}{name}.")


def _value(path: str, member: "Member", start: "Member | None") -> Any:
    """Of a field; MISSING where there is none."""
    if path.startswith(AFTER):
        if start is None:
            return MISSING
        member, path = start, path.removeprefix(AFTER)
    value: Any = _config(member)
    for name in path.split("."):
        if not isinstance(value, Config) or name not in type(value).model_fields:
            return MISSING
        value = getattr(value, name)
    return value


def _in_words(value: Any) -> str:
    if value is None or value is MISSING:
        return NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
