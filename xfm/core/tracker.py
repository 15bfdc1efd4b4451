"""Where a run's records go. Tracking never fails a job."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol


class Tracker(Protocol):
    """One run. Every call returns at once; what cannot be sent is kept for later."""

    def child(self, name: str, *, key: str = "", tags: Mapping[str, str] | None = None) -> "Tracker":
        """A nested run under this one, for one of several trainings of a job: a seed, a trial of a search.

        The same key, by default the name, gives the same run, in this attempt of the job and in the next, so what ran
        twice is there once. A child that is closed stays as it is until it is asked for again. The parent's end ends
        children still open.
        """

    def params(self, values: Mapping[str, Any]) -> None:
        """Settings, once per run; a second call with the same run is ignored."""

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Numbers at one step; per-layer metrics use the layer as step."""

    def tags(self, values: Mapping[str, str]) -> None:
        """Words to find the run by."""

    def artifact(self, path: Path, folder: str = "") -> None:
        """A file to keep with the run."""

    def dataset(
        self, name: str, digest: str, source: str, *, context: str = "input", profile: Mapping[str, Any] | None = None
    ) -> None:
        """Which data the run read: equal digests are equal data.

        Args:
            context: what they served for: input, training, validation, test.
            profile: what is known of them, e.g. the number of cells.
        """

    def model(
        self, name: str, place: Path | str, sha256: str, *, tags: Mapping[str, str] | None = None, description: str = ""
    ) -> None:
        """A checkpoint the run made: a version of a registered model, one for each run and content.

        Args:
            name: of the registered model; made where there is none.
            place: the checkpoint's folder, read when it is sent, so it must outlive the job; or the URI of one in a
                bucket, which stays where it is.
            sha256: of its weights, `model.safetensors`.
            tags: lineage: what it was trained on, and by which recipe.
        """

    def close(self, status: str = "FINISHED") -> bool:
        """Ends the run: FINISHED, FAILED or KILLED. False where records are still waiting to be sent."""
