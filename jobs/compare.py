"""Many runs, one leaderboard: every metric with interval, cells, seeds, fingerprint; what differs beyond noise.

python jobs/compare.py --runs runs/a,runs/b,s3://bucket/c --output runs/board
python jobs/compare.py --query "experiment like 'xfm/evaluate/%' and tags.`xfm.job` = 'evaluate'" --output runs/board

Or it runs the jobs first that it compares, each from several seeds, and prints the table of what their settings do:

python jobs/compare.py --config jobs/presets/fusion_ablation.yaml --output runs/ablation

    base: {source: {kind: atlas}, split: split}                            # settings that the members share
    members:
      aligned: {job: pretrain, task: {kind: alignment}}
      fused: {job: finetune, after: aligned, backbone: {kind: fusion}, task: {kind: adversarial}}
      raw: {job: evaluate, labels: [donor_id], tasks: [probe]}
    seeds: 5

Each lies in OUTPUT/members/NAME/seed-K. The same command continues; members and seeds may be added.
"""

from xfm.engine.job import main
from xfm.studies.ablation.config import CompareJob


def run(config: CompareJob) -> int:
    """Runs the members where there are some, reads, ranks, reports; returns the exit code."""
    if config.members:
        from xfm.studies.ablation.run import run_ablation

        return run_ablation(config)
    from xfm.studies.compare.run import run_comparison

    return run_comparison(config)


if __name__ == "__main__":
    main(CompareJob, run, "compare")
