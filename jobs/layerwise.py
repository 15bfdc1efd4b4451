"""Reads expression back from every layer, beside baselines that may beat it.

python jobs/layerwise.py --config jobs/presets/tcga_skcm.yaml --backbone.checkpoint DIR --output runs/skcm
"""

from xfm.engine.job import main
from xfm.studies.layerwise.config import LayerwiseJob


def run(config: LayerwiseJob) -> int:
    """Fits, scores, reports; returns the exit code."""
    from xfm.studies.layerwise.run import run_layerwise

    return run_layerwise(config)


if __name__ == "__main__":
    main(LayerwiseJob, run, "layerwise")
