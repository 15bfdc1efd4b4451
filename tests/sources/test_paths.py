"""Which files a path means: links are followed once, nothing is left out in silence, folder and pattern agree."""

import anndata
import numpy as np
import pytest

from xfm.core.errors import Refused, ShardRefused
from xfm.sources.files.text import HubText
from xfm.sources.h5ad.source import H5ad
from xfm.sources.paths import files_below, matching


@pytest.fixture
def staged(tmp_path):
    """A folder as workflow engines stage it: a file, a linked file, a linked folder, a link to nothing, a loop."""
    store, folder = tmp_path / "store", tmp_path / "data"
    (store / "more").mkdir(parents=True)
    (folder / "own").mkdir(parents=True)
    for name in ("store/a.csv", "store/more/b.csv", "data/own/c.csv"):
        (tmp_path / name).write_text("text,label\nfine,1\n")
    (folder / "a.csv").symlink_to(store / "a.csv")
    (folder / "linked").symlink_to(store / "more")
    (folder / "gone.csv").symlink_to(store / "nothing.csv")
    (folder / "own" / "loop").symlink_to(folder)
    return folder


NAMES = ["a.csv", "gone.csv", "linked/b.csv", "own/c.csv"]


def test_links_are_followed_and_a_loop_once(staged):
    assert [path.relative_to(staged).as_posix() for path in files_below(staged)] == NAMES


def test_a_folder_and_the_pattern_of_it_mean_the_same_files(staged):
    (staged / "own" / "loop").unlink()
    by_pattern = {path.relative_to(staged).as_posix() for path in matching(f"{staged}/**/*.csv")}
    assert by_pattern == set(NAMES)


def test_a_folder_that_cannot_be_listed_is_refused(tmp_path):
    with pytest.raises(Refused, match=r"UNREADABLE.*cannot be listed"):
        list(files_below(tmp_path / "nowhere"))


def test_texts_behind_links_are_read_and_a_link_to_nothing_is_a_refused_file(staged):
    source = HubText(path=str(staged))
    read, refused = 0, []
    for shard in source.shards():
        try:
            read += sum(batch.num_rows for batch in source.read(shard))
        except ShardRefused as problem:
            refused.append(problem.code)
    assert (read, refused) == (3, ["NO_SUCH_FILE"])


def test_cells_behind_links_are_read_and_a_link_to_nothing_is_a_refused_file(staged):
    cells = anndata.AnnData(np.arange(12, dtype=np.float32).reshape(3, 4))
    for name in ("store/a", "store/more/b", "data/own/c"):
        cells.write_h5ad(staged.parent / f"{name}.h5ad")
    (staged / "a.h5ad").symlink_to(staged.parent / "store" / "a.h5ad")
    (staged / "gone.h5ad").symlink_to(staged.parent / "store" / "nothing.h5ad")
    source = H5ad(path=str(staged))
    read, refused = 0, []
    for shard in source.shards():
        try:
            read += sum(batch.num_rows for batch in source.read(shard))
        except ShardRefused as problem:
            refused.append(problem.code)
    assert (read, refused) == (9, ["NO_SUCH_FILE"])
