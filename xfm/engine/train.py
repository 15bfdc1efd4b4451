"""Training on Ray Train: where and on how many workers, checkpoints, and going on after a crash.

    worker   xfm.training           every `checkpoint_every` steps a checkpoint is handed to Ray Train
    Ray      OUTPUT/train/          copies it, registers it in checkpoint_manager_snapshot.json, keeps the last two
    driver   OUTPUT/checkpoint/     the weights of the last one, as a directory that the backbone reads

A worker that dies takes its group down; Ray starts a new one, which continues from the last registered checkpoint. A
driver that dies is started again by its user: the same OUTPUT means the same run to Ray Train. Registration follows
the checkpoint by up to two seconds; a crash in between repeats those steps, with the same result.
"""

import json
import logging
import re
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray

from xfm.core.errors import EnvironmentProblem, Refused
from xfm.core.storage import open_storage
from xfm.engine.cluster import Place, connect, gpu_workers
from xfm.engine.train_watch import Watch
from xfm.training.learner import Recipe
from xfm.training.settings import Record, Settings, Trained

logger = logging.getLogger(__name__)

NAME = "train"  # the folder below OUTPUT that belongs to Ray Train
SNAPSHOT = f"{NAME}/checkpoint_manager_snapshot.json"
MAX_FAILURES = 3  # of the worker group; each continues from the last checkpoint
MEETING_S = 30.0  # that a worker which refuses waits for the others


def place(workers: int | None, gpus: float, threads: int) -> Place:
    """Fits the workers to the cluster that is connected: by default one, or one for each `gpus` GPUs.

    Raises:
        EnvironmentProblem: fewer GPUs or CPUs than asked for.
    """
    have = ray.cluster_resources()  # type: ignore[no-untyped-call]
    workers = gpu_workers(workers, gpus, have, "train") if gpus else workers or 1
    largest = max(int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"])  # type: ignore[no-untyped-call]
    if threads > largest or threads * workers > have.get("CPU", 0):
        raise EnvironmentProblem(
            f"--workers {workers} with {threads} CPUs each do not fit: the cluster has {have.get('CPU', 0):g}, its "
            f"largest node {largest}. Lower --workers or --threads."
        )
    return Place(workers, threads, gpus)


def train(
    recipe: Recipe,
    settings: Settings,
    output: str,
    on_record: Callable[[Record], None],
    *,
    workers: int | None,
    gpus: float,
    threads: int,
    job: str = "train",
    unit: str = "rows",
) -> Trained:
    """Trains, or continues what OUTPUT holds.

    Args:
        on_record: called on the driver with every record, as it comes.
        workers, gpus, threads: as for `place`.
        job, unit: words for the log: what runs, and what it sees.

    Raises:
        Refused: a worker refused the data or the weights.
        EnvironmentProblem: workers kept dying, or cannot import what is trained.
    """
    from ray.exceptions import ActorDiedError
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchConfig, TorchTrainer

    from xfm.training.state import kept_weights

    connect()
    where = place(workers, gpus, threads)
    logger.info("%s: %d workers (%s, %d CPUs each)", job, where.workers, where.device, where.cpus)
    _check_snapshot(output)
    resources = {"CPU": where.cpus} | ({"GPU": where.gpus} if where.gpus else {})
    with Watch(settings, on_record, job=job, unit=unit) as watch:
        trainer = TorchTrainer(
            _work,  # type: ignore[arg-type]
            train_loop_config={"recipe": recipe, "settings": settings, "where": where, "mailbox": watch.mailbox},
            torch_config=TorchConfig(backend="nccl" if where.gpus else "gloo"),
            scaling_config=ScalingConfig(
                num_workers=where.workers, use_gpu=bool(where.gpus), resources_per_worker=resources
            ),
            run_config=RunConfig(
                name=NAME,
                storage_path=output,
                failure_config=FailureConfig(max_failures=MAX_FAILURES),
                checkpoint_config=CheckpointConfig(num_to_keep=2),
            ),
        )
        try:
            result = trainer.fit()
        except TrainingFailedError as problem:
            raise _explain(problem) from problem
        except ActorDiedError as problem:
            if (missing := missing_module(str(problem))) is None:
                raise
            raise EnvironmentProblem(
                f"the nodes of the Ray cluster cannot import {missing}, which this driver can: the package that brings "
                f"the task must be installed on every node, as xfm is"
            ) from problem
    outcome: dict[str, Any] = result.return_value  # type: ignore[attr-defined]
    if "refused" in outcome:
        raise Refused(*outcome["refused"])
    trained: Trained = outcome["trained"]
    for record in trained.history:
        if record["step"] not in watch.seen:
            on_record(record)
    assert result.checkpoint is not None  # the last step always leaves one
    with result.checkpoint.as_directory() as folder:
        return replace(trained, weights=kept_weights(Path(folder)))


def _work(config: dict[str, Any]) -> dict[str, Any]:
    """One worker's life."""
    import torch

    if config["where"].device == "cpu":
        torch.set_num_threads(int(config["where"].cpus))
    try:
        return {"trained": _train(**config)}
    except Refused as problem:
        if not all_come_here():
            raise  # the others wait for this one: Ray ends them all, tries again, and says why in the end
        return {"refused": (problem.code, problem.message)}


def all_come_here(seconds: float = MEETING_S) -> bool:
    """Whether every worker does. All see the same weights, and mostly the same refusal: raised, it would be tried again
    in vain. Of one worker alone it must be raised, since the others wait for it in a sum.
    """
    from datetime import timedelta

    import torch

    group = torch.distributed
    if not group.is_initialized() or group.get_world_size() == 1:
        return True
    if group.get_backend() != "gloo":
        return False  # NCCL has no barrier that gives up
    try:
        group.monitored_barrier(timeout=timedelta(seconds=seconds))
    except RuntimeError:
        return False
    return True


def _train(recipe: Recipe, settings: Settings, where: Place, mailbox: Any) -> Trained:
    import torch
    from ray.train import Checkpoint, get_checkpoint, report

    from xfm.training.group import TorchGroup
    from xfm.training.state import load_training, save_training
    from xfm.training.trainer import Trainer

    device = str(ray.train.torch.get_device()) if where.gpus else "cpu"
    group = TorchGroup()
    learner = recipe.build(group, device)
    trainer = Trainer(learner, settings, group=group, device=device, note=lambda record: mailbox.post.remote(record))
    if (checkpoint := get_checkpoint()) is not None:
        with checkpoint.as_directory() as folder:
            load_training(trainer, Path(folder))

    def save() -> None:
        if group.rank:
            report({})  # all workers must call it: it is a barrier
            return
        with tempfile.TemporaryDirectory() as scratch:
            save_training(trainer, Path(scratch))
            report({"step": trainer.progress.step}, checkpoint=Checkpoint.from_directory(scratch))

    trained = trainer.run(save)
    torch.distributed.barrier()
    return replace(trained, weights={})  # the driver reads them from the checkpoint


def _check_snapshot(output: str) -> None:
    """Ray Train overwrites its list of checkpoints in place: a crash in that moment leaves a torn one, which it
    then refuses to read. Without the list training starts over, and ends with the same weights."""
    storage = open_storage(output)
    found = storage.read(SNAPSHOT)
    if found is None:
        return
    try:
        json.loads(found)
    except ValueError:
        logger.warning("%s is torn: a crash hit while it was written; training starts over", SNAPSHOT)
        storage.remove(SNAPSHOT)


def missing_module(said: str) -> str | None:
    """The module that Ray says a node does not have."""
    found = re.search(r"No module named '([\w.]+)'", said)
    return found[1] if found else None


def _explain(problem: Any) -> EnvironmentProblem | Refused:
    """The worker's own error of ours, or what Ray says, shortened."""
    from xfm.engine.job import find_cause

    for failure in getattr(problem, "worker_failures", {}).values():
        if (cause := find_cause(failure)) is not None:
            return cause
    reason = [line.strip() for line in str(problem).splitlines() if line.strip()][-1]
    return EnvironmentProblem(
        f"training stopped after {MAX_FAILURES} restarts of its workers; the last reason: {reason}. "
        "What was reached is kept: the same command continues from the last checkpoint"
    )
