"""The stages of a zero-shot job, each with an OUTPUT of its own under the job's, where it resumes.

    labels/    the values of the label, where the settings list no classes   one task a shard
    prompts/   what the text towers make of the classes                      one task a block of classes
    images/    the best guesses of every row at every layer                  shards through the actors
    random/    the same by the network with random weights

The job's own OUTPUT is opened when they are done, since its recipe states the rows and the split that were judged.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pyarrow as pa

from xfm.core.errors import Refused
from xfm.core.ledger import REPORT
from xfm.core.storage import below
from xfm.core.tracker import Tracker
from xfm.engine.columns import with_columns
from xfm.engine.output import Output
from xfm.engine.planning import ShardPlan, chosen_layers, describe_plan, plan_shards
from xfm.engine.resume_check import check_output
from xfm.engine.session import open_job, print_plan
from xfm.engine.stage import StageResult, run_stage
from xfm.engine.tables import run_tables
from xfm.judging.representations import RANDOM
from xfm.judging.row_noun import noun_of
from xfm.metrics.zero_shot import TOP
from xfm.models.clip.prompts import ONE_TEMPLATE as TEMPLATE
from xfm.models.clip.prompts import Prompts
from xfm.studies.zero_shot.chosen_rows import ChosenRows, LabelWork, RowChoice, check_columns, label_values
from xfm.studies.zero_shot.classifier import FILE, PromptWork, TextClassifier, assemble, encode, read_classifier
from xfm.studies.zero_shot.config import ZeroShotJob
from xfm.studies.zero_shot.figures import draw
from xfm.studies.zero_shot.report import zero_shot_report
from xfm.studies.zero_shot.rows import LENS, ONE_TEMPLATE, Table, judged_of, table_of_parts
from xfm.studies.zero_shot.scorer import Head, LensScorer
from xfm.studies.zero_shot.scores import Results, question_of, score_all

SCORES, PROMPTS = "scores.parquet", "prompts.json"
MOST_CLASSES = 30_000  # ImageNet-21k has 21,841
TRAINED, ENSEMBLE = "trained", "ensemble"


@dataclass(frozen=True, slots=True)
class ZeroShot:
    """What a job is about to do."""

    config: Any  # of the job, its source carrying the columns that are needed
    shards: ShardPlan  # of the source, and the content of run.json
    source: ChosenRows  # the rows that are scored
    layers: tuple[int, ...]  # that the lens reads, the last one among them
    prompts: Prompts | None  # where the settings or a saved classifier name the classes; else None
    loaded: TextClassifier | None  # the saved classifier, or None
    noun: str  # what rows are called

    @property
    def choice(self) -> RowChoice:
        """Which rows are test rows."""
        return self.source.choice

    @property
    def obs(self) -> list[str]:
        """Columns that the scores need."""
        wanted = [self.config.label, self.config.group, self.choice.column]
        return list(dict.fromkeys(name for name in wanted if name))


def run_zero_shot(config: ZeroShotJob) -> int:
    """Scores what OUTPUT lacks, compares, reports; returns the exit code."""
    plan = plan_zero_shot(config)
    return print_plan(describe(plan)) if config.dry_run else zero_shot(plan)


def plan_zero_shot(config: ZeroShotJob) -> ZeroShot:
    """Checks everything that can be checked before a worker starts.

    Raises:
        Refused: no text tower, no such column or layer, classes that cannot be told apart, an OUTPUT of another run.
    """
    if not hasattr(config.backbone, "prompt_tokenizer"):
        raise Refused("NO_TEXT_TOWER", f"--backbone.kind {config.backbone.kind} reads no prompts: zero-shot needs two "
                      "towers, as kind clip has")  # fmt: skip
    choice = RowChoice.from_text(config.split)
    wanted = [name for name in (config.label, config.group, choice.column) if name]
    config = config.model_copy(update={"source": with_columns(config.source, wanted)})
    loaded = read_classifier(config.classifier) if config.classifier else None
    prompts = loaded.prompts if loaded else (config.prompts() if config.classes is not None else None)
    shards = plan_shards("zero_shot", config, config.source, config.backbone)
    check_columns(config.source, wanted)
    if loaded:
        shards.run["recipe"]["loaded"] = loaded.digest()
    last = config.backbone.n_layers()
    layers = tuple(sorted({*chosen_layers(config.layers, last), last}))
    check_output(config.output, shards.run["recipe"])
    source = ChosenRows.of(config.source, shards.shards, config.label, choice)
    return ZeroShot(config, shards, source, layers, prompts, loaded, noun_of(config.source.schema.names))


def describe(plan: ZeroShot) -> str:
    """What `--dry-run` prints."""
    lines = [describe_plan(plan.shards, len(plan.layers), 2 * TOP + 1, 4, plan.config.workers, plan.config.gpus)]
    lines.append(f"scored        {plan.choice.in_words(plan.noun)}")
    if plan.prompts is None:
        lines.append(f"classes       the values of {plan.config.label} that are found, "
                     f"{len(plan.config.templates)} templates")  # fmt: skip
    else:
        texts = sum(map(len, plan.prompts.texts))
        lines.append(
            f"classes       {len(plan.prompts.values):,}, {texts:,} prompts, e.g. {plan.prompts.texts[0][0]!r}"
        )
    lines.append(f"layers        {', '.join(map(str, plan.layers))}")
    lines.append(f"baselines     {', '.join(plan.config.baselines) or 'none'}")
    return "\n".join(lines)


def zero_shot(plan: ZeroShot) -> int:
    """Runs what OUTPUT lacks and writes the report; returns the exit code."""
    config = plan.config
    prompts = plan.prompts or config.prompts(_found_values(plan))
    classifier, heads, random_head = _classifiers(plan, prompts)
    source = replace(plan.source, known=frozenset(prompts.values))
    table, result = _scored(plan, source, "images", config.backbone, plan.shards.weights, heads, classifier)
    warnings = [] if plan.loaded is None else _of_other_weights(plan)
    random = None
    if random_head is not None:
        backbone = config.backbone.randomised(config.seed)
        found, _ = _scored(plan, source, RANDOM, backbone, backbone.identity(), [random_head], classifier)
        random = found.ordered_as(table.row_ids)
        if random is None:
            warnings.append("No baseline with random weights: it could not score the very same rows.")
    judged = judged_of(
        table, config.label, plan.choice, group=config.group, validation=config.validation, seed=config.seed,
        resamples=config.bootstrap, noun=plan.noun,
    )  # fmt: skip
    recipe = plan.shards.run["recipe"] | {
        "cells": judged.cells_digest(), "split": judged.split_digest(), "classifier": classifier.digest(),
    }  # fmt: skip
    run = plan.shards.run | {"recipe": recipe, "noun": plan.noun, "cells_by_label": judged.label_digests()}
    with open_job(config, run, joint=True) as job:
        question = question_of(judged, prompts, table.obs[config.label])
        results = score_all(question, table, random, config.baselines)
        job.publish(FILE, classifier.to_bytes())
        job.publish(PROMPTS, (json.dumps(prompts.to_json(), indent=2, ensure_ascii=False) + "\n").encode())
        job.publish_table(SCORES, pa.concat_tables(results.tables).drop_columns(["predicted"]))
        track_scores(results, config.label, job.tracker)
        report = zero_shot_report(
            run, question, results, classifier, scale=table.scale, rows=plan.choice.in_words(plan.noun),
            group=config.group, notes=config.notes, warnings=warnings,
            refused=Counter(refusal.code for refusal in result.quarantined), seconds=result.wall_s,
        )  # fmt: skip
        return job.finish(report, partial(draw, question, results), rows=result.rows, refusals=result.quarantined)


def track_scores(results: Results, label: str, tracker: Tracker) -> None:
    """The lens of both networks as step curves over the layers; other baselines as single numbers."""
    for each in results.representations:
        where = each.name if each.layer is None else f"random_{LENS}" if each.place == RANDOM else LENS
        found = {metric: one.value for (name, metric), one in results.scores.items() if name == each.name}
        tracker.metrics({f"{label}/zero_shot_{metric}/{where}": value for metric, value in found.items()},
                        step=each.layer or 0)  # fmt: skip


def _found_values(plan: ZeroShot) -> list[str]:
    """The values of the label in the rows that are scored."""
    shards = {shard.key: plan.source.without_promise(shard) for shard in plan.shards.shards}
    with _stage(plan, "labels") as output:
        run_tables(label_values, LabelWork(plan.source, shards), list(shards), output, stage="labels", unit="shards",
                   workers=plan.config.workers)  # fmt: skip
        values = {value for key in output.committed for value in output.read_part(key)["value"].to_pylist()}
    if len(values) > MOST_CLASSES:
        raise Refused("TOO_MANY_CLASSES", f"--label {plan.config.label}: {len(values):,} different values, at most "
                      f"{MOST_CLASSES:,} are taken for classes: is it an id?")  # fmt: skip
    return sorted(values)


def _classifiers(plan: ZeroShot, prompts: Prompts) -> tuple[TextClassifier, list[Head], Head | None]:
    """The classifier, the heads that read the network, and the head of the random one."""
    config, last = plan.config, plan.layers[-1]
    networks: dict[str, Any] = {TRAINED: config.backbone}
    if RANDOM in config.baselines:
        networks[RANDOM] = config.backbone.randomised(config.seed)
    asked = {ENSEMBLE: prompts}
    if ONE_TEMPLATE in config.baselines and any(len(own) > 1 for own in prompts.texts):
        asked[ONE_TEMPLATE] = prompts.with_template(TEMPLATE)
    work = PromptWork(
        networks, {name: one.identity() for name, one in networks.items()}, asked, "cuda" if config.gpus else "cpu"
    )
    pairs = [] if plan.loaded else [(TRAINED, ENSEMBLE)]
    pairs += [(TRAINED, ONE_TEMPLATE)] if ONE_TEMPLATE in asked else []
    pairs += [(RANDOM, ENSEMBLE)] if RANDOM in networks else []
    keys = {pair: work.keys(*pair) for pair in pairs}
    made: dict[tuple[str, str], TextClassifier] = {}
    with _stage(plan, "prompts", classes=prompts.to_json()) as output:
        refusals = run_tables(
            encode, work, [key for some in keys.values() for key in some], output, stage="prompts",
            unit="blocks of classes", workers=config.workers, gpus=config.gpus,
        )  # fmt: skip
        if refusals:
            raise Refused(refusals[0].code, refusals[0].message)
        for (network, name), some in keys.items():
            tables = [output.read_part(key) for key in some]
            made[network, name] = assemble(tables, asked[name], work.identities[network])
    classifier = plan.loaded or made[TRAINED, ENSEMBLE]
    heads = [Head(LENS, classifier.weights, plan.layers)]
    heads += [Head(ONE_TEMPLATE, made[TRAINED, ONE_TEMPLATE].weights, (last,))] if ONE_TEMPLATE in asked else []
    random = Head(LENS, made[RANDOM, ENSEMBLE].weights, plan.layers) if RANDOM in networks else None
    return classifier, heads, random


def _scored(
    plan: ZeroShot,
    source: ChosenRows,
    name: str,
    backbone: Any,
    identity: Any,
    heads: Sequence[Head],
    classifier: TextClassifier,
) -> tuple[Table, StageResult]:
    """One pass over the rows."""
    config = plan.config
    build = partial(
        LensScorer, backbone, heads, batch_tokens=config.batch_tokens, seed=config.seed, identity=identity,
        keep_logits=config.keep_logits and name == "images",
    )  # fmt: skip
    shards = [source.without_promise(shard) for shard in plan.shards.shards]
    with _stage(plan, name, classifier=classifier.digest()) as output:
        result = run_stage(
            source, backbone, config.seed, shards, lambda device: partial(build, device=device), output,
            stage=name, workers=config.workers, gpus=config.gpus,
        )  # fmt: skip
        table = table_of_parts((output.read_part(key) for key in output.committed), plan.obs)
    return table, result


@contextmanager
def _stage(plan: ZeroShot, name: str, **more: Any) -> Iterator[Output]:
    """The OUTPUT of one stage; `more` is what its numbers depend on besides the job's recipe."""
    run = {**plan.shards.run, "job": f"zero_shot {name}", "recipe": plan.shards.run["recipe"] | more}
    with Output(below(plan.config.output, name), run, joint=True) as output:
        yield output
        output.write_json(REPORT, {"job": run["job"], "parts": len(output.committed)})


def _of_other_weights(plan: ZeroShot) -> list[str]:
    assert plan.loaded is not None
    if json.loads(json.dumps(plan.shards.weights)) == dict(plan.loaded.made_by):
        return []
    return ["The saved classifier was made by a checkpoint with other files: right where only the image tower differs."]
