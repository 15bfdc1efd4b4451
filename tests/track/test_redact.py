import pytest

from xfm.track.redact import HIDDEN, names_secret, redact, redact_text


@pytest.mark.parametrize(
    "name",
    ["hf_token", "API_KEY", "aws_secret_access_key", "password", "apiKey", "source.s3.secret", "key", "HF_TOKEN"],
)
def test_names_of_secrets_are_known(name):
    assert names_secret(name)


@pytest.mark.parametrize(
    "name", ["cls_token", "label_key", "obs_key", "batch_tokens", "monkey", "token_path", "tokenizer.kind", "lr"]
)
def test_names_of_settings_are_not_mistaken_for_secrets(name):
    assert not names_secret(name)


def test_numbers_pass_whatever_their_name():
    assert redact({"token": 7, "max_tokens": 4096, "secret": None}) == {"token": 7, "max_tokens": 4096, "secret": None}


def test_secrets_are_found_at_any_depth_and_in_uris(monkeypatch):
    monkeypatch.setenv("SOME_API_TOKEN", "canary-in-the-environment")
    found = redact(
        {
            "store": {"password": "canary-1", "tries": 3},
            "uri": "postgresql://me:canary-2@with-at@db:5432/x",
            "links": ["https://canary-3@host/a", "s3://b/c?X-Amz-Signature=canary-4&n=1"],
            "note": "uses canary-in-the-environment here, and hf_abcdefghijklmnopqrstuv",
        }
    )
    assert found == {
        "store": {"password": HIDDEN, "tries": 3},
        "uri": "postgresql://***@db:5432/x",
        "links": ["https://***@host/a", "s3://b/c?X-Amz-Signature=***&n=1"],
        "note": "uses *** here, and ***",
    }


@pytest.mark.parametrize("uri", ["hf://tdc/scGPT@0123abc", "s3://bucket/a@b", "sqlite:////data/mlflow.db", "a@b.org"])
def test_plain_addresses_stay_as_they_are(uri):
    assert redact_text(uri) == uri


def test_the_current_directory_is_not_taken_for_a_password(monkeypatch):
    monkeypatch.setenv("PWD", "/home/me/project")
    assert redact_text("sqlite:////home/me/project/mlflow.db") == "sqlite:////home/me/project/mlflow.db"
