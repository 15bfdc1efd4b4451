"""Shared fixtures: reference data beside the repository, and one Ray cluster per session."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with reference outputs of official packages, kept beside the repository."""
    folder = Path(__file__).parents[1] / ".." / "shared"
    if not folder.is_dir():
        pytest.skip("no ../shared beside this checkout: reference outputs and real data are not here")
    return folder.resolve()
