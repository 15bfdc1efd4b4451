"""The job that is searched, as a search sees it: its settings, its rows without the test rows, what a trial trains."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from xfm.core.config import Config
from xfm.core.errors import Refused
from xfm.core.metric import find_metric
from xfm.core.parts import TRAIN
from xfm.core.parts import VALIDATION as VALIDATION_ROWS
from xfm.engine.learn import HELD_OUT, Prepared, class_of, prepare, recipe_of, task_of
from xfm.engine.learn_config import FinetuneConfig, LearnConfig, PretrainConfig
from xfm.engine.planning import ShardPlan
from xfm.engine.settings import UsageError, build, merge, named_as_fields, nested, read_yaml
from xfm.studies.tune.space import Space, check_space, combinations
from xfm.studies.tune.trials import Aim
from xfm.training.learner import Recipe
from xfm.training.settings import VALIDATION, Settings
from xfm.training.tokens import TokenParts

JOBS: dict[str, type[LearnConfig]] = {"finetune": FinetuneConfig, "pretrain": PretrainConfig}
TITLES = {"finetune": "fine-tuning", "pretrain": "pretraining"}
LENGTHS = ("epochs", "steps", "batch_size")  # fields that say how long a trial is
# Fields of a preset that are nothing to a trial: what adapting makes a network forget is scored once, not every time.
OTHERS = ("output", "experiment", "dry_run", "seeds", "forgetting")
# All trials are compared on the same rows and tokens, which are made once.
ROWS = ("source", "backbone", "forgetting", "validation_rows", *HELD_OUT)
SAME_ROWS = (
    "cannot be searched: all trials must train on the same tokens and be compared on the same rows. Run a search for "
    "each value, and put their best settings side by side with jobs/compare.py"
)
AFTERWARDS = "is used after training alone, which a search does not look at"


@dataclass(frozen=True, slots=True)
class SearchTarget:
    """A job, and what is wanted of it."""

    word: str  # of the job: finetune or pretrain
    base: Mapping[str, Any]  # its settings, nested, as they were given
    output: str  # of the search
    aim: Aim  # what is searched for
    given: LearnConfig  # the job as it was given: trial 0

    def config_of(self, values: Mapping[str, Any]) -> LearnConfig:
        """The job with drawn values.

        Raises:
            UsageError: there is no such job.
        """
        return _config(self.word, self.base, self.output, self.aim, values)

    def why_not(self, field: str) -> str | None:
        """Why a field may not be searched; None where it may."""
        first, _, rest = field.partition(".")
        task, name = class_of(self.given.task), rest.partition(".")[0]
        if first in ROWS or (first == "task" and name in task.fixed):
            return SAME_ROWS
        return AFTERWARDS if first == "task" and name in task.afterwards else None

    def check(self, space: Space, seed: int) -> None:
        check_space(space, JOBS[self.word], self.config_of, seed, self.why_not)

    def prepare(self, plan: ShardPlan, uri: str) -> Prepared:
        """Tokens of training and validation rows in URI/tokens, shared by all trials; test rows are not stored.

        Raises:
            Refused: the columns, the split or the classes cannot be used.
        """
        prepared = prepare(self.given, plan, uri, job="tune", has_test=False)
        return replace(prepared, parts=compared_on(prepared.parts, self.word))

    def trained_of(self, prepared: Prepared, values: Mapping[str, Any]) -> tuple[Recipe, Settings]:
        """What a trial trains, and how.

        Raises:
            UsageError: the values fit no job.
            Refused: they fit no data.
        """
        recipe, settings = recipe_of(self.config_of(values), prepared, has_test=False)
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
        for values in [{}, *combinations({draw.field: draw.probes() for draw in drawn})]:
            try:
                config = self.config_of(values)
                _, settings = recipe_of(config, prepared, has_test=False)
            except (Refused, UsageError):
                continue  # such a trial fails
            rows = task_of(config, has_test=False).epoch_rows(prepared.parts, prepared.rows)
            most = max(most, settings.steps / max(1, rows // settings.batch_size))
        return most


def base_settings(job: type[Config], given: str | Mapping[str, Any], word: str) -> dict[str, Any]:
    """The job that is searched, as nested settings: a preset's, overridden by what stands beside `preset`.

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


def searched_job(
    sections: Mapping[str, str | dict[str, Any] | None], output: str, metric: str | None, also: str | None,
    place: Mapping[str, Any],
) -> SearchTarget:  # fmt: skip
    """What a search was given.

    Args:
        sections: the job by its kind; one of them is not None.
        metric, also: what is wanted, as `Aim.of` reads it; None for what the job watches.
        place: fields of the job that the search sets.

    Raises:
        Refused: BAD_SETTINGS, or BAD_METRIC.
    """
    ((word, job),) = [(word, job) for word, job in sections.items() if job is not None]
    base = with_values(base_settings(JOBS[word], job, word), place)
    try:
        watched = metric or _config(word, base, output, None, {}).watched
        if not watched:
            raise Refused("BAD_METRIC", f"this {word} job watches nothing: say what decides between trials, e.g. "
                          "--metric=-validation_loss")  # fmt: skip
        aim = Aim.of(watched, also)
        _check_aim(aim)
        given = _config(word, base, output, aim, {})
    except UsageError as error:
        raise Refused("BAD_SETTINGS", f"{word}: {error}") from None
    if given.watched != aim.watch:
        better = "higher" if aim.is_lower_better else "lower"
        raise Refused("BAD_METRIC", f"--metric {aim.watch}: the {better} is better, or it is measured under another "
                      f"name; write {given.watched}")  # fmt: skip
    return SearchTarget(word, base, output, aim, given)


def watch_of(aim: Aim) -> str:
    """The value of the field `watch` that makes the aim decide."""
    return f"{'-' if aim.is_lower_better else ''}{aim.metric.removeprefix(VALIDATION)}"


def _config(word: str, base: Mapping[str, Any], output: str, aim: Aim | None, values: Mapping[str, Any]) -> LearnConfig:
    """The job with drawn values; without an aim it watches what it watches."""
    settings = {name: value for name, value in base.items() if name not in OTHERS}
    if aim is not None:
        settings["watch"] = watch_of(aim)
    return build(JOBS[word], with_values(settings, {**values, "output": output}), word)


def _check_aim(aim: Aim) -> None:
    if aim.near is not None:
        raise Refused("BAD_METRIC", f"--metric {aim.watch}: the first score says which weights of a trial are kept, by "
                      "the highest or lowest; NAME~VALUE goes with --also")  # fmt: skip
    known = find_metric(aim.metric.removeprefix(VALIDATION))
    if known is not None and known.better == "higher" and aim.is_lower_better:
        raise Refused("BAD_METRIC", f"--metric {aim.watch}: the higher is better; write {aim.metric}")
    for each in aim.each:
        if not each.metric.startswith(VALIDATION):
            raise Refused("BAD_METRIC", f"{each.watch} is not measured on validation rows; write "
                          f"{each.watch.replace(each.metric, VALIDATION + each.metric)}")  # fmt: skip


def compared_on(parts: TokenParts, word: str) -> TokenParts:
    """The parts that hold training or validation rows; the others are not even named.

    Raises:
        Refused: NO_VALIDATION_ROWS, there is nothing that trials could be compared on.
    """
    kept = [number for number, sizes in enumerate(parts.sizes) if sizes[TRAIN] + sizes[VALIDATION_ROWS]]
    keys, sizes = (tuple(each[number] for number in kept) for each in (parts.keys, parts.sizes))
    seen = TokenParts(parts.uri, keys, sizes, parts.left_out)  # type: ignore[arg-type]
    if not sum(seen.count(VALIDATION_ROWS)):
        raise Refused("NO_VALIDATION_ROWS", "no row is held out to compare trials on; give "
                      f"{word}.validation a share, or {word}.split")  # fmt: skip
    return seen
