"""Judges embeddings, layer by layer, beside baselines that may beat them: stored ones, or it embeds first.

python jobs/evaluate.py --embeddings runs/cells --labels cell_type --group donor_id --batch assay --output runs/judged
python jobs/evaluate.py --config jobs/presets/rotten_tomatoes_svm.yaml --output runs/reviews
python jobs/evaluate.py --source.kind atlas --split split --labels donor_id --within dataset_id --leakage sex \
    --output runs/atlas
"""

from xfm.engine.job import main
from xfm.studies.evaluate.config import EvaluateJob


def run(config: EvaluateJob) -> int:
    """Embeds where asked to, judges, chooses, compares, reports; returns the exit code."""
    from xfm.studies.evaluate.run import run_evaluation

    return run_evaluation(config)


if __name__ == "__main__":
    main(EvaluateJob, run, "evaluate")
