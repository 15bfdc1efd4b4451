"""The stages of an evaluation: baselines, one task a representation, the choice, the pictures, the report.

Each stage has an OUTPUT of its own under the job's and resumes there: expression/, random/, parts/ and umap/.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, cast, get_args

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from xfm.compute.embed import Embedder, KeepRows
from xfm.core.errors import Refused
from xfm.core.ledger import REPORT, Refusal
from xfm.core.schema import DEPTH
from xfm.core.storage import below
from xfm.core.tracker import Tracker
from xfm.engine.columns import columns_of, with_columns
from xfm.engine.output import Output
from xfm.engine.session import OpenJob, open_job, print_plan
from xfm.engine.stage import run_stage
from xfm.engine.tables import run_tables
from xfm.judging.representations import RANDOM, Representation, layers_of
from xfm.models.reductions import Pool, PoolName
from xfm.sources.stored.source import open_embeddings
from xfm.studies.evaluate.baselines import EXPRESSION, Wanted, expression_table
from xfm.studies.evaluate.class_tables import classes_csv
from xfm.studies.evaluate.config import EvaluateJob
from xfm.studies.evaluate.figures import draw
from xfm.studies.evaluate.plan import Evaluation, describe, plan_evaluation
from xfm.studies.evaluate.report import evaluate_report
from xfm.studies.evaluate.source import embedded
from xfm.studies.evaluate.verdict import Scores, judge_label
from xfm.studies.evaluate.work import Work, WorkPlace, draw_named, judge_named, place_of

SCORES = "scores.parquet"
CLASSES = "classes.csv"


def run_evaluation(config: EvaluateJob) -> int:
    """Embeds where asked to, judges what OUTPUT lacks, chooses, compares, reports; returns the exit code."""
    embedding = embedded(config)
    if embedding.ends:
        return embedding.code
    plan = plan_evaluation(embedding.config)
    if config.dry_run:
        return print_plan(describe(plan))
    with open_job(embedding.config, plan.run, joint=True) as job:
        return evaluate(plan, job) or embedding.code


def evaluate(plan: Evaluation, job: OpenJob) -> int:
    """Runs what OUTPUT lacks and writes the report; returns the exit code."""
    warnings = list(plan.warnings)
    places = {"embeddings": WorkPlace(plan.stored, plan.judged.rows)}
    representations = list(plan.representations)
    judged = plan.judged
    if plan.has_expression and set(EXPRESSION) & set(plan.baselines):
        place, problem = _expression(plan, job)
        if place is None:
            warnings.append(f"No baseline from expression: {problem}")
        else:
            places["expression"] = place
            judged = replace(judged, depth=_depth(place))
            representations += [
                Representation(name, "baseline", "column", "expression", (name,))
                for name in EXPRESSION
                if name in plan.baselines
            ]
    twins, without = _random_twins(plan)
    if without:
        pools = ", ".join(without)
        warnings.append(f"No baseline with random weights for {pools}: the network that is known does not make them.")
    if twins:
        try:
            places[RANDOM] = _random(plan, job, twins)
            representations += layers_of(twins, RANDOM, kind="baseline", prefix="random_")
        except Refused as problem:
            warnings.append(f"No baseline with random weights: {problem.message}")
    by_name = {each.name: each for each in representations}
    work = Work(places, judged, by_name, plan.tasks)
    # What takes longest goes first, so that nobody waits for it alone at the end.
    keys = sorted(by_name, key=lambda name: (by_name[name].how != "mix", by_name[name].how != "concat"))
    refusals = run_tables(
        judge_named, work, keys, job.output,
        stage="judge", unit="representations", workers=plan.workers, attempt=job.attempt,
    )  # fmt: skip
    return _report(plan, job, work, refusals, warnings)


def _report(plan: Evaluation, job: OpenJob, work: Work, refusals: Sequence[Refusal], warnings: Sequence[str]) -> int:
    committed = job.output.committed
    parts = [job.output.read_part(name) for name in work.representations if name in committed]
    scores = Scores(parts, list(work.representations.values()), plan.choose_by)
    deepest = max((layer for layers in plan.stored.pools().values() for layer in layers), default=None)
    found = [judge_label(scores, work.judged, label, deepest) for label in work.judged.labels]
    verdicts = [verdict for verdict in found if verdict is not None]
    refused = Counter(refusal.code for refusal in refusals)
    if not verdicts:
        from xfm.studies.evaluate.report import nothing_judged

        return job.finish(nothing_judged(plan.run, refused), rows=0)
    job.publish_table(SCORES, pa.concat_tables(parts).drop_columns(["predicted"]))
    job.publish(CLASSES, classes_csv(scores, work.judged))
    named = [*(verdict.label for verdict in verdicts), *(target.name for target in work.judged.targets)]
    track_scores(scores, named, job.tracker)
    report = evaluate_report(plan.run, work.judged, scores, verdicts, warnings, refused)
    pictures = list(dict.fromkeys(each.name for each in (verdicts[0].chosen, verdicts[0].last) if each is not None))
    with _stage(plan, job, "umap") as output:
        run_tables(draw_named, work, pictures, output, stage="umap", unit="pictures", workers=plan.workers,
                   attempt=job.attempt)  # fmt: skip
        drawn = {name: output.read_part(name) for name in pictures if name in output.committed}
    coordinates = {name: np.stack([table["x"].to_numpy(), table["y"].to_numpy()], 1) for name, table in drawn.items()}
    return job.finish(report, partial(draw, scores, work.judged, verdicts, coordinates), rows=len(work.judged.rows))


def track_scores(scores: Scores, labels: Sequence[str], tracker: Tracker) -> None:
    """Each metric of each pooling as one step curve over the layers; baselines and combinations as single numbers."""
    for each in scores.representations:
        values = {}
        where = each.pool if each.kind == "layer" and each.layer is not None else each.name
        if each.place == RANDOM:
            where = f"random_{each.pool}"
        for (name, task, label, metric, split), row in scores.rows.items():
            if name == each.name and task != "mix" and split != "validation" and row.value is not None:
                what = f"{label}/{task}_{metric}" if label in labels else f"{task}/{metric}"
                values[f"{what}/{where}"] = row.value
        tracker.metrics(values, step=each.layer or 0)


@contextmanager
def _stage(plan: Evaluation, job: OpenJob, name: str) -> Iterator[Output]:
    """The OUTPUT of one stage; ended without an error, it says so."""
    run = {**plan.run, "job": f"evaluate {name}"}
    with Output(below(job.output.uri, name), run, joint=True) as output:
        yield output
        output.write_json(REPORT, {"job": run["job"], "parts": len(output.committed)})


def _expression(plan: Evaluation, job: OpenJob) -> tuple[WorkPlace | None, str]:
    """Log-normalised variable genes and their principal components, fitted on training cells."""
    assert plan.source is not None
    wanted = Wanted(plan.source, plan.judged, tuple(name for name in EXPRESSION if name in plan.baselines))
    with _stage(plan, job, "expression") as output:
        refusals = run_tables(
            expression_table, wanted, ["expression"], output, stage="expression", unit="tables", attempt=job.attempt
        )
    if refusals:
        return None, refusals[0].message
    return place_of(open_embeddings(output.uri, verify=False), plan.judged.row_ids), ""


def _depth(place: WorkPlace) -> NDArray[np.float64] | None:
    """(N,) total counts; None where the source holds log values."""
    column = place.store.obs([DEPTH])[DEPTH]
    if column.null_count:
        return None
    depth: NDArray[np.float64] = column.to_numpy()[place.rows]
    return depth if place.order is None else depth[place.order]


def _random_twins(plan: Evaluation) -> tuple[dict[str, list[int]], list[str]]:
    """The judged layers, by pooling, that the network with random weights has too; and the poolings it has not."""
    if plan.backbone is None:
        return {}, []
    last = plan.backbone.n_layers()
    twins = {
        pool: [layer for layer in layers if layer <= last]
        for pool, layers in plan.pools.items()
        if pool in get_args(PoolName)
    }
    return twins, [pool for pool, layers in plan.pools.items() if twins.get(pool) != layers]


def _random(plan: Evaluation, job: OpenJob, twins: Mapping[str, Sequence[int]]) -> WorkPlace:
    """The judged cells through the same network with random weights, as embed did with the trained one.

    Raises:
        Refused: MISSING_ROWS; cells cannot be embedded again.
    """
    source, backbone, judged = plan.source, plan.backbone, plan.judged
    assert source is not None
    assert backbone is not None
    layers = tuple(sorted({layer for layers in twins.values() for layer in layers}))
    settings: dict[str, Any] = (plan.stored.origin() or {}).get("settings", {})
    shards = source.shards()
    build = partial(
        KeepRows,
        partial(
            Embedder,
            backbone,
            tuple(Pool(cast(PoolName, name)) for name in twins),
            layers,
            batch_tokens=settings.get("batch_tokens", 8192),
            seed=settings.get("seed", 0),
        ),
        frozenset(judged.row_ids),
    )
    with _stage(plan, job, RANDOM) as output:
        run_stage(
            with_columns(source, columns_of(backbone)), backbone, settings.get("seed", 0), shards,
            lambda device: partial(build, device=device), output, stage="random weights",
            workers=plan.workers, gpus=plan.gpus, attempt=job.attempt,
        )  # fmt: skip
    return place_of(open_embeddings(output.uri, verify=False), judged.row_ids)
