"""Checkpoint addresses: local folders, and Hub repositories with and without a network."""

from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub.errors import (
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from xfm.core.errors import EnvironmentProblem, Refused
from xfm.core.hub import Fetched, fetch_folder

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def nothing_remembered():
    fetch_folder.cache_clear()
    yield
    fetch_folder.cache_clear()


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A Hub with one repository; keeps what was asked of it."""
    snapshot = tmp_path / "snapshots" / COMMIT
    (snapshot / "human").mkdir(parents=True)
    asked = []

    def snapshot_download(repo, **options):
        asked.append((repo, options))
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return asked


def failing(monkeypatch, error):
    def snapshot_download(repo, **options):
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)


def answer(kind, status):
    response = SimpleNamespace(status_code=status, headers={}, request=None)
    return kind(f"{status} from the Hub", response=response)


def test_a_local_folder_is_taken_as_it_is(tmp_path, monkeypatch):
    assert fetch_folder(str(tmp_path), ("*",)) == Fetched(tmp_path, None)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert fetch_folder("~", ("*",)).folder == tmp_path


def test_a_missing_folder_is_refused_and_its_neighbours_are_named(tmp_path):
    (tmp_path / "scgpt_human").mkdir()
    (tmp_path / "notes.txt").touch()
    with pytest.raises(
        Refused, match=r"NO_CHECKPOINT.*scgpt_humn' is no folder here.*beside it: scgpt_human\."
    ) as error:
        fetch_folder(str(tmp_path / "scgpt_humn"), ("*",))
    assert "notes.txt" not in str(error.value)
    with pytest.raises(Refused, match=r"is no folder here\. Or name one as hf://"):
        fetch_folder(str(tmp_path / "no" / "where"), ("*",))


@pytest.mark.parametrize(
    "address", ["hf://", "hf://scGPT", "hf://tdc/scGPT@", "hf://tdc/scGPT/../../etc", "hf://tdc/sc GPT", "hf://a/b@x y"]
)
def test_an_address_of_another_form_is_refused_before_anything_is_asked(address, hub):
    with pytest.raises(Refused, match=r"is not of the form hf://OWNER/NAME"):
        fetch_folder(address, ("*",))
    assert not hub


@pytest.mark.parametrize(
    ("address", "repo", "revision", "folder"),
    [
        ("hf://tdc/scGPT", "tdc/scGPT", None, ""),
        ("hf://tdc/scGPT@main", "tdc/scGPT", "main", ""),
        ("hf://tdc/scGPT/human", "tdc/scGPT", None, "human"),
        (f"hf://tdc/scGPT@{COMMIT}/human", "tdc/scGPT", COMMIT, "human"),
    ],
)
def test_a_repository_is_pinned_to_the_commit_it_was_resolved_to(address, repo, revision, folder, hub):
    fetched = fetch_folder(address, ("*.json", "*.pt"))
    assert fetched.revision == COMMIT
    assert fetched.folder.name == (folder or COMMIT)
    assert fetch_folder(address, ("*.json", "*.pt")) is fetched
    assert hub == [(repo, {"revision": revision, "allow_patterns": ["*.json", "*.pt"]})]


def test_a_folder_that_the_repository_lacks_is_refused(hub):
    with pytest.raises(Refused, match="has no folder 'mouse'"):
        fetch_folder("hf://tdc/scGPT/mouse", ("*",))


@pytest.mark.parametrize(
    "error", [LocalEntryNotFoundError("not cached"), OfflineModeIsEnabled("offline"), ConnectionError("no route")]
)
def test_no_network_and_no_copy_is_a_problem_of_the_environment(error, monkeypatch):
    failing(monkeypatch, error)
    with pytest.raises(EnvironmentProblem, match="hf download tdc/scGPT"):
        fetch_folder("hf://tdc/scGPT", ("*",))


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_hub_that_does_not_answer_now_is_a_problem_of_the_environment(status, monkeypatch):
    failing(monkeypatch, answer(HfHubHTTPError, status))
    with pytest.raises(EnvironmentProblem, match="try again later"):
        fetch_folder("hf://tdc/scGPT", ("*",))


@pytest.mark.parametrize(
    "error", [answer(RepositoryNotFoundError, 404), answer(RevisionNotFoundError, 404), answer(HfHubHTTPError, 403)]
)
def test_a_repository_or_revision_that_does_not_exist_or_is_closed_is_refused(error, monkeypatch):
    failing(monkeypatch, error)
    with pytest.raises(Refused, match="NO_CHECKPOINT: hf://tdc/scGTP"):
        fetch_folder("hf://tdc/scGTP", ("*",))
