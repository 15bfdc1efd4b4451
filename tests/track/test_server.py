import shlex

import pytest

from xfm.track.server import artifact_location, tracking_uri, ui_command, with_driver


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch, tmp_path):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    monkeypatch.chdir(tmp_path)


def test_the_default_is_a_database_in_the_current_directory(tmp_path):
    assert tracking_uri("out") == f"sqlite:///{tmp_path}/mlflow.db"


def test_the_users_server_goes_before_everything(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking:5000")
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert tracking_uri("out") == "http://tracking:5000"


@pytest.mark.parametrize(
    ("output", "expected"),
    [("/data/runs/lung", "/data/runs"), ("file:///data/runs/lung", "/data/runs"), ("s3://bucket/lung", "/state/xfm")],
)
def test_a_submitted_job_does_not_leave_its_database_in_a_temporary_directory(monkeypatch, output, expected):
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert tracking_uri(output) == f"sqlite:///{expected}/mlflow.db"


def test_artifacts_lie_beside_a_local_database_and_where_a_server_likes():
    assert artifact_location("sqlite:////data/mlflow.db", "xfm/probe") == "file:///data/mlartifacts/xfm_probe"
    assert artifact_location("http://tracking:5000", "xfm") is None


def test_the_ui_command_is_bound_to_this_machine_and_tells_no_password():
    words = shlex.split(ui_command("sqlite:////my data/mlflow.db"))
    assert words[1:4] == ["-m", "mlflow", "ui"]
    assert words[words.index("--host") + 1] == "127.0.0.1"
    assert words[words.index("--backend-store-uri") + 1] == "sqlite:////my data/mlflow.db"
    assert "canary" not in ui_command("postgresql://me:canary@db/x")
    assert ui_command("https://me:canary@tracking/") == "https://***@tracking/"


@pytest.mark.parametrize(
    ("installed", "driver"), [({"psycopg", "psycopg2"}, ""), ({"psycopg2"}, "+psycopg2"), (set(), "")]
)
def test_a_plain_address_gets_the_driver_that_is_there(monkeypatch, installed, driver):
    monkeypatch.setattr("xfm.track.server.find_spec", lambda name: name if name in installed else None)
    assert with_driver("postgresql://me:pw@db/x") == f"postgresql{driver}://me:pw@db/x"
    for named in ("postgresql+asyncpg://db/x", "sqlite:////data/mlflow.db", "http://tracking:5000"):
        assert with_driver(named) == named
