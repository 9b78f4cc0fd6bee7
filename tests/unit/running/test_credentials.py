"""Passwords in addresses: moved to where MLflow and Prefect look for them, and taken out of what is said."""

from __future__ import annotations

import pytest

from tasks.errors import without_passwords
from tasks.running.servers import settle_credentials


def test_users_and_passwords_leave_the_addresses_for_their_own_variables() -> None:
    environ = {
        "MLFLOW_TRACKING_URI": "https://me:s%40cret@mlflow.example.org:8443/below?a=b",
        "MLFLOW_TRACKING_PASSWORD": "another",
        "PREFECT_API_URL": "http://team:word@[::1]:4200/api",
    }
    settle_credentials(environ)
    assert environ == {
        "MLFLOW_TRACKING_URI": "https://mlflow.example.org:8443/below?a=b",
        "MLFLOW_TRACKING_USERNAME": "me",
        "MLFLOW_TRACKING_PASSWORD": "s@cret",
        "PREFECT_API_URL": "http://[::1]:4200/api",
        "PREFECT_API_AUTH_STRING": "team:word",
    }


@pytest.mark.parametrize(
    "address", ["postgresql://me:word@host/mlflow", "sqlite:///a@b.db", "https://host/a@b", "http://me:w/x@host"]
)
def test_what_has_no_variable_for_it_stays(address: str) -> None:
    environ = {"MLFLOW_TRACKING_URI": address}
    settle_credentials(environ)
    assert environ == {"MLFLOW_TRACKING_URI": address}


def test_two_servers_with_two_users_keep_theirs_apart() -> None:
    environ = {"MLFLOW_TRACKING_URI": "http://a:1@one", "MLFLOW_REGISTRY_URI": "http://b:2@two"}
    settle_credentials(environ)
    assert (environ["MLFLOW_TRACKING_USERNAME"], environ["MLFLOW_REGISTRY_URI"]) == ("a", "http://b:2@two")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("to http://me:word@host:1/a failed, http://host:1/b too", "to http://host:1/a failed, http://host:1/b too"),
        ("postgresql+psycopg2://me:a/b@c@host/db", "postgresql+psycopg2://host/db"),
        ("'http://token@host/a'", "'http://host/a'"),
        ("models:/tiny@champion of file:///a@b and git@host:c", "models:/tiny@champion of file:///a@b and git@host:c"),
    ],
)
def test_what_is_said_has_no_password(text: str, shown: str) -> None:
    assert without_passwords(text) == shown
