"""Searches settings of fine-tuning or pretraining on Ray Tune, on validation rows alone; writes the best as a preset.

    python jobs/tune.py --config jobs/presets/rotten_tomatoes_search.yaml --output runs/search
    python jobs/finetune.py --config runs/search/best.yaml --output runs/best

    finetune: {preset: jobs/presets/rotten_tomatoes_distilbert.yaml, epochs: 8}    # the job; or pretrain: {...}
    space:                                                                         # its fields, and how each is drawn
      lr: {loguniform: [1.0e-5, 1.0e-3]}
      task.dropout: {uniform: [0.0, 0.5]}
      task.mode: {choice: [full, lora]}
    trials: 8
    also: validation_leakage_auroc~0.5                                             # a second score: see the front

Trial 0 is the job as it was given. The same command continues a search that was stopped, and raising `trials` makes it
longer. The rows of the test split are not even stored: OUTPUT/tokens holds none.
"""

from xfm.engine.job import main
from xfm.studies.tune.config import TuneJob


def run(config: TuneJob) -> int:
    """Tokenises, searches, writes best.yaml, trials.parquet and report; returns the exit code."""
    from xfm.studies.tune.run import run_tune

    return run_tune(config)


if __name__ == "__main__":
    main(TuneJob, run, "tune")
