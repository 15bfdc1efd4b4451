"""The job that is searched, as a search sees it: its settings, its rows without the test rows, what a trial trains.

What differs between kinds of jobs is a `Kind`: `tune_finetune.py` and `tune_pretrain.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from itertools import product
from typing import Any, Protocol

from xfm.core.errors import Refused
from xfm.engine.config import JobConfig
from xfm.engine.planning import ShardPlan
from xfm.engine.settings import UsageError, build
from xfm.engine.stage import StageResult
from xfm.studies.tune.space import Space
from xfm.studies.tune.space_check import base_settings, check_space, with_values
from xfm.studies.tune.trials import Aim
from xfm.training.learner import Recipe
from xfm.training.settings import VALIDATION, Settings
from xfm.training.tokens import TokenParts

# Jobs that may be searched, by the section of a search that holds one: modules with `KIND`.
KINDS = {"finetune": "xfm.studies.tune.tune_finetune", "pretrain": "xfm.studies.tune.tune_pretrain"}
LENGTHS = ("epochs", "steps", "batch_size")  # fields that say how long a trial is


class Prepared(Protocol):
    """Rows that are ready to be trained on."""

    @property
    def parts(self) -> TokenParts:
        """The tokens."""
        ...

    @property
    def tokens(self) -> StageResult:
        """What the stage did that stored them."""
        ...


class Kind(Protocol):
    """What a search must know of one kind of job."""

    @property
    def word(self) -> str:
        """The section of a search's settings, and the name of the job."""
        ...

    @property
    def title(self) -> str:
        """What the job does, for people."""
        ...

    @property
    def others(self) -> tuple[str, ...]:
        """Fields of a preset that are nothing to a trial."""
        ...

    @property
    def job(self) -> type[JobConfig]:
        """Class of its config."""
        ...

    def why_not(self, field: str) -> str | None:
        """Why a field may not be searched; None where it may."""
        ...

    def watched(self, config: Any) -> str | None:
        """What decides by itself which weights are kept, in the form of `Settings.watch`; None for nothing."""
        ...

    def watch(self, aim: Aim) -> str:
        """The value of its field `watch` that makes the aim decide."""
        ...

    def plan(self, config: Any) -> ShardPlan:
        """Lists the source and checks it."""
        ...

    def prepare(self, config: Any, plan: ShardPlan, uri: str) -> Prepared:
        """Tokens of training and validation rows in URI/tokens, shared by all trials; test rows are not stored.

        Raises:
            Refused: the columns, the split or the classes cannot be used.
        """
        ...

    def make(self, config: Any, prepared: Any) -> tuple[Recipe, Settings]:
        """What a trial trains, and how."""
        ...

    def pass_rows(self, recipe: Any, prepared: Any) -> int:
        """Rows of one epoch."""
        ...


@dataclass(frozen=True, slots=True)
class SearchTarget:
    """A job, and what is wanted of it.

    Attributes:
        kind: of job.
        base: its settings, nested, as they were given.
        output: of the search.
        aim: what is searched for.
        given: the job as it was given: trial 0.
    """

    kind: Kind
    base: Mapping[str, Any]
    output: str
    aim: Aim
    given: Any

    def config_of(self, values: Mapping[str, Any]) -> Any:
        """The job with drawn values.

        Raises:
            UsageError: there is no such job.
        """
        return _config(self.kind, self.base, self.output, self.aim, values)

    def check(self, space: Space, seed: int) -> None:
        """See `check_space`."""
        check_space(space, self.kind.job, self.config_of, seed, self.kind.why_not)

    def trained_of(self, prepared: Prepared, values: Mapping[str, Any]) -> tuple[Recipe, Settings]:
        """What a trial trains, and how.

        Raises:
            UsageError: the values fit no job.
            Refused: they fit no data.
        """
        recipe, settings = self.kind.make(self.config_of(values), prepared)
        assert settings.watch == self.aim.watch, settings.watch
        return recipe, settings

    def value_of(self, field: str) -> Any:
        """The value of a dotted field in trial 0; None where the job's kind of section has no such field."""
        value: Any = self.given
        for name in field.split("."):
            value = getattr(value, name, None)
        return value

    def longest(self, prepared: Prepared, space: Space) -> float:
        """Epochs that a trial may have at most, in epochs or in steps as the job counts them."""
        drawn = [draw for draw in space.draws if draw.field in LENGTHS]
        most = 1.0
        for values in [{}, *_combinations({draw.field: draw.probes() for draw in drawn})]:
            try:
                recipe, settings = self.trained_of(prepared, values)
            except (Refused, UsageError):
                continue  # such a trial fails
            batches = max(1, self.kind.pass_rows(recipe, prepared) // settings.batch_size)
            most = max(most, settings.steps / batches)
        return most


def searched_job(
    sections: Mapping[str, str | dict[str, Any] | None], output: str, metric: str | None, also: str | None,
    place: Mapping[str, Any],
) -> SearchTarget:  # fmt: skip
    """What a search was given.

    Args:
        sections: the job by its kind; one of them is not None.
        output: of the search.
        metric: what decides, as `Aim.of` reads it; None for what the job watches.
        also: what is wanted beside it.
        place: fields of the job that the search sets.

    Raises:
        Refused: BAD_SETTINGS, or BAD_METRIC.
    """
    ((word, job),) = [(word, job) for word, job in sections.items() if job is not None]
    kind: Kind = import_module(KINDS[word]).KIND
    base = with_values(base_settings(kind.job, job, word), place)
    try:
        aim = Aim.of(metric or _watched(kind, _config(kind, base, output, None, {})), also)
        _check_aim(aim)
        given = _config(kind, base, output, aim, {})
    except UsageError as error:
        raise Refused("BAD_SETTINGS", f"{word}: {error}") from None
    if (watched := kind.watched(given)) != aim.watch:
        better = "higher" if aim.is_lower_better else "lower"
        raise Refused("BAD_METRIC", f"--metric {aim.watch}: the {better} is better, or it is measured under another "
                      f"name; write {watched}")  # fmt: skip
    return SearchTarget(kind, base, output, aim, given)


def _config(kind: Kind, base: Mapping[str, Any], output: str, aim: Aim | None, values: Mapping[str, Any]) -> Any:
    """The job with drawn values; without an aim it watches what it watches."""
    settings = {name: value for name, value in base.items() if name not in kind.others}
    if aim is not None:
        settings["watch"] = kind.watch(aim)
    return build(kind.job, with_values(settings, {**values, "output": output}), kind.word)


def _watched(kind: Kind, config: Any) -> str:
    watched = kind.watched(config)
    if watched is None:
        raise Refused("BAD_METRIC", f"this {kind.word} job watches nothing: say what decides between trials, e.g. "
                      "--metric=-validation_loss")  # fmt: skip
    return watched


def _check_aim(aim: Aim) -> None:
    if aim.near is not None:
        raise Refused("BAD_METRIC", f"--metric {aim.watch}: the first score says which weights of a trial are kept, by "
                      "the highest or lowest; NAME~VALUE goes with --also")  # fmt: skip
    for each in aim.each:
        if not each.metric.startswith(VALIDATION):
            raise Refused("BAD_METRIC", f"{each.watch} is not measured on validation rows; write "
                          f"{each.watch.replace(each.metric, VALIDATION + each.metric)}")  # fmt: skip


def _combinations(values: Mapping[str, list[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(values, chosen, strict=True)) for chosen in product(*values.values())]
