"""Synthetic cells whose truth is known: which layer tells the label, and who is a copy of whom."""

import numpy as np

from xfm.judging.eval_set import EvalSet, Labels
from xfm.judging.judge import judge
from xfm.judging.representations import CHANCE, MAJORITY, Representation, layers_of
from xfm.judging.score import table_of
from xfm.judging.split import split_cells
from xfm.studies.evaluate.verdict import Scores, judge_label


def planted_layers(codes, n_layers=6, best=3, dim=16, strength=2.2, seed=0):
    """{layer: (N, D)}: every layer tells a little, layer `best` the most."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((int(codes.max()) + 1, dim))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    layers = {}
    for layer in range(n_layers + 1):
        signal = strength / (1 + 1.2 * abs(layer - best))
        layers[layer] = (rng.standard_normal((len(codes), dim)) + signal * centres[codes]).astype(np.float32)
    return layers


def judged_cells(codes, groups=None, seed=0, resamples=400, copies=None, name="type", **more):
    row_ids = tuple(f"cell{i}" for i in range(len(codes)))
    keys = row_ids if groups is None else [f"group{g}" for g in groups]
    split = split_cells(keys, np.arange(len(codes)) if copies is None else copies, seed, 0.2, 0.3)
    label = Labels(name, np.asarray(codes, np.int32), tuple(f"t{i}" for i in range(int(max(codes)) + 1)))
    return EvalSet(
        rows=np.arange(len(codes)),
        row_ids=row_ids,
        labels=(label,),
        split=split,
        seed=seed,
        resamples=resamples,
        noun="cells",
        **more,
    )


def judge_layers(layers, judged, tasks=("probe",), baselines=(), by="probe"):
    """Scores and the verdict on the first label. `baselines`: {name: (N, D)}."""
    representations = [*layers_of({"mean": sorted(layers)}, "embeddings", kind="layer")]
    vectors = {each.name: layers[each.layer] for each in representations}
    representations += [Representation(name, "baseline", "none", "", ()) for name in (MAJORITY, CHANCE)]
    for name, values in dict(baselines).items():
        representations.append(Representation(name, "baseline", "column", "expression", (name,)))
        vectors[name] = values
    tables = [table_of(each, _judged(each, vectors, judged, tasks)) for each in representations]
    scores = Scores(tables, representations, by)
    return scores, judge_label(scores, judged, judged.labels[0])


def _judged(each, vectors, judged, tasks):
    return judge(vectors.get(each.name), judged, tasks, judged.labels, unseeing=each.name)
