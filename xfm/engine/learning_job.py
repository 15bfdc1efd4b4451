"""A job that learns, from its settings to its exit code: what jobs/pretrain.py and jobs/finetune.py call."""

from xfm.engine.learn import learn, plan_learning, prepare, task_of
from xfm.engine.learn_config import LearnConfig
from xfm.engine.planning import describe_plan
from xfm.engine.resume_check import check_output
from xfm.engine.seeds import learn_from_seeds
from xfm.engine.session import open_job, print_plan


def run_learning(config: LearnConfig, seeds: int = 1) -> int:
    """The whole job, or what is left of it; returns the exit code.

    Args:
        config: of the job.
        seeds: train so many times, from config.seed on.
    """
    plan = plan_learning(config)
    if config.dry_run:
        row_bytes = task_of(config).row_bytes
        return print_plan(describe_plan(plan, 1, row_bytes, 1, config.workers or 1, config.gpus))
    check_output(config.output, plan.run["recipe"])
    prepared = prepare(config, plan, config.output)
    with open_job(config, prepared.plan.run, joint=True) as job:
        return learn(config, prepared, job) if seeds == 1 else learn_from_seeds(config, prepared, job, seeds)
