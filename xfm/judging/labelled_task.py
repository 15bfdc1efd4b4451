"""What tasks with a column `label` have in common: rows, split so that copies are seen, and where scores stand."""

from typing import ClassVar

from xfm.judging.classifier_scores import name_of
from xfm.judging.labelled import JudgedRows, SplitWithContent, labelled_rows
from xfm.judging.row_noun import noun_of
from xfm.training.task import Task
from xfm.training.tokens import SplitRows, TokenStore


class LabelledTask(Task):
    """A task whose settings name the column `label` and the `mode` in which the network is trained."""

    split_rows: ClassVar[type[SplitRows]] = SplitWithContent

    @property
    def noun(self) -> str:
        """Cells, sentences, images: by the columns of the source."""
        return noun_of(self.context.source.schema.names)

    @property
    def also_read(self) -> tuple[str, ...]:
        """Further columns that are read as classes."""
        return ()

    @property
    def columns(self) -> tuple[str, ...]:
        """The label, and what is read with it."""
        return tuple(dict.fromkeys((self.context.settings.label, *self.also_read)))

    @property
    def scored(self) -> tuple[str, str] | None:
        """The network after fine-tuning, and the label."""
        return name_of(self.context.settings.mode), self.context.settings.label

    def rows(self, store: TokenStore) -> JudgedRows:
        """Classes, parts and groups of all rows.

        Raises:
            Refused: as `labelled_rows`.
        """
        context, training = self.context, self.context.training
        return labelled_rows(
            store, context.settings.label, training.group, seed=training.split_seed, resamples=training.bootstrap,
            noun=self.noun, also_read=self.also_read, has_test=context.has_test,
        )  # fmt: skip
