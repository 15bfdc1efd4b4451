"""A trial ends with its last step: what a job does after that, on test rows, belongs to no search.

`Learner.outcome` is the only place where test rows are read, and it may draw maps and project features: time that a
trial has no use for.
"""

from dataclasses import dataclass
from typing import Any, cast

from xfm.training.group import Group
from xfm.training.learner import Learner, Recipe


@dataclass(frozen=True, slots=True)
class WithoutOutcome:
    """A recipe whose learner says nothing at the end."""

    recipe: Recipe  # of the learner

    def build(self, group: Group, device: str) -> Learner:
        return cast(Learner, _Silent(self.recipe.build(group, device)))


class _Silent:
    """A learner in all but its outcome."""

    def __init__(self, learner: Learner) -> None:
        self._learner = learner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._learner, name)

    def outcome(self, step: int) -> dict[str, Any]:  # noqa: ARG002
        return {}
