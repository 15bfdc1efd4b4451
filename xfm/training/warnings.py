"""What a reader of a report must know of how training ended."""

from xfm.training.settings import Settings, Trained


def out_of_time(trained: Trained, settings: Settings) -> list[str]:
    """A warning where the time budget ended training, else nothing."""
    if not trained.is_out_of_time:
        return []
    return [
        f"The time budget of {settings.max_seconds:g} s ended training after {trained.steps:,} of "
        f"{settings.steps:,} steps: another machine would reach another step, and other weights."
    ]


def best_was_last(trained: Trained, settings: Settings) -> list[str]:
    """A warning where the weights that are kept are those of the last step that was allowed, else nothing."""
    if settings.watch and trained.best_step == trained.steps == settings.steps:
        return ["The last validation was the best one: more --epochs may do better."]
    return []
