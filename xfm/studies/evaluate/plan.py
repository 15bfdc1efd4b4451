"""Everything an evaluation settles before it starts a worker: columns, cells, labels, split, baselines."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from xfm.core.backbone import BackboneConfig
from xfm.core.errors import Refused
from xfm.core.parts import PARTS
from xfm.core.schema import COUNTS
from xfm.core.source import Source
from xfm.engine.job import versions
from xfm.judging.eval_set import EvalSet
from xfm.judging.representations import (
    MEAN,
    RANDOM,
    UNSEEING,
    WITHIN_MAJORITY,
    Representation,
    combinations_of,
    layers_of,
)
from xfm.judging.row_noun import noun_of
from xfm.sources.stored.columns import StoredEmbeddings
from xfm.sources.stored.source import open_embeddings
from xfm.studies.evaluate.baselines import EXPRESSION
from xfm.studies.evaluate.config import EvaluateJob
from xfm.studies.evaluate.headline import file_name
from xfm.studies.evaluate.question import Question
from xfm.studies.evaluate.rebuild_from_run import backbone_of, columns_read, is_as_given, source_of
from xfm.studies.evaluate.rows import Pools, judged_rows
from xfm.studies.evaluate.scvi_baseline import check_available as check_scvi
from xfm.track.lineage import origin_of


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What an evaluation is about to do."""

    stored: StoredEmbeddings  # the embeddings
    judged: EvalSet  # cells, labels, split
    pools: Pools  # layer numbers by pooling
    representations: tuple[Representation, ...]  # of the embeddings themselves, and what needs nothing else
    source: Source | None  # where the rows are read again, for baselines; None where it cannot be
    backbone: BackboneConfig | None  # the network, for random weights; None where it is not known
    baselines: tuple[str, ...]  # that are asked for, by name
    tasks: tuple[str, ...]  # what to score
    choose_by: str  # the classifier that chooses the layer
    workers: int | None  # workers, gpus: as the job says
    gpus: float
    warnings: tuple[str, ...]  # what the reader must know
    run: dict[str, Any]  # the content of run.json

    @property
    def has_expression(self) -> bool:
        """Whether the source holds counts of genes; sentences have none."""
        return self.source is not None and COUNTS in self.source.schema.names


def plan_evaluation(config: EvaluateJob) -> Evaluation:
    """Opens the embeddings and settles who is judged on what.

    Raises:
        Refused: no such column, label or layer; too few groups or classes.
        EnvironmentProblem: the baseline scVI is asked for and not installed.
    """
    if "scvi" in config.baselines:
        check_scvi()  # before anything is computed
    assert config.embeddings is not None, "filled in by `embedded`"
    question = Question.of(config)
    stored = open_embeddings(config.embeddings)
    pools = _chosen_pools(stored, config.pools, config.layers)
    source, backbone, lacking = _origin(stored, config.embeddings, config.baselines, config.seed)
    noun = noun_of(source.schema.names if source is not None else columns_read(stored.origin() or {}))
    judged, warnings, unused = judged_rows(stored, pools, noun, question)
    representations = (
        *layers_of(pools, "embeddings", kind="layer"),
        *_unlayered(stored, pools),
        *combinations_of(pools, config.combinations, config.last_n, [label.name for label in judged.labels]),
        *(Representation(name, "baseline", "none", "", ()) for name in UNSEEING if name in config.baselines),
        *([Representation(MEAN, "baseline", "none", "", ())] if config.targets else []),
        *([Representation(WITHIN_MAJORITY, "baseline", "none", "", ())] if config.within else []),
    )
    recipe = {
        "job": "evaluate",
        "config": {name: value for name, value in config.recipe().items() if name not in unused},
        "data": stored.identity(),
        "cells": judged.cells_digest(),
        "split": judged.split_digest(),
        # What else stands beside the layers; where it is gone or back, a rerun is another evaluation.
        "at_hand": {"source": source is not None, "random": backbone is not None},
    }
    run = {
        "job": "evaluate",
        "recipe": recipe,
        "settings": config.model_dump(mode="json"),
        "cells_by_label": judged.label_digests(),
        "origin": origin_of(stored.origin() or {}),
        "noun": noun,
        "versions": versions(),
    }
    return Evaluation(
        stored, judged, pools, representations, source, backbone, config.baselines, config.tasks, config.choose_by,
        config.workers, config.gpus, (*config.notes, *warnings, *lacking), run,
    )  # fmt: skip


def describe(plan: Evaluation) -> str:
    """What `--dry-run` prints."""
    judged = plan.judged
    lines = [
        f"embeddings      {plan.stored.place}, {plan.stored.rows:,} rows, {len(judged.rows):,} judged",
        f"split           {', '.join(f'{len(judged.split.where(part)):,} {part.word}' for part in PARTS)}",
    ]
    lines += [f"label           {label.name}: {len(label.classes)} classes" for label in judged.labels]
    lines += [f"target          {target.name}" for target in judged.targets]
    lines += [f"layers          {pool}: {_span(layers)}" for pool, layers in plan.pools.items()]
    lines.append(
        f"representations {len(plan.representations)}, and the baselines {', '.join(_at_hand(plan)) or 'none'}"
    )
    lines += [f"warning         {warning}" for warning in plan.warnings]
    return "\n".join(lines)


def _at_hand(plan: Evaluation) -> list[str]:
    """Baselines that need more than labels and can be had."""
    lacking = {RANDOM} if plan.backbone is None else set()
    lacking |= set() if plan.has_expression else set(EXPRESSION)
    return [name for name in plan.baselines if name not in lacking]


def _span(layers: Sequence[int]) -> str:
    return ", ".join(map(str, layers)) if len(layers) < 6 else f"{layers[0]} to {layers[-1]} ({len(layers)})"


def _chosen_pools(stored: StoredEmbeddings, names: Sequence[str] | str, numbers: Sequence[int] | str) -> Pools:
    """Layers by pooling, of those that are stored; "all" takes every one."""
    found: Pools = {}
    for column in stored.columns:
        if column.pool is not None and column.layer is not None:
            found.setdefault(column.pool, []).append(column.layer)
    if not isinstance(names, str):
        if unknown := [pool for pool in names if pool not in found]:
            raise Refused("NO_POOL", f"--pools {unknown[0]}: {stored.place} holds {', '.join(found) or 'no layers'}")
        found = {pool: found[pool] for pool in names}
    if not isinstance(numbers, str):
        every = sorted({layer for layers in found.values() for layer in layers})
        if missing := sorted(set(numbers) - set(every)):
            raise Refused("NO_LAYER", f"--layers {missing[0]}: stored are {every}")
        found = {pool: [layer for layer in layers if layer in numbers] for pool, layers in found.items()}
    return {pool: sorted(layers) for pool, layers in found.items()}


def _unlayered(stored: StoredEmbeddings, pools: Pools) -> list[Representation]:
    """Columns of an AnnData that are no layers (X_pca, X_scVI): rivals beside layers, candidates without any."""
    kind: Any = "baseline" if pools else "layer"
    names = [column.name for column in stored.columns if column.layer is None]
    # Not to be taken for a baseline of ours, nor to break a file name.
    safe = {name: file_name(f"obsm_{name}" if name in {*EXPRESSION, *UNSEEING, MEAN} else name) for name in names}
    return [Representation(safe[name], kind, "column", "embeddings", (name,)) for name in names]


def _origin(
    stored: StoredEmbeddings, place: str, baselines: Sequence[str], seed: int
) -> tuple[Source | None, BackboneConfig | None, list[str]]:
    """Source and network of the embed job, for the baselines that need them; what is not at hand is said."""
    warnings: list[str] = []
    origin = stored.origin()
    if origin is not None and is_as_given(origin):
        return _source_of_vectors(origin, baselines)
    source: Source | None = None
    backbone: BackboneConfig | None = None
    if {"hvg", "pca", "scvi", "random"} & set(baselines):
        try:
            source = source_of(origin) if origin is not None else _own_expression(place)
        except Refused as problem:
            warnings.append(f"No baseline from expression: {problem.message}")
    if "random" in baselines and source is not None:
        try:
            if origin is None:
                raise Refused("NO_ORIGIN", f"{stored.place} does not say which network made it")
            backbone = backbone_of(origin).randomised(seed)
        except Refused as problem:
            warnings.append(f"No baseline with random weights: {problem.message}")
    return source, backbone, warnings


def _source_of_vectors(origin: dict[str, Any], baselines: Sequence[str]) -> tuple[Source | None, None, list[str]]:
    """A source whose vectors are judged as it gives them has nothing that other baselines could be made of."""
    lacking = [name for name in (*EXPRESSION, RANDOM) if name in baselines]
    if not lacking:
        return None, None, []
    said = (
        f"The vectors are judged as the source gives them, without the baselines {', '.join(lacking)}: there are "
        "neither genes nor a network."
    )
    try:
        return source_of(origin), None, [said]
    except Refused as problem:
        return None, None, [said, f"The source of the vectors is not at hand: {problem.message}"]


def _own_expression(path: str) -> Source:
    """The AnnData itself as a source of counts.

    Raises:
        Refused: NO_ORIGIN, or what the file's own expression is refused for.
    """
    if not path.endswith(".h5ad"):
        raise Refused("NO_ORIGIN", f"{path} does not say where its cells came from, and is no .h5ad with counts")
    from xfm.sources.h5ad.source import H5ad

    return H5ad(path=path)
