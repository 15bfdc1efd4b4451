"""Images against class prompts, at every layer: zero-shot classification without a training image.

python jobs/zero_shot.py --source.kind hub_images --source.path DIR --label label \
    --backbone.kind clip --backbone.checkpoint hf://openai/clip-vit-base-patch16 --output runs/zero_shot
"""

from xfm.engine.job import main
from xfm.studies.zero_shot.config import ZeroShotJob


def run(config: ZeroShotJob) -> int:
    """Scores what OUTPUT lacks, compares, reports; returns the exit code."""
    from xfm.studies.zero_shot.run import run_zero_shot

    return run_zero_shot(config)


if __name__ == "__main__":
    main(ZeroShotJob, run, "zero_shot")
