"""Rows of a member, ready to be trained on: members that read them alike share one store.

OUTPUT/members/tokens-FINGERPRINT/tokens/   as `engine.tokens` stores them

What tokens are depends on the network that reads them only by its tokenizer. A network of embeddings and words leaves
rows as they are, from whichever checkpoint it starts: there all members of one job, source and split share one store,
however they train. What else members on the same rows have in common is for their tasks to say (`Task.share`).
"""

from xfm.core.config import fingerprint
from xfm.core.storage import below
from xfm.engine.learn import Prepared, plan_learning, planned_as, prepare, shared_tokens, task_of
from xfm.engine.learn_config import LearnConfig
from xfm.engine.resume_check import check_output

SHORT = 12  # digits of a fingerprint in a folder's name


class TokenStores:
    """The stores of one comparison. Prepares on the driver, each store once."""

    def __init__(self, uri: str) -> None:
        """`uri` is that of the members' folder."""
        self.uri = uri
        self._prepared: dict[str, Prepared] = {}

    def prepared_for(self, config: LearnConfig) -> Prepared:
        """Rows, classes and split, with the plan of this very job.

        Raises:
            Refused: as `plan_learning` and `prepare`, or OUTPUT is another run's.
        """
        plan, task = plan_learning(config), task_of(config)
        check_output(config.output, plan.run["recipe"])
        tokens = shared_tokens(config, plan)
        extra = {
            name: {"source": each.source.recipe(), "columns": each.columns, "weights": plan.weights}  # type: ignore[attr-defined]
            for name, each in task.extra_sources().items()
        }
        # Members with other rows to measure forgetting on do not share a folder: these lie in it, too.
        store = fingerprint({"tokens": tokens, "extra": extra}) if extra else tokens
        place = below(self.uri, f"tokens-{store[:SHORT]}")
        fixed = {name: value for name, value in config.task.recipe().items() if name in {"kind", *task.fixed}}
        key = fingerprint({"store": store, "task": fixed, "bootstrap": config.bootstrap})
        if key not in self._prepared:
            self._prepared[key] = prepare(config.model_copy(update={"output": place}), plan, place)
        found = self._prepared[key]
        task.share(found.parts, self.uri, config.output)
        return planned_as(plan, found)
