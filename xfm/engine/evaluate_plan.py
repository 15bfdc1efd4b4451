"""Everything an evaluation settles before it starts a worker: columns, cells, labels, split, baselines."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from xfm.core.backbone import BackboneConfig
from xfm.core.errors import Refused
from xfm.core.schema import COUNTS
from xfm.core.source import Source
from xfm.engine.job import versions
from xfm.engine.origin import backbone_of, source_of
from xfm.loops.evaluation.baselines import EXPRESSION
from xfm.loops.evaluation.judged import UNKNOWN, Judged, labels_of, sample_rows, times_of
from xfm.loops.evaluation.representations import RANDOM, UNSEEING, Representation, combinations_of, layers_of
from xfm.loops.evaluation.scvi_baseline import check_available as check_scvi
from xfm.loops.evaluation.split import PARTS, same_vectors, split_cells
from xfm.loops.evaluation.words import file_name
from xfm.sources.stored import open_embeddings
from xfm.sources.stored_columns import StoredEmbeddings
from xfm.track.lineage import origin_of

logger = logging.getLogger(__name__)

Pools = dict[str, list[int]]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What an evaluation is about to do.

    Attributes:
        config: of the job, `EvaluateJob`.
        stored: the embeddings.
        judged: cells, labels, split.
        pools: layer numbers by pooling.
        representations: of the embeddings themselves, and what needs nothing else.
        source: where the rows are read again, for baselines; None where it cannot be.
        backbone: the network, for random weights; None where it is not known.
        warnings: what the reader must know.
        run: the content of run.json.
    """

    config: Any
    stored: StoredEmbeddings
    judged: Judged
    pools: Pools
    representations: tuple[Representation, ...]
    source: Source | None
    backbone: BackboneConfig | None
    warnings: tuple[str, ...]
    run: dict[str, Any]

    @property
    def has_expression(self) -> bool:
        """Whether the source holds counts of genes; sentences have none."""
        return self.source is not None and COUNTS in self.source.schema.names


def plan_evaluation(config: Any) -> Evaluation:
    """Opens the embeddings and settles who is judged on what.

    Raises:
        Refused: no such column, label or layer; too few groups or classes.
        EnvironmentProblem: an extra is asked for and not installed.
    """
    _check_extras(config)
    stored = open_embeddings(config.embeddings)
    pools = _chosen_pools(stored, config)
    judged, warnings = _judged(stored, pools, config)
    source, backbone, lacking = _origin(stored, config)
    representations = (
        *layers_of(pools, "embeddings", kind="layer"),
        *_unlayered(stored, pools),
        *combinations_of(pools, config.combinations, config.last_n, [label.name for label in judged.labels]),
        *(Representation(name, "baseline", "none", "", ()) for name in UNSEEING if name in config.baselines),
    )
    recipe = {
        "job": "evaluate",
        "config": config.recipe(),
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
        "origin": origin_of(stored.origin() or {}),
        "versions": versions(),
    }
    return Evaluation(
        config, stored, judged, pools, representations, source, backbone, (*config.notes, *warnings, *lacking), run
    )


def describe(plan: Evaluation) -> str:
    """What `--dry-run` prints."""
    judged = plan.judged
    lines = [
        f"embeddings      {plan.stored.place}, {plan.stored.rows:,} rows, {len(judged.rows):,} judged",
        f"split           {', '.join(f'{n:,} {part}' for part, n in zip(PARTS, judged.split.cells(), strict=True))}",
    ]
    lines += [f"label           {label.name}: {len(label.classes)} classes" for label in judged.labels]
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
    return [name for name in plan.config.baselines if name not in lacking]


def _span(layers: Sequence[int]) -> str:
    return ", ".join(map(str, layers)) if len(layers) < 6 else f"{layers[0]} to {layers[-1]} ({len(layers)})"


def _check_extras(config: Any) -> None:
    """Before anything is computed."""
    if config.batch is not None and "integration" in config.tasks:
        from xfm.metrics.integration import check_available

        check_available()
    if "scvi" in config.baselines:
        check_scvi()


def _chosen_pools(stored: StoredEmbeddings, config: Any) -> Pools:
    found: Pools = {}
    for column in stored.columns:
        if column.pool is not None and column.layer is not None:
            found.setdefault(column.pool, []).append(column.layer)
    if config.pools != "all":
        if unknown := [pool for pool in config.pools if pool not in found]:
            raise Refused("NO_POOL", f"--pools {unknown[0]}: {stored.place} holds {', '.join(found) or 'no layers'}")
        found = {pool: found[pool] for pool in config.pools}
    if config.layers != "all":
        every = sorted({layer for layers in found.values() for layer in layers})
        if missing := sorted(set(config.layers) - set(every)):
            raise Refused("NO_LAYER", f"--layers {missing[0]}: stored are {every}")
        found = {pool: [layer for layer in layers if layer in config.layers] for pool, layers in found.items()}
    return {pool: sorted(layers) for pool, layers in found.items()}


def _unlayered(stored: StoredEmbeddings, pools: Pools) -> list[Representation]:
    """Columns of an AnnData that are no layers (X_pca, X_scVI): rivals beside layers, candidates without any."""
    kind: Any = "baseline" if pools else "layer"
    names = [column.name for column in stored.columns if column.layer is None]
    # Not to be taken for a baseline of ours, nor to break a file name.
    safe = {name: file_name(f"obsm_{name}" if name in {*EXPRESSION, *UNSEEING} else name) for name in names}
    return [Representation(safe[name], kind, "column", "embeddings", (name,)) for name in names]


def _judged(stored: StoredEmbeddings, pools: Pools, config: Any) -> tuple[Judged, list[str]]:
    wanted = [*config.labels, config.group, config.batch, config.time, _root_column(config)]
    obs = stored.obs(list(dict.fromkeys(name for name in wanted if name)))
    every = stored.row_ids()
    rows = sample_rows(every, config.cells)
    warnings = []
    if len(rows) < len(every):
        warnings.append(f"{len(rows):,} of {len(every):,} cells are judged, by a keyed draw (--cells).")
    obs = obs.take(rows)
    row_ids = tuple(str(every[row]) for row in rows)
    labels = tuple(labels_of(obs[name], name, config.min_class) for name in dict.fromkeys(config.labels))
    if not stored.is_finished():
        warnings.append(
            f"The job that wrote {stored.place} has not finished: only its {stored.rows:,} rows are judged."
        )
    settings: dict[str, Any] = (stored.origin() or {}).get("settings", {})
    copies = same_vectors(
        stored.read(_reference(stored, pools), rows), 0, stored=np.dtype(settings.get("dtype", "float32"))
    )
    n_copies = len(copies) - len(np.unique(copies))
    if n_copies:
        warnings.append(f"{n_copies:,} cells are copies of another one; copies stand on one side of the split.")
    if config.group is None:
        keys = list(row_ids)
        warnings.append(
            "No --group was named: cells of one donor or slide may stand on both sides of the split, which flatters "
            "every representation, and intervals resample single cells, which makes them narrow."
        )
    else:
        keys, alone = _group_keys(obs[config.group].to_pylist(), row_ids)
        if alone == len(keys):
            raise Refused(
                "NO_GROUPS", f"--group {config.group}: no judged cell has a value; leave it out to split by cell"
            )
        if alone:
            warnings.append(f"{alone:,} of {len(keys):,} cells have no {config.group} and stand for themselves.")
    split = split_cells(keys, copies, config.seed, config.validation, config.test)
    for label in labels:
        counts = np.bincount(split.parts[label.codes >= 0], minlength=3)
        if empty := [part for part, count in zip(PARTS, counts, strict=True) if not count]:
            raise Refused("EMPTY_PART", f"--labels {label.name}: no {empty[0]} cell has one of its classes; try "
                          "another --seed, --group or larger shares")  # fmt: skip
    batch = labels_of(obs[config.batch], config.batch, 1, "--batch") if config.batch else None
    time = times_of(obs[config.time], config.time) if config.time else None
    judged = Judged(
        rows=rows, row_ids=row_ids, labels=labels, split=split, batch=batch, time=time, time_name=config.time or "",
        roots=_roots(obs, config), seed=config.seed, resamples=config.bootstrap, k=config.k,
    )  # fmt: skip
    return judged, warnings


def _reference(stored: StoredEmbeddings, pools: Pools) -> str:
    """The column that copies are found in: the deepest layer, not of <cls> if there is another; else the widest."""
    layered = [column for column in stored.columns if column.layer is not None and column.pool in pools]
    if not layered:
        if not stored.columns:
            raise Refused("NO_COLUMN", f"{stored.place} holds no embedding")
        return str(max(stored.columns, key=lambda column: column.dim).name)
    return str(max(layered, key=lambda column: (column.layer, column.pool != "cls")).name)


def _group_keys(values: Sequence[Any], row_ids: Sequence[str]) -> tuple[list[str], int]:
    """A cell of unknown donor is a group of its own; how many there are."""
    unknown = [value is None or value != value or str(value).strip().lower() in UNKNOWN for value in values]
    keys = [
        f"row\x1f{row}" if is_unknown else f"group\x1f{value}"
        for value, row, is_unknown in zip(values, row_ids, unknown, strict=True)
    ]
    return keys, sum(unknown)


def _root_column(config: Any) -> str | None:
    if config.root is None:
        return None
    name, equals, _ = config.root.partition("=")
    if not equals:
        raise Refused("BAD_ROOT", f"--root {config.root}: expected COLUMN=VALUE, e.g. cell_type=progenitor")
    return str(name)


def _roots(obs: Any, config: Any) -> Any:
    """(N,) whether pseudotime may begin at a cell; None to take the earliest."""
    name = _root_column(config)
    if name is None:
        return None
    value = config.root.partition("=")[2]
    found = np.array([str(each) == value for each in obs[name].to_pylist()])
    if not found.any():
        known = sorted({str(each) for each in obs[name].to_pylist()})
        raise Refused("BAD_ROOT", f"--root {config.root}: no judged cell has it; {name} holds {', '.join(known[:10])}")
    return found


def _origin(stored: StoredEmbeddings, config: Any) -> tuple[Source | None, BackboneConfig | None, list[str]]:
    """Source and network of the embed job, for the baselines that need them; what is not at hand is said."""
    warnings: list[str] = []
    origin = stored.origin()
    source: Source | None = None
    backbone: BackboneConfig | None = None
    if {"hvg", "pca", "scvi", "random"} & set(config.baselines):
        try:
            source = source_of(origin) if origin is not None else _own_expression(config.embeddings)
        except Refused as problem:
            warnings.append(f"No baseline from expression: {problem.message}")
    if "random" in config.baselines and source is not None:
        try:
            if origin is None:
                raise Refused("NO_ORIGIN", f"{stored.place} does not say which network made it")
            backbone = backbone_of(origin).randomised(config.seed)
        except Refused as problem:
            warnings.append(f"No baseline with random weights: {problem.message}")
    return source, backbone, warnings


def _own_expression(path: str) -> Source:
    """The AnnData itself as a source of counts.

    Raises:
        Refused: NO_ORIGIN, or what the file's own expression is refused for.
    """
    if not path.endswith(".h5ad"):
        raise Refused("NO_ORIGIN", f"{path} does not say where its cells came from, and is no .h5ad with counts")
    from xfm.sources.h5ad import H5ad

    return H5ad(path=path)
