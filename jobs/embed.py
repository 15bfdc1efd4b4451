"""Per-layer embeddings of any source by any backbone: one Parquet part per shard, every row once.

    python jobs/embed.py --source.kind h5ad --source.path cells.h5ad \
        --backbone.kind scgpt --backbone.checkpoint DIR --output runs/cells
"""

from xfm.engine.job import main
from xfm.studies.embed.config import EmbedJob


def run(config: EmbedJob) -> int:
    """Plans, computes what OUTPUT lacks, writes the report; returns the exit code."""
    from xfm.studies.embed.run import embed

    return embed(config)


if __name__ == "__main__":
    main(EmbedJob, run, "embed")
