"""Settings that every job shares."""

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt

from xfm.core.config import Config


class JobConfig(Config):
    """Settings of every job."""

    output: str
    """Folder or URI (s3://bucket/prefix) for everything the job leaves behind; rerunning continues there."""

    workers: PositiveInt | None = None
    """Actors that hold the model; by default one per CPU, or one per GPU where --gpus is set."""

    gpus: NonNegativeFloat = 0.0
    """GPUs of each worker; 0 computes on the CPU, one thread a worker."""

    seed: NonNegativeInt = 0
    """Keys every random choice: tie-breaks, sampled genes, masks, splits, bootstrap."""

    experiment: str | None = None
    """MLflow experiment; by default xfm/JOB/DATA, for instance xfm/layerwise/pbmc."""

    dry_run: bool = False
    """Print the plan (shards, rows, output bytes, actors) and stop."""

    @classmethod
    def not_in_fingerprint(cls) -> set[str]:
        """Where and how fast; none of it changes a number."""
        return {"output", "workers", "gpus", "experiment", "dry_run"}
