"""Rows of a member, ready to be trained on: members that read them alike share one store.

OUTPUT/members/tokens-FINGERPRINT/tokens/   as `engine.tokens` stores them

What tokens are depends on the network that reads them only by its tokenizer. A network of embeddings and words leaves
rows as they are, from whichever checkpoint it starts: there all members of the same source and split share one store.
"""

from dataclasses import replace

from xfm.core.config import fingerprint
from xfm.core.storage import below
from xfm.engine import finetune, pretrain
from xfm.engine.finetune_config import FinetuneConfig
from xfm.engine.planning import ShardPlan
from xfm.engine.pretrain_config import PretrainConfig
from xfm.engine.same_run import check_output

SHORT = 12  # digits of a fingerprint in a folder's name


class TokenStores:
    """The stores of one comparison. Prepares on the driver, each store once."""

    def __init__(self, uri: str) -> None:
        """`uri` is that of the members' folder."""
        self.uri = uri
        self._finetune: dict[str, finetune.Prepared] = {}
        self._pretrain: dict[str, pretrain.Prepared] = {}

    def for_finetuning(self, config: FinetuneConfig) -> finetune.Prepared:
        """Rows, classes and split, with the plan of this very job.

        Raises:
            Refused: as `finetune.plan_finetuning` and `finetune.prepare`, or OUTPUT is another run's.
        """
        plan = finetune.plan_finetuning(config)
        check_output(config.output, plan.run["recipe"], finetune.SETTLED)
        plain = config.model_copy(update={"backbone": config.reader})
        shared = plan if plain.backbone is config.backbone else finetune.plan_finetuning(plain)
        recipe = {"job": finetune.JOB, "config": plain.token_recipe(), "weights": shared.weights,
                  "data": shared.run["recipe"]["data"]}  # fmt: skip
        place = below(self.uri, f"tokens-{fingerprint(recipe)[:SHORT]}")
        key = fingerprint(recipe | {"label": config.task.label, "bootstrap": config.bootstrap})
        if key not in self._finetune:
            own = plain.model_copy(update={"output": place})
            self._finetune[key] = finetune.prepare(own, shared, place)
        found = self._finetune[key]
        return replace(found, plan=_planned(plan, found.plan))

    def for_pretraining(self, config: PretrainConfig) -> pretrain.Prepared:
        """Rows and their split, with the plan of this very job.

        Raises:
            Refused: as `pretrain.plan_pretraining` and `pretrain.prepare`, or OUTPUT is another run's.
        """
        plan = pretrain.plan_pretraining(config)
        check_output(config.output, plan.run["recipe"], ())
        plain = config
        if config.split is not None:
            # Split by a column, rows do not depend on the seed, unless the tokenizer draws by it.
            start = pretrain.pretraining_of(config).start
            if start.tokenizer(config.seed) == start.tokenizer(0):
                plain = config.model_copy(update={"seed": 0})
        shared = plan if plain.seed == config.seed else pretrain.plan_pretraining(plain)
        key = fingerprint(shared.run["recipe"])
        if key not in self._pretrain:
            self._pretrain[key] = pretrain.prepare(plain, shared, below(self.uri, f"tokens-{key[:SHORT]}"))
        return replace(self._pretrain[key], plan=plan)


def _planned(plan: ShardPlan, prepared: ShardPlan) -> ShardPlan:
    """The job's plan, with what preparing settled."""
    settled = {name: prepared.run["recipe"][name] for name in finetune.SETTLED}
    run = {**plan.run, "recipe": plan.run["recipe"] | settled, "cells_by_label": prepared.run["cells_by_label"]}
    return ShardPlan(prepared.shards, prepared.genes, run)
