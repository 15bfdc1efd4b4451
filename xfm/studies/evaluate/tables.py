"""The tables of an evaluation: every representation beside every baseline, then who beats whom, then each class."""

from collections.abc import Iterator, Sequence
from typing import Any

from xfm.core.metric import LEAKAGE, TASK_WORDS, words_of
from xfm.core.report import Table
from xfm.judging.eval_set import EvalSet, Labels
from xfm.judging.probe import CLASSIFIER_WORDS
from xfm.judging.representations import RANDOM, Representation
from xfm.metrics.classification import SYNONYMS
from xfm.metrics.clustering import ARI, NMI
from xfm.metrics.clustering import SCORES as CLUSTERING
from xfm.studies.evaluate.class_tables import class_table
from xfm.studies.evaluate.headline import RIVALS, file_name, last_words, name_of
from xfm.studies.evaluate.verdict import CHOSEN_BY, LAST, Scores, Verdict

ORDER = {"baseline": 0, "layer": 1, "combination": 2}
CLASSIFIED = ("accuracy", "balanced_accuracy", "f1", "weighted_f1", "precision", "recall", "within_accuracy")
SUMMARY = (
    *((f"{TASK_WORDS.get(task, task)} {words_of(CHOSEN_BY)}", task, CHOSEN_BY, "test") for task in CLASSIFIER_WORDS),
    *((words_of(name), "clustering", name, "all") for name in (NMI, ARI)),
)
WITHIN_WORDS = " Within accuracy chooses among the classes that training has of each one's own {}."
TASKS = {
    LEAKAGE: (
        "How well a fresh classifier reads {} from each representation, test {}",
        "Logistic regression on frozen vectors, cross-validated over whole classes of the first label, of pairs that "
        "were held out together: half is chance for AUROC, below it is noise. Intervals hold the luck of which "
        "classes there are. Whether the encoder was trained with these classes is not known here: if so, new ones may "
        "leak less.",
    ),
    "integration": (
        "How well batches of {} are mixed, all {}",
        "As scib-metrics computes them, 1 is best (chance is a little below for iLISI); of PCR, the "
        "variance that batch explains, 0 is best.",
    ),
    "trajectory": (
        "Diffusion pseudotime against {}, all {}",
        "What pseudotime cannot reach is left out of correlations and counted as unreachable. Spearman weighs "
        "slow components as scanpy does, the exact one as the paper (Haghverdi et al., 2016).",
    ),
}


def label_tables(scores: Scores, judged: EvalSet, label: Labels, verdict: Verdict) -> Iterator[Table]:
    """All tables of one label, the summary first."""
    yield _summary(scores, label, verdict)
    yield _duels(scores, label, verdict)
    yield _layer_duels(label, verdict)
    yield class_table(scores, judged, label, verdict)
    yield from _classifier_tables(scores, judged, label)
    clustering = _metrics_table(
        scores, f"{file_name(label.name)}_clustering", "clustering", label.name, CLUSTERING,
        f"How well clusters and neighbourhoods agree with {label.name}, all {len(judged.rows):,} {judged.noun}",
        "NMI and ARI at the Leiden resolution with the best NMI, as scib does: the label is looked at. They have no "
        "interval: clusters are of all groups together, and how others would cluster is not known from one clustering.",
    )  # fmt: skip
    if clustering is not None:
        yield clustering
    weights = _mix_weights(scores, label)
    if weights is not None:
        yield weights


def _ordered(scores: Scores) -> list[Representation]:
    return sorted(scores.representations, key=lambda each: (ORDER[each.kind], each.place == RANDOM))


def _summary(scores: Scores, label: Labels, verdict: Verdict) -> Table:
    rows: list[list[Any]] = []
    names: list[str] = []
    noun = verdict.noun
    for each in _ordered(scores):
        found = [scores.get(each.name, task, label.name, metric, split) for _, task, metric, split in SUMMARY]
        validation = scores.primary(each.name, label.name, "validation")
        if validation is None:
            continue
        # A random network has as many layers as the trained one; here stands the one that a fair choice would take.
        if each.place == RANDOM and each.name != verdict.rivals.get(RANDOM):
            continue
        names.append(each.name)
        rows.append([name_of(each), validation.value, *(row.estimate if row else None for row in found), each.kind])
    shown = [number for number in range(len(SUMMARY)) if any(row[2 + number] is not None for row in rows)]
    test = scores.primary(verdict.chosen.name, label.name, "test")
    assert test is not None
    return Table(
        name=f"{file_name(label.name)}_summary",
        caption=f"{label.name}: {len(label.classes)} classes, scored on {test.cells:,} test {noun} in {test.groups:,} "
        "groups, 95 % intervals over groups",
        columns=["representation", "F1 on validation", *(SUMMARY[number][0] for number in shown), "kind"],
        rows=[[*row[:2], *(row[2 + number] for number in shown), row[-1]] for row in rows],
        note=f"F1 is macro-averaged. The {CLASSIFIER_WORDS[verdict.by]} chose the bold layer on validation {noun}; "
        f"test {noun} were scored once. NMI and ARI use all {noun}.",
        best=names.index(verdict.chosen.name),
    )


def _duels(scores: Scores, label: Labels, verdict: Verdict) -> Table:
    rows: list[list[Any]] = []
    for what, name in verdict.rivals.items():
        duel, rival = verdict.duels.get(what), scores.primary(name, label.name, "test")
        words = last_words(verdict) if what == LAST else RIVALS.get(what, what)
        shown = f"{words} ({name})" if name != what else words
        if duel is None:
            rows.append([shown, rival.estimate if rival else None, None, None, "is the chosen layer"])
        else:
            rows.append([shown, rival.estimate if rival else None, duel.difference, duel.p, duel.words])
    return Table(
        name=f"{file_name(label.name)}_duels",
        caption=f"{label.name}: {name_of(verdict.chosen)}, chosen on validation, against its rivals on test "
        f"{verdict.noun}",
        columns=["rival", "F1 of the rival", "chosen minus rival", "p", "the chosen layer, against it"],
        rows=rows,
        note="Intervals from shared resamples of groups; p from swapping predictions of whole groups. The layer was "
        f"chosen beforehand, so against {last_words(verdict) if verdict.last else 'another'} it is one test; p of the "
        "others is corrected for their number (Holm). Beats and worse mean p < 0.05.",
    )


def _layer_duels(label: Labels, verdict: Verdict) -> Table:
    rivals = [rival for rival in (LAST, "pca") if rival in verdict.rivals]
    layers = list(dict.fromkeys(name for name, _ in verdict.by_layer))
    rows: list[list[Any]] = []
    for name in layers:
        row: list[Any] = [name]
        for rival in rivals:
            duel = verdict.by_layer.get((name, rival))
            row += [duel.difference, duel.p] if duel else [None, None]
        rows.append(row)
    heads = [head for rival in rivals for head in (f"minus {RIVALS[rival]}", f"p against {RIVALS[rival]}")]
    shown = " and of ".join(RIVALS[rival] for rival in rivals)
    return Table(
        name=f"{file_name(label.name)}_layers",
        caption=f"{label.name}: macro F1 of the {CLASSIFIER_WORDS[verdict.by]} at every layer, minus that of {shown}",
        columns=["layer", *heads],
        rows=rows,
        note="Paired 95 % intervals; p-values are Holm-corrected over the layers.",
        best=layers.index(verdict.chosen.name) if verdict.chosen.name in layers else None,
    )


def _classifier_tables(scores: Scores, judged: EvalSet, label: Labels) -> Iterator[Table]:
    """Every score of every representation, a table a classifier."""
    for task, words in CLASSIFIER_WORDS.items():
        table = _metrics_table(
            scores, f"{file_name(label.name)}_{task}", task, label.name, CLASSIFIED,
            f"{label.name}: every score of the {words} on test {judged.noun}",
            "F1, precision and recall are macro averages; macro recall and balanced accuracy are one number. Weighted "
            "F1 counts classes by their size."
            + (WITHIN_WORDS.format(judged.within.name) if judged.within is not None else ""),
            split="test",
        )  # fmt: skip
        if table is not None:
            yield table


def _metrics_table(
    scores: Scores,
    name: str,
    task: str,
    label: str,
    metrics: Sequence[str],
    caption: str,
    note: str,
    split: str = "all",
) -> Table | None:
    rows: list[list[Any]] = []
    metrics = [one for one in metrics if _is_scored(scores, task, label, SYNONYMS.get(one, one), split)]
    for each in _ordered(scores):
        found = [scores.get(each.name, task, label, SYNONYMS.get(metric, metric), split) for metric in metrics]
        if any(found):
            notes = list(dict.fromkeys(row.note for row in found if row and row.note))
            rows.append([name_of(each), *(row.estimate if row else None for row in found), "; ".join(notes)])
    if not rows:
        return None
    has_notes = any(row[-1] for row in rows)
    return Table(
        name=name,
        caption=caption,
        columns=["representation", *(words_of(metric, task) for metric in metrics), *(["note"] if has_notes else [])],
        rows=rows if has_notes else [row[:-1] for row in rows],
        note=note,
    )


def _is_scored(scores: Scores, task: str, label: str, metric: str, split: str) -> bool:
    return any(scores.get(each.name, task, label, metric, split) for each in scores.representations)


def task_tables(scores: Scores, noun: str) -> Iterator[Table]:
    """What leaks, mixing of batches and pseudotime, as far as they were scored; they belong to no label."""
    for task, (caption, note) in TASKS.items():
        found = [(label, metric) for _, each, label, metric, _ in scores.rows if each == task]
        if found:
            label, metrics = found[0][0], list(dict.fromkeys(metric for _, metric in found))
            split = "test" if task == LEAKAGE else "all"
            table = _metrics_table(scores, task, task, label, metrics, caption.format(label, noun), note, split)
            assert table is not None
            yield table


def _mix_weights(scores: Scores, label: Labels) -> Table | None:
    found = [(key, row) for key, row in scores.rows.items() if key[1] == "mix" and key[2] == label.name]
    if not found:
        return None
    names = list(dict.fromkeys(key[0] for key, _ in found))
    layers = sorted({int(key[3].rpartition("_l")[2]) for key, _ in found})
    weights = {(key[0], int(key[3].rpartition("_l")[2])): row.value for key, row in found}
    return Table(
        name=f"{file_name(label.name)}_mix",
        caption=f"{label.name}: weights of the learned mix of layers",
        columns=["layer", *names],
        rows=[[layer, *(weights.get((name, layer)) for name in names)] for layer in layers],
        note="Softmax weights of standardised layers, learned on training data with a linear classifier on top.",
    )
