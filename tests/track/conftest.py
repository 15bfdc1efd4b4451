"""One MLflow store for all tests that need no more: its tables take seconds."""

import pytest

from xfm.track.mlflow import ENVIRONMENT


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    """URI of one sqlite store; the first test pays for its tables."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture(scope="session")
def client(store):
    import mlflow

    return mlflow.MlflowClient(tracking_uri=store)


@pytest.fixture
def mlflow_environment(monkeypatch):
    """As a job has it, taken back after the test."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
