"""Where the checkpoint of a network that trains alone lies: in OUTPUT, or as one object where OUTPUT is a bucket."""

from pyarrow import fs

from xfm.core.storage import Bucket
from xfm.engine import train_in_task
from xfm.engine.train_in_task import STATE


def test_a_folder_keeps_the_checkpoint_where_it_is_written(tmp_path):
    with train_in_task.state_folder(str(tmp_path / "trials" / "trial-000")) as (folder, keep):
        (folder / "checkpoint-000000004").mkdir()
        keep()
    assert [path.name for path in (tmp_path / "trials" / "trial-000").iterdir()] == ["checkpoint-000000004"]


def test_a_bucket_gives_back_the_last_checkpoint_that_was_kept(tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    bucket = Bucket("mem://out", "mem", fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem()), "out")
    monkeypatch.setattr(train_in_task, "open_storage", lambda _: bucket)
    for name in ("checkpoint-000000004", "checkpoint-000000008"):
        with train_in_task.state_folder("mem://out") as (folder, keep):
            for old in folder.iterdir():
                (old / "progress.json").unlink()
                old.rmdir()
            (folder / name).mkdir()
            (folder / name / "progress.json").write_text(name)
            keep()
            (folder / name / "progress.json").write_text("after the last that was kept")
    with train_in_task.state_folder("mem://out") as (folder, _):
        assert [path.name for path in folder.iterdir()] == ["checkpoint-000000008"]
        assert (folder / "checkpoint-000000008" / "progress.json").read_text() == "checkpoint-000000008"
    assert [path.name for path in (tmp_path / "out").iterdir()] == [STATE]
