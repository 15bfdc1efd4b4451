"""Rows of a member, ready to be trained on: members that read them alike share one store.

OUTPUT/members/tokens-FINGERPRINT/tokens/   as `engine.tokens` stores them
OUTPUT/members/label_embeddings.parquet     vectors of words, of which each member begins with a copy

What tokens are depends on the network that reads them only by its tokenizer. A network of embeddings and words leaves
rows as they are, from whichever checkpoint it starts: there all members of one job, source and split share one store,
however they train. What the words mean is asked of a text encoder once, not by every member.
"""

from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from xfm.core.config import fingerprint
from xfm.core.storage import below, open_storage
from xfm.engine import finetune, pretrain
from xfm.engine.finetune_config import FinetuneConfig
from xfm.engine.planning import ShardPlan
from xfm.engine.pretrain_config import PretrainConfig
from xfm.engine.resume_check import check_output
from xfm.models.fusion.label_table import FILE
from xfm.training.tokens import TokenParts, TokenStore

SHORT = 12  # digits of a fingerprint in a folder's name


class TokenStores:
    """The stores of one comparison. Prepares on the driver, each store once."""

    def __init__(self, uri: str) -> None:
        """`uri` is that of the members' folder."""
        self.uri = uri
        self._finetune: dict[str, finetune.Prepared] = {}
        self._pretrain: dict[str, pretrain.Prepared] = {}
        self._texts: dict[tuple[str, str], list[str]] = {}

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
        if hasattr(config.task, "is_adversarial") and hasattr(config.backbone, "bank_of"):
            self._hand_labels(config.backbone, found.parts, config.output)
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
        recipe = pretrain.token_recipe(plain, shared)
        key = fingerprint(recipe)
        if key not in self._pretrain:
            place = below(self.uri, f"tokens-{key[:SHORT]}")
            self._pretrain[key] = pretrain.prepare(plain, shared, place, recipe=recipe)
        found = self._pretrain[key]
        start = pretrain.pretraining_of(config).start
        if hasattr(start, "bank_of"):
            self._hand_labels(start, found.parts, config.output)
        return replace(found, plan=plan)

    def _hand_labels(self, network: Any, parts: TokenParts, output: str) -> None:
        """Vectors of all words in the rows, made here by whoever comes first, into the OUTPUT of a member.

        Raises:
            Refused: as `Fusion.bank_of`.
        """
        shared, own = open_storage(self.uri), open_storage(output)
        key = (parts.uri, network.text_column)
        if key not in self._texts:
            columns = [pc.unique(column.cast(pa.string())) for column in TokenStore(parts).column(network.text_column)]
            self._texts[key] = sorted({text for column in columns for text in column.to_pylist() if text is not None})
        network.bank_of(self._texts[key], shared)
        content = shared.read(FILE)
        if content is not None and own.size(FILE) is None:
            own.create()
            own.write(FILE, content)


def _planned(plan: ShardPlan, prepared: ShardPlan) -> ShardPlan:
    """The job's plan, with what preparing settled."""
    settled = {name: prepared.run["recipe"][name] for name in finetune.SETTLED}
    run = {**plan.run, "recipe": plan.run["recipe"] | settled, "cells_by_label": prepared.run["cells_by_label"]}
    return ShardPlan(prepared.shards, prepared.genes, run)
