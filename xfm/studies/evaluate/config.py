"""Settings of an evaluation: what is judged, on which question, against what."""

from typing import Annotated, Any, Literal, get_args

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from xfm.core.unions import AnyBackbone, AnySource
from xfm.engine.config import JobConfig
from xfm.studies.embed.config import Pooling

Share = Annotated[float, Field(gt=0, lt=0.5)]
Task = Literal["probe", "svm", "knn", "clustering", "integration", "trajectory"]


class EvaluateJob(JobConfig):
    """Scores every layer: classifiers, clustering, batch mixing, pseudotime; each with interval and baselines."""

    embeddings: str | None = None
    """OUTPUT of embed (folder or URI), or an .h5ad or .zarr with obsm columns. Without, --source and --backbone."""

    source: AnySource | None = None
    """In place of --embeddings: rows to embed first, into OUTPUT/embeddings; columns named below are carried along."""

    backbone: AnyBackbone | None = None
    """In place of --embeddings: the pretrained model. A source of vectors needs none: they are judged as they are."""

    labels: tuple[str, ...] = Field(min_length=1)
    """obs columns to read from the embeddings, e.g. cell_type,disease; the first one decides the headline."""

    targets: tuple[str, ...] = ()
    """obs columns of numbers (age, a score) to predict by ridge regression; the layer is chosen by R² on validation."""

    group: str | None = None
    """obs column that must not stand on both sides of a split (donor_id, slide, dataset_id); intervals resample it."""

    split: str | None = None
    """obs column that says train, validation (valid, val, dev) or test of each row; without, the shares are drawn.
    --test is then unused, --validation too, unless no row is said to be validation: then it is that share of train."""

    batch: str | None = None
    """obs column of technical origin, for batch mixing (task integration)."""

    within: str | None = None
    """obs column of the set that a row lies in (dataset_id): classifiers of the first label are also judged on the
    choice among the classes of each row's own set, beside the largest class of each set."""

    leakage: str | None = None
    """obs column that rows should not tell (sex): read by a fresh classifier that is cross-validated over whole classes
    of the first label (donors)."""

    time: str | None = None
    """obs column with a number that grows along development (task trajectory)."""

    root: str | None = None
    """Where pseudotime begins, as COLUMN=VALUE; by default the rows of the earliest time."""

    tasks: tuple[Task, ...] = Field(("probe", "knn", "clustering", "integration", "trajectory"), min_length=1)
    """What to score; probe: logistic regression, svm: linear support vector machine, knn: nearest neighbours.
    integration needs --batch, trajectory needs --time, without them left out."""

    choose_by: Literal["probe", "svm"] = "probe"
    """The classifier whose macro F1 on validation rows chooses the layer, and of which the headline speaks."""

    baselines: tuple[Literal["majority", "chance", "hvg", "pca", "random", "scvi"], ...] = (
        "majority", "chance", "hvg", "pca", "random",
    )  # fmt: skip
    """Beside the layers: largest class, guessing by frequency, variable genes, their PCA, random weights, scVI."""

    combinations: tuple[Literal["mean", "last_mean", "last_concat", "scalar_mix"], ...] = (
        "mean", "last_mean", "last_concat", "scalar_mix",
    )  # fmt: skip
    """Of the layers of a pooling: mean of all, mean and concatenation of the last ones, a learned mix."""

    last_n: PositiveInt = 4
    """Layers that last_mean and last_concat take."""

    layers: tuple[NonNegativeInt, ...] | Literal["all"] = "all"
    """Layer numbers to judge; 0 is the input embedding."""

    pools: tuple[str, ...] | Literal["all"] = "all"
    """Poolings to judge, e.g. cls,mean; of those stored, or to embed, where all means cls and mean."""

    validation: Share = 0.2
    """Share of rows that C and the best layer are chosen on; with --split, of its training rows."""

    test: Share = 0.2
    """Share of rows that are scored, once."""

    cells: PositiveInt = 20_000
    """At most so many rows, by a keyed draw; clustering needs all distances between them."""

    min_class: PositiveInt = 10
    """Classes with fewer rows are left out, and listed."""

    k: PositiveInt = 15
    """Neighbours of the kNN classifier."""

    bootstrap: PositiveInt = 2000
    """Resamples of groups for the 95 % intervals."""

    notes: tuple[str, ...] = ()
    """Sentences to put on the report, e.g. what the data are not."""

    @model_validator(mode="after")
    def _has_a_judge(self) -> "EvaluateJob":
        if self.choose_by not in self.tasks:
            raise ValueError(
                f"--tasks must hold {self.choose_by}: on validation rows it chooses the layer, and the headline speaks "
                "of it (--choose_by)"
            )
        return self

    @model_validator(mode="after")
    def _is_class_or_number(self) -> "EvaluateJob":
        if both := [name for name in self.targets if name in self.labels]:
            raise ValueError(f"--targets {both[0]}: --labels names it too; a column is told as classes or as a number")
        return self

    @model_validator(mode="after")
    def _root_has_a_time(self) -> "EvaluateJob":
        if self.root is not None and self.time is None:
            raise ValueError("--root says where pseudotime begins and needs --time to compare it with")
        return self

    @model_validator(mode="after")
    def _embeddings_come_from_one_place(self) -> "EvaluateJob":
        given = [name for name in ("embeddings", "source", "backbone") if getattr(self, name) is not None]
        if given not in (["embeddings"], ["source", "backbone"], ["source"]):
            found = " and ".join(f"--{name}" for name in given) or "neither"
            raise ValueError(
                f"give --embeddings, or --source and --backbone to embed first, or a --source of vectors; found {found}"
            )
        if self.backbone is not None and self.pools != "all" and not set(self.pools) <= set(get_args(Pooling)):
            raise ValueError(f"--pools {','.join(self.pools)}: known are {', '.join(get_args(Pooling))}")
        return self

    @classmethod
    def not_in_fingerprint(cls) -> set[str]:
        """Where the embeddings lie or come from (their digest counts), and words."""
        return super().not_in_fingerprint() | {"embeddings", "source", "backbone", "notes"}

    @classmethod
    def added_later(cls) -> dict[str, Any]:
        return {"targets": (), "split": None, "choose_by": "probe", "within": None, "leakage": None}
